"""The tables in the models' configurations say what the code says."""

import pytest
import torch
from torch import nn

from asrlib.model.table import CONFIGS, FRAMES, SECONDS, T4_BYTES, TABLE, cost, update

TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in CONFIGS.glob("*.yaml")}
WITH_TABLE = sorted(name for name, text in TEXTS.items() if TABLE.search(text))


def rows(text):
    """[(size, parameters, GFLOP per second, seconds in a batch)] of the table."""
    cells = [line.split() for line in TABLE.search(text).group().splitlines()[1:]]
    return [(size, p, flops, float(s.replace(",", ""))) for _, size, p, _, flops, s in cells]


def assert_up_to_date(name, text):
    for written, computed in zip(rows(text), rows(update(name, text)), strict=True):
        assert written[:3] == computed[:3]
        # what autocast casts, and so what is kept, differs a little from one torch to another
        assert written[3] == pytest.approx(computed[3], rel=0.06)


def test_models_with_sizes_have_tables():
    assert {"deepspeech2", "jasper", "las", "quartznet"} <= set(WITH_TABLE)
    assert all(name in WITH_TABLE for name, text in TEXTS.items() if "\nsize:" in text)


@pytest.mark.parametrize("name", WITH_TABLE)
def test_the_row_of_the_smallest_size_is_up_to_date(name):
    def only_first_row(match):
        return "".join(match.group().splitlines(keepends=True)[:2])

    assert_up_to_date(name, TABLE.sub(only_first_row, TEXTS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_TABLE)
def test_the_whole_table_is_up_to_date(name):
    assert_up_to_date(name, TEXTS[name])


def test_everything_but_the_table_stays():
    text = "# before\n# size\n# xs\n_target_: asrlib.model.QuartzNet\nsize: 5x5 # after\n"
    new = update("quartznet", text)
    assert new.startswith("# before\n# size  parameters")
    assert new.endswith("\n_target_: asrlib.model.QuartzNet\nsize: 5x5 # after\n")
    assert update("quartznet", new) == new
    assert update("mlp", TEXTS["mlp"]) == TEXTS["mlp"]


class Known(nn.Module):
    """F → D → D and a ReLU: everything about it can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(80, 16), nn.Linear(16, 16)

    def forward(self, spectrogram, lengths):
        return self.second(self.first(spectrogram.transpose(1, 2)).relu()).log_softmax(dim=-1)


def test_a_small_network_costs_what_it_costs_by_hand():
    found = cost(Known)
    assert found.parameters == 80 * 16 + 16 + 16 * 16 + 16
    assert found.flops == 2 * (80 * 16 + 16 * 16) * FRAMES / SECONDS
    # float16: the input of the first layer, ReLU's output (also the second's input); float32: the result
    kept = (2 * 80 + 2 * 16 + 4 * 16) * FRAMES / SECONDS
    assert found.batch_seconds == pytest.approx((T4_BYTES - 18 * found.parameters) / kept)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_layers_are_counted(kind, gates, layers):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = kind(80, 16, layers, batch_first=True, bidirectional=True)

        def forward(self, spectrogram, lengths):
            return self.rnn(spectrogram.transpose(1, 2))[0]

    found = cost(Recurrent)
    inputs = 80 if layers == 1 else 80 + 32
    products = 2 * gates * 16 * (inputs + layers * 16)  # two directions
    assert found.flops == 2 * products * FRAMES / SECONDS
    values = 80 + 2 * layers * (16 + 5 * 16)  # the input, both directions' outputs and gates
    assert found.parameters == sum(p.numel() for p in Recurrent().parameters())
    kept = 2 * values * FRAMES / SECONDS
    assert found.batch_seconds == pytest.approx((T4_BYTES - 18 * found.parameters) / kept)


def test_a_model_larger_than_the_memory_has_no_batch():
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(80, 10**7)

        def forward(self, spectrogram, lengths):
            return self.layer(spectrogram.transpose(1, 2)).relu()

    assert cost(Huge).batch_seconds == 0


def test_autocast_is_left_as_it_was():
    cost(Known)
    assert not torch.is_autocast_enabled("cuda")
