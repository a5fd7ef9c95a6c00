"""Does a speller read an utterance from its beginning to its end, and at the times at which CTC does?

python -m report.attention CHECKPOINT RESULTS DATASET [DATASET…]

    python -m report.attention outputs/an4-las-seed0 report/results/attention.json datasets=an4 \\
        datasets.root=data/an4

DATASET are arguments of inference.py that choose the data; the part is ``val``. The speller is told the true
labels, and its time of a label is the frame that it looks at most; CTC's is that of the best path of the same
labels; a training by attention alone has taught CTC none of them. RESULTS gets a row; pictures of three
utterances, CTC's times in red, go to report/figures/attention.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from asrlib.build import build
from asrlib.checkpoint import find_checkpoint, load_acoustic_model
from asrlib.configs import compose
from asrlib.data import SAMPLE_RATE
from asrlib.data.loader import make_loader
from asrlib.files import write_atomically
from asrlib.metrics.attention import monotonicity
from asrlib.model import ctc_feasible
from asrlib.model.alignment import ctc_frames
from asrlib.result import provenance
from asrlib.tracking.figures import attention_figure

FIGURES = Path("report/figures/attention")
MONOTONIC = 0.95  # of the steps: an utterance that is read in order
BATCH_SECONDS = 60


def read(model, loader) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(id, attention [U + 1, T'], CTC's frames [U]) of the utterances that have words and a path."""
    for batch in loader:
        audio = batch["audio"].to(model.device)
        output = batch | model(audio, batch["audio_length"], labels=batch)
        texts, lengths = batch["text_encoded"], batch["text_encoded_length"]
        frames = output["log_probs_length"]
        feasible = ctc_feasible(frames, texts, lengths) & (lengths > 0)
        for row in feasible.nonzero().flatten().tolist():
            labels, heard = int(lengths[row]), int(frames[row])
            attention = output["attention"][row, : labels + 1, :heard].cpu()
            log_probs = output["log_probs"][row, :heard].cpu()
            yield (
                batch["utterance_id"][row],
                attention.numpy(),
                ctc_frames(log_probs, texts[row, :labels]).numpy(),
            )


@torch.no_grad()
def main(checkpoint: str, results: str, *arguments: str) -> None:
    config = compose("inference", *arguments, f"inferencer.from_pretrained={checkpoint}")
    OmegaConf.resolve(config)
    folder = find_checkpoint(checkpoint)
    model, text_encoder, trained = load_acoustic_model(folder, torch.device("cpu"))
    if model.speller is None:
        sys.exit(f"{checkpoint} has no speller: choose one of a training with model=las")
    dataset = build(config.datasets.val)
    dataset.text_encoder = text_encoder
    loader = make_loader(dataset, BATCH_SECONDS)
    second = SAMPLE_RATE / model.samples_per_frame  # in frames
    started = time.monotonic()
    found = {id: (attention, ctc) for id, attention, ctc in read(model, loader)}
    in_order = [monotonicity(attention) for attention, _ in found.values()]
    apart = np.concatenate(
        [np.abs(attention[:-1].argmax(axis=1) - ctc) / second for attention, ctc in found.values()]
    )
    knows_times = trained.loss.get("attention") != 1
    row = {
        "system": "asrlib",
        "name": trained.name,
        "test_data": f"{config.datasets.name} val",
        "utterances": len(found),
        "left_out": len(dataset) - len(found),
        "labels": len(apart),
        "steps_in_order": float(np.mean(in_order)),
        "utterances_in_order": float(np.mean(np.array(in_order) >= MONOTONIC)),
        "median_seconds_from_ctc": float(np.median(apart)) if knows_times else None,
        "p90_seconds_from_ctc": float(np.quantile(apart, 0.9)) if knows_times else None,
        "seconds": time.monotonic() - started,
        **provenance(),
    }
    print(json.dumps(row, indent=1))
    path = Path(results)
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [r for r in rows if (r["name"], r["test_data"]) != (row["name"], row["test_data"])]
    write_atomically(path, json.dumps([*rows, row], indent=1) + "\n")
    if not knows_times:
        found = {id: (attention, None) for id, (attention, _) in found.items()}
    draw(found, text_encoder, trained.name, 1 / second, dataset)


def draw(found: dict, text_encoder, name: str, seconds_per_frame: float, dataset) -> None:
    """The utterances at a quarter, half and three quarters of the order by length."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    order = sorted(found, key=lambda id: (found[id][0].shape[1], id))
    texts = {u.id: u.text for u in dataset.utterances}
    for id in (order[len(order) * quarter // 4] for quarter in (1, 2, 3)):
        attention, ctc = found[id]
        labels = [text_encoder.pieces[label] for label in text_encoder.encode(texts[id])]
        title = f"{name}, {id}: {texts[id]}"
        figure = attention_figure(attention, [*labels, "</s>"], seconds_per_frame, title)
        if ctc is not None:
            times = (ctc + 0.5) * seconds_per_frame
            figure.axes[0].plot(times, range(len(ctc)), "r.", markersize=3)
        figure.savefig(FIGURES / f"{name}-{id}.png", dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
