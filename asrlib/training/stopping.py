"""When a training stops before its end: at SIGTERM, at SIGINT (Ctrl-C), or when its time is up."""

import math
import os
import signal
import threading
import time

STATUS = 75  # of train.py when it stopped early: EX_TEMPFAIL of sysexits.h, "try again later"
REPEATED = 5.0  # seconds: what comes again sooner is the same signal, passed on by torchrun


class StopRequested(Exception):  # noqa: N818
    """No error: leaves the training loop where all that it did can be saved. Its text says why."""


class Stopping:
    """Notes that the training should stop; within it, signals do nothing else.

    Processes that are forked within it, such as a loader's workers, leave Ctrl-C to their parent.
    The second Ctrl-C interrupts at once, without a checkpoint.

    Args:
        max_hours: time from now until it should stop.
    """

    def __init__(self, max_hours: float | None = None):
        self.max_hours = max_hours
        self._end = math.inf if max_hours is None else time.monotonic() + 3600 * max_hours
        self._signal: signal.Signals | None = None
        self._since = 0.0
        self._handlers: dict[int, object] = {}

    def signal(self) -> str | None:
        """The signal that asked for it, if one did."""
        return None if self._signal is None else self._signal.name

    def reason(self) -> str | None:
        """Why the training should stop now, by a signal or since its time is up; None if not."""
        if self._signal is not None:
            return self.signal()
        if time.monotonic() >= self._end:
            return f"trainer.max_hours={self.max_hours} are over"
        return None

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._since = signal.Signals(number), now
            # not print: it may be what was interrupted
            os.write(2, f"\n{self._signal.name}: stopping after this step\n".encode())
        elif number == signal.SIGINT and now - self._since > REPEATED:
            raise KeyboardInterrupt
