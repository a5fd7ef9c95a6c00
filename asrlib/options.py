"""Options of the configuration that what was chosen does not have."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_UNEXPECTED = re.compile(r"([\w.]+)\(\) got an unexpected keyword argument '(\w+)'")


@contextmanager
def unknown_named(section: str = "SECTION") -> Iterator[None]:
    """Says how to leave out an option of ``section`` that what is built in the block does not have.

    Mostly, an experiment has set it for another choice of the same group.

    Raises:
        ValueError: instead of the ``TypeError`` of a keyword that is unknown; other errors as they are.
    """
    try:
        yield
    except TypeError as error:
        if not (found := _UNEXPECTED.search(str(error))):
            raise
        what, name = found[1].removesuffix(".__init__"), found[2]
        raise ValueError(
            f"{what} has no option {name!r}: leave it out (~{section}.{name}), or choose what has it"
        ) from None
