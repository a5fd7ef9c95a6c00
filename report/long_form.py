"""What it costs to hear a recording whole: dev's utterances joined chapter by chapter, without a pause.

python -m report.long_form CHECKPOINT RESULTS DATASET [DATASET…]

    python -m report.long_form checkpoints/shipped report/results/shipped.json datasets=librispeech \\
        datasets.root=data/LibriSpeech decoder=tuned

DATASET are arguments of inference.py that choose the data and the decoder; the part is ``val``. Chapters are
read in windows (``asrlib.decoding.longform``). RESULTS gets a row whose test data are called "joined".
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from asrlib import Recognizer
from asrlib.build import build, device_name
from asrlib.checkpoint import find_checkpoint
from asrlib.configs import compose
from asrlib.data.dataset import SkippedItem
from asrlib.decoding.tuned import chosen_decoder
from asrlib.metrics import ErrorRate
from asrlib.result import add_result, command_line, result_of


def main(checkpoint: str, results: str, *arguments: str) -> None:
    config = compose("inference", *arguments, f"inferencer.from_pretrained={checkpoint}")
    OmegaConf.resolve(config)
    folder = find_checkpoint(checkpoint)
    decoder = chosen_decoder(config.decoder, folder)
    recognizer = Recognizer.from_pretrained(folder, config.inferencer.device, decoder)
    dataset = build(config.datasets.val)
    chapters = defaultdict(list)
    for place, utterance in enumerate(dataset.utterances):
        chapters[utterance.id.rpartition("-")[0]].append(place)
    errors = ErrorRate()
    for chapter, places in chapters.items():
        items = []
        for item in (dataset[0, place] for place in places):
            if isinstance(item, SkippedItem):
                print(f"left out {item.utterance.id}: {item.reason}", flush=True)
            else:
                items.append(item)
        if not items:
            continue
        heard = recognizer.transcribe(np.concatenate([item.audio for item in items])).text
        text = " ".join(item.utterance.text for item in items)
        errors.add(text, heard, chapter, items[0].utterance.speaker)
        print(
            f"{chapter}: {len(items)} utterances, {errors.utterances[-1].words.rate:.2f} %",
            flush=True,
        )
    print(f"WER {errors.wer:.2f} % of {len(errors.utterances)} chapters")
    row = result_of(
        folder,
        errors,
        command=command_line(),
        test_data=f"{config.datasets.name} val, joined",
        decoder=decoder.name,
        parameters=recognizer.model.parameter_count(),
        device=device_name(recognizer.model.device),
    )
    add_result(Path(results), row)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
