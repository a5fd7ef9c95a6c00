"""Language models: what is prepared says what the source said, and the source stays as it is."""

import gzip
import os
import re
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest

import asrlib
from asrlib.data.demo import plan
from asrlib.data.demo_text import transcript
from asrlib.language_model import estimate as estimation
from asrlib.language_model import prepare, prepared, rewrite
from asrlib.language_model.__main__ import main
from asrlib.language_model.texts import dev_sentences, file_sentences, training_sentences
from asrlib.text import normalize
from tests.corpus import write_parts

COMMITTED = sorted(Path(asrlib.__file__).parents[1].glob("language_models/*.arpa.gz"))

CAPITALS = """\\data\\
ngram 1=7
ngram 2=5
ngram 3=2

\\1-grams:
-1.5\t<UNK>\t0
-99\t<s>\t-0.3
-0.9\t</s>\t0
-0.7\tA\t-0.2
-1.1\tDON'T\t-0.4
-1.3\tSTOP\t-0.1
-1.25E-01\tÉTÉ\t0

\\2-grams:
-0.4\t<s> A\t-0.15
-0.5\tA STOP\t-0.25
-0.2\tSTOP A\t0
-0.8\tA </s>
-0.1\tDON'T STOP\t0

\\3-grams:
-0.05\t<s> A STOP
-0.3\tA STOP A

\\end\\
"""
SENTENCES = ["", "A", "A STOP A", "A STOP A STOP", "DON'T STOP", "STOP OTHER A", "ÉTÉ A", "OTHER"]

