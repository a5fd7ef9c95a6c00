"""One training on all GPUs of this machine, with the status of ``train.py``.

python -m asrlib.launch 2 train.py experiment=NAME    as torchrun --nproc-per-node=2 train.py …

It is torchrun's own launcher. torchrun ends with 1 whatever its processes end with; here it is their
status, so 75 still says that the training stopped early and goes on by the same command.
"""

import os
import sys
import uuid

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from asrlib.training.stopping import STATUS


def launch(processes: int, *arguments: str) -> int:
    """Runs ``python ARGUMENTS`` in that many processes that train together; returns the status.

    The first process that fails ends the others, and its status counts. SIGTERM is passed on to all;
    a training then saves, within the half minute that the launcher gives it.
    """
    if processes > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun's command does
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-u", *arguments)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        # negative: the number of the signal that ended it, which a shell tells as 128 more
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException:
        return STATUS
    return 0


def main() -> None:
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal():
        sys.exit("how many processes, and of what? python -m asrlib.launch 2 train.py KEY=VALUE …")
    sys.exit(launch(int(sys.argv[1]), *sys.argv[2:]))


if __name__ == "__main__":
    main()
