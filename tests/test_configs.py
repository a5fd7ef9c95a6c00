"""Every configuration that can be chosen composes, and every class that one names exists."""

import importlib
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

import asrlib.configs
from asrlib.build import build_named
from asrlib.configs import compose, override, readable

CONFIGS = Path(asrlib.configs.__file__).parent
CHOICES = sorted(
    (path.parent.name, path.stem) for path in CONFIGS.glob("*/*.yaml") if path.stem != "__init__"
)


def targets(node):
    """Every ``_target_`` below ``node``."""
    if isinstance(node, DictConfig):
        for key in node:
            if key == "_target_":
                yield node[key]
            elif not OmegaConf.is_missing(node, key):
                yield from targets(node[key])
    elif isinstance(node, ListConfig):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_names_what_exists(group, choice):
    name = "inference" if group == "decoder" else "train"
    config = compose(name, f"{group}={choice}")
    for key in ("root", "noise_dir"):
        OmegaConf.update(config, f"datasets.{key}", "anywhere", force_add=True)
    found = list(targets(config))
    assert found
    for target in found:
        module, _, attribute = target.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), target


@pytest.mark.parametrize(
    "text",
    ["runs/a-1", "/content/Записи", "x (1)", "a,b", "a=b", "it's", "~/x", "a&b", "[x]", "{y}"],
)
def test_any_path_is_an_argument(text):
    assert compose("train", override("run_dir", text)).run_dir == text


@pytest.mark.parametrize(
    "text", ["runs/a-1", "/content/Записи", "x (1)", "a=b", "it's", "~/x", "a&b", "2024-01 (copy)"]
)
def test_a_path_may_be_written_as_it_is(text):
    assert compose("train", f"run_dir={text}").run_dir == text
    assert readable(["-cn=one_batch", f"+a.b={text}"])[0] == "-cn=one_batch"


def test_a_mistake_in_what_is_not_a_path_is_told():
    for argument in ("datasets.train.parts=[a", "trainer={epochs: 1", "run_dir='x", "run_dir"):
        assert readable([argument]) == [argument]
        with pytest.raises(HydraException):
            compose("train", argument)


def test_one_batch_composes_without_augmentation():
    config = compose("one_batch")
    assert config.augmentations.waveform == {}
    assert config.datasets.val == config.datasets.train


def test_options_of_an_augmentation_that_was_not_chosen_name_the_way_out():
    arguments = ["experiment=mini_librispeech", "augmentations=none"]
    with pytest.raises(ValueError, match="speed=null below"):
        build_named(compose("train", *arguments).augmentations.waveform)
    config = compose("train", *arguments, "augmentations.waveform.speed=null")
    assert build_named(config.augmentations.waveform) == {}
