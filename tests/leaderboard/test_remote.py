"""Results in an object store, which speaks S3: written, read, shared by several machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import fsspec
import pyarrow as pa
import pytest
import shiftbench
from moto.server import ThreadedMotoServer
from shiftbench.cli import main
from shiftbench.core import mirror, remote
from shiftbench.core.errors import InputError
from shiftbench.core.mirror import address, opened
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.leaderboard.leases import Leases, held_now, holds, seen
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import failed
from shiftbench.leaderboard.store import check_writable, compact, read, statuses, write_run
from shiftbench.suite.suite import Suite

from tests.leaderboard.records import info, run
from tests.leaderboard.small import QUIET, SUITE

SETS = {"id-test": 0.5, "imagenet-r": 0.25}
SECRET = "do-not-tell"  # noqa: S105 - of no store


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server of our own that speaks S3; nothing leaves this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"{host}:{port}"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@pytest.fixture
def bucket(endpoint: str) -> str:
    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=f"http://{endpoint}").create_bucket(Bucket=name)
    return f"s3://{name}/results?endpoint_override={endpoint}&scheme=http"


@pytest.fixture
def elsewhere(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes this another machine, and gives its mirror of the bucket.

    All have one cache of decoded images, so that what was checked is not checked again.
    """

    def change(name: str) -> Path:
        monkeypatch.setattr(mirror, "FOLDER", f"mirrors-{name}")
        return opened(bucket)

    return change


def objects(location: str) -> list[str]:
    return sorted(remote.Remote(location).all())


def content(location: str) -> bytes:
    place = remote.Remote(location)
    return b"".join(place.read(name) or b"" for name in objects(location))


def test_runs_go_to_a_bucket_and_back(bucket: str, elsewhere: Callable[[str], Path]) -> None:
    here = elsewhere("here")
    assert not here.is_dir()
    check_writable(here)
    assert objects(bucket) == []

    first, second = run("a1", SETS), run("b2", SETS, seed=1)
    write_run(here, "b2", second)
    write_run(here, "a1", failed(info("a1"), "power cut"))
    there = elsewhere("there")
    assert statuses(there) == {"a1": "failed", "b2": "done"}
    write_run(there, "a1", first)
    elsewhere("here")
    assert objects(bucket) == ["leaderboard/a1.parquet", "leaderboard/b2.parquet"]
    assert read(here).equals(pa.concat_tables([first, second]))

    # A copy of the rows is good on all machines, since times are the bucket's.
    assert compact(here, settled=-3600).runs == 2
    write_run(here, "b2", run("b2", {"id-test": 0.75}))
    there = elsewhere("there")
    assert statuses(there) == {"a1": "done", "b2": "done"}
    (there / "leaderboard" / "a1.parquet").chmod(0o600)
    (there / "leaderboard" / "a1.parquet").write_bytes(b"of another time, so not as it was copied")
    with pytest.raises(InputError, match=r"s3://bucket-.*/results/leaderboard/a1\.parquet") as no:
        read(there)
    assert "endpoint" not in str(no.value)


def test_a_done_row_is_not_replaced_by_a_failed_one_from_elsewhere(
    bucket: str, elsewhere: Callable[[str], Path]
) -> None:
    here = elsewhere("here")
    there = elsewhere("there")
    write_run(there, "a1", run("a1", SETS))
    elsewhere("here")
    write_run(here, "a1", failed(info("a1"), "power cut"))
    assert statuses(elsewhere("there")) == {"a1": "done"}
    write_run(here, "a1", failed(info("a1"), "power cut"))
    assert statuses(elsewhere("here")) == {"a1": "done"}


def test_one_of_two_machines_has_a_lease(bucket: str, elsewhere: Callable[[str], Path]) -> None:
    here = elsewhere("here")
    with Leases.of(here) as ours:
        assert ours.take("a1") is None
        there = elsewhere("there")
        with Leases.of(there) as theirs:
            held = theirs.take("a1")
            assert held is not None
            assert held.pid == os.getpid()
            assert {*held_now(there)} == {"a1"}
            assert holds(there, "a1", ours.token)
            before = theirs._storage.read("a1.1.json")
            assert before is not None
            ours._storage.touch("a1.1.json", before[0])
            after = theirs._storage.read("a1.1.json")
            assert after is not None
            assert after[0] == before[0]
            assert after[1] != before[1]  # it can be seen that its holder is at work
            ours.end("a1", "failed", "it diverged")
            assert theirs.take("a1") is None
            assert not holds(there, "a1", ours.token)
            assert [file.name for file in seen(there)["a1"].files] == ["a1.2.json", "a1.1.json"]
    assert [*seen(there)] == ["a1"]
    assert not held_now(there)


