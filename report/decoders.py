"""Every decoder on the test of one model: weights tuned on dev, one row each, what the LM changed.

python -m report.decoders RUN LM DATASET [DATASET…]

    python -m report.decoders outputs/demo language_models/demo-4gram.arpa.gz datasets=demo

RUN is the folder of a training, LM a language model, DATASET the arguments that choose its data.
Writes report/results/NAME-decoders.json and report/comparisons/NAME.json; NAME is the run's.
Every step is a command that is printed.
"""

import sys
from pathlib import Path

from omegaconf import OmegaConf

from asrlib.checkpoint import find_checkpoint
from asrlib.demo import run
from asrlib.metrics.compare import main as compare

WITHOUT_LM = ("greedy", "beam")
WITH_LM = {"beam_lm": "beam+lm", "lm": "pyctcdecode+lm"}  # the configuration, the name of its rows


def main(run_dir: str, lm: str, *dataset: str) -> None:
    name = OmegaConf.load(find_checkpoint(run_dir) / "config.yaml").name
    tables = Path(run_dir) / "tables"
    result = f"inferencer.result_path=report/results/{name}-decoders.json"

    def infer(table: str, *decoder: str) -> None:
        run(
            "inference.py",
            *dataset,
            f"inferencer.from_pretrained={run_dir}",
            *decoder,
            result,
            f"inferencer.table_path={tables / table}.jsonl",
            "inferencer.show=0",
        )

    for decoder in WITHOUT_LM:
        infer(decoder, f"decoder={decoder}")
    for decoder, rows in WITH_LM.items():
        tuning = [f"tune.from_pretrained={run_dir}", *dataset, f"decoder={decoder}"]
        run("-m", "asrlib.decoding.tune", *tuning, f"decoder.lm_path={lm}")
        infer(decoder, "decoder=tuned", f"decoder.which={rows}")
    before, after = (f"{tables / decoder}.jsonl" for decoder in ("greedy", "beam_lm"))
    compare([before, after, "--json", f"report/comparisons/{name}.json"])


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
