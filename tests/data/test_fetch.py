"""Downloads, against a server on this machine that misbehaves in every way."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.downloads import fetch as fetching
from shiftbench.data.downloads import transfer
from shiftbench.data.downloads.catalogue import CATALOGUE, Download, Remote
from shiftbench.data.downloads.fetch import fetch
from shiftbench.data.sources.registry import SOURCES

CONTENT = bytes(range(256)) * 20_000  # 5 MB: several blocks


@dataclass
class Server:
    """What is served at each path, how, and what was asked for."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    break_after: int | None = None  # bytes of each answer, until it is reset
    html: bool = False
    etag: str = '"1"'
    ranges: bool = True


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            server.asked.append((self.path, asked))
            if self.path not in server.files:
                self.send_error(404)
                return
            body, status = server.files[self.path], 200
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            changed = self.headers.get("If-Range") not in (None, server.etag)
            if asked and server.ranges and not changed:
                if start >= len(body):
                    self.send_error(416)
                    return
                status, total = 206, len(body)
                body = body[start:]
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            kind = "text/html" if server.html else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", server.etag)
            self.end_headers()
            self.wfile.write(body[: server.break_after])

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Server(files={"/a.bin": CONTENT})
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(state)) as http:
        state.address = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def checksum(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def plain(server: Server, *paths: str, **changes: object) -> dict[str, Download]:
    """A catalogue of one plain file."""
    urls = tuple(server.address + path for path in paths or ("/a.bin",))
    remote = Remote("a.bin", urls, len(CONTENT), checksum(CONTENT), folder="set")
    return {"set": Download((replace(remote, **changes),), ("set/a.bin",), "https://home")}  # type: ignore[arg-type]


def test_downloads_once(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    assert fetch("set", tmp_path / "new", lambda *a: seen.append(a), plain(server))
    assert (tmp_path / "new/set/a.bin").read_bytes() == CONTENT
    assert seen[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert not fetch("set", tmp_path / "new", None, plain(server))
    assert len(server.asked) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]


def test_goes_on_after_interruptions(server: Server, tmp_path: Path) -> None:
    server.break_after = 2_000_000
    fetch("set", tmp_path, None, plain(server))
    assert (tmp_path / "set/a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["", "bytes=2000000-", "bytes=4000000-"]


def test_goes_on_in_another_process_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after = 1_500_000

    def stop(_: str, done: int, __: int | None) -> None:
        if done > 1_000_000:
            raise KeyboardInterrupt

    for catalogue in (plain(server), plain(server, checksum="", size=None)):
        server.asked.clear()
        root = tmp_path / str(len(catalogue["set"].files[0].checksum))
        with pytest.raises(KeyboardInterrupt):
            fetch("set", root, stop, catalogue)
        (part,) = (root / ".downloads").glob("*.part")
        there = part.stat().st_size
        fetch("set", root, None, catalogue)
        assert server.asked[1] == ("/a.bin", f"bytes={there}-")
        assert (root / "set/a.bin").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_begun_anew(server: Server, tmp_path: Path) -> None:
    catalogue = plain(server, checksum="", size=None)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("set", tmp_path, stop, catalogue)
    server.files["/a.bin"] = bytes(reversed(CONTENT))
    server.etag = '"2"'
    fetch("set", tmp_path, None, catalogue)
    assert (tmp_path / "set/a.bin").read_bytes() == bytes(reversed(CONTENT))


def test_a_server_without_ranges_is_asked_for_all(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads/a.bin.part").write_bytes(b"0" * 1000)
    fetch("set", tmp_path, None, plain(server))
    assert (tmp_path / "set/a.bin").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_begun_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads/a.bin.part").write_bytes(CONTENT + b"more")
    fetch("set", tmp_path, None, plain(server, "/a.bin", "/a.bin"))
    assert (tmp_path / "set/a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path, algorithm: str) -> None:
    wrong = checksum(b"other", algorithm)
    with pytest.raises(InputError, match=f"another {algorithm} sum.*https://home"):
        fetch("set", tmp_path, None, plain(server, checksum=wrong))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_wrong_size_is_noticed_before_the_download(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="5,120,000 bytes instead of 7"):
        fetch("set", tmp_path, None, plain(server, size=7))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_web_pages_are_not_data(server: Server, tmp_path: Path) -> None:
    server.html = True
    with pytest.raises(InputError, match="web page"):
        fetch("set", tmp_path, None, plain(server))
    server.html = False
    server.files["/a.bin"] = b"\n<!DOCTYPE html><html>log in</html>"
    with pytest.raises(InputError, match="web page"):
        fetch("set", tmp_path, None, plain(server, size=None, checksum=""))


def test_the_next_mirror_helps(server: Server, tmp_path: Path) -> None:
    server.files["/wrong"] = b"0" * len(CONTENT)
    catalogue = plain(server, "/absent", "/wrong", "/a.bin")
    fetch("set", tmp_path, None, catalogue)
    assert [path for path, _ in server.asked] == ["/absent", "/wrong", "/a.bin"]
    assert (tmp_path / "set/a.bin").read_bytes() == CONTENT


def test_mirrors_that_all_fail_are_named(server: Server, tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9/a.bin"
    remote = Remote("a.bin", (f"{server.address}/absent", closed, "file:///a.bin"), folder="set")
    catalogue = {"set": Download((remote,), ("set/a.bin",), "https://home")}
    with pytest.raises(InputError) as error:
        fetch("set", tmp_path, None, catalogue)
    message = str(error.value)
    for part in ("HTTP 404", closed, "not an http address", "https://home"):
        assert part in message
    assert "\n" not in message


def tar_of(files: dict[str, bytes], form: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=form) as content:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            content.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for name, data in files.items():
            content.writestr(name, data)
    return buffer.getvalue()


def archive(server: Server, content: bytes) -> dict[str, Download]:
    server.files["/a.tar"] = content
    remote = Remote("a.tar", (f"{server.address}/a.tar",), len(content), checksum(content))
    return {"set": Download((remote,), ("folder",), "https://home")}


@pytest.mark.parametrize(
    "content",
    [
        tar_of({"folder/x/1": b"one", "folder/2": b"two", "junk": b""}),
        tar_of({"folder/x/1": b"one", "folder/2": b"two"}, "w"),
        zip_of({"folder/x/1": b"one", "folder/2": b"two", "__MACOSX/2": b""}),
    ],
    ids=["tar.gz", "tar", "zip"],
)
def test_archives_are_unpacked_whole(server: Server, tmp_path: Path, content: bytes) -> None:
    assert fetch("set", tmp_path, None, archive(server, content))
    assert (tmp_path / "folder/x/1").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def _linked() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as content:
        entry = tarfile.TarInfo("folder")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
        content.addfile(entry)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        tar_of({"../outside": b"x", "folder/1": b""}),
        _linked(),
        zip_of({"../outside": b"x", "folder/1": b""}),
        zip_of({"folder/../../outside": b"x"}),
        b"no archive at all",
        tar_of({"folder/1": bytes(1_000_000)}, "w")[:600_000],
        tar_of({"other/1": b"x"}),
    ],
    ids=["tar ..", "tar link", "zip ..", "zip inner ..", "none", "truncated", "other content"],
)
def test_unsafe_and_broken_archives_leave_nothing(
    server: Server, tmp_path: Path, content: bytes
) -> None:
    root = tmp_path / "a/b"
    with pytest.raises(InputError, match=r"a\.tar") as error:
        fetch("set", root, None, archive(server, content))
    assert "\n" not in str(error.value)
    assert not (root / "folder").exists()
    assert not list(tmp_path.rglob("outside"))


def test_unpacking_that_was_killed_needs_no_second_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = archive(server, tar_of({"folder/1": b"one"}))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "_extract", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch("set", tmp_path, None, catalogue)
    fetch("set", tmp_path, None, catalogue)
    assert len(server.asked) == 1
    assert (tmp_path / "folder/1").read_bytes() == b"one"


def test_a_root_that_cannot_be_written_is_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file"):
        fetch("set", tmp_path / "file", None, plain(server))


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cifar10, cifar10\.1, cifar10\.2, imagenet-v2"):
        fetch("imagenet", tmp_path)


def test_the_catalogue_makes_what_the_sources_read() -> None:
    sources = [SOURCES.load(kind) for kind in SOURCES.entries()]
    fetched = {source.fetched_as: source for source in sources if source.fetched_as}
    assert set(fetched) == set(CATALOGUE)
    for name, download in CATALOGUE.items():
        assert {made.split("/")[0] for made in download.makes} <= set(fetched[name].places)
        assert all(url.startswith("https://") for file in download.files for url in file.urls)
        lengths = {"sha256": 64, "md5": 32, "": 0}
        for file in download.files:
            algorithm, _, digits = file.checksum.partition(":")
            assert len(digits) == lengths[algorithm]
            assert bool(file.checksum) == bool(file.size)
