"""The worst utterances as a page: reference over hypothesis, errors in colour, an audio player.

python -m asrlib.tracking.errors RUN [--most 50] [--html FILE]

RUN is the folder of a training (its best hypotheses on dev), or a table that inference.py wrote
(``inferencer.table_path``). The page holds its audio, so it can be moved and sent.
"""

import argparse
import base64
import html
import io
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import soundfile

from asrlib.data.audio import SAMPLE_RATE, AudioError, read_audio
from asrlib.files import read_jsonl, write_atomically
from asrlib.metrics import ErrorRate, ScoredUtterance, align_words

HYPOTHESES = "hypotheses_val.jsonl"  # in a training's folder: dev, at the best epoch

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
article { border-top: 1px solid #ccc; padding: .8em 0 }
h2 { font-size: 1em; margin: 0 0 .4em }
.words { display: flex; flex-wrap: wrap; gap: .3em .5em }
.words span { display: inline-grid; grid-template-rows: 1.4em 1.4em; padding: 0 .2em }
.substitute { background: #ffe3a3 } .delete { background: #ffc4c4 } .insert { background: #c5dcff }
audio { height: 2em; margin-top: .4em }
"""


def alignment_html(reference: str, hypothesis: str) -> str:
    """Each word of the normalised reference over the one heard, S, D and I by class."""
    columns = (
        f'<span class="{kind}"><b>{html.escape(ref)}</b><i>{html.escape(hyp)}</i></span>'
        for kind, ref, hyp in align_words(reference, hypothesis)
    )
    return f'<div class="words">{"".join(columns)}</div>'


def audio_html(path: str) -> str:
    """A player with the recording inside, as MP3, which every browser plays; or why there is none."""
    try:
        samples = read_audio(path)
    except AudioError as error:
        return f"<p>{html.escape(str(error))}</p>"
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="MP3")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{data}"></audio>'


def worst(errors: ErrorRate, most: int) -> list[ScoredUtterance]:
    """The utterances with the most word errors, those of a higher rate first among equals."""

    def badness(utterance: ScoredUtterance) -> tuple:
        words = utterance.words
        return words.total, words.total / max(words.reference, 1), utterance.id

    return sorted(errors.utterances, key=badness, reverse=True)[:most]


def errors_page(rows: Sequence[dict], title: str, most: int) -> str:
    """A whole page of the worst of ``rows`` (utterance_id, audio_path, target, predict).

    Raises:
        ValueError: no row has a target.
    """
    errors = ErrorRate()
    for row in rows:
        if row["target"] is not None:
            errors.add(row["target"], row["predict"], row["utterance_id"])
    if not errors.utterances:
        raise ValueError("no utterance with a reference to compare with")
    paths = {row["utterance_id"]: row["audio_path"] for row in rows}
    words = errors.words
    articles = [
        f"<article><h2>{html.escape(u.id)}: {u.words.total} of {u.words.reference} words</h2>"
        f"{alignment_html(u.reference, u.hypothesis)}{audio_html(paths[u.id])}</article>"
        for u in worst(errors, most)
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<p>WER {errors.wer:.2f} % of {words.reference} words in {len(errors.utterances)} utterances: "
        f'<span class="substitute">{words.substitutions} substituted</span>, '
        f'<span class="delete">{words.deletions} deleted</span>, '
        f'<span class="insert">{words.insertions} inserted</span>. '
        f"Reference above, hypothesis below; the {len(articles)} worst first.</p>"
        f"{''.join(articles)}</html>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a training, or a table of inference.py")
    parser.add_argument("--most", type=int, default=50, help="utterances on the page")
    parser.add_argument("--html", type=Path, help="the page; beside the table if not given")
    arguments = parser.parse_args()
    table = arguments.run / HYPOTHESES if arguments.run.is_dir() else arguments.run
    if not table.exists():
        sys.exit(f"errors: no {table}: give the folder of a training, or a table of inference.py")
    rows = read_jsonl(table)
    page = arguments.html or table.with_suffix(".html")
    try:
        write_atomically(page, errors_page(rows, f"Errors of {table}", arguments.most))
    except ValueError as error:
        sys.exit(f"errors: {table}: {error}")
    print(page)
    webbrowser.open(page.absolute().as_uri())


if __name__ == "__main__":
    main()
