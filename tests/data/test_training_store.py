"""Training images kept shrunk, or decoded: what they are, and what interrupts and damage do."""

from __future__ import annotations

import io
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shiftbench.core.errors import InputError
from shiftbench.data import entries
from shiftbench.data import store as module
from shiftbench.data.decoding import jpeg_pixels
from shiftbench.data.images import EncodedImages, ImageSet
from shiftbench.data.shards import Form, ShardedImages
from shiftbench.data.store import Store

from tests.data.test_store import Slow, image_set, no_locks

N, PER_SHARD = 37, 10
SMALL = Form(12)


@dataclass
class Noise:
    """Images of sizes of their own; counts how often each is looked at."""

    opened: Counter[int] = field(default_factory=Counter)
    stop_at: int | None = None

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Image.Image:
        if index == self.stop_at:
            raise KeyboardInterrupt
        self.opened[index] += 1
        rng = np.random.default_rng(index)
        height, width = rng.integers(9, 40, 2)
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    monkeypatch.setattr(module, "_SAMPLE", 1)  # the first image alone
    return image_set(Noise())


def make_store(root: Path) -> Store:
    return Store(root / "store", threads=1, per_shard=PER_SHARD)


def arrays(images: ShardedImages) -> list[np.ndarray]:
    return [np.asarray(images[index]) for index in range(len(images))]


def expected(image: Image.Image, side: int) -> np.ndarray:
    short = min(image.size)
    if short > side:
        size = tuple(int(side * length / short) for length in image.size)
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


def same(found: list[np.ndarray], truth: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, truth, strict=True))


def test_images_are_shrunk_once_to_their_shorter_side(tmp_path: Path, noise: ImageSet) -> None:
    kept = make_store(tmp_path).shrunk(noise, SMALL)
    truth = [expected(Noise()[index], 12) for index in range(N)]
    assert min(min(image.shape[:2]) for image in truth) < 12  # which stays as it is
    assert max(min(image.shape[:2]) for image in truth) == 12
    noise.images.opened.clear()
    again = make_store(tmp_path).shrunk(noise, SMALL)
    assert not noise.images.opened
    assert same(arrays(kept), truth) and same(arrays(again), truth)
    assert len(list(kept.directory.iterdir())) == 4
    with pytest.raises(IndexError):
        kept[N]


def test_jpeg_files_are_kept_as_such(tmp_path: Path, noise: ImageSet) -> None:
    kept = make_store(tmp_path).shrunk(noise, Form(12, "jpeg"))
    assert isinstance(kept, EncodedImages)
    for index in range(N):
        stream = io.BytesIO()
        Image.fromarray(expected(Noise()[index], 12)).save(stream, "JPEG", quality=95)
        assert kept.encoded(index) == stream.getvalue()
        np.testing.assert_array_equal(np.asarray(kept[index]), np.asarray(Image.open(stream)))
    pixels = make_store(tmp_path).shrunk(noise, SMALL)
    assert pixels.encoded(0) is None and jpeg_pixels(pixels, 0) is None


def test_the_estimate_is_of_what_is_kept(tmp_path: Path) -> None:
    store, images = make_store(tmp_path), image_set(Noise())
    for form in (Form(), SMALL, Form(12, "jpeg")):
        estimated = store.estimated_bytes(images, form)  # so few are all looked at
        shards = store.shrunk(images, form)
        size = sum(file.stat().st_size for file in shards.directory.iterdir())
        assert 0 <= size - estimated <= (5 * N + 3 * 4) * 8 + N  # the indices


