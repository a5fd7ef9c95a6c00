"""Speech recognition from scratch: audio files in, a trained recogniser and its text out."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Recognizer"]


def __getattr__(name: str) -> Any:
    # imported when asked for: `import asrlib.text` needs no torch
    if name == "Recognizer":
        from asrlib.recognizer import Recognizer

        return Recognizer
    raise AttributeError(f"module 'asrlib' has no attribute {name!r}")
