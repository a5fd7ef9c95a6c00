"""Decoders with a language model side by side: speed, WER and memory on the same log_probs.

python -m bench.decode inferencer.from_pretrained=RUN datasets=NAME decoder=beam_lm \\
    decoder.lm_path=FILE [decoder.alpha=… decoder.beta=…] [+out=FILE]

The arguments are those of inference.py. Every decoder runs alone in a process of one thread, with the
same width, α and β, one utterance a call, one after the other; seconds are CPU seconds of the best of
five passes, and our decoder forgets what it knows of the language model before each. What is compiled
or loaded before the first pass is reported apart.

"best pruning" is the fastest setting of GRID that loses at most 0.1 absolute WER against the
decoder's most accurate one, found on these very data: a favour to every decoder alike. In each row
``ratio_to_asrlib`` says how many times as long as ours the decoder takes, each at its default limits
or each at its best pruning. Rows of another model or of other data stay in FILE.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from asrlib.configs import compose
from asrlib.files import write_atomically
from asrlib.metrics import ErrorRate
from asrlib.result import provenance
from bench.train import in_a_process, peak_mb

PASSES = 5
TOLERANCE = 0.1  # absolute WER that pruning may cost
# natural logarithms, in both decoders' terms
DEFAULT = {"token_min_logp": -5.0, "beam_prune_logp": -10.0}
GRID = {
    "token_min_logp": (-5.0, -4.0, -3.0, -2.0, -1.5),
    "beam_prune_logp": (-10.0, -8.0, -6.0, -5.0, -4.0, -3.0),
}


def asrlib_beam(data: "Data", **limits) -> tuple[Callable, Callable]:
    """Our search; returns (decode one utterance, forget)."""
    from asrlib.decoding.beam import BeamDecoder

    o = data.options
    names = ("lm_path", "alpha", "beta", "unk_score_offset", "beam_width", "blank_skip_threshold")
    decoder = BeamDecoder(data.text_encoder, **{name: o[name] for name in names}, **limits)
    lengths = {id: tensor.new_tensor([len(tensor)]).long() for id, tensor in data.log_probs.items()}
    return (
        lambda id: decoder(data.log_probs[id][None], lengths[id])[0].text,
        decoder.lm.forget,
    )


def pyctcdecode_beam(data: "Data", prune_history: bool = False, **limits) -> tuple:
    """``BeamSearchDecoderCTC.decode`` itself, without our contract around it."""
    from asrlib.decoding.lm import LMDecoder

    o = data.options
    names = ("lm_path", "alpha", "beta", "unk_score_offset")
    ours = LMDecoder(data.text_encoder, processes=1, **{name: o[name] for name in names})
    search = ours._search
    search.reset_params(**ours._weights())
    arrays = {id: tensor.numpy() for id, tensor in data.log_probs.items()}
    limits |= {"prune_history": prune_history, "beam_width": o["beam_width"]}
    decode = search.decode_beams if prune_history else search.decode

    def text(id: str) -> str:
        if prune_history:  # ``decode`` does not offer it
            return decode(arrays[id], **limits)[0][0]
        return decode(arrays[id], **{k: v for k, v in limits.items() if k != "prune_history"})

    text.keep = ours  # which frees the language model when it goes
    return text, lambda: None


def flashlight_beam(data: "Data", **limits) -> tuple:
    """flashlight-text through torchaudio; its words are a lexicon, all of the language model's."""
    import torch
    from torchaudio.models.decoder import ctc_decoder

    from asrlib.decoding.ngram import open_model

    o, pieces = data.options, [*data.text_encoder.pieces]
    boundary = "|" if " " in pieces else "▁"
    if " " not in pieces:
        raise RuntimeError("only characters: a lexicon of BPE would need all spellings of a word")
    tokens = ["-", *(boundary if piece == " " else piece for piece in pieces[1:])]
    words = [w for w in open_model(o["lm_path"])[1] if set(w) <= set(tokens)]
    folder = Path(data.folder)
    lexicon = folder / "lexicon.txt"
    lexicon.write_text("".join(f"{w} {' '.join(w)} {boundary}\n" for w in words))
    decoder = ctc_decoder(
        lexicon=str(lexicon),
        tokens=tokens,
        lm=o["lm_path"],
        beam_size=o["beam_width"],
        beam_threshold=-limits["beam_prune_logp"],
        lm_weight=o["alpha"] * 2.302585,  # its KenLM answers in log10
        word_score=o["beta"],
        log_add=True,
        blank_token="-",
        sil_token=boundary,
    )
    inputs = {id: tensor[None].contiguous() for id, tensor in data.log_probs.items()}
    lengths = {id: torch.tensor([tensor.shape[1]]) for id, tensor in inputs.items()}
    return (lambda id: " ".join(decoder(inputs[id], lengths[id])[0][0].words)), lambda: None


KINDS = {"asrlib": asrlib_beam, "pyctcdecode": pyctcdecode_beam, "flashlight-text": flashlight_beam}


class Data:
    """What a decoder's process needs: log_probs in memory, references, the text encoder, options."""

    def __init__(self, path: Path, key: str, references: dict, encoder: dict, options: dict):
        from asrlib import text
        from asrlib.decoding.cached import LogProbs

        stored = LogProbs(path, key)
        self.folder, self.references, self.options = path.parent, references, options
        self.text_encoder = text.from_dict(encoder)
        self.log_probs = {id: stored[id][0]["log_probs"] for id in references}