def test_an_interrupted_build_goes_on_after_the_last_shard(tmp_path: Path, noise: ImageSet) -> None:
    noise.images.stop_at = 25
    seen: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        make_store(tmp_path).shrunk(noise, SMALL)
    noise.images.stop_at = None
    noise.images.opened.clear()
    kept = make_store(tmp_path).shrunk(noise, SMALL, lambda done, n: seen.append((done, n)))
    assert set(noise.images.opened) == {0, *range(20, N)}  # 0 is the sample
    assert seen == [(30, N), (N, N)]
    assert same(arrays(kept), [expected(Noise()[index], 12) for index in range(N)])
    assert not [path for path in kept.directory.iterdir() if path.name.endswith(".tmp")]


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "cut in its index": lambda file: file.write_bytes(file.read_bytes()[:50]),
    "empty": lambda file: file.write_bytes(b""),
    "zeroed": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "gone": lambda file: file.unlink(),
    "of another format": lambda file: flip(file, 0),
    "index": lambda file: flip(file, 24),
    "first image": lambda file: flip(file, (3 + 5 * PER_SHARD) * 8),
    "last image": lambda file: flip(file, -1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_shard_alone_is_made_again(
    tmp_path: Path,
    noise: ImageSet,
    damage: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = make_store(tmp_path).shrunk(noise, SMALL)
    before = arrays(first)
    damage(first.path(1))
    there = first.path(1).exists()
    noise.images.opened.clear()
    with caplog.at_level(logging.WARNING):
        after = arrays(make_store(tmp_path).shrunk(noise, SMALL))
    assert same(after, before)
    assert set(noise.images.opened) == {0, *range(10, 20)}
    assert ("000001.shard again" in caplog.text) == there
    noise.images.opened.clear()
    make_store(tmp_path).shrunk(noise, SMALL)
    assert not noise.images.opened


def test_damage_between_the_samples_is_seen_when_it_is_read(
    tmp_path: Path, noise: ImageSet
) -> None:
    kept = make_store(tmp_path).shrunk(noise, SMALL)
    before = arrays(kept)
    start = (3 + 5 * PER_SHARD) * 8 + before[10].nbytes  # the second image of the second shard
    flip(kept.path(1), start)
    opened = make_store(tmp_path).shrunk(noise, SMALL)
    np.testing.assert_array_equal(np.asarray(opened[10]), before[10])
    with pytest.raises(InputError, match=r"000001\.shard: image 1 of it is damaged"):
        opened[11]
    noise.images.opened.clear()
    assert same(arrays(make_store(tmp_path).shrunk(noise, SMALL)), before)
    assert set(noise.images.opened) == {0, *range(10, 20)}


def test_forms_are_kept_apart_and_other_versions_replaced(
    tmp_path: Path, noise: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path)
    sets = [(noise, form) for form in (SMALL, Form(13), Form(12, "jpeg"), Form())]
    sets += [(replace(noise, fingerprint="f1"), SMALL), (image_set(Noise(), prefix="o"), SMALL)]
    kept = {store.shrunk(images, form).directory for images, form in sets}
    assert len(kept) == len(sets)
    monkeypatch.setattr(module, "made_by", lambda: entries.made_by() | {"pillow": "1.0"})
    other = store.shrunk(noise, SMALL).directory
    left = {path for path in (tmp_path / "store").iterdir() if path.is_dir()}
    assert len(left) == len(sets) and left - kept == {other}


def build(root: Path, log: Path, results: multiprocessing.Queue) -> None:
    kept = Store(root, threads=2, per_shard=PER_SHARD).shrunk(image_set(Slow(log, 40)), SMALL)
    results.put([int(np.asarray(kept[index])[0, 0, 0]) for index in range(40)])


@pytest.mark.parametrize("lockable", [True, False])
def test_processes_that_want_the_same_images_all_get_them(
    tmp_path: Path, noise: ImageSet, lockable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    del noise  # one image is the sample
    root, log = tmp_path / "store", tmp_path / "log"
    if not lockable:
        monkeypatch.setattr("fcntl.flock", no_locks)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=build, args=(root, log, results)) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert answers == [list(range(40))] * 3
    samples = len(processes)
    decoded = len(log.read_text())
    assert 40 < decoded <= 40 + samples if lockable else decoded <= 3 * (40 + 1)


def test_too_little_space_and_undecodable_images_are_said_in_one_line(
    tmp_path: Path, noise: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Noise):
        def __getitem__(self, index: int) -> Image.Image:
            if index == 33:
                raise OSError("no image")
            return super().__getitem__(index)

    with pytest.raises(InputError, match=r"image 'set/33\.png' cannot be decoded: no image"):
        make_store(tmp_path).shrunk(image_set(Broken()), SMALL)
    monkeypatch.setattr(entries.shutil, "disk_usage", lambda path: Free())
    with pytest.raises(InputError, match=r"37 decoded images need .* SHIFTBENCH_CACHE"):
        make_store(tmp_path).shrunk(replace(noise, fingerprint="f2"), SMALL)


class Free:
    """A disk with nine bytes."""

    free = 9
