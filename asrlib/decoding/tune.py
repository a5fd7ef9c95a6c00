"""Chooses a decoder's weights (of the language model, a word, the prior, labels) and beam width on dev.

python -m asrlib.decoding.tune tune.from_pretrained=RUN datasets=NAME decoder.lm_path=FILE

``log_probs`` are computed once and kept, so that trying other weights costs the decoding alone. The
least WER of the corpus wins; the winner goes into the checkpoint, where ``decoder=tuned`` finds it.
Options: ``asrlib/configs/tune.yaml``.

Weights are never chosen on test data: whatever is called so is refused.
"""

import csv
import io
import json
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf

from asrlib.build import choose_device, device_name, reads_of
from asrlib.checkpoint import find_checkpoint, load_acoustic_model
from asrlib.configs import readable
from asrlib.data import Utterance
from asrlib.decoding.cached import cached_log_probs
from asrlib.decoding.contract import LENGTH
from asrlib.decoding.dev import dev_part, halves_by_speaker, require_texts
from asrlib.decoding.greedy import GreedyDecoder
from asrlib.decoding.grid import Grid, Point, Scored, Scorer, count_edits, scoring
from asrlib.decoding.grid_figure import grid_figure, png
from asrlib.decoding.options import require_weights
from asrlib.decoding.pronunciations import write_lexicon_of
from asrlib.decoding.tuned import save_tuned, tuned_path
from asrlib.espeak import require_espeak
from asrlib.files import write_atomically
from asrlib.language_model import prepared
from asrlib.metrics import Edits, ErrorRate, ScoredUtterance
from asrlib.result import add_result, provenance, result_of, scores

LEXICON = "lexicon.tsv.gz"
COLUMNS = [
    *Point._fields,
    *("wer", "cer", "substitutions", "deletions", "insertions", "seconds"),
]


@dataclass
class Tuning:
    """What a search found, and the files that it wrote."""

    best: Scored
    grid: Grid
    greedy: Edits  # by words
    folder: Path  # grid.csv, grid.png and cross.json
    stored: Path
    warnings: list[str]
    cross: dict | None


def tune(config: DictConfig) -> Tuning:
    """Searches as ``config`` says (``asrlib/configs/tune.yaml``), writes the files, prints the result.

    Raises:
        ValueError: test data, data without texts, a decoder without a language model, or a row that
            would be scored on what its weights were chosen on.
        FileNotFoundError: no checkpoint, no language model or no data where they should be.
        OSError: ``tune.folder`` cannot be made.
    """
    OmegaConf.resolve(config)
    options, section = config.tune, OmegaConf.to_container(config.decoder)
    _require_weights(section, options)
    if options.result_path is not None and not options.cross:
        raise ValueError(
            "tune.result_path is for a row of tune.cross=true: weights that score the data "
            "they were chosen on say too little"
        )
    checkpoint = find_checkpoint(options.from_pretrained)
    data = f"{config.datasets.name} {options.part}"
    dataset = dev_part(config.datasets, options.part)
    folder = Path(options.folder or Path(options.from_pretrained) / "tune")
    try:  # before any work
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder} cannot be made ({error}): choose a tune.folder") from error
    model, text_encoder, _ = load_acoustic_model(checkpoint)
    names = {"log_probs", *reads_of(section)} - {LENGTH}
    log_probs = cached_log_probs(
        folder / f"log_probs-{options.part}.safetensors",
        checkpoint,
        dataset,
        options.device,
        options.batch_seconds,
        options.num_workers,
        names,
    )
    for reason in [*dataset.skipped.values(), *log_probs.skipped.values()]:
        print(f"left out: {reason}", file=sys.stderr)
    utterances = [u for u in dataset.utterances if u.text is not None and u.id in log_probs]
    require_texts(utterances, data)
    halves = halves_by_speaker(utterances) if options.cross else []
    greedy_decoder = GreedyDecoder(text_encoder)
    heard = [log_probs.decode(u.id, greedy_decoder) for u in utterances]
    greedy = Scored(Point(0, 0, 1), count_edits(heard, utterances), 0.0).sums()[0]

    prior_weights = options.prior_weights or [section.get("prior_weight", 0.0)]
    if any(prior_weights) and section["label_prior"] is None:
        section["label_prior"] = log_probs.label_prior(reads_of(section)[0])
    label_weights = options.label_weights or [section.get("label_weight", 0.0)]
    used = section
    if "lexicon_path" in section and section["lexicon_path"] is None:  # once, not in every process
        write_lexicon_of(section["lm_path"], folder / LEXICON)
        used = section | {"lexicon_path": str(folder / LEXICON)}
    scorer = Scorer(used, text_encoder, log_probs, utterances, model.speller)
    widths = options.beam_widths or [section["beam_width"]]
    with scoring(scorer, options.processes) as score:
        grid = Grid(options.alphas, options.betas, widths, score, prior_weights, label_weights)
        best = grid.best(options.refine)
        crossed = [(grid.best(options.refine, own), own, other) for own, other in halves]

    out = folder / f"{section['name']}-{options.part}"
    write_atomically(out / "grid.csv", _table(grid.scored.values()))
    write_atomically(out / "grid.png", png(grid_figure(grid, best, data, greedy.rate)))
    cross = None
    if crossed:
        errors, folds = _cross_scores(crossed, utterances)
        about = {"test_data": data, "decoder": section["name"], "folds": folds}
        cross = scores(errors) | about | provenance()
        write_atomically(out / "cross.json", json.dumps(cross, indent=2) + "\n")
        if options.result_path is not None:
            row = result_of(
                checkpoint,
                errors,
                options.result_name,
                command=cross["command"],
                test_data=data,
                decoder=f"{section['name']}, cross-tuned",
                parameters=model.parameter_count(),
                device=device_name(choose_device(options.device)),
            )
            add_result(options.result_path, row)
    stored = tuned_path(checkpoint, section["name"])
    found = Tuning(best, grid, greedy, out, stored, grid.at_the_border(best.point), cross)
    _tell(found, data, len(utterances))
    about = {"data": data, "utterances": len(utterances), "words": greedy.reference}
    about |= {name: _row(best)[name] for name in ("wer", "cer")} | {"greedy_wer": greedy.rate}
    try:
        point = {name: value for name, value in best.point._asdict().items() if name in section}
        save_tuned(stored, section | point, about | provenance())
    except OSError as error:  # a checkpoint may lie where nothing can be written
        print(f"warning: not kept for decoder=tuned: {error}", file=sys.stderr)
    else:
        print(f"{stored}: the winner, for inference.py decoder=tuned")
    return found


