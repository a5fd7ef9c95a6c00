"""The report from committed files: python -m report.build [--pages]

Executes report/report.ipynb, which calls ``report.story``, and writes it back with what it shows; then makes
report/report.md and report/report.html of that. ``--pages``: only these two, of the notebook as it is.
Nothing in them depends on when or where they were made. Run at the root of the repository.
"""

import html
import itertools
import re
import sys
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from markdown_it.token import Token

from asrlib.files import write_atomically

REPORT = Path("report")
NOTEBOOK = REPORT / "report.ipynb"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<nav aria-label="Contents">
<ol>
{contents}
</ol>
</nav>
<main>
{body}</main>
</body>
</html>
"""


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, without times and places of this run.

    Raises:
        papermill.PapermillExecutionError: a cell failed.
    """
    import papermill  # imported here: the pages need no kernel

    notebook = papermill.execute_notebook(
        str(path), None, kernel_name="python3", cwd=str(Path.cwd()), progress_bar=False
    )
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
    return notebook


def markdown(notebook: nbformat.NotebookNode) -> str:
    """Texts and what the code showed, without the code; pictures by their relative path."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                parts.append(data["text/markdown"])
            elif "image/png" in data:
                facts = output.metadata["image/png"]
                parts.append(f"![{facts['alt']}]({facts['path']})")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def with_contents(text: str) -> str:
    """The Markdown with links to its parts before the first of them; a page has them at its side."""
    parts = re.findall(r"^## (.+)$", text, re.MULTILINE)
    links = " · ".join(f"[{part}](#{slug(part)})" for part in parts)
    return text.replace("\n## ", f"\n{links}\n\n## ", 1)


def page(text: str) -> str:
    """Markdown as a page of HTML with a table of contents, which needs nothing from the network."""
    reader = MarkdownIt("commonmark").enable("table")
    reader.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = reader.parse(text)
    contents, title = [], ""
    for opening, inline in itertools.pairwise(tokens):
        if opening.type != "heading_open":
            continue
        told = _plain(inline)
        title = title or told
        opening.attrSet("id", slug(told))
        if opening.tag == "h2":
            shown = html.escape(re.sub(r"^\d+\. ", "", told))  # the list counts by itself
            contents.append(f'<li><a href="#{slug(told)}">{shown}</a></li>')
    return PAGE.format(
        title=html.escape(title),
        style=(REPORT / "page.css").read_text(encoding="utf-8"),
        contents="\n".join(contents),
        body=_with_players(reader.renderer.render(tokens, reader.options, {})),
    )


def _with_players(body: str) -> str:
    """Links to sounds as players."""
    player = r'\2 <audio controls preload="none" src="\1" aria-label="\2"></audio>'
    return re.sub(r'<a href="([^"]+\.flac)">([^<]*)</a>,?', player, body)


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [])


def slug(heading: str) -> str:
    """The name of a heading in links, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def main(arguments: list[str]) -> None:
    if set(arguments) - {"--pages"}:
        sys.exit(__doc__)
    if arguments:
        notebook = nbformat.read(NOTEBOOK, as_version=4)
    else:
        notebook = executed(NOTEBOOK)
        write_atomically(NOTEBOOK, nbformat.writes(notebook) + "\n")
    text = markdown(notebook)
    write_atomically(REPORT / "report.md", with_contents(text))
    write_atomically(REPORT / "report.html", page(text))


if __name__ == "__main__":
    main(sys.argv[1:])
