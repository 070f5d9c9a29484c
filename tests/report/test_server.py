"""Report pages over HTTP: kept current, read only, and for this machine alone."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import shiftbench
from shiftbench.cli import main, serve
from shiftbench.core import mirror, remote
from shiftbench.core.errors import InputError, StorageError
from shiftbench.leaderboard import store
from shiftbench.report.live import SHARE, LivePage, Seen
from shiftbench.report.server import ReportServer, is_own_host

from tests.leaderboard.records import run

EVIL = "<img src=x onerror=alert(1)>"


class Board:
    """Results whose rows a test changes, and a clock that it moves."""

    def __init__(self) -> None:
        self.version, self.made, self.now = "v1", 0, 0.0
        self.problem: str | None = None
        self.slow = threading.Event()
        self.slow.set()

    def look(self) -> Seen:
        if self.problem:
            raise InputError(self.problem)
        return Seen(self.version, 3)

    def make(self, version: str) -> str:
        assert self.slow.wait(10)
        if self.problem:
            raise InputError(self.problem)
        self.made += 1
        self.now += 2  # seconds that it takes
        return f"<p>{version}</p>"

    def page(self, title: str = "one") -> LivePage:
        return LivePage(title, self.look, self.make, lambda: self.now)


def test_a_page_is_made_once_until_rows_change() -> None:
    board = Board()
    live = board.page()
    assert live.page().body == live.page().body == b"<p>v1</p>" and board.made == 1
    board.version, board.now = "v2", board.now + 1 + SHARE * 2
    thread = live.refresh()
    assert thread is not None
    thread.join(10)
    assert live.page().body == b"<p>v2</p>" and board.made == 2
    assert live.state() == {"version": "v2", "runs": 3, "problem": None}


def test_a_page_is_made_again_no_sooner_than_it_may_and_the_old_one_is_shown_meanwhile() -> None:
    board = Board()
    live = board.page()
    live.page()
    board.version, board.now = "v2", board.now + 1.5
    assert live.refresh() is None  # five times as long as it took has not passed
    assert live.page().body == b"<p>v1</p>"
    board.now += SHARE * 2
    board.slow.clear()
    thread = live.refresh()
    assert thread is not None and live.refresh() is None
    assert live.page().body == b"<p>v1</p>"
    board.slow.set()
    thread.join(10)
    assert live.page().body == b"<p>v2</p>"


def test_rows_that_cannot_be_read_leave_the_page_as_it_was_and_are_told() -> None:
    board = Board()
    live = board.page()
    board.problem = "broken.parquet: cannot be read"
    with pytest.raises(InputError, match="cannot be read"):
        live.page()
    board.problem, board.now = None, board.now + 2
    assert live.page().body == b"<p>v1</p>"
    board.problem, board.now = "gone", board.now + 2
    assert live.page().body == b"<p>v1</p>" and live.state()["problem"] == "gone"
    board.problem, board.now = None, board.now + 2
    assert live.state()["problem"] is None


@contextmanager
def served(pages: dict[str, LivePage]) -> Iterator[ReportServer]:
    server = ReportServer(pages, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def ask(
    server: ReportServer, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    try:
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_one_page_is_at_the_root_with_its_state() -> None:
    with served({"": Board().page()}) as server:
        answer, body = ask(server, "/")
        assert (answer.status, body) == (200, b"<p>v1</p>")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Python" not in answer.headers["Server"]
        again, nothing = ask(server, "/", If_None_Match=answer.headers["ETag"])
        assert (again.status, nothing) == (304, b"")
        head, nothing = ask(server, "/", "HEAD")
        assert (head.status, head.headers["Content-Length"], nothing) == (200, "9", b"")
        state, body = ask(server, "/state")
        assert state.headers["Content-Type"].startswith("application/json")
        assert json.loads(body) == {"version": "v1", "runs": 3, "problem": None}


def test_several_pages_are_listed_and_their_names_are_escaped() -> None:
    with served({"all": Board().page("all together"), "1": Board().page(EVIL)}) as server:
        _, body = ask(server, "/")
        assert b"/all/" in body and b"all together" in body
        assert b"<img" not in body and b"&lt;img" in body
        answer, _ = ask(server, "/1")
        assert (answer.status, answer.headers["Location"]) == (308, "/1/")
        assert ask(server, "/1/?from=x")[0].status == 200
        assert ask(server, "/1/state")[0].status == 200
        assert ask(server, "/2/")[0].status == ask(server, "/state")[0].status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/..\\x",
        "/%00",
        "/page.css",
    ],
)
def test_nothing_of_the_file_system_is_served(path: str) -> None:
    with served({"": Board().page()}) as server:
        answer, body = ask(server, path)
        assert answer.status == 404 and b"root:" not in body


def test_a_request_for_no_address_is_refused_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with served({"": Board().page()}) as server:
        assert ask(server, "http://[", Host="127.0.0.1")[0].status == 400
    assert capsys.readouterr().err == ""


def test_whoever_goes_away_in_the_middle_leaves_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with served({"": Board().page()}) as server:
        with socket.create_connection(server.server_address[:2]) as gone:
            gone.sendall(b"GET / HT")
            # Closed so, the other side is told of a reset, and not of an end.
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert ask(server, "/")[0].status == 200
    assert capsys.readouterr().err == ""


def test_nothing_can_be_changed_or_asked_for_under_another_name() -> None:
    board = Board()
    with served({"": board.page()}) as server:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            answer, _ = ask(server, "/", method)
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
            assert answer.headers["X-Frame-Options"] == "DENY"
        for host in (
            "evil.example",
            "evil.example:8421",
            "localhost.evil.example",
            "",
            "a@localhost",
        ):
            answer, body = ask(server, "/", Host=host)
            assert answer.status == 421 and b"v1" not in body
        assert board.made == 0
        assert ask(server, "/", Host="localhost:9000")[0].status == 200  # through ssh -L


def test_own_names_are_addresses_localhost_and_the_one_that_is_listened_on() -> None:
    for host in ("localhost", "127.0.0.1:80", "[::1]:80", "10.1.2.3", "Head.Node:8421"):
        assert is_own_host(host, "head.node")
    for host in (None, "", "evil.example", "127.0.0.1.evil.example", "localhost:x", "[::1", "x/y"):
        assert not is_own_host(host, "127.0.0.1")


def test_a_port_that_is_taken_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: cannot listen there"):
            ReportServer({}, "127.0.0.1", port)
    with pytest.raises(InputError, match=r"--host no\.such\.host\.invalid"):
        ReportServer({}, "no.such.host.invalid", 0)


def test_the_report_is_served_and_follows_the_rows(tmp_path: Path) -> None:
    values = {"id-test": 0.7, "imagenet-r": 0.5}
    a, b = tmp_path / "a", tmp_path / "b"
    store.write_run(a, "r1", run("r1", values, label="my-alpha", shifts=("imagenet-r",)))
    store.write_run(b, "r2", run("r2", values, label="my-beta", shifts=("imagenet-r",)))
    before = set(tmp_path.rglob("*"))
    (alone,) = serve.pages_of([str(a)]).values()
    page = alone.page()
    assert b"my-alpha" in page.body and b"my-beta" not in page.body
    assert f'data-version="{page.version}"'.encode() in page.body
    assert b"connect-src 'self'" in page.body
    together = serve.pages_of([str(a), str(b)])
    assert [*together] == ["all", "1", "2"]
    body = together["all"].page().body
    assert b"my-alpha" in body and b"my-beta" in body
    assert set(tmp_path.rglob("*")) == before  # it only reads
    store.write_run(a, "r3", run("r3", values, label="my-gamma", shifts=("imagenet-r",)))
    (fresh,) = serve.pages_of([str(a)]).values()
    assert fresh.page().version != page.version


def test_while_a_store_is_away_the_page_stays_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*arguments: object, **options: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES_S", ())
    url = f"file://{tmp_path / 'store'}"
    store.write_run(mirror.opened(url), "r1", run("r1", {"id-test": 0.7}))
    monkeypatch.setattr("shiftbench.report.live.LOOK_EVERY_S", 0.0)
    pages = serve.pages_of([url])
    board = shiftbench.Leaderboard(url)
    with served(dict(pages)) as server, monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.local.LocalFileSystem.find", away)
        answer, body = ask(server, "/")  # which never was made
        assert (answer.status, body.count(b"\n")) == (503, 1) and b"no route to host" in body
        assert "no route to host" in json.loads(ask(server, "/state")[1])["problem"]
        with pytest.raises(InputError, match=r"^file://.*no route to host"):
            board.rows()
        patch.undo()
        assert ask(server, "/")[0].status == 200
        patch.setattr("fsspec.implementations.local.LocalFileSystem.find", away)
        assert ask(server, "/")[0].status == 200
        assert "no route to host" in json.loads(ask(server, "/state")[1])["problem"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_that_a_store_does_not_give_is_told_as_rows_that_cannot_be_read_are() -> None:
    def make(version: str) -> str:
        raise StorageError("s3://bucket/runs/a1/predictions.parquet: cannot be read")

    with served({"": LivePage("one", lambda: Seen("v1", 1), make)}) as server:
        answer, body = ask(server, "/")
        assert answer.status == 503 and b"predictions.parquet: cannot be read" in body


def test_ctrl_c_ends_the_command_with_the_usual_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write_run(tmp_path, "r1", run("r1", {"id-test": 0.7}))

    def interrupted(server: ReportServer) -> None:
        assert server.server_address[0] == "127.0.0.1"
        raise KeyboardInterrupt

    monkeypatch.setattr(ReportServer, "serve_forever", interrupted)
    assert main(["serve", "--results", str(tmp_path), "--port", "0"]) == 130
    assert "Serving at http://127.0.0.1:" in capsys.readouterr().out
    assert main(["serve", "--results", str(tmp_path / "no")]) == 2