def test_a_bucket_that_is_not_there_is_refused_in_one_line(
    endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    location = f"s3://no-such-bucket/results?endpoint_override={endpoint}&scheme=http"
    with pytest.raises(InputError, match="results cannot be written there") as raised:
        check_writable(opened(location))
    assert "\n" not in str(raised.value)
    assert main(["report", "--results", location]) == 2
    assert "s3://no-such-bucket/results: there is no such folder" in capsys.readouterr().err


def test_a_store_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent(*arguments: object, **options: object) -> None:
        raise ConnectionError("Could not connect to the endpoint")

    monkeypatch.setattr(remote, "PAUSES_S", ())
    monkeypatch.setattr("s3fs.core.S3FileSystem.find", silent)
    assert main(["report", "--results", "s3://bucket/results?region=eu-central-1"]) == 2
    assert capsys.readouterr().err == (
        "error: s3://bucket/results: cannot be listed "
        "(ConnectionError: Could not connect to the endpoint)\n"
    )


def test_what_one_machine_did_another_reads_and_goes_on_with(
    bucket: str,
    elsewhere: Callable[[str], Path],
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SUITE)
    suite = Suite.load("small.yaml")
    here = elsewhere("here")
    done = launch(suite, here, InProcess(), QUIET)
    assert len(done.executed) == 3
    assert not done.failed
    folders = {name.split("/")[1] for name in objects(bucket) if name.startswith("runs/")}
    assert folders == {*done.plan.runs}
    ids = {run.label: run.id for run in done.plan.runs.values()}
    trained = {name for name in objects(bucket) if name.startswith(f"runs/{ids['full']}/")}
    assert {name.split("/")[2] for name in trained} == {
        *("run.json", "data.json", "fit.json", "metrics.parquet"),
        *("predictions.parquet", "weights.safetensors"),
    }
    assert SECRET.encode() not in content(bucket)

    there = elsewhere("there")
    assert not RunFolder(there / "runs" / ids["full"] / "x").weights.exists()
    assert [*there.rglob("weights.safetensors")] == []
    assert launch(suite, there, InProcess(), QUIET).executed == frozenset()
    assert [*there.rglob("*.safetensors")] == [*there.rglob("predictions.parquet")] == []
    assert main(["report", "small.yaml", "--results", bucket]) == 0
    assert "wise-ft" in (tmp_path / "small.md").read_text()
    assert main(["verify", "--all", "--results", bucket]) == 0
    assert main(["status", "small.yaml", "--results", bucket, "--json"]) == 0
    assert main(["show", ids["full"], "--results", bucket]) == 0
    assert main(["export", "--results", bucket, "--to", "bundle.zip"]) == 0
    told = capsys.readouterr()
    assert str(tmp_path) not in told.out
    assert SECRET not in told.out + told.err
    model = shiftbench.load_model(bucket, ids["full"])
    assert model is not None

    # Another takes the trained run up where nothing but its weights is wanted.
    remote.Remote(bucket).delete([f"leaderboard/{ids['wise-ft']}.parquet"])
    remote.Remote(bucket).delete(
        name for name in objects(bucket) if name.startswith(f"runs/{ids['wise-ft']}/")
    )
    third = elsewhere("third")
    again = launch(suite, third, InProcess(), QUIET)
    assert again.executed == {ids["wise-ft"]}
    rows = {row.run_id: row for row in shiftbench.Leaderboard(bucket).records() if row.primary}
    assert rows.keys() == {*ids.values()}
    assert main(["remove", ids["wise-ft"], "--yes", "--results", bucket]) == 0
    assert not [name for name in objects(bucket) if ids["wise-ft"] in name]
    assert main(["gc", "--weights", "--yes", "--results", bucket]) == 0
    assert not [name for name in objects(bucket) if name.endswith("weights.safetensors")]
    assert address(third) == bucket
    # Weights that are wanted after all are made again, by a machine that still has a copy or not.
    assert launch(suite, elsewhere("here"), InProcess(), QUIET).executed == {ids["wise-ft"]}
    assert statuses(elsewhere("third")) == dict.fromkeys(ids.values(), "done")


@pytest.mark.slow
@pytest.mark.cluster
def test_two_launches_at_once_do_each_run_once(bucket: str, world: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SUITE.replace("budget:", "seeds: [0, 1]\nbudget:"))
    words = [sys.executable, "-m", "shiftbench", "run", "small.yaml", "--results", bucket]
    launches = []
    for name in ("here", "there"):
        cache = tmp_path / name
        shutil.copytree(world, cache / world.name)
        launches.append(
            subprocess.Popen(
                [*words, "--executor", "in-process"],
                cwd=tmp_path,
                env=os.environ | {"SHIFTBENCH_CACHE": str(cache)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for launched in launches:
        printed = launched.communicate()[0]
        assert launched.returncode == 0, printed
        assert "5 runs: 0 done, 5 to do" in printed
    leases = seen(opened(bucket))
    assert statuses(opened(bucket)) == dict.fromkeys(leases, "done")
    # Who found one taken waited, and made no lease of its own.
    assert [(len(found.files), found.lease.ended) for found in leases.values()] == [(1, "done")] * 5
    assert {found.lease.pid for found in leases.values()} <= {one.pid for one in launches}
