"""Processes forked from this one that share a batch, or the batches of a dataset.

Design choices:

* Forked, so that a language model in memory is shared and not read or pickled again.
* No threads in the parent and one task at a time in each worker: nothing can wait in a circle, and
  a worker that dies (out of memory) is an error, where ``multiprocessing.Pool`` waits for ever.
* PyTorch has one thread in each: as many processes as cores need no more, and those of the parent, which
  OpenMP would look for, are not forked with it.
* Ctrl-C is the parent's business: it ends the workers. They also end when the pool is collected, at
  the exit of the interpreter, and when the parent is killed, since then their pipes close.
"""

import gc
import multiprocessing
import os
import pickle
import signal
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from asrlib.cores import usable_cores
from asrlib.decoding.options import require


def can_fork() -> bool:
    """Whether this process may have a pool: not on Windows, nor in a worker of a data loader."""
    daemon = multiprocessing.current_process().daemon
    return "fork" in multiprocessing.get_all_start_methods() and not daemon


class WorkerPool:
    """Workers that apply ``function`` as it is now, with all that it refers to.

    ``close()`` ends them; so does any error.
    """

    def __init__(self, function: Callable[[Any], Any], processes: int):
        self._workers: dict[Connection, BaseProcess] = {}
        self.owner = os.getpid()
        self.close = weakref.finalize(self, _end, self._workers, self.owner)
        context = multiprocessing.get_context("fork")
        # Workers inherit the mask, and so never see the Ctrl-C of their terminal.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(processes):
                ours, theirs = context.Pipe()
                arguments = (function, theirs, [*self._workers, ours])
                worker = context.Process(target=_work, args=arguments, daemon=True)
                worker.start()
                self._workers[ours] = worker
                theirs.close()  # so that a worker's death closes the pipe
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def map(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Results in the order of the tasks, each as soon as it is there; both are pickled.

        Raises (when iterated):
            RuntimeError: a worker died. What ``function`` raised arrives as it was, or by its name and text
                where it cannot be pickled.
        """
        try:
            yield from self._map(tasks)
        except BaseException as error:  # also of a caller who does not want the rest
            self.close()
            if isinstance(error, (EOFError, ConnectionError)):
                raise RuntimeError(
                    "a decoding process died: was there enough memory? Fewer of them need less: "
                    "inferencer.processes, decoder.processes"
                ) from error
            raise

    def _map(self, tasks: Iterable[Any]) -> Iterator[Any]:
        waiting, busy, results, due = enumerate(tasks), {}, {}, 0

        def begin(connection: Connection) -> None:
            for i, task in waiting:
                connection.send(task)
                busy[connection] = i
                break

        for connection in self._workers:
            begin(connection)
        while busy:
            for connection in wait([*busy]):
                i = busy.pop(connection)
                results[i], error, trace = connection.recv()
                if error is not None:
                    raise error from RuntimeError(f"in a decoding process:\n{trace}")
                begin(connection)
            while due in results:
                yield results.pop(due)
                due += 1


class Workers:
    """A pool that is made when it is needed, and again after it was closed.

    Args:
        processes: how many; as many as there are usable cores if not given. Where processes cannot be
            forked, and with 1, there is only this one.

    Raises:
        ValueError: fewer than 1.
    """

    def __init__(self, processes: int | None = None):
        self.processes = usable_cores() if processes is None else processes
        require(self.processes >= 1, f"processes {processes}: at least 1")
        self.pool: WorkerPool | None = None

    def map(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        """Results of ``function``, always the same one, in the order of the tasks; errors as the pool's."""
        if not self._shares(tasks):
            return [function(task) for task in tasks]
        if self.begins_with(tasks):
            self.pool = WorkerPool(function, self.processes)
        return [*self.pool.map(tasks)]

    def begins_with(self, tasks: Sequence[Any]) -> bool:
        """Whether ``map`` would fork its processes for these tasks: what is loaded by then, they inherit."""
        pool = self.pool
        has_pool = pool is not None and pool.close.alive and pool.owner == os.getpid()
        return self._shares(tasks) and not has_pool

    def _shares(self, tasks: Sequence[Any]) -> bool:
        return len(tasks) > 1 and self.processes > 1 and can_fork()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()


def _work(
    function: Callable[[Any], Any], connection: Connection, parents: Sequence[Connection]
) -> None:
    """A worker's life: sends (result, exception, its traceback) for each task received."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler of the parent is not meant for it
    torch.set_num_threads(1)
    gc.freeze()  # collecting garbage would write to the objects of the model, and so copy them
    for other in parents:  # else the pipes would outlive the parent
        other.close()
    with suppress(EOFError, ConnectionError):  # the parent has gone
        while True:
            task = connection.recv()
            try:
                answer = function(task), None, ""
            except Exception as error:
                answer = None, _sendable(error), traceback.format_exc()
            connection.send(answer)


def _sendable(error: Exception) -> Exception:
    """``error``, unless it would not arrive: by its class's arguments, or by what it holds."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end(workers: dict[Connection, BaseProcess], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the owner has these objects, but not the processes
        return
    for connection, worker in workers.items():
        worker.kill()
        worker.join()
        connection.close()