def measure(system: str, settings: dict, arguments: tuple, answer) -> None:
    """In a process of its own: decodes everything, and sends the row."""
    try:
        import torch

        torch.set_num_threads(1)
        data = Data(*arguments)
        started = time.process_time()
        decode, forget = KINDS[system](data, **settings)
        loading = time.process_time() - started
        first = next(iter(data.references))
        started = time.process_time()
        decode(first)
        first_call = time.process_time() - started
        passes = []
        for _ in range(PASSES):
            forget()
            started = time.process_time()
            texts = {id: decode(id) for id in data.references}
            passes.append(time.process_time() - started)
        started = time.process_time()
        for id in data.references:
            decode(id)
        again = time.process_time() - started
    except (ImportError, RuntimeError, ValueError) as error:
        answer.send(f"{type(error).__name__}: {error}")
        return
    errors = ErrorRate()
    for id, reference in data.references.items():
        errors.add(reference, texts[id], id)
    answer.send(
        {
            "wer": errors.wer,
            "seconds": min(passes),
            "seconds_nothing_forgotten": again,
            "seconds_loading": loading,
            "seconds_first_call": first_call,
            "peak_mb": peak_mb(),
        }
    )


def run(system: str, settings: dict, arguments: tuple) -> dict | str:
    """The row of one decoder, or why there is none."""
    try:
        return in_a_process(measure, system, settings, arguments)
    except RuntimeError as error:
        return str(error)


def best_pruning(system: str, arguments: tuple) -> tuple[dict, dict]:
    """(settings, row) of the fastest pruning that keeps the lowest WER."""
    more = {"prune_history": (False, True)} if system == "pyctcdecode" else {}
    tried = []
    for values in itertools.product(*(GRID | more).values()):
        settings = dict(zip(GRID | more, values, strict=True))
        row = run(system, settings, arguments)
        if isinstance(row, str):
            sys.exit(f"{system} {settings}: {row}")
        print(f"  {system} {settings}: {row['seconds']:.3f} s, WER {row['wer']:.2f} %", flush=True)
        tried.append((settings, row))
    limit = min(row["wer"] for _, row in tried) + TOLERANCE
    accurate = [(settings, row) for settings, row in tried if row["wer"] <= limit]
    return min(accurate, key=lambda entry: entry[1]["seconds"])


def prepare(config: DictConfig) -> tuple[tuple, float, dict]:
    """(arguments of ``Data``, seconds of audio, what every row says)."""
    from asrlib.build import build
    from asrlib.checkpoint import find_checkpoint
    from asrlib.decoding.cached import cached_log_probs

    checkpoint = find_checkpoint(config.inferencer.from_pretrained)
    dataset = build(config.datasets[config.inferencer.part])
    model = OmegaConf.load(checkpoint / "config.yaml").name
    path = Path("outputs/bench-decode") / f"{model}-{config.datasets.name}.safetensors"
    stored = cached_log_probs(path, checkpoint, dataset)
    references = {u.id: u.text for u in dataset.utterances if u.text is not None and u.id in stored}
    seconds = sum(u.duration for u in dataset.utterances if u.id in references)
    encoder = json.loads((checkpoint / "text_encoder.json").read_text())
    options = OmegaConf.to_container(config.decoder)
    about = {
        "data": f"{config.datasets.name} {config.inferencer.part}",
        "model": model,
        "lm": Path(options["lm_path"]).name,
        "audio_seconds": round(seconds, 2),
        "utterances": len(references),
        "beam_width": options["beam_width"],
        "alpha": options["alpha"],
        "beta": options["beta"],
        "threads": 1,
        **provenance(),
    }
    return (path, stored.key, references, encoder, options), seconds, about


def main() -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"  # for the processes to come
    config = compose("inference", *sys.argv[1:])
    OmegaConf.resolve(config)
    arguments, audio_seconds, about = prepare(config)
    rows, ours = [], {}
    for system in KINDS:
        measured = {"default": (DEFAULT, run(system, DEFAULT, arguments))}
        if isinstance(why := measured["default"][1], str):
            if not ours:
                sys.exit(f"{system}: {why}")
            print(f"{system} left out: {why}", file=sys.stderr)
            continue
        if system != "flashlight-text":
            measured["best pruning"] = best_pruning(system, arguments)
        for label, (settings, row) in measured.items():
            ratio = row["seconds"] / ours.setdefault(label, row["seconds"])  # ours is the first
            name = {"system": system, "decoder": f"{system} beam+lm, {label}"}
            rows.append({**name, **row, "ratio_to_asrlib": ratio, **about, "settings": settings})
    print(
        f"\n{'decoder':44} {'WER %':>7} {'seconds':>8} {'× real time':>12} {'MB':>6} {'ours is':>8}"
    )
    for row in rows:
        print(
            f"{row['decoder']:44} {row['wer']:7.2f} {row['seconds']:8.3f} "
            f"{audio_seconds / row['seconds']:12.0f} {row['peak_mb']:6.0f} "
            f"{row['ratio_to_asrlib']:7.1f}×"
        )
    versions = {
        name: getattr(import_module(name), "__version__", "") for name in ("numba", "numpy")
    }
    print(f"compiled before the first pass in {rows[0]['seconds_first_call']:.1f} s; {versions}")
    if "out" in config:
        path, measured = Path(config.out), (about["model"], about["data"])
        before = json.loads(path.read_text()) if path.exists() else []
        rows += [row for row in before if (row["model"], row["data"]) != measured]
        write_atomically(path, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
