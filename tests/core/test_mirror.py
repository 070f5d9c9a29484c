"""Results in a store as a folder of this machine: what comes, what goes, and what is never half."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from shiftbench.core import copies, mirror, remote
from shiftbench.core.errors import InputError, StorageError
from shiftbench.core.files import remove, temporary_folder, written_atomically
from shiftbench.leaderboard.leases import Leases

Machine = Callable[[str], Path]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder that stands for an object store."""
    return tmp_path / "store"


@pytest.fixture
def machine(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes this the machine of a name, and gives its mirror of the store."""

    def change(name: str) -> Path:
        monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / name))
        return mirror.opened(f"file://{store}")

    return change


def write(path: Path, text: str) -> None:
    with written_atomically(path) as temporary:
        temporary.write_text(text)


def names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(found)


def test_a_plain_folder_is_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a" / "weights.safetensors"
    write(file, "x")
    assert mirror.local(tmp_path) == tmp_path == mirror.opened(tmp_path)
    assert mirror.placed(file) is None
    assert mirror.address(file) == str(file) == mirror.shown(file)
    assert mirror.fetched(file) == file
    assert mirror.listed(tmp_path, "a/*") == [file]
    assert os.access(file, os.W_OK)
    mirror.refresh(tmp_path)
    copies.evict(tmp_path, 0)
    assert names(tmp_path) == ["a/weights.safetensors"]


def test_a_url_and_its_folder_name_each_other() -> None:
    for query in ("", "?endpoint_override=h:1&scheme=http"):
        folder = mirror.local(f"s3://bucket/team/results{query}")
        assert mirror.address(folder) == f"s3://bucket/team/results{query}"
        assert mirror.local(f"s3://bucket/team/results/{query}") == folder
        inside = folder / "runs" / "a1"
        assert mirror.address(inside) == f"s3://bucket/team/results/runs/a1{query}"
        assert mirror.shown(inside) == "s3://bucket/team/results/runs/a1"
    with pytest.raises(InputError, match="too long"):
        mirror.local(f"s3://bucket/{'x' * 300}")


@pytest.mark.parametrize(
    "url",
    [
        "s3://ann:secret@bucket/x",
        "s3://bucket/x?secret_key=secret",
        "sftp://ann:secret@host/x",
    ],
)
def test_a_url_with_credentials_is_refused_without_showing_them(url: str) -> None:
    with pytest.raises(InputError, match="credentials") as raised:
        mirror.local(url)
    assert "=secret" not in str(raised.value)
    assert "ann" not in str(raised.value)


def test_an_unknown_kind_of_store_or_an_absent_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="s3://: names no bucket"):
        mirror.opened("s3://")
    with pytest.raises(InputError, match="nosuch://bucket"):
        mirror.opened("nosuch://bucket/x")
    import fsspec

    def absent(location: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(InputError, match=r"s3://bucket/x: s3fs .*shiftbench\[stores\]"):
        mirror.opened("s3://bucket/x")


def test_what_one_machine_writes_another_sees(machine: Machine, store: Path) -> None:
    first = machine("first")
    assert not first.exists()
    write(first / "runs" / "a1" / "fit.json", "{}")
    write(first / "runs" / "a1" / "weights.safetensors", "large")
    write(first / "leaderboard" / "a1.parquet", "rows")
    everything = ["leaderboard/a1.parquet", "runs/a1/fit.json", "runs/a1/weights.safetensors"]
    assert names(store) == everything == names(first)

    second = machine("second")
    assert second != first
    assert names(second) == everything[:2]  # what may be large comes when it is opened
    weights = second / "runs" / "a1" / "weights.safetensors"
    assert mirror.there(weights)
    assert not weights.exists()
    assert mirror.fetched(weights).read_text() == "large"
    rows = "leaderboard/a1.parquet"
    assert (first / rows).stat().st_mtime_ns == (second / rows).stat().st_mtime_ns

    machine("first")
    write(first / "runs" / "a1" / "weights.safetensors", "other")
    write(first / "leaderboard" / "a1.parquet", "rows, again")
    remove(first / "runs" / "a1" / "fit.json")
    machine("second")
    assert (second / rows).read_text() == "rows, again"
    assert names(second) == ["leaderboard/a1.parquet"]  # no copy of what was there before
    assert mirror.fetched(weights).read_text() == "other"

    remove(second / "runs" / "a1")
    assert names(store) == ["leaderboard/a1.parquet"]
    assert names(machine("first")) == ["leaderboard/a1.parquet"]


def test_a_folder_goes_with_what_of_it_is_not_here(machine: Machine, store: Path) -> None:
    first = machine("first")
    write(first / "runs" / "a1" / "parts" / "w" / "x.arrow", "x")
    second = machine("second")
    parts = second / "runs" / "a1" / "parts"
    assert mirror.listed(parts, "*/*.arrow") == [parts / "w" / "x.arrow"]
    assert mirror.sizes(second / "runs") == {parts / "w" / "x.arrow": 1}
    remove(parts)
    assert names(store) == []
    remove(parts)


def test_what_is_of_this_machine_stays_here(machine: Machine, store: Path) -> None:
    folder = machine("first")
    write(folder / "runs" / "a1" / "run.json", "{}")
    (folder / "runs" / "a1" / "rows.lock").touch()
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events").write_text("x")
    machine("first")
    assert names(store) == ["runs/a1/run.json"]
    assert names(folder) == ["runs/a1/rows.lock", "runs/a1/run.json", "tensorboard/events"]


def test_a_failed_write_leaves_what_was_there_in_both_places(
    machine: Machine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = machine("first")
    file = folder / "leaderboard" / "a1.parquet"
    write(file, "whole")
    with pytest.raises(ZeroDivisionError), written_atomically(file) as temporary:
        temporary.write_text("ha")
        raise ZeroDivisionError
    monkeypatch.setattr(remote, "PAUSES_S", ())

    def refused(self: object, *arguments: object, **options: object) -> None:
        raise ConnectionError("reset by peer")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match=r"a1\.parquet: .*reset"):
        patch.setattr("fsspec.implementations.local.LocalFileSystem.put_file", refused)
        write(file, "other")
    assert names(folder) == names(store) == ["leaderboard/a1.parquet"]
    assert file.read_text() == "whole" == (store / "leaderboard" / "a1.parquet").read_text()


def test_a_write_is_tried_again_longer_and_longer_apart(
    machine: Machine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = machine("first")
    pauses: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    from fsspec.implementations.local import LocalFileSystem

    real = LocalFileSystem.put_file

    def fails_thrice(self: LocalFileSystem, *arguments: object, **options: object) -> None:
        if len(pauses) < 3:
            raise TimeoutError("slow down")
        real(self, *arguments, **options)

    monkeypatch.setattr(LocalFileSystem, "put_file", fails_thrice)
    write(folder / "leaderboard" / "a1.parquet", "rows")
    assert names(store) == ["leaderboard/a1.parquet"]
    assert pauses == [1.0, 2.0, 4.0]


def test_what_cannot_pass_is_not_tried_again(
    machine: Machine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = machine("first")
    monkeypatch.setattr(remote.time, "sleep", lambda s: pytest.fail("it waited"))
    store.mkdir()

    def refused(self: object, *arguments: object, **options: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.put_file", refused)
    with pytest.raises(StorageError, match=r"^file://.*a1\.parquet: cannot be written .*Denied"):
        write(folder / "leaderboard" / "a1.parquet", "rows")


def test_a_full_disk_makes_room_among_the_copies_and_then_says_so(
    machine: Machine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine("first")
    for name in ("a1", "b2"):
        write(first / "runs" / name / "weights.safetensors", name)
    second = machine("second")
    old, new = (second / "runs" / name / "weights.safetensors" for name in ("a1", "b2"))
    os.utime(mirror.fetched(old), (time.time() - 3600, old.stat().st_mtime))
    from fsspec.implementations.local import LocalFileSystem

    real = LocalFileSystem.get_file

    def full(self: LocalFileSystem, *arguments: object, **options: object) -> None:
        if old.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, *arguments, **options)

    monkeypatch.setattr(LocalFileSystem, "get_file", full)
    assert mirror.fetched(new).read_text() == "b2"
    assert names(second) == ["runs/b2/weights.safetensors"]
    new.unlink()
    old.touch()  # not a copy, so nothing makes room
    with pytest.raises(StorageError, match="No space left"):
        mirror.fetched(new)
    assert names(second) == ["runs/a1/weights.safetensors"]


def test_the_copies_that_were_not_used_for_longest_go(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = machine("first")
    files = [folder / "runs" / str(i) / "weights.safetensors" for i in range(4)]
    for i, file in enumerate(files):
        write(file, "x" * 100)
        write(file.with_name("fit.json"), "{}")
        used = time.time() - (4000 - 1000 * i)  # the last has just been used
        os.utime(file, ns=(int(used * 1e9), file.stat().st_mtime_ns))
    mirror.fetched(files[0])
    monkeypatch.setenv(copies.LIMIT_VARIABLE, "250")
    copies.evict(folder)
    assert [file.exists() for file in files] == [True, False, False, True]
    assert all(file.with_name("fit.json").exists() for file in files)
    copies.evict(folder, 0)
    assert files[0].exists()  # somebody may be about to open it
    machine("first")
    assert mirror.fetched(files[1]).read_text() == "x" * 100
    monkeypatch.setenv(copies.LIMIT_VARIABLE, "much")
    with pytest.raises(InputError, match=r'BYTES: "much" is no number'):
        copies.evict(folder)


def test_what_a_killed_process_left_of_a_download_goes_after_a_day(machine: Machine) -> None:
    folder = machine("first") / "runs" / "a1"
    folder.mkdir(parents=True)
    old = (".weights.safetensors.0123abcd.tmp", ".w.0123abcd-7-0123abcd.tmp", "0123abcd.tmp")
    for name in (*old, ".weights.safetensors.4567cdef.tmp"):
        (folder / name).write_text("half")
    for name in old:
        os.utime(folder / name, (time.time() - 25 * 3600,) * 2)
    copies.evict(folder.parents[1])
    assert names(folder) == sorted([".weights.safetensors.4567cdef.tmp", *old[1:]])


def test_a_file_that_grows_is_seen_as_it_was_published(machine: Machine) -> None:
    name = "searches/s/journal.log"
    first = machine("first") / name
    mirror.checked_out(first).parent.mkdir(parents=True)
    with first.open("a") as journal:
        journal.write("one\n")
    mirror.publish(first)
    with first.open("a") as journal:
        journal.write("two\n")
    machine("first")
    assert first.read_text() == "one\ntwo\n"  # nobody looks it away from whoever writes it

    second = machine("second") / name
    with mirror.checked_out(second).open("a") as journal:
        journal.write("another two\n")
    mirror.publish(second)
    machine("first")
    assert mirror.checked_out(first).read_text() == "one\nanother two\n"


def test_a_folder_for_a_while_leaves_nothing(machine: Machine, store: Path, tmp_path: Path) -> None:
    folder = machine("first")
    with temporary_folder(folder, ".rerun-") as inner:
        write(inner / "runs" / "a1" / "run.json", "{}")
        assert names(store) == [f"{inner.name}/runs/a1/run.json"]
        assert names(machine("second")) == []
        machine("first")
    assert names(store) == names(folder) == []
    with mirror.shared(tmp_path / "plain", "train-") as (path, nowhere):
        assert nowhere is None
        (Path(path) / "x").touch()
    assert names(tmp_path / "plain") == []
    with mirror.shared(folder, "train-") as (path, there):
        assert there is not None
        system, place = there.opened(path)
        system.pipe_file(f"{place}/x", b"")
        assert names(store) == [f"{path}/x"]
    assert names(store) == []


def test_what_moves_moves_in_both_places(machine: Machine, store: Path) -> None:
    folder = machine("first")
    write(folder / "runs" / "a1" / "predictions.parquet", "x")
    mirror.move(folder / "runs" / "a1", folder / "conflicts" / "a1" / "run")
    assert names(store) == names(folder) == ["conflicts/a1/run/predictions.parquet"]


def test_exactly_one_of_several_creates_an_object(store: Path) -> None:
    place = remote.Remote(f"file://{store}")
    assert place.create("leases/a", b"mine")
    assert not place.create("leases/a", b"theirs")
    assert place.create("leases/a", b"mine")  # the answer to the first try was lost
    assert place.read("leases/a") == b"mine"
    assert place.read("leases/b") is None


def test_a_store_that_says_only_that_a_condition_failed_is_understood(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.local import LocalFileSystem

    class ClientError(Exception):
        response: ClassVar = {"Error": {"Code": "PreconditionFailed"}}

    def refuse(self: LocalFileSystem, *arguments: object, **options: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument") from ClientError()

    monkeypatch.setattr(LocalFileSystem, "pipe_file", refuse)
    monkeypatch.setattr(remote.time, "sleep", lambda s: pytest.fail("it was tried again"))
    assert not remote.Remote(f"file://{store}").create("leases/a", b"mine")


def test_where_no_object_can_be_made_by_one_alone_leases_are_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path))
    results = mirror.local("hf://buckets/ann/robust/results")
    with Leases.of(results) as ours, Leases.of(results) as theirs:
        assert ours.take("a1") is None
        assert theirs.take("a1") is not None
    assert not results.exists()


@pytest.mark.parametrize("modified", [1_800_000_000.7, 0.0])
def test_a_time_tells_a_version_even_where_the_store_tells_no_time(modified: float) -> None:
    first, second = (remote.Facts(10, version, modified) for version in ("one", "two"))
    assert first.stamped(first.stamp, 10)
    assert not second.stamped(first.stamp, 10)
    assert not first.stamped(first.stamp, 11)
    assert abs(first.stamp / 1e9 - (modified or time.time())) < 2  # as old as it is
    assert first.stamped(first.stamp + 10**9, 10) == (not modified)
