import uuid
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.leaderboard.schema import failed
from shiftbench.leaderboard.store import (
    check_writable,
    compact,
    exists,
    read,
    statuses,
    write_run,
)

from tests.leaderboard.records import info, run

SETS = {"id-test": 0.5, "imagenet-r": 0.25}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server of our own that speaks S3; nothing leaves this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint) -> str:
    name = f"bucket-{uuid.uuid4().hex}"
    options = f"endpoint_override={endpoint}&scheme=http&allow_bucket_creation=true"
    system, path = fs.FileSystem.from_uri(f"s3://{name}?{options}")
    system.create_dir(path)
    return f"s3://{name}/team/results?endpoint_override={endpoint}&scheme=http"


def objects(location: str) -> list[str]:
    system, path = fs.FileSystem.from_uri(location)
    infos = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return sorted(item.path.removeprefix(path) for item in infos if item.is_file)


def test_runs_go_to_a_bucket_and_back(bucket):
    assert read(bucket).num_rows == 0
    assert not exists(bucket)
    check_writable(bucket)
    assert objects(bucket) == []

    first, second = run("a1", SETS), run("b2", SETS, seed=1)
    write_run(bucket, "b2", second)
    write_run(bucket, "a1", failed(info("a1"), "power cut"))
    assert statuses(bucket)["a1"] == "failed"
    write_run(bucket, "a1", first)

    assert exists(bucket)
    assert objects(bucket) == ["/leaderboard/a1.parquet", "/leaderboard/b2.parquet"]
    assert read(bucket).equals(pa.concat_tables([first, second]))
    assert read(bucket, {"b2"}).equals(second)
    assert statuses(bucket)["a1"] == "done"
    assert read(bucket, where={"backbone": ["other"]}).num_rows == 0


def test_many_runs_are_read_at_a_time(bucket):
    tables = {f"{i:02x}": run(f"{i:02x}", SETS) for i in range(40)}
    for name, table in tables.items():
        write_run(bucket, name, table)
    assert read(bucket).equals(pa.concat_tables(tables.values()))


def test_they_are_compacted_there(bucket):
    tables = {name: run(name, SETS) for name in ("a1", "b2")}
    for name, table in tables.items():
        write_run(bucket, name, table)
    assert compact(bucket, settled=-3600).runs == 2  # its clock has whole seconds
    assert "/leaderboard.parquet" in objects(bucket)
    assert read(bucket).equals(pa.concat_tables(tables.values()))
    tables["b2"] = run("b2", {"id-test": 0.75})
    write_run(bucket, "b2", tables["b2"])
    assert read(bucket).equals(pa.concat_tables(tables.values()))


def test_reports_read_it_there(bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--results", bucket]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    write_run(bucket, "a1", run("a1", SETS))
    assert main(["report", "--results", bucket, "--html", "page.html"]) == 0
    assert "| full | fixed | 1 | 50.0 |" in (tmp_path / "report.md").read_text()
    assert "imagenet-r" in (tmp_path / "page.html").read_text()
    assert main(["compact", "--results", bucket]) == 0


def test_a_broken_object_is_named_without_what_the_location_may_hide(bucket):
    system, path = fs.FileSystem.from_uri(bucket)

    def put(content):
        with system.open_output_stream(f"{path}/leaderboard/a1.parquet") as stream:
            stream.write(content)

    put(b"half")
    with pytest.raises(InputError, match=r"s3://.*/results/leaderboard/a1\.parquet: .*read") as no:
        read(bucket)
    assert "endpoint" not in str(no.value)
    pq.write_table(pa.table({"x": [1]}), buffer := pa.BufferOutputStream())
    put(buffer.getvalue())
    with pytest.raises(InputError, match="not a file of the leaderboard"):
        statuses(bucket)


def test_a_bucket_that_is_not_there_is_refused_in_one_line(endpoint):
    location = f"s3://no-such-bucket/results?endpoint_override={endpoint}&scheme=http"
    with pytest.raises(InputError, match="results cannot be written there") as raised:
        check_writable(location)
    assert "\n" not in str(raised.value)
    assert not exists(location)
