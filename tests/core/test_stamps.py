"""What was looked at, and whether it is still as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from shiftbench.core import locations
from shiftbench.core.stamps import Observed, observed, unchanged

LONG_AGO = 1_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "file").write_text("abc")
    (tmp_path / "inner" / "image").write_text("xyz")
    return tmp_path


def look(folder: Path) -> Observed:
    """Look at all of it, in each way."""
    with observed() as seen:
        locations.entries(str(folder))
        locations.entries(str(folder / "inner"))
        locations.read(str(folder / "file"))
        assert locations.kind_of(str(folder / "absent")) is None
    return seen


def rewrite_and_set_the_time_back(folder: Path) -> None:
    before = (folder / "inner" / "image").stat()
    (folder / "inner" / "image").write_text("zyx")
    os.utime(folder / "inner" / "image", ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a longer file": lambda folder: (folder / "file").write_text("abcd"),
    "another content of the same size": lambda folder: (folder / "file").write_text("cba"),
    "the same, its time set back": rewrite_and_set_the_time_back,
    "a new file": lambda folder: (folder / "inner" / "more").write_text(""),
    "a file less": lambda folder: (folder / "inner" / "image").unlink(),
    "another name": lambda folder: (folder / "file").rename(folder / "other"),
    "a file where none was": lambda folder: (folder / "absent").write_text(""),
    "a file for a folder": lambda folder: (
        (folder / "inner" / "image").unlink(),
        (folder / "inner").rmdir(),
        (folder / "inner").write_text(""),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(folder: Path, change: str) -> None:
    stamps = look(folder).stamps
    assert unchanged(stamps)
    CHANGES[change](folder)
    assert not unchanged(stamps)


def test_what_has_just_changed_is_not_settled(folder: Path, monkeypatch) -> None:
    newest = max(path.stat().st_ctime_ns for path in folder.rglob("*") if path.is_file())

    def settled(after: float, whole_seconds: bool = False) -> bool:
        if whole_seconds:
            for path in (folder / "file", folder / "inner" / "image"):
                os.utime(path, (10_000_000_000, 10_000_000_000))
        latest = 10_000_000_000 * 10**9 if whole_seconds else newest
        monkeypatch.setattr("time.time_ns", lambda: latest + int(after * 1e9))
        return look(folder).settled

    assert not settled(0.01)
    assert settled(0.5)
    assert not settled(0.5, whole_seconds=True)  # some file systems know no finer times
    assert settled(2.5, whole_seconds=True)


def test_what_is_remote_is_never_settled(monkeypatch) -> None:
    with observed() as seen, pytest.raises(locations.InputError):
        locations.read("nowhere://bucket/file")
    assert not seen.settled
