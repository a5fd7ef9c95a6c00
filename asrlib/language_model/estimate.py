"""N-gram estimation by KenLM's ``lmplz``: modified Kneser-Ney smoothing, interpolated.

Heafield, Pouzyrevsky, Clark and Koehn, "Scalable Modified Kneser-Ney Language Model Estimation", ACL
2013. ``make lmplz`` builds the program; Python's kenlm package has only the part that answers.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import asrlib
from asrlib.language_model.arpa import written

BUILT = Path(asrlib.__file__).parents[1] / "build" / "kenlm" / "bin" / "lmplz"
MEMORY = "1G"  # for sorting; what does not fit goes to temporary files


def find_lmplz() -> Path | None:
    """The program that ``make lmplz`` built, else one on the PATH."""
    on_path = shutil.which("lmplz")
    return BUILT if BUILT.is_file() else on_path and Path(on_path)


def estimate(
    sentences: Iterable[str], order: int, out: Path | str, prune: Iterable[int] = ()
) -> None:
    """Writes an ARPA file, a function of the arguments alone, compressed if named ``.gz``.

    Args:
        sentences: normalised.
        order: words of the longest n-grams, 2 or more: KenLM reads nothing shorter.
        prune: n-grams of order 1, 2 … seen no more often than this are left out; the last number
            holds for the orders after it, too, and the first has to be 0.

    Raises:
        FileNotFoundError: no lmplz.
        ValueError: there are no sentences, the order is below 2, or lmplz ends otherwise than well;
            the message has its last words.
    """
    lmplz, out = find_lmplz(), Path(out)
    if order < 2:
        raise ValueError(f"order {order}: at least 2")
    if lmplz is None:
        raise FileNotFoundError(f"no lmplz at {BUILT} nor on the PATH: make lmplz")
    with tempfile.TemporaryDirectory() as folder:
        text, arpa = Path(folder, "text"), Path(folder, "arpa")
        with text.open("w", encoding="utf-8") as file:
            file.writelines(f"{sentence}\n" for sentence in sentences)
        if not text.stat().st_size:
            raise ValueError("no sentence to estimate from")
        # the fallback serves where a count of counts is zero, as in tiny texts; only there
        options = ["--discount_fallback", *(["--prune", *map(str, prune)] if prune else [])]
        places = ["--text", text, "--arpa", arpa, "-T", f"{folder}/sort", "-S", MEMORY]
        done = subprocess.run(
            [lmplz, "-o", str(order), *options, *places], capture_output=True, text=True
        )
        if done.returncode:
            raise ValueError(f"lmplz ended with status {done.returncode}:\n{done.stderr[-800:]}")
        with arpa.open("rb") as file, written(out) as result:
            shutil.copyfileobj(file, result)
