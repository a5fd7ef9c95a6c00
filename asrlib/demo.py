"""The whole path in one command: ``make demo``.

Makes the synthetic corpus, overfits one batch with the MLP, trains a small DeepSpeech2, and measures
it on voices and sentences that it never heard. Every step is a command that could be typed.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from asrlib.files import read_jsonl
from asrlib.result import load_results

RUN = Path("outputs/demo")
TARGET_WER = 15.0  # percent, greedy, on the test part
TARGET_LOSS = 0.05  # nats per label, on the one batch


def run(*arguments: str) -> None:
    """Shows and runs ``python ARGUMENTS``; ends the demo where it fails."""
    print(f"\n$ {shlex.join(['python', *arguments])}", flush=True)
    status = subprocess.run([sys.executable, *arguments]).returncode
    if status:
        sys.exit(f"the command above ended with status {status}")


def main() -> None:
    started = time.monotonic()
    run("-m", "asrlib.data.demo")

    one_batch = RUN / "one_batch"
    run("train.py", "-cn=one_batch", f"run_dir={one_batch}")
    rows = read_jsonl(one_batch / "logs" / "metrics.jsonl")
    last = [row for row in rows if "CER_val" in row][-1]
    if not (last["loss_val"] < TARGET_LOSS and last["CER_val"] == 0):
        sys.exit(f"demo: the MLP did not learn its batch by heart: {last}")
    print(f"one batch by heart: loss {last['loss_val']:.4f}, CER {last['CER_val']:.0f} %")

    result_path = RUN / "result.json"
    run("train.py", "experiment=demo", f"run_dir={RUN}")
    run(
        "inference.py",
        "datasets=demo",
        f"inferencer.from_pretrained={RUN}",
        f"inferencer.save_path={RUN / 'predictions'}",
        f"inferencer.result_path={result_path}",
        "inferencer.show=10",
    )
    result = load_results(result_path)[-1]  # added last
    minutes = (time.monotonic() - started) / 60
    print(
        f"\n{RUN}: checkpoints/ (the model), logs/ (figures, audio, tables), "
        f"predictions/, result.json\ntest WER {result.wer:.2f} % "
        f"(95 % interval {result.wer_interval[0]:.1f}–{result.wer_interval[1]:.1f}), "
        f"{minutes:.1f} minutes in all"
    )
    if result.wer > TARGET_WER:
        sys.exit(f"demo: that is above {TARGET_WER:.0f} %: something in this change made it worse")


if __name__ == "__main__":
    main()
