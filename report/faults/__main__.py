"""What a training survives: each fault injected into a real one, and what was kept. ``make faults``

Writes report/results/faults.json, one row a fault: how it was injected, what was kept, whether that is
what was promised (``held``), and what was seen. "The same run" means that weights, their average,
optimiser, scaler, results, best model, hypotheses and log are equal, bit for bit, to those of a run
that nothing interrupted; times and throughput alone may differ. The trainings are tiny ones on the CPU.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch

from asrlib.files import write_atomically
from asrlib.result import current_commit, now
from report.faults import bad_days, stops
from report.faults.bench import Bench

OUT = Path("report/results/faults.json")


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as root:
        os.environ["ASRLIB_CACHE"] = f"{root}/cache"
        bench = Bench(Path(root))
        for name, function in (stops.FAULTS | bad_days.FAULTS).items():
            print(f"--- {name}", flush=True)
            about = {"commit": current_commit(), "command": "make faults", "date": now()}
            rows.append({"fault": name, **function(bench), **about})
    for row in rows:
        print(f"{'held    ' if row['held'] else 'NOT HELD'}  {row['fault']}: {row['kept']}")
    write_atomically(OUT, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    if not all(row["held"] for row in rows):
        sys.exit("not all was held")


if __name__ == "__main__":
    main()