def _require_weights(section: dict, options: DictConfig) -> None:
    if section.get("lm_path") is None or not {"alpha", "beta", "beam_width"} <= section.keys():
        raise ValueError(
            f"decoder {section['name']} has no language model whose weights could be tuned: choose "
            "decoder=beam_lm decoder.lm_path=FILE"
        )
    if not Path(section["lm_path"]).is_file():
        raise FileNotFoundError(f"no language model at {section['lm_path']}: set decoder.lm_path")
    prepared(section["lm_path"])  # before any work, and once: each process would make its own copy
    if lexicon := section.get("lexicon_path"):
        if not Path(lexicon).is_file():
            raise FileNotFoundError(f"no lexicon at {lexicon}: set decoder.lexicon_path")
    elif "lexicon_path" in section:
        require_espeak()
    for name in ("prior_weights", "label_weights"):
        if min(options[name] or [0]) < 0:
            raise ValueError(f"tune.{name}={options[name]}: 0 or more")
    if options.prior_weights and "prior_weight" not in section:
        raise ValueError(
            f"decoder {section['name']} divides no prior out: leave tune.prior_weights unset, or choose "
            "decoder=beam_lm"
        )
    if options.label_weights and "label_weight" not in section:
        raise ValueError(
            f"decoder {section['name']} does not weigh labels beside phones: leave tune.label_weights unset, "
            "or choose decoder=lexicon"
        )
    for alpha in options.alphas:
        for beta in options.betas:
            require_weights(alpha, beta, section.get("unk_score_offset", 0))


def _cross_scores(
    crossed: list[tuple[Scored, np.ndarray, np.ndarray]], utterances: Sequence[Utterance]
) -> tuple[ErrorRate, list[dict]]:
    """Each half scored with the best weights of the other: both together, and what each half had."""
    errors, folds = ErrorRate(), []
    for best, own, other in crossed:
        for place in other:
            words, characters = (Edits(*counts) for counts in best.edits[place].tolist())
            u = utterances[place]
            errors.utterances.append(ScoredUtterance(u.id, u.speaker, "", "", words, characters))
        folds.append(
            {
                **best.point._asdict(),
                "tuned_on": sorted({utterances[place].speaker for place in own}),
                "scored_on": sorted({utterances[place].speaker for place in other}),
                "wer_where_tuned": best.sums(own)[0].rate,
                "wer": best.sums(other)[0].rate,
            }
        )
    return errors, folds


def _row(scored: Scored) -> dict:
    """A point with its error rates in percent and its edits by words, as in ``COLUMNS``."""
    words, characters = scored.sums()
    edits = asdict(words)
    del edits["reference"]
    rates = {"wer": words.rate, "cer": characters.rate}
    return scored.point._asdict() | rates | edits | {"seconds": round(scored.seconds, 3)}


def _table(points: Iterable[Scored]) -> str:
    """CSV of ``points``, sorted."""
    content = io.StringIO()
    table = csv.DictWriter(content, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(_row(scored) for scored in sorted(points, key=lambda scored: scored.point))
    return content.getvalue()


def _tell(found: Tuning, data: str, count: int) -> None:
    """Prints what was found, and how to use it."""
    point, (words, characters) = found.best.point, found.best.sums()
    print(f"{data}, {count} utterances, {words.reference} words; {len(found.grid.scored)} points")
    print(f"greedy  WER {found.greedy.rate:.2f} %")
    print(
        f"tuned   WER {words.rate:.2f} %  CER {characters.rate:.2f} %  (S {words.substitutions}, "
        f"D {words.deletions}, I {words.insertions}) at decoder.alpha={point.alpha:g} "
        f"decoder.beta={point.beta:g} decoder.beam_width={point.beam_width}"
        + f" decoder.prior_weight={point.prior_weight:g}" * bool(point.prior_weight)
        + f" decoder.label_weight={point.label_weight:g}" * bool(point.label_weight)
    )
    if found.cross:
        print(
            f"cross   WER {found.cross['wer']:.2f} %  CER {found.cross['cer']:.2f} %  "
            f"(S {found.cross['substitutions']}, D {found.cross['deletions']}, "
            f"I {found.cross['insertions']}): each half of the speakers with the other's weights"
        )
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{found.folder}: grid.csv, grid.png" + ", cross.json" * bool(found.cross))


@hydra.main(config_path="pkg://asrlib.configs", config_name="tune", version_base=None)
def main(config: DictConfig) -> None:
    tune(config)


def as_program(main: Callable[[], None]) -> None:
    """Runs ``main``; Ctrl-C and SIGTERM end it, and its processes, with status 130."""
    # SIGTERM, too: else processes that were started stay, and with them the output that a notebook reads
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; log_probs that were complete are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    sys.argv[1:] = readable(sys.argv[1:])
    as_program(main)
