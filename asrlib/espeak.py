"""espeak-ng's library, which comes in the ``espeakng-loader`` wheel and is called with ctypes.

It keeps state that it offers no way to reset, so whatever uses it runs in a fresh forked process
(``in_a_process``): what comes out then depends on the arguments alone.
"""

import ctypes
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def _loader() -> ModuleType:
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError(
            "the demonstration corpus and phones need espeakng-loader: pip install -r requirements-dev.txt"
        ) from error
    return espeakng_loader


def require_espeak() -> None:
    """Raises ``ImportError``, whose message names the fix, where espeakng-loader is not installed."""
    _loader()


def data_folder() -> Path:
    """espeak-ng's voices and dictionaries.

    Raises:
        ImportError: espeakng-loader is not installed; the message names the fix.
    """
    return Path(_loader().get_data_path())


def open_espeak(voice: str) -> tuple[ctypes.CDLL, int]:
    """The library with ``voice`` chosen, and its sample rate in Hz; once in the life of a process."""
    lib = ctypes.CDLL(_loader().get_library_path())
    # from espeak-ng's speak_lib.h: synchronous output, do not exit on errors
    rate = checked(
        lib.espeak_Initialize(2, 0, str(data_folder()).encode(), 0x8000), "espeak_Initialize"
    )
    checked(lib.espeak_SetVoiceByName(voice.encode()), f"espeak_SetVoiceByName({voice})")
    return lib, rate


def checked(status: int, call: str) -> int:
    """``status``, unless it tells of an error."""
    if status < 0 or (status > 0 and call != "espeak_Initialize"):
        raise RuntimeError(f"espeak-ng: {call} returned {status}")
    return status


def in_a_process(function: Callable, *arguments: Any) -> Any:
    """What ``function``, which opens espeak-ng, returns in a fresh forked process.

    Raises:
        ImportError: espeakng-loader is not installed; the message names the fix.
        RuntimeError: the process died.
        ValueError: the platform cannot fork processes (Windows).
    """
    require_espeak()  # its error is for this process
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(
            f"espeak-ng gave no speech or phones for {str(arguments)[:200]}"
        ) from None
    finally:
        process.join()
        receiver.close()


def _send(connection, function: Callable, arguments: tuple) -> None:
    connection.send(function(*arguments))
