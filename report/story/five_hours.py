"""What holds the models of mini-LibriSpeech's five hours back."""

import json
from collections.abc import Iterator

from asrlib.result import Result, load_results
from report.story.evidence import ERRORS, RESULTS, link, of, rows, table, wer_of

DEV, OWN = "librispeech val", "mini-librispeech train"
SAID = {  # by the end of a file's name
    "greedy": "greedily",
    "beam-lm": "with the language model",
    "lexicon": "by its phones, with the language model",
    "noisy-lexicon": "by its phones, with the language model, in noise",
}


def five_hours() -> Iterator[str]:
    """Training and dev of each model, then where the best one's errors are."""
    published = RESULTS / "mini-librispeech.json"
    if not published.exists():
        return
    names = dict.fromkeys(row.name for row in load_results(published))
    found = rows("models", "ablations")
    yield "All learned from train-clean-5 alone; greedy decoding also of their own training speech, as it is:"
    yield table(_entry(name, [row for row in found if row.name == name]) for name in names)
    for name in names:
        yield from errors_of(name)


def _entry(name: str, found: list[Result]) -> dict:
    greedy, own = of(found, name, DEV), of(found, name, OWN)
    with_lm = [row for row in found if row.test_data == DEV and row.decoder != "greedy"]
    best = min(with_lm, key=lambda row: row.wer, default=None)
    return {
        "model": f"`{name}`",
        "#parameters": f"{greedy[0].parameters / 1e6:.1f} M",
        "device": greedy[0].device.partition(",")[0],
        "#hours heard": f"{greedy[0].audio_hours_seen:.0f}",
        "#WER of its training, %": f"{wer_of(own):.1f}" if own else "–",
        "#WER of dev, %": f"{wer_of(greedy):.1f}",
        "#with a language model, %": f"{best.wer:.1f}" if best else "–",
        "": best.decoder if best else "",
    }


def errors_of(name: str, model: str | None = None) -> Iterator[str]:
    """In a sentence or two for each table of errors ``name-….json``, of the ``model`` of that name unless
    told: which kinds there are, and where."""
    for end, said in SAID.items():
        path = ERRORS / f"{name}-{end}.json"
        if path.exists():
            errors = json.loads(path.read_text(encoding="utf-8"))
            yield f"{_told(model or name, said, errors)} ({link(path)})"


def _told(name: str, said: str, errors: dict) -> str:
    words, kinds = errors["words"], ("substitutions", "deletions", "insertions")
    total, reference = sum(words[kind] for kind in kinds), words["reference"]
    shares = ", ".join(f"{100 * words[kind] / total:.0f} % {kind}" for kind in kinds)
    told = f"- `{name}` {said}, WER {errors['wer']:.1f} %: of its errors {shares}."
    for entry in errors["by_familiarity"]:
        told += (
            f" Of words that training has {entry['times in training']} times, "
            f"{100 * entry['words'] / reference:.0f} % of all, {entry['wrong %']:.0f} % are wrong: "
            f"{entry['words'] * entry['wrong %'] / reference:.1f} points."
        )
    close = sum(e["share %"] for e in errors["by_letters"] if "more" not in e["edits of letters"])
    return (
        told + f" {close:.0f} % of the substituted words are one or two letters from what was said."
    )
