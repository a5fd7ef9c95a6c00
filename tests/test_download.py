"""Fetching from a server that fails in every way: the destination is right, or it is not there."""

import contextlib
import errno
import gzip
import hashlib
import inspect
import io
import shutil
import socket
import struct
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import download
from asrlib.download import Downloader, DownloadError, Patience, Resource, Source, load_manifest
from asrlib.download import fetch as fetch_module
from asrlib.download import transfer as transfer_module
from asrlib.download.extract import extract

CONTENT = bytes(range(256)) * 400
WRONG = CONTENT[:-1] + b"!"
SIZE = len(CONTENT)


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's plan for the path says; see ``Server.offer``."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server.owner
        asked = self.headers["Range"]
        server.requests.append((self.path, asked))
        server.agents.add(self.headers["User-Agent"])
        if self.path not in server.plans:
            return self.send_error(404)
        contents, plan = server.plans[self.path]
        # The last trick of a plan is the one that lasts.
        trick = plan.pop(0) if len(plan) > 1 else plan[0]
        with contextlib.suppress(OSError):  # the client may have gone
            return self.answer(contents, asked, trick)

    def answer(self, content, asked, trick):
        kind, _, number = trick.partition(" ")
        if kind == "status":
            return self.send_error(int(number))
        content = WRONG if kind == "wrong" else content
        start = int(asked[6:-1]) if asked and kind != "ignore-range" else 0
        if start >= len(content) > 0 and asked:
            return self.send_error(416)
        rest = content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if kind == "other-range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if kind != "no-length":
            self.send_header("Content-Length", str(len(rest) + int(number if kind == "lie" else 0)))
        self.end_headers()
        self.wfile.write(rest[: int(number)] if kind in ("cut", "reset", "stall") else rest)
        if kind == "stall":
            self.server.owner.closing.wait(10)
        if kind == "reset":  # close() sends RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return None


class Server:
    """A web server on this machine, which notes what it is asked for."""

    def __init__(self):
        self.plans, self.requests, self.agents = {}, [], set()
        self.closing = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.owner = self
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def offer(self, path, *tricks, content=CONTENT):
        """Serves ``content``: one trick for each request, the last for all that follow.

        ok; wrong: other bytes; cut N, reset N, stall N: so after N bytes; lie N: announces N bytes
        more; no-length; ignore-range; other-range; status N.
        """
        self.plans[path] = (content, list(tricks) or ["ok"])
        return Source("url", self.url + path)

    @property
    def ranges(self):
        return [asked for _, asked in self.requests]

    def close(self):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(scope="module")
def running_server():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        server = Server()
        yield server
        server.close()


@pytest.fixture
def server(running_server):
    running_server.plans, running_server.requests = {}, []
    return running_server


@pytest.fixture
def naps():
    return []


@pytest.fixture
def downloader(tmp_path, naps):
    return make_downloader(tmp_path / "root", naps)


def make_downloader(root, naps, mirror=None, attempts=3):
    patience = Patience(attempts, timeout=0.3, sleep=naps.append)
    downloader = Downloader(root, mirror, patience, say=lambda line: downloader.said.append(line))
    downloader.said = []
    return downloader


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def plain(*sources, content=CONTENT, **other):
    entry = {"sha256": sha256(content), "size": len(content)} | other
    return Resource(name="plain", destination="data/file.bin", sources=sources, **entry)


