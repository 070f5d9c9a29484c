"""Features on disk: computed once, whole or not at all, and no more than allowed."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from shiftbench.core.locks import locked
from shiftbench.evaluation.features import FeatureStore, key_of

FEATURES = np.arange(24, dtype=np.float32).reshape(6, 4)
KEY = "0" * 64


def never() -> np.ndarray:
    raise AssertionError("they are there")


def test_what_is_there_is_not_computed_again_by_another_process(tmp_path: Path) -> None:
    first = FeatureStore(tmp_path / "features", 2**20).get(KEY, lambda: FEATURES)
    again = FeatureStore(tmp_path / "features", 2**20).get(KEY, never)
    for found in (first, again):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, FEATURES)
    assert not again.flags.writeable


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_damaged_features_are_computed_again(tmp_path: Path, damage: str, caplog) -> None:  # type: ignore[no-untyped-def]
    store = FeatureStore(tmp_path, 2**20)
    store.get(KEY, lambda: FEATURES)
    (file,) = tmp_path.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[140] ^= 1
    file.write_bytes({"cut": content[:-40], "bit": content, "empty": b""}[damage])
    np.testing.assert_array_equal(store.get(KEY, lambda: FEATURES + 1), FEATURES + 1)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(store.get(KEY, never), FEATURES + 1)


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 2**20)
    with pytest.raises(AssertionError):
        store.get(KEY, never)
    assert not list(tmp_path.glob("*.npy"))
    assert not list(tmp_path.glob(".*"))


def test_two_that_want_the_same_compute_it_once(tmp_path: Path) -> None:
    begun, calls = threading.Event(), []

    def slowly() -> np.ndarray:
        calls.append("first")
        begun.set()
        second.join(0.2)  # it waits for the lock
        return FEATURES

    def other() -> None:
        begun.wait()
        calls.append(FeatureStore(tmp_path, 2**20).get(KEY, never))

    second = threading.Thread(target=other)
    second.start()
    FeatureStore(tmp_path, 2**20).get(KEY, slowly)
    second.join()
    np.testing.assert_array_equal(calls[1], FEATURES)


def test_those_used_least_recently_go(tmp_path: Path) -> None:
    size = 128 + FEATURES.nbytes + 32
    store = FeatureStore(tmp_path, 3 * size)
    for i in range(3):
        store.get(f"{i:064x}", lambda: FEATURES)
        os.utime(tmp_path / f"{i:064x}.npy", (i, i))
    store.get(f"{0:064x}", never)  # used now
    store.get(f"{3:064x}", lambda: FEATURES)
    assert {int(file.stem, 16) for file in tmp_path.glob("*.npy")} == {0, 2, 3}


def test_a_file_larger_than_the_limit_is_kept_until_the_next(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 1)
    store.get("a" * 64, lambda: FEATURES)
    store.get("a" * 64, never)
    store.get("b" * 64, lambda: FEATURES)
    assert [file.stem for file in tmp_path.glob("*.npy")] == ["b" * 64]


def test_without_a_limit_above_0_nothing_is_kept(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features", 0)
    assert store.get(KEY, lambda: FEATURES) is FEATURES
    assert not (tmp_path / "features").exists()


def test_features_of_another_user_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    store = FeatureStore(tmp_path, 2**20)
    store.get(KEY, lambda: FEATURES)
    monkeypatch.setattr(os, "utime", refused)
    np.testing.assert_array_equal(store.get(KEY, never), FEATURES)


def test_where_nothing_can_be_kept_features_are_computed(tmp_path: Path, caplog) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").touch()
    store = FeatureStore(tmp_path / "file" / "features", 2**20)
    np.testing.assert_array_equal(store.get(KEY, lambda: FEATURES), FEATURES)
    assert "features are not kept: Not a directory; SHIFTBENCH_CACHE names" in caplog.text


def test_a_lock_of_another_user_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system_open = os.open

    def no_writing(path: Path, flags: int, *mode: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied")
        return system_open(path, flags, *mode)

    lock = tmp_path / "a.lock"
    lock.touch()
    monkeypatch.setattr(os, "open", no_writing)
    with locked(lock) as alone, lock.open() as other:
        assert alone
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with locked(tmp_path / "b.lock") as alone:
        assert not alone


def test_features_of_images_may_need_a_head(tmp_path: Path) -> None:
    """Which of all locks must not want the one that is held."""
    store, found = FeatureStore(tmp_path, 2**20), []
    head, images = (f"{key_of(kind).partition('-')[0]}-{KEY}" for kind in ("head", "images"))

    def features() -> np.ndarray:
        return store.get(head, lambda: FEATURES) + 1

    thread = threading.Thread(target=lambda: found.append(store.get(images, features)), daemon=True)
    thread.start()
    thread.join(10)
    np.testing.assert_array_equal(found, [FEATURES + 1])
    np.testing.assert_array_equal(store.get(head, never), FEATURES)
