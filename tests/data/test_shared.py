"""Shared batches are those that the loader gives, made once, bounded, and deleted by the last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shiftbench.data.images import ImageSet
from shiftbench.data.loading import ImageLoader
from shiftbench.data.shared import SharedBatches, remove_unused

from tests.data.test_loading import BATCH, IMAGES, LABELS, PREPROCESSING, Drawn, N, make, order

EXAMPLES = ImageSet(np.array([f"{i}" for i in range(N)]), LABELS, IMAGES, "drawn")
BYTES = BATCH * 8 * 8 * 3 + 4


class Unreadable(Drawn):
    """Images of which none may be asked for."""

    def __getitem__(self, index: int) -> Image.Image:
        raise AssertionError(f"{index} is decoded again")


@pytest.fixture
def enter(tmp_path: Path):
    entered = []

    def enter(limit: int = 2**20) -> SharedBatches:
        entered.append(SharedBatches(tmp_path, EXAMPLES, PREPROCESSING, limit))
        return entered[-1]

    yield enter
    for shared in entered:
        shared.close()


def read(shared: SharedBatches, loader: ImageLoader, seed: int, steps: range = range(4)):
    return [
        tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))
        for pieces in shared.stream(loader, "pil", order(steps, seed), seed)
    ]


def expected(seed: int, steps: range = range(4)):
    return [pieces[0] for pieces in make(0).stream(order(steps, seed), seed)]


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for batch, wanted in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, wanted, strict=True))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.bin"))


@pytest.mark.parametrize("processes", [0, 2])
def test_a_batch_is_decoded_once_for_all_and_is_the_loaders(enter, processes):
    mine, another = enter(), enter()
    loader = make(processes)
    assert_equal(read(mine, loader, 7, range(1, 2)), expected(7, range(1, 2)))
    assert_equal(read(mine, loader, 7), expected(7))  # some there, some not
    assert_equal(read(mine, loader, 8), expected(8))
    for seed in (7, 8):
        assert_equal(read(another, make(0, Unreadable()), seed), expected(seed))


def test_decoders_and_batch_sizes_do_not_mix(enter):
    shared = enter()
    read(shared, make(0), 7)
    fast = make(0, decoder="turbo")
    plain = [pieces[0] for pieces in fast.stream(order(range(4)), 7)]
    assert_equal([pieces[0] for pieces in shared.stream(fast, "turbo", order(range(4)), 7)], plain)
    halves = [part for pairs in order(range(2)) for part in (pairs[:5], pairs[5:])]
    plain = [pieces[0] for pieces in make(0).stream(halves, 7)]
    assert_equal([pieces[0] for pieces in shared.stream(make(0), "pil", halves, 7)], plain)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "gone later"])
def test_a_damaged_batch_is_made_anew(enter, tmp_path, damage):
    shared = enter()
    read(shared, make(0), 7)
    file = files(tmp_path)[1]
    content = file.read_bytes()
    stream = shared.stream(make(0), "pil", order(range(4), 7), 7)
    if damage == "gone later":
        got = [next(stream)[0]]
        for path in files(tmp_path):
            path.unlink()
        got += [pieces[0] for pieces in stream]
    else:
        changed = content[:100] + bytes([content[100] ^ 1]) + content[101:]
        file.write_bytes({"cut": content[:-1], "changed": changed, "empty": b""}[damage])
        got = [pieces[0] for pieces in stream]
    assert_equal(got, expected(7))
    assert file.read_bytes() == content


def test_no_more_is_kept_than_the_limit(enter, tmp_path):
    shared = enter(limit=3 * BYTES)
    for seed in (7, 8):
        assert_equal(read(shared, make(0), seed), expected(seed))
        assert_equal(read(shared, make(0), seed), expected(seed))
    assert [file.stat().st_size for file in files(tmp_path)] == [BYTES] * 3


def test_the_last_to_leave_deletes_them(enter, tmp_path):
    mine, another = enter(), enter()
    read(mine, make(0), 7)
    mine.close()
    remove_unused(tmp_path)
    assert_equal(read(another, make(0, Unreadable()), 7), expected(7))
    another.close()
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_is_deleted(enter, tmp_path):
    left = tmp_path / "batches-left"
    left.mkdir()
    (left / "pil-0-0-12.bin").write_bytes(b"x")
    enter()
    assert not left.exists()


def test_where_nothing_can_be_written_all_is_decoded(tmp_path, enter):
    (tmp_path / "file").write_text("")
    shared = SharedBatches(tmp_path / "file", EXAMPLES, PREPROCESSING, 2**20)
    assert_equal(read(shared, make(0), 7), expected(7))
    shared.close()
