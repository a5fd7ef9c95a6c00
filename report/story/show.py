"""A section in the notebook; ``report.build`` makes the pages of what stands there."""

from collections.abc import Iterable

from IPython.display import Image, Markdown, display

from report.story.evidence import REPORT, Picture


def show(section: Iterable[str | Picture]) -> None:
    """Displays Markdown and pictures; a picture keeps its path, relative to ``report/``, and its text."""
    texts: list[str] = []
    for part in section:
        if isinstance(part, Picture):
            _flush(texts)
            facts = {"path": part.path.relative_to(REPORT).as_posix(), "alt": part.alt}
            display(Image(filename=str(part.path), metadata=facts))
        else:
            texts.append(part.strip("\n"))
    _flush(texts)


def _flush(texts: list[str]) -> None:
    if texts:
        display(Markdown(joined(texts)))
    texts.clear()


def joined(texts: Iterable[str]) -> str:
    """Paragraphs and tables with an empty line between them; entries of one list without."""
    page = ""
    for text in texts:
        same_list = text.startswith("- ") and page.rpartition("\n")[2].startswith("- ")
        page += ("\n" if same_list else "\n\n") * bool(page) + text
    return page
