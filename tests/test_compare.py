"""Two systems side by side: what is shown follows from a rule, and the difference from the pairs."""

import json
from dataclasses import replace

import pytest

from asrlib.files import write_jsonl
from asrlib.metrics import ErrorRate
from asrlib.metrics.compare import compare, main, markdown, read_table


def scored(*texts, references=("a b c d", "e f g h", "i j k l", "m n o p")):
    """Utterances u0, u1 … of two speakers, in turn."""
    errors = ErrorRate()
    for i, (reference, text) in enumerate(zip(references, texts, strict=True)):
        errors.add(reference, text, f"u{i}", f"speaker {i % 2}")
    return errors


BEFORE = ("a b c x", "e f g h", "i j k l", "m x x x")
AFTER = ("a b c d", "e f x x", "x j k l", "m n o p")


def test_pairs_are_chosen_by_the_change_in_word_errors_then_by_id():
    result = compare(scored(*BEFORE), scored(*AFTER))
    assert [pair.id for pair in result.helped] == ["u3", "u0"]
    assert [pair.id for pair in result.harmed] == ["u1", "u2"]
    assert (result.fewer_errors, result.more_errors, result.utterances) == (2, 2, 4)
    assert result.wer_before == 25.0
    assert result.difference == pytest.approx(-100 / 16)
    assert [pair.id for pair in compare(scored(*BEFORE), scored(*AFTER), most=1).helped] == ["u3"]


def test_a_system_does_not_differ_from_itself_in_any_replicate():
    result = compare(scored(*BEFORE), scored(*BEFORE))
    assert (result.difference, result.interval) == (0.0, (0.0, 0.0))
    assert not result.helped and not result.harmed


def test_a_system_that_is_better_for_every_speaker_is_so_in_every_replicate():
    perfect = ("a b c d", "e f g h", "i j k l", "m n o p")
    result = compare(scored("a b c x", "e f g x", "i j k x", "x n o p"), scored(*perfect))
    assert result.probability_better == 1.0
    assert result.interval[1] < 0
    # each speaker has two errors in eight words: paired, there is no spread at all
    assert result.interval == pytest.approx((-25.0, -25.0))


def test_the_order_of_utterances_does_not_matter():
    reordered = ErrorRate(reversed(scored(*AFTER).utterances))
    assert compare(scored(*BEFORE), reordered) == compare(scored(*BEFORE), scored(*AFTER))


def test_different_utterances_cannot_be_compared():
    with pytest.raises(ValueError, match="same utterances"):
        compare(scored(*BEFORE), scored(*AFTER[:3], references=("a b c d", "e f g h", "i j k l")))


def test_speakers_that_one_system_does_not_name_cannot_be_paired():
    unnamed = scored(*AFTER)
    unnamed.utterances = [replace(u, speaker=None) for u in unnamed.utterances]
    with pytest.raises(ValueError, match="speaker_pattern"):
        compare(scored(*BEFORE), unnamed)


def test_without_reference_words_there_is_no_interval():
    empty = scored("", "a", references=("", ""))
    assert compare(empty, empty).interval is None


def test_one_speaker_has_no_interval():
    one = [
        ErrorRate(u for u in s.utterances if u.id == "u0")
        for s in (scored(*texts) for texts in (BEFORE, AFTER))
    ]
    assert compare(*one).interval is None
    assert "95 %" not in markdown(compare(*one))


def test_tables_of_inference_are_compared_from_the_command_line(tmp_path, capsys):
    for name, texts in (("before", BEFORE), ("after", AFTER)):
        rows = [
            {
                "utterance_id": u.id,
                "speaker": u.speaker,
                "target": u.reference,
                "predict": u.hypothesis,
            }
            for u in scored(*texts).utterances
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    main([str(tmp_path / "before"), str(tmp_path / "after"), "--json", str(tmp_path / "c.json")])
    assert "WER 25.00 % → 18.75 %" in capsys.readouterr().out
    written = json.loads((tmp_path / "c.json").read_text())
    assert [pair["id"] for pair in written["harmed"]] == ["u1", "u2"]
    (tmp_path / "before").write_text(
        '{"utterance_id": "u", "speaker": null, "target": null, "predict": "a"}'
    )
    with pytest.raises(SystemExit, match="no utterance has a reference"):
        main([str(tmp_path / "before"), str(tmp_path / "after")])
    with pytest.raises(SystemExit, match="gone"):
        main([str(tmp_path / "gone"), str(tmp_path / "after")])


def test_a_log_is_no_table_of_hypotheses(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss_train": 2.0}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl is no table"):
        read_table(tmp_path / "metrics.jsonl")


def test_a_table_is_scored_where_it_has_references(tmp_path):
    rows = [
        {"utterance_id": "1", "speaker": "s", "target": "a\u2028b", "predict": "a b"},
        {"utterance_id": "2", "speaker": "s", "target": None, "predict": "c"},
    ]
    write_jsonl(tmp_path / "t.jsonl", rows)
    assert [u.id for u in read_table(tmp_path / "t.jsonl").utterances] == ["1"]
