"""What a Kaggle notebook was given: its inputs stand below one folder, at places that Kaggle chooses."""

from pathlib import Path

INPUTS = Path("/kaggle/input")
DEPTHS = range(1, 6)  # NAME to KIND/OWNER/NAME/FOLDER/FOLDER; deeper are a corpus' own folders


def find_input(
    parameter: str, *inside: str, needed: bool = True, inputs: Path = INPUTS
) -> str | None:
    """The only folder among the inputs that has all of ``inside``; None if there is none.

    Args:
        parameter: of the notebook, which may name the folder instead.
        inside: patterns of paths in it, without ``**``.
        needed: it must be there.

    Raises:
        FileNotFoundError: none, and it is needed.
        ValueError: more than one.
    """
    for depth in DEPTHS:
        folders = sorted(path for path in inputs.glob("/".join("*" * depth)) if path.is_dir())
        found = [f for f in folders if all(any(f.glob(pattern)) for pattern in inside)]
        if len(found) > 1:
            raise ValueError(
                f"{parameter}: which of {', '.join(map(str, found))}? Set the parameter to one"
            )
        if found:
            return str(found[0])
    if needed:
        raise FileNotFoundError(
            f"{parameter}: no folder in {inputs} has {' and '.join(inside)}: add it as input, or set the "
            "parameter to where it is"
        )
    return None