def tar_gz(members):
    """{name: content}, or a ready TarInfo for what is no file, as a ``.tar.gz``."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


CORPUS = tar_gz(
    {"Corpus/README.TXT": b"read me", "Corpus/dev/1/a.txt": b"a", "Corpus/dev/1/b.bin": CONTENT}
)


def packed(*sources, content=CORPUS, **other):
    entry = {"sha256": sha256(content), "size": len(content), "folder": "Corpus/dev"} | other
    return Resource(
        name="packed",
        destination="data/Corpus/dev",
        archive="dev.tar.gz",
        sources=sources,
        **entry,
    )


def names_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_file_comes_with_its_bytes_and_nothing_else_stays(server, downloader):
    path = downloader.get(plain(server.offer("/file.bin")))
    assert path.read_bytes() == CONTENT
    assert names_below(downloader.root) == {"data/file.bin"}
    assert server.requests == [("/file.bin", None)]
    assert server.agents == {transfer_module.USER_AGENT}
    assert "sha256 is right" in downloader.said[0]


@pytest.mark.parametrize(("make", "path"), [(plain, "/file.bin"), (packed, "/dev.tar.gz")])
def test_what_is_there_is_not_asked_for_again(server, downloader, make, path):
    content = CONTENT if make is plain else CORPUS
    resource = make(server.offer(path, content=content))
    downloader.get(resource)
    server.requests.clear()
    downloader.get(resource)
    assert server.requests == []
    assert downloader.said[-1].endswith("is there already")


def test_a_file_that_is_not_the_published_one_is_replaced(server, downloader):
    destination = downloader.root / "data/file.bin"
    destination.parent.mkdir(parents=True)
    destination.write_bytes(WRONG)
    downloader.get(plain(server.offer("/file.bin")))
    assert destination.read_bytes() == CONTENT
    assert "will be replaced" in downloader.said[0]


@pytest.mark.parametrize("end", ["cut", "reset", "stall"])
def test_after_a_broken_connection_only_the_rest_is_asked_for(server, downloader, naps, end):
    half = SIZE // 2
    path = downloader.get(plain(server.offer("/file.bin", f"{end} {half}", "ok")))
    assert path.read_bytes() == CONTENT
    first, second = server.ranges
    came = int(second[6:-1])
    assert first is None
    # A reset may overtake bytes that were on their way.
    assert came == half or (end == "reset" and came < half)
    assert naps == [1.0]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server, downloader):
    resource = plain(server.offer("/file.bin", "cut 1000", "status 503"))
    with pytest.raises(DownloadError, match="HTTP 503"):
        downloader.get(resource)
    assert names_below(downloader.root) == {"data/file.bin.part"}
    server.offer("/file.bin")
    assert downloader.get(resource).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=1000-"


def test_another_mirror_goes_on_with_what_the_first_one_sent(server, downloader):
    first, second = server.offer("/a", "cut 1000", "status 404"), server.offer("/b")
    assert downloader.get(plain(first, second)).read_bytes() == CONTENT
    assert server.requests[-1] == ("/b", "bytes=1000-")


def test_a_complete_partial_file_needs_no_server(server, downloader):
    part = downloader.root / "data/file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert downloader.get(plain(server.offer("/file.bin"))).read_bytes() == CONTENT
    assert server.requests == []


def test_a_server_that_ignores_ranges_starts_over(server, downloader):
    resource = plain(server.offer("/file.bin", "cut 1000", "ignore-range"))
    assert downloader.get(resource).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_bytes_of_another_range_are_never_appended(server, downloader):
    bad = server.offer("/a", "cut 1000", "other-range")
    assert downloader.get(plain(bad, server.offer("/b"))).read_bytes() == CONTENT
    assert server.requests[-1] == ("/b", "bytes=1000-")


def test_attempts_are_bounded_and_wait_longer_each_time(server, downloader, naps):
    with pytest.raises(DownloadError, match="HTTP 500"):
        downloader.get(plain(server.offer("/file.bin", "status 500")))
    assert len(server.requests) == 3
    assert naps == [1.0, 2.0]


def test_progress_renews_the_patience(server, downloader, naps):
    resource = plain(server.offer("/file.bin", f"cut {SIZE // 8}"))
    assert downloader.get(resource).read_bytes() == CONTENT
    assert len(server.requests) == 8 and set(naps) == {1.0}


def test_a_server_that_recovers_is_enough(server, downloader):
    source = server.offer("/file.bin", "status 500", "status 429", "ok")
    assert downloader.get(plain(source)).read_bytes() == CONTENT


def test_a_missing_file_is_looked_for_at_the_next_source(server, downloader, naps):
    gone = Source("url", f"{server.url}/gone")
    assert downloader.get(plain(gone, server.offer("/file.bin"))).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/gone", "/file.bin"]
    assert naps == []


def test_wrong_bytes_are_removed_and_the_next_source_begins_anew(server, downloader):
    bad, good = server.offer("/a", "wrong"), server.offer("/b")
    assert downloader.get(plain(bad, good)).read_bytes() == CONTENT
    assert server.requests == [("/a", None), ("/b", None)]


def test_wrong_bytes_everywhere_leave_nothing(server, downloader):
    with pytest.raises(DownloadError, match=r"sha256 [0-9a-f]{64} instead of"):
        downloader.get(plain(server.offer("/a", "wrong"), server.offer("/b", "wrong")))
    assert names_below(downloader.root) == set()


def test_a_source_is_not_blamed_for_a_partial_file_of_another(server, downloader):
    part = downloader.root / "data/file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"an error page")
    assert downloader.get(plain(server.offer("/file.bin"))).read_bytes() == CONTENT
    assert server.ranges == ["bytes=13-", None]


@pytest.mark.parametrize("lie", ["lie 10", "lie -10"])
def test_a_length_that_is_not_the_known_size_is_refused_at_once(server, downloader, lie):
    bad, good = server.offer("/a", lie), server.offer("/b")
    assert downloader.get(plain(bad, good)).read_bytes() == CONTENT
    assert server.requests == [("/a", None), ("/b", None)]


def test_a_length_that_is_too_long_does_no_harm_where_the_size_is_unknown(server, downloader):
    resource = plain(server.offer("/a", "lie 10"), size=None)
    assert downloader.get(resource).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={SIZE}-"]  # and there is nothing left


def test_a_length_that_is_too_short_is_noticed_where_the_size_is_unknown(server, downloader):
    bad, good = server.offer("/a", "lie -10"), server.offer("/b")
    assert downloader.get(plain(bad, good, size=None)).read_bytes() == CONTENT
    assert server.requests == [("/a", None), ("/b", None)]


def test_a_server_need_not_announce_a_length(server, downloader):
    source = server.offer("/a", "no-length")
    assert downloader.get(plain(source, size=None)).read_bytes() == CONTENT


def test_a_mirror_with_a_shorter_file_does_not_cost_the_partial_one(server, downloader):
    short = server.offer("/short", content=CONTENT[:500])
    first, last = server.offer("/a", "cut 1000", "status 404"), server.offer("/b")
    assert downloader.get(plain(first, short, last)).read_bytes() == CONTENT
    assert server.ranges[-2:] == ["bytes=1000-"] * 2


def test_a_partial_file_longer_than_the_whole_is_begun_anew(server, downloader):
    part = downloader.root / "data/file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT * 2)
    assert downloader.get(plain(server.offer("/file.bin"))).read_bytes() == CONTENT
    assert server.ranges == [None]


FAULTS = st.sampled_from(
    [
        *("ok", "wrong", "cut 0", "cut 70", "reset 9000", "lie 7", "lie -7", "no-length"),
        *("ignore-range", "other-range", "status 500", "status 404", "status 416"),
    ]
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    plans=st.lists(st.lists(FAULTS, min_size=1, max_size=5), min_size=1, max_size=2),
    sized=st.booleans(),
    archive=st.booleans(),
)
def test_whatever_happens_the_destination_is_right_or_absent(
    server, tmp_path_factory, plans, sized, archive
):
    """And once a server is well again, what was left behind never prevents the right result."""
    content, make = (CORPUS, packed) if archive else (CONTENT, plain)
    resource = make(
        *(server.offer(f"/{i}", *plan, content=content) for i, plan in enumerate(plans)),
        size=len(content) if sized else None,
    )
    downloader = make_downloader(tmp_path_factory.mktemp("any"), [])
    destination = downloader.root / resource.destination
    with contextlib.suppress(DownloadError):
        downloader.get(resource)
        assert destination.exists()
    if destination.exists():
        check_complete(destination)
    for i in range(len(plans)):
        server.offer(f"/{i}", content=content)
    check_complete(downloader.get(resource))
    left = {name for name in names_below(downloader.root) if ".part" in name or ".tmp" in name}
    assert left == set()
    shutil.rmtree(downloader.root)


def check_complete(destination):
    if destination.is_dir():
        assert (destination / "1/a.txt").read_bytes() == b"a"
        assert (destination / "1/b.bin").read_bytes() == CONTENT
    else:
        assert destination.read_bytes() == CONTENT


# Without a checksum


def test_without_a_sha256_size_and_gzip_decide(server, downloader):
    good = gzip.compress(CONTENT)
    bad = bytearray(good)
    bad[-6] ^= 1  # in the checksum that gzip itself keeps
    resource = Resource(
        name="lm",
        destination="lm.arpa.gz",
        sources=(server.offer("/a", content=bytes(bad)), server.offer("/b", content=good)),
        size=len(good),
    )
    assert downloader.get(resource).read_bytes() == good
    assert "no sha256 of it is known" in downloader.said[-1]
    assert [path for path, _ in server.requests] == ["/a", "/b"]
    downloader.get(resource)
    assert len(server.requests) == 2


# Archives


def test_an_archive_is_unpacked_and_removed(server, downloader):
    folder = downloader.get(packed(server.offer("/dev.tar.gz", content=CORPUS)))
    check_complete(folder)
    assert names_below(downloader.root / "data") == {
        "Corpus/README.TXT",
        "Corpus/dev/.asrlib-sha256",
        "Corpus/dev/1/a.txt",
        "Corpus/dev/1/b.bin",
    }


def test_files_beside_the_folder_are_not_overwritten(server, downloader):
    readme = downloader.root / "data/Corpus/README.TXT"
    readme.parent.mkdir(parents=True)
    readme.write_text("mine")
    downloader.get(packed(server.offer("/dev.tar.gz", content=CORPUS)))
    assert readme.read_text() == "mine"


def test_a_folder_from_elsewhere_is_left_alone(server, downloader):
    own = downloader.root / "data/Corpus/dev/own.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(DownloadError, match="was not made by"):
        downloader.get(packed(server.offer("/dev.tar.gz", content=CORPUS)))
    assert own.read_text() == "mine" and server.requests == []


def test_a_new_version_of_an_archive_replaces_the_old(server, downloader):
    downloader.get(packed(server.offer("/dev.tar.gz", content=CORPUS)))
    newer = tar_gz({"Corpus/dev/new.txt": b"new"})
    folder = downloader.get(packed(server.offer("/new", content=newer), content=newer))
    assert names_below(folder) == {"new.txt", ".asrlib-sha256"}


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return {name: member}


UNSAFE = {
    "parent": {"Corpus/dev/../../../escaped.txt": b"x"},
    "top parent": {"../escaped.txt": b"x"},
    "absolute": {"/tmp/asrlib-escaped.txt": b"x"},
    "backslash": {"Corpus\\..\\escaped.txt": b"x"},
    "symlink out": special("Corpus/dev/link", tarfile.SYMTYPE, "../../.."),
    "symlink absolute": special("Corpus/dev/link", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": special("Corpus/dev/link", tarfile.LNKTYPE, "/etc/passwd"),
    "device": special("Corpus/dev/null", tarfile.CHRTYPE),
    "pipe": special("Corpus/dev/pipe", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_an_unsafe_archive_leaves_nothing(server, downloader, kind):
    content = tar_gz({"Corpus/dev/first.txt": b"1"} | UNSAFE[kind])
    before = set(downloader.root.parent.rglob("*"))
    with pytest.raises(DownloadError, match="unsafe archive"):
        downloader.get(packed(server.offer("/dev.tar.gz", content=content), content=content))
    after = {path for path in downloader.root.parent.rglob("*") if path.is_file()}
    assert after - before == {downloader.root / "data/Corpus/dev.tar.gz.part"}
    assert not (downloader.root / "data/Corpus/dev").exists()


@pytest.mark.parametrize(
    "content", [CORPUS[: len(CORPUS) // 2], b"no archive", tar_gz({"Other/a.txt": b"a"})]
)
def test_a_useless_archive_leaves_no_folder(tmp_path, content):
    (tmp_path / "dev.tar.gz").write_bytes(content)
    with pytest.raises(DownloadError, match=r"is broken|holds no folder"):
        extract(tmp_path / "dev.tar.gz", "Corpus/dev", tmp_path / "dev", "stamp")
    assert names_below(tmp_path) == {"dev.tar.gz"}


def test_unpacking_that_was_stopped_goes_on_without_the_server(server, downloader, monkeypatch):
    resource = packed(server.offer("/dev.tar.gz", content=CORPUS))
    with monkeypatch.context() as patch:
        patch.setattr(fetch_module, "extract", interrupt)
        with pytest.raises(KeyboardInterrupt):
            downloader.get(resource)
    server.requests.clear()
    check_complete(downloader.get(resource))
    assert server.requests == []


def interrupt(*_):
    raise KeyboardInterrupt


# This machine


@pytest.mark.parametrize("make", [plain, packed])
def test_from_a_mirror_without_any_network(server, tmp_path, naps, make):
    resource = make(server.offer("/never"))
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    published = mirror / resource.filename
    published.write_bytes(CONTENT if make is plain else CORPUS)
    downloader = make_downloader(tmp_path / "root", naps, mirror)
    check_complete(downloader.get(resource))
    assert server.requests == []
    assert published.exists()


def test_a_mirror_with_the_wrong_file_is_passed_over(server, tmp_path, naps):
    (tmp_path / "file.bin").write_bytes(WRONG)
    downloader = make_downloader(tmp_path / "root", naps, tmp_path)
    assert downloader.get(plain(server.offer("/file.bin"))).read_bytes() == CONTENT


def test_a_file_of_the_repository(server, downloader, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_module, "REPOSITORY", tmp_path)
    (tmp_path / "shipped.bin").write_bytes(CONTENT)
    resource = plain(Source("file", "absent.bin"), Source("file", "shipped.bin"))
    assert downloader.get(resource).read_bytes() == CONTENT


def test_too_little_room_is_said_before_anything_is_asked_for(server, downloader, monkeypatch):
    usage = SimpleNamespace(free=SIZE - 1)
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match=r"disk is full.* needs 0\.1 MB more and has 0\.1 MB"):
        downloader.get(plain(server.offer("/file.bin")))
    assert server.requests == []
    usage.free = SIZE
    downloader.get(plain(server.offer("/file.bin")))


def test_a_disk_that_fills_up_keeps_what_has_come(server, downloader, monkeypatch):
    class Filling(io.FileIO):
        def write(self, data):
            super().write(data[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    resource = plain(server.offer("/file.bin"))
    with monkeypatch.context() as patch:
        patch.setattr(transfer_module, "open", Filling, raising=False)
        with pytest.raises(DownloadError, match="disk is full"):
            downloader.get(resource)
    assert names_below(downloader.root) == {"data/file.bin.part"}
    assert downloader.get(resource).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_a_disk_that_fills_up_while_unpacking_keeps_the_archive(server, downloader, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "copyfileobj", full)
        with pytest.raises(DownloadError, match="disk is full"):
            downloader.get(packed(server.offer("/dev.tar.gz", content=CORPUS)))
    assert names_below(downloader.root) == {"data/Corpus/dev.tar.gz.part"}


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path, naps):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(DownloadError, match=r"plain: .*root"):
        make_downloader(tmp_path / "root", naps).get(plain(server.offer("/file.bin")))


def test_offline_says_what_was_tried_and_what_to_do(downloader, naps):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        urls = [f"http://127.0.0.1:{closed.getsockname()[1]}/{i}" for i in range(2)]
        with pytest.raises(DownloadError) as caught:
            downloader.get(plain(*(Source("url", url) for url in urls)))
    message = str(caught.value)
    assert all(url in message for url in urls)
    assert "Is there a network?" in message and "--from DIR plain" in message
    assert naps == []


# Google Drive


def test_gdown_fetches_what_is_on_google_drive(downloader, monkeypatch):
    def fake(id, output, **options):
        assert id == "abc" and options["resume"]
        with open(output, "wb") as file:
            file.write(CONTENT)

    monkeypatch.setitem(sys.modules, "gdown", SimpleNamespace(download=fake))
    assert downloader.get(plain(Source("gdrive", "abc"))).read_bytes() == CONTENT
    assert names_below(downloader.root) == {"data/file.bin"}


def test_gdown_knows_the_options_that_it_is_given():
    gdown = pytest.importorskip("gdown")
    options = inspect.signature(gdown.download).parameters
    assert {"id", "output", "resume", "timeout", "retries", "quiet"} <= set(options)


def test_gdown_may_be_absent_or_fail_and_the_next_source_serves(server, downloader, monkeypatch):
    drive, web = Source("gdrive", "abc"), server.offer("/file.bin")
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DownloadError, match="needs gdown: pip install gdown"):
        downloader.get(plain(drive))

    def fake(**_):
        raise RuntimeError("quota exceeded")

    monkeypatch.setitem(sys.modules, "gdown", SimpleNamespace(download=fake))
    with pytest.raises(DownloadError, match="gdown: quota exceeded"):
        downloader.get(plain(drive))
    assert downloader.get(plain(drive, web)).read_bytes() == CONTENT
    assert sorted(path.name for path in (downloader.root / "data").iterdir()) == ["file.bin"]


# The manifest and the command


def test_the_shipped_manifest_is_well_formed():
    manifest = load_manifest()
    parts = [f"{kind}-{how}" for kind in ("dev", "test") for how in ("clean", "other")]
    parts += ["train-clean-100", "train-clean-360", "train-other-500"]
    lms = ["3-gram-pruned", "3-gram", "4-gram"]
    assert set(manifest.resources) >= {f"librispeech.{part}" for part in parts} | {
        f"lm.{lm}" for lm in lms
    }
    destinations = [resource.destination for resource in manifest.resources.values()]
    assert len(set(destinations)) == len(destinations)
    for resource in manifest.resources.values():
        assert resource.size and resource.sources
        for source in resource.sources:
            if source.kind == "url":
                assert source.where.startswith("https://")
                assert source.where.endswith("/" + resource.filename)


ENTRY = {"destination": "a.bin", "sha256": "0" * 64, "sources": [{"url": "https://x.org/a.bin"}]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"destination": "../a.bin"}, "leaves the folder"),
        ({"destination": "/a.bin"}, "leaves the folder"),
        ({"sha256": "abc"}, "no sha256"),
        ({"sha256": None}, "needs a sha256"),
        ({"archive": "a.tar.gz"}, "go together"),
        ({"archive": "a.tar.gz", "folder": "a", "sha256": None, "size": 1}, "unpacked only if"),
        ({"sources": [{"ftp": "x"}]}, "no such kind of source: ftp"),
        ({"sources": []}, "a: no sources"),
        ({"sources": [{"url": "file:///etc/passwd"}]}, "no http address"),
        ({"url": "https://x.org"}, "unexpected keyword"),
    ],
)
def test_a_manifest_with_a_mistake_is_refused(tmp_path, change, says):
    content = {"default": [], "resources": {"a": ENTRY | change}}
    OmegaConf.save(content, tmp_path / "resources.yaml")
    with pytest.raises((ValueError, TypeError), match=says):
        load_manifest(tmp_path / "resources.yaml")


@pytest.fixture
def run(server, tmp_path, monkeypatch):
    """The command with a manifest of two resources on the server, one of them the default."""
    entries = {
        "one": ENTRY | {"sources": [{"here": "one"}], "sha256": sha256(CONTENT), "size": SIZE},
        "two": ENTRY | {"destination": "two.bin", "sources": [{"here": "two"}]},
    }
    content = {"default": ["one"], "mirrors": {"here": [server.url]}, "resources": entries}
    OmegaConf.save(content, tmp_path / "resources.yaml")
    server.offer("/one")
    arguments = ["--manifest", str(tmp_path / "resources.yaml"), "--dest", str(tmp_path / "dest")]
    return lambda *more: download.main([*arguments, *more])


def test_the_command_fetches_the_default_and_tells_failure(run, tmp_path, capsys):
    assert run() == 0
    assert (tmp_path / "dest/a.bin").read_bytes() == CONTENT
    assert run("two", "one") == 1  # what follows a failure is still fetched
    said = capsys.readouterr()
    assert "two: no source helped" in said.err and "one: " in said.out


def test_the_command_lists_and_corrects_names(run, capsys):
    assert run("--list") == 0
    assert "a.bin" in capsys.readouterr().out
    assert run("onee") == 1
    assert "no resource 'onee'; there are one" in capsys.readouterr().err
    assert run("--from", "nowhere") == 1
    assert "no such folder" in capsys.readouterr().err


def test_without_a_default_the_command_says_so(capsys):
    if load_manifest().default:
        pytest.skip("something is shipped")
    assert download.main([]) == 1
    assert "nothing is shipped yet" in capsys.readouterr().err


def test_ctrl_c_leaves_a_file_to_go_on_with(run, server, tmp_path, monkeypatch, capsys):
    chunks = transfer_module._chunks

    def stopped(response, limit):
        yield next(chunks(response, 1000))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transfer_module, "_chunks", stopped)
        assert run() == 130
    assert "goes on when asked for again" in capsys.readouterr().err
    came = (tmp_path / "dest/a.bin.part").stat().st_size
    assert run() == 0
    assert server.ranges == [None, f"bytes={came}-"]
    assert (tmp_path / "dest/a.bin").read_bytes() == CONTENT