# "Don't", "DON'T" and "don’t" become one word; "--", "4TH", "A-B" and "<noise>" none
MIXED = """\\data\\
ngram 1=12
ngram 2=8

\\1-grams:
-1.5\t<unk>\t0
-99\t<s>\t-0.3
-0.9\t</s>\t0
-2.1\tDon't\t-0.2
-1.1\tDON'T\t-0.4
-3.3\tdon’t\t-0.1
-2.0\tknow\t-0.5
-2.0\t--\t0
-2.0\t4TH\t0
-2.0\tA-B\t0
-2.0\t<noise>\t0
-2.5\tmr.\t0

\\2-grams:
-0.4\t<s> Don't
-0.6\t<s> DON'T
-0.9\tDON'T know
-0.8\tdon’t know
-0.2\tknow mr.
-0.1\tknow --
-0.1\t4TH know
-0.3\tknow </s>

\\end\\
"""
MERGED = """\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-1.5\t<unk>\t0
-99\t<s>\t-0.3
-0.9\t</s>\t0
-2.0\tknow\t-0.5
-2.5\tmr\t0
-1.1\tdon't\t-0.4

\\2-grams:
-0.2\tknow mr
-0.3\tknow </s>
-0.4\t<s> don't
-0.8\tdon't know

\\end\\
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "capitals.arpa"
    path.write_text(CAPITALS, encoding="utf-8")
    return path


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def without_stamp(path: Path) -> str:
    stamp, content = path.read_text(encoding="utf-8").split("\n", 1)
    assert stamp.startswith("# ") and "/" not in stamp
    return content


def scores(path, sentences):
    kenlm = pytest.importorskip("kenlm")
    model = kenlm.Model(str(path))
    return [
        [list(model.full_scores(s, bos=whole, eos=whole)) for whole in (True, False)]
        for s in sentences
    ]


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "packed.arpa"])
def test_what_was_prepared_scores_as_its_source_does(tmp_path, name):
    path, plain = tmp_path / name, tmp_path / "plain.arpa"
    content = CAPITALS.encode()
    plain.write_bytes(content)
    path.write_bytes(content if name == "lm.arpa" else gzip.compress(content))
    result = prepared(path)
    assert result != path and result.name.endswith(name)
    ours = [normalize(sentence) for sentence in SENTENCES]
    assert scores(result, ours) == scores(plain, SENTENCES)


def test_our_own_reader_finds_the_words(source):
    ngram = pytest.importorskip("asrlib.decoding.ngram")
    pytest.importorskip("kenlm")
    _, words = ngram.open_model(prepared(source))
    assert "".join(words) == "adon'tetestop"


def test_the_source_is_not_touched_and_its_copy_is_made_once(source, monkeypatch, capsys):
    os.utime(source, ns=(10**18, 10**18))
    source.chmod(0o444)
    result = prepared(source)
    assert "writing" in capsys.readouterr().err
    assert source.read_text(encoding="utf-8") == CAPITALS
    assert source.stat().st_mtime_ns == 10**18
    assert files_of(source.parent) == {source}
    with monkeypatch.context() as patch:
        patch.setattr(rewrite, "written", None)  # writing again would fail
        assert prepared(source) == result
        assert prepare(source, result) == result
    assert capsys.readouterr().err == ""


def test_a_changed_source_is_prepared_again_in_the_same_place(source):
    result, place = prepared(source), files_of(prepared(source).parent)
    for content, time in [(CAPITALS.replace("STOP", "SHOP"), 0), (CAPITALS, 1)]:
        source.write_text(content, encoding="utf-8")
        os.utime(source, ns=(time, time))
        assert prepared(source) == result
        assert without_stamp(result).count("shop") == content.count("SHOP")
    assert files_of(result.parent) == place


def test_a_named_result_is_compressed_and_the_same_each_time(source, tmp_path):
    first, second = (prepare(source, tmp_path / name / "x.arpa.gz") for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    plain = prepare(source, tmp_path / "x.arpa")
    assert gzip.decompress(first.read_bytes()) == plain.read_bytes()
    assert without_stamp(plain) == CAPITALS.lower().replace("été", "ete").replace("e-01", "E-01")


def test_what_stood_in_the_way_of_a_named_result_is_replaced(source, tmp_path):
    out = tmp_path / "x.arpa.gz"
    out.write_bytes(b"something else")
    assert gzip.decompress(prepare(source, out).read_bytes()).startswith(b"# ")


def test_nothing_is_written_over_its_source(source, tmp_path):
    link = tmp_path / "link.arpa"
    link.symlink_to(source)
    for out in (source, link):
        with pytest.raises(ValueError, match="overwritten"):
            prepare(source, out)
    assert source.read_text(encoding="utf-8") == CAPITALS


def test_a_model_of_our_words_is_used_as_it_is(tmp_path, cache_folder):
    before = files_of(cache_folder)
    path = tmp_path / "ours.arpa"
    words = {"A ": "a ", "A\t": "a\t", "DON'T": "'tis", "STOP": "<noise>", "ÉTÉ": "4th", " A": " a"}
    content = CAPITALS
    for word, ours in words.items():
        content = content.replace(word, ours)
    path.write_text(content, encoding="utf-8")
    assert prepared(path) == path
    assert files_of(cache_folder) == before


def test_words_that_become_the_same_are_merged_and_others_dropped(tmp_path, capsys):
    path = tmp_path / "mixed.arpa"
    path.write_text(MIXED, encoding="utf-8")
    result = prepared(path)
    assert without_stamp(result) == MERGED
    said = capsys.readouterr().err
    assert "4 words dropped, such as -- 4TH A-B <noise>" in said
    assert "3 words became 1, such as don't" in said
    assert "by order: 6 of 12, 4 of 8" in said
    scores(result, ["don't know"])  # KenLM counts for itself


def test_orders_may_lose_all_their_ngrams(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(CAPITALS.replace("STOP", "4TH"), encoding="utf-8")
    result = prepared(path)
    assert "ngram 2=2\nngram 3=0\n" in result.read_text(encoding="utf-8")
    scores(result, ["a"])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\t", " "),
        lambda text: text.replace("\t", "  ").replace("ngram 1=7", "ngram  1 =  7"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "made by somebody\n\n" + text.replace("\n\n", "\n\n\n"),
        lambda text: text.replace("<s>", "<S>").replace("</s>", "</S>").replace("<UNK>", "<unk>"),
        lambda text: text.rstrip("\n"),
    ],
    ids=["spaces", "wide", "windows", "comments", "marks", "last newline"],
)
def test_other_ways_to_write_the_same_give_the_same(source, tmp_path, change):
    other = tmp_path / "other.arpa"
    other.write_text(change(CAPITALS), encoding="utf-8", newline="")
    assert without_stamp(prepared(other)) == without_stamp(prepared(source))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("\n\\end\\\n", ""), "line 24: .*cut short"),
        (lambda text: text.replace("\\end\\", "\\4-grams:"), r"line 26: .*\\end\\ is due"),
        (lambda text: text.replace("ngram 2=5", "ngram 2=6"), "line 22: 5 2-grams.* announced 6"),
        (lambda text: text.replace("ngram 2=5", "ngram 3=5"), "line 3: the count of 2-grams"),
        (lambda text: text.replace("\\2-grams:", "\\3-grams:"), "line 15: .*2-grams: is due"),
        (lambda text: text.replace("-0.2\tSTOP A\t0", "x\tSTOP A"), "line 18: .*no 2-gram"),
        (lambda text: text.replace("-0.2\tSTOP A\t0", "-0.2\tSTOP"), "line 18: .*no 2-gram"),
        (lambda text: text.replace("-0.2\tSTOP A", "-0.2\tSTOP B A"), "line 18: .*no 2-gram"),
        (lambda text: text.replace("-0.2\tSTOP A", "-0.2\tSTOP B"), "line 18: b'B' is not among"),
        (lambda text: text.replace("\tSTOP\t", "\tA\t"), "line 12: b'A' stands .* twice"),
        (lambda text: "nothing of the kind\n", "is not a language model"),
        (lambda text: "", "is not a language model"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(source, cache_folder, change, message):
    before = files_of(cache_folder)
    source.write_text(change(CAPITALS), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{re.escape(str(source))}.*{message}"):
        prepared(source)
    assert files_of(cache_folder) == before


def test_no_truncated_file_is_taken_for_a_whole_one(tmp_path, cache_folder):
    before = files_of(cache_folder)
    plain, packed = CAPITALS.encode(), gzip.compress(CAPITALS.encode())
    for name, content, whole in (("x", plain, len(plain) - 1), ("y", packed, len(packed))):
        for length in range(whole):
            path = tmp_path / name
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match=re.escape(str(path))):
                prepared(path)
    assert files_of(cache_folder) == before


def test_damaged_bytes_are_noticed(source):
    packed = bytearray(gzip.compress(CAPITALS.encode()))
    packed[-6] ^= 1  # of the checksum
    source.write_bytes(packed)
    with pytest.raises(ValueError, match=r"capitals\.arpa, line \d+: damaged shortly after"):
        prepared(source)
    source.write_bytes(CAPITALS.encode("latin-1"))
    with pytest.raises(ValueError, match=r"line 13: .* is not UTF-8"):
        prepare(source, source.with_name("out.arpa"))


def test_a_model_of_other_letters_is_refused(source):
    words = {"A": "Б", "DON'T": "Д", "STOP": "С", "ÉTÉ": "Л"}
    lines = CAPITALS.splitlines(keepends=True)
    for word, other in words.items():
        lines = [re.sub(rf"(?<=\s){word}(?=\s)", other, line) for line in lines]
    source.write_text("".join(lines).replace("Л", "Łódź-4"), encoding="utf-8")
    with pytest.raises(ValueError, match="none of its words"):
        prepare(source, source.with_name("out.arpa"))


def test_binaries_are_taken_or_refused_by_their_words(tmp_path):
    path = tmp_path / "lm.bin"
    head = b"mmap lm http://kheafield.com/code\n\0\1\2"
    path.write_bytes(head + b"<unk>\0don't\0<s>\0a\0</s>\0MR.\0")
    assert prepared(path) == path
    path.write_bytes(head + b"<unk>\0DON'T\0<s>\0A\0</s>\0")
    with pytest.raises(ValueError, match=r"2 of its 2 words .* such as DON'T; .* give the ARPA"):
        prepared(path)
    with pytest.raises(ValueError, match="cannot be changed"):
        prepare(path, tmp_path / "lm.arpa")


def test_a_missing_file_is_an_error(tmp_path):
    for work in (prepared, lambda path: prepare(path, tmp_path / "out.arpa")):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.arpa"):
            work(tmp_path / "nowhere.arpa")


def test_where_nothing_can_be_written_the_error_says_what_to_set(source, monkeypatch):
    (source.parent / "file").touch()
    monkeypatch.setenv("ASRLIB_CACHE", str(source.parent / "file"))
    with pytest.raises(OSError, match="ASRLIB_CACHE"):
        prepared(source)


def test_memory_holds_the_words_and_not_the_ngrams(tmp_path):
    words = [f"W{'A' * (i // 26)}{chr(ord('A') + i % 26)}" for i in range(250)]
    path = tmp_path / "large.arpa"
    with path.open("w") as file:
        file.write(f"\\data\\\nngram 1=250\nngram 2={250**2}\n\n\\1-grams:\n")
        file.writelines(f"-2\t{word}\t0\n" for word in words)
        file.write("\n\\2-grams:\n")
        file.writelines(f"-2.5\t{first} {second}\n" for first in words for second in words)
        file.write("\n\\end\\\n")
    tracemalloc.start()
    prepare(path, tmp_path / "out.arpa")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 3


@pytest.mark.slow
def test_a_large_model_in_capitals_says_what_it_said(tmp_path):
    path = Path(__file__).parents[2] / "shared" / "lm" / "lm3.arpa.gz"
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    text = gzip.decompress(path.read_bytes()).decode().strip() + "\n"
    capitals = re.sub(r"^([-\d.e]+\t)([^\t\n]*)", lambda m: m[1] + m[2].upper(), text, flags=re.M)
    capitals = capitals.replace("<S>", "<s>").replace("</S>", "</s>")  # KenLM wants them so
    upper, result = tmp_path / "upper.arpa", tmp_path / "lower.arpa"
    upper.write_text(capitals)
    prepare(upper, result)
    assert without_stamp(result).lower() == text
    sentences = ["it was the best of times it was the worst of times", "don't xyzzy you know"]
    expected = scores(path, sentences)
    assert scores(result, sentences) == expected
    assert scores(upper, [s.upper().replace("XYZZY", "xyzzy") for s in sentences]) == expected


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_what_the_repository_holds_is_small_and_usable(path):
    ngram = pytest.importorskip("asrlib.decoding.ngram")
    pytest.importorskip("kenlm")
    assert path.stat().st_size < 2 * 2**20
    assert prepared(path) == path
    words = {*ngram.vocabulary_of(path)} - ngram.MARKS
    assert len(words) > 50 and all(re.fullmatch(rb"[a-z']+", word) for word in words)
    trie = ngram.NGram(path).vocabulary[:-1]  # the last is an end mark
    assert (trie["word"] > 0).sum() == len(words)


def test_the_repository_holds_two():
    assert [path.name for path in COMMITTED] == ["an4-4gram.arpa.gz", "demo-4gram.arpa.gz"]


def bigrams_of_file(path):
    lines = gzip.decompress(path.read_bytes()).decode().split("\\2-grams:\n")[1].split("\n\n")[0]
    return {tuple(line.split("\t")[1].split()) for line in lines.splitlines()}


def bigrams_of_texts(texts):
    return {pair for text in texts for pair in pairwise(["<s>", *normalize(text).split(), "</s>"])}


def test_they_were_estimated_from_training_texts_alone(speech_dir):
    an4, demo = COMMITTED
    texts = sorted((speech_dir / "an4" / "train" / "transcriptions").iterdir())
    assert bigrams_of_file(an4) == bigrams_of_texts(path.read_text() for path in texts)
    lines = plan(0)
    assert bigrams_of_file(demo) == bigrams_of_texts(
        transcript(line.sentence) for line in lines["train"]
    )


@pytest.fixture
def corpus(tmp_path):
    return write_parts(tmp_path / "an4", train=3, dev=3, test=3)


def texts_in(folder):
    return [path.read_text().strip() for path in sorted((folder / "transcriptions").iterdir())]


@pytest.fixture
def told(monkeypatch, tmp_path):
    """A stand-in for lmplz, which keeps its arguments and the text, and answers with an ARPA."""
    script, folder = tmp_path / "lmplz", tmp_path / "told"
    folder.mkdir()
    (folder / "answer").write_text(MERGED)
    script.write_text(
        f"#!{sys.executable}\n"
        "import shutil, sys\n"
        "given = sys.argv[1:]\n"
        f"open('{folder}/arguments', 'w').write(' '.join(given))\n"
        f"shutil.copy(given[given.index('--text') + 1], '{folder}/text')\n"
        f"shutil.copy('{folder}/answer', given[given.index('--arpa') + 1])\n"
        "if '5' in given: sys.exit('no order 5 today')\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(estimation, "BUILT", script)
    return folder


def test_of_a_dataset_only_train_is_learned_from(corpus, told, tmp_path):
    out = tmp_path / "an4.arpa.gz"
    arguments = ["--order", "3", "--prune", "0,0,1", "--out", str(out)]
    main(["estimate", *arguments, "--dataset", "an4", "--root", str(corpus)])
    assert (told / "text").read_text().splitlines() == texts_in(corpus / "train")
    assert (told / "arguments").read_text().startswith("-o 3 --discount_fallback --prune 0 0 1 ")
    assert gzip.decompress(out.read_bytes()).decode() == MERGED
    assert out.read_bytes()[4:8] == bytes(4)  # no time of making


def test_datasets_give_train_and_dev(corpus):
    assert training_sentences("an4", str(corpus)) == texts_in(corpus / "train")
    assert dev_sentences("an4", str(corpus)) == texts_in(corpus / "dev")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "an4"], "--root"),
        (["--dataset", "custom_dir"], "no part 'train'"),
        (["--dataset", "an5"], "an5"),
        (["--dataset", "an4", "--root", "nowhere"], "language_model: .*nowhere"),
        ([], "either texts or --dataset"),
        (["nowhere.txt"], "nowhere.txt"),
        (["/dev/null"], "no sentence"),
    ],
)
def test_what_cannot_be_estimated_from_is_said(told, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(["estimate", "--order", "3", "--out", str(tmp_path / "x.arpa"), *arguments])
    assert not (tmp_path / "x.arpa").exists()


def test_without_lmplz_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(estimation, "BUILT", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="make lmplz"):
        estimation.estimate(["a"], 3, tmp_path / "x.arpa")


def test_what_lmplz_says_is_passed_on_and_nothing_is_left(told, tmp_path):
    for order, message in ((5, "no order 5 today"), (1, "at least 2")):
        with pytest.raises(ValueError, match=message):
            estimation.estimate(["a"], order, tmp_path / "x.arpa")
    assert not (tmp_path / "x.arpa").exists()


def test_lines_are_normalised_and_those_of_unknown_sound_left_out(tmp_path, capsys):
    plain, packed = tmp_path / "plain.txt", tmp_path / "packed.txt.gz"
    plain.write_text("Don’t stop!\n\nIn 1984\n—\nwell-known\n", encoding="utf-8")
    packed.write_bytes(gzip.compress(b"A LINE\n"))
    assert list(file_sentences([plain, packed])) == ["don't stop", "well known", "a line"]
    assert "1 lines left out" in capsys.readouterr().err


def test_a_text_that_is_cut_short_or_in_another_code_is_named(tmp_path):
    whole = gzip.compress("\n".join(map(str, range(5_000))).encode())
    (tmp_path / "cut.gz").write_bytes(whole[:-2_000])
    (tmp_path / "latin.txt").write_bytes("a café".encode("latin-1"))
    for name in ("cut.gz", "latin.txt"):
        with pytest.raises(ValueError, match=name):
            list(file_sentences([tmp_path / name]))


@pytest.mark.skipif(estimation.find_lmplz() is None, reason="no lmplz: make lmplz")
def test_real_estimates_repeat_and_sum_to_one(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    texts = ["a b", "a b c", "c a", "b b a"]
    first, second = tmp_path / "first.arpa.gz", tmp_path / "second.arpa.gz"
    for path in (first, second):
        estimation.estimate(texts, 3, path)
    assert first.read_bytes() == second.read_bytes()
    model, before, after = kenlm.Model(str(first)), kenlm.State(), kenlm.State()
    model.BeginSentenceWrite(before)
    words = ["a", "b", "c", "</s>", "<unk>"]
    assert sum(10 ** model.BaseScore(before, w, after) for w in words) == pytest.approx(1, abs=1e-4)


def test_perplexity_counts_ends_and_unknown_words(tmp_path, capsys):
    pytest.importorskip("kenlm")
    lm, text = tmp_path / "lm.arpa", tmp_path / "text.txt"
    lm.write_text(MERGED)
    text.write_text("know\nDon't what\n")
    # <s> know </s>: -0.3 -2 and -0.3; <s> don't: -0.4; what: back-off -0.4 and -1.5; </s>: -0.9
    main(["perplexity", str(lm), str(text)])
    all_words, known = (
        10 ** ((2.3 + 0.3 + 0.4 + 1.9 + 0.9) / 5),
        10 ** ((2.3 + 0.3 + 0.4 + 0.9) / 4),
    )
    said = capsys.readouterr().out
    assert f"perplexity {known:.2f} without, {all_words:.2f} with unknown words" in said
    assert "unknown: 1 of 3 words (33.33 %) in 2 sentences" in said


def test_the_command_prints_the_file_to_use(source, tmp_path, capsys):
    main(["prepare", str(source)])
    assert Path(capsys.readouterr().out.strip()) == prepared(source)
    main(["prepare", str(source), "--out", str(tmp_path / "x.arpa")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "x.arpa")
    with pytest.raises(SystemExit, match="overwritten"):
        main(["prepare", str(source), "--out", str(source)])
