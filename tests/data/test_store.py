from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shiftbench.core.errors import InputError
from shiftbench.data import store as module
from shiftbench.data.images import ImageSet
from shiftbench.data.mapped import PixelFile
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.data.shards import Form, ShardedImages
from shiftbench.data.store import Store

PREPROCESSING = Preprocessing(16)


@dataclass
class Files:
    """Images in files; counts how often each is opened."""

    paths: Sequence[Path]
    opened: Counter[int] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        self.opened[index] += 1
        return Image.open(self.paths[index])


@dataclass
class Slow:
    """Images that take a while and log each access to a file, across processes."""

    log: Path
    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Image.Image:
        with self.log.open("a") as file:
            file.write("x")
        time.sleep(0.01)
        return Image.new("RGB", (20, 20), (index, 0, 0))


def image_set(images, fingerprint="f0", prefix="set") -> ImageSet:
    ids = np.array([f"{prefix}/{i}.png" for i in range(len(images))])
    return ImageSet(ids, np.zeros(len(images), dtype=np.int64), images, fingerprint)


@pytest.fixture
def files(tmp_path) -> ImageSet:
    rng = np.random.default_rng(0)
    paths = []
    (tmp_path / "images").mkdir()
    for i in range(37):
        height, width = rng.integers(9, 40, 2)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        mode = ("RGB", "L", "RGBA", "P")[i % 4]
        paths.append(tmp_path / "images" / f"{i}.png")
        Image.fromarray(pixels).convert(mode).save(paths[-1])
    return image_set(Files(paths))


def expected(images: ImageSet) -> np.ndarray:
    return np.stack([PREPROCESSING.pixels(image) for image in images.images])


def the_entry(root: Path) -> Path:
    (entry,) = (path for path in root.iterdir() if path.is_dir())
    return entry


def test_processes_decode_the_same(tmp_path, files, monkeypatch):
    monkeypatch.setattr(module, "MANY", 30)
    monkeypatch.setattr(module, "_PART", 5)
    seen: list[tuple[int, int]] = []
    store = Store(tmp_path / "store", processes=2)
    pixels = store.evaluation(files, PREPROCESSING, lambda done, n: seen.append((done, n)))
    np.testing.assert_array_equal(pixels[:], expected(files))
    assert seen == [(done, 37) for done in (5, 10, 15, 20, 25, 30, 35, 37)]
    assert Store(tmp_path / "store").evaluation(files, PREPROCESSING).path == pixels.path

    files.images.paths[20].write_bytes(b"no image")
    with pytest.raises(InputError, match=r"set/20\.png"):
        store.evaluation(replace(files, fingerprint="f1"), PREPROCESSING)
    the_entry(tmp_path / "store")  # the first alone: nothing half done is left beside it


def test_processes_write_the_same_shards(tmp_path):
    files, form = image_set(Slow(tmp_path / "log", 40)), Form(12)
    alone = Store(tmp_path / "one", threads=1, per_shard=10).shrunk(files, form)
    seen: list[tuple[int, int]] = []
    store = Store(tmp_path / "two", processes=2, per_shard=10)
    kept = store.shrunk(files, form, lambda done, n: seen.append((done, n)))
    assert [kept.path(i).read_bytes() for i in kept.shards] == [
        alone.path(i).read_bytes() for i in alone.shards
    ]
    assert seen == [(10, 40), (20, 40), (30, 40), (40, 40)]


def test_pixels_are_those_of_the_preprocessing_and_decoded_once(tmp_path, files):
    store, seen = Store(tmp_path / "store", threads=3), []
    pixels = store.evaluation(files, PREPROCESSING, lambda done, n: seen.append((done, n)))
    assert set(files.images.opened.values()) == {1}
    assert seen == [(done, 37) for done in range(1, 38)]
    again = Store(tmp_path / "store").evaluation(files, PREPROCESSING)
    assert set(files.images.opened.values()) == {1}
    assert len(pixels) == 37 and pixels.shape == (37, 16, 16, 3)
    truth = expected(files)
    for got in (pixels, again):
        np.testing.assert_array_equal(got[:], truth)
        np.testing.assert_array_equal(got[np.array([5, 0])], truth[[5, 0]])
        np.testing.assert_array_equal(got[3], truth[3])
    assert isinstance(pixels.array.base, np.memmap) and not pixels.array.flags.writeable


def test_entries_differ_by_all_that_decides_their_content(tmp_path, files):
    store = Store(tmp_path / "store")
    others = [
        (files, PREPROCESSING),
        (files, Preprocessing(17)),
        (files, Preprocessing(16, resize="squash")),
        (files.subset(np.array([1, 0])), PREPROCESSING),
        (files.subset(np.array([0, 1])), PREPROCESSING),
        (image_set(files.images, fingerprint="f1"), PREPROCESSING),
        (image_set(files.images, prefix="other"), PREPROCESSING),
    ]
    paths = {store.evaluation(images, preprocessing).path for images, preprocessing in others}
    assert len(paths) == len(others)
    same = store.evaluation(files, Preprocessing(16, mean=(0.1, 0.2, 0.3)))
    assert same.path in paths


def test_results_pickle_as_paths(tmp_path, files):
    store = Store(tmp_path / "store")
    pixels, raw = store.evaluation(files, PREPROCESSING), store.decoded(files, 2**30)
    assert pixels[0] is not None and raw[0] is not None
    for result in (pixels, raw):
        data = pickle.dumps(result)
        assert len(data) < 500
        assert np.array_equal(pickle.loads(data)[7], result[7])


def test_raw_images_are_the_decoded_ones(tmp_path, files):
    raw = Store(tmp_path / "store").decoded(files, 2**30)
    assert isinstance(raw, ShardedImages) and len(raw) == len(files)
    files.images.opened.clear()
    for index in (0, 36, 5, 5):
        image = raw[index]
        assert image.mode == "RGB"
        truth = np.asarray(Image.open(files.images.paths[index]).convert("RGB"))
        np.testing.assert_array_equal(np.asarray(image), truth)
    assert Store(tmp_path / "store").decoded(files, 0) == raw
    assert not files.images.opened


def test_raw_images_beyond_the_limit_stay_as_they_are(tmp_path, files):
    size = sum(np.asarray(image.convert("RGB")).nbytes for image in files.images)
    store = Store(tmp_path / "store")
    assert store.decoded(files, size - 1) is files.images
    assert not (tmp_path / "store").exists()
    assert isinstance(store.decoded(files, size), ShardedImages)


def test_the_size_of_a_large_set_is_estimated_from_few_images(tmp_path):
    log = tmp_path / "log"
    images = image_set(Slow(log, 5000))
    assert Store(tmp_path / "store").decoded(images, 20 * 20 * 3 * 5000 - 1) is images.images
    assert len(log.read_text()) < 130


def truncate(entry: Path, name: str) -> None:
    with (entry / name).open("r+b") as file:
        file.truncate((entry / name).stat().st_size - 1)


def zero(entry: Path, name: str) -> None:
    size = (entry / name).stat().st_size
    (entry / name).write_bytes(b"\0" * size)


def stale(entry: Path, name: str) -> None:
    manifest = json.loads((entry / "manifest.json").read_text())
    manifest["made_by"]["pillow"] = "1.0"
    (entry / "manifest.json").write_text(json.dumps(manifest))


DAMAGE = {
    "truncated": truncate,
    "zeroed": zero,
    "file gone": lambda entry, name: (entry / name).unlink(),
    "stale": stale,
    "manifest gone": lambda entry, name: (entry / "manifest.json").unlink(),
    "manifest cut": lambda entry, name: truncate(entry, "manifest.json"),
    "manifest of another kind": lambda entry, name: (entry / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_and_stale_entries_are_made_again(tmp_path, files, damage, caplog):
    root, name = tmp_path / "store", "pixels.npy"

    def read() -> list[np.ndarray]:
        return list(Store(root).evaluation(files, PREPROCESSING)[:].copy())

    before = read()
    damage(the_entry(root), name)
    files.images.opened.clear()
    with caplog.at_level(logging.WARNING):
        after = read()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert set(files.images.opened) == set(range(37))
    assert "again" in caplog.text
    files.images.opened.clear()
    read()
    assert not files.images.opened
    assert sorted(path.name[:3] for path in root.iterdir()) == ["eva", "eva"]


def test_an_open_entry_survives_its_replacement(tmp_path, files):
    root = tmp_path / "store"
    pixels = Store(root).evaluation(files, PREPROCESSING)
    first = pixels[:].copy()
    stale(the_entry(root), "")
    Store(root).evaluation(files, PREPROCESSING)
    np.testing.assert_array_equal(pixels[:], first)


def test_what_a_killed_process_left_is_removed(tmp_path, files):
    root = tmp_path / "store"
    path = Store(root).evaluation(files, PREPROCESSING).path.parent
    shutil.rmtree(path)
    left = root / f".{path.name}.123-abc"
    left.mkdir()
    (left / "pixels.npy").write_bytes(b"half")
    other = root / ".evaluation-other.1-a"
    other.mkdir()
    Store(root).evaluation(files, PREPROCESSING)
    assert not left.exists() and other.exists()


def build_in_process(root: Path, log: Path, results: multiprocessing.Queue) -> None:
    pixels = Store(root, threads=2).evaluation(image_set(Slow(log, 40)), PREPROCESSING)
    results.put(pixels[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("lockable", [True, False])
def test_processes_that_want_the_same_entry_all_get_it(tmp_path, lockable, monkeypatch):
    root, log = tmp_path / "store", tmp_path / "log"
    if not lockable:
        monkeypatch.setattr("fcntl.flock", no_locks)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=build_in_process, args=(root, log, results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert answers == [list(range(40))] * 3
    decoded = len(log.read_text())
    assert decoded == 40 if lockable else 40 <= decoded <= 120
    assert sum(path.is_dir() for path in root.iterdir()) == 1


def no_locks(file: object, operation: int) -> None:
    raise OSError(37, "No locks available")


def test_threads_that_want_the_same_entry_all_get_it(tmp_path):
    images, store = image_set(Slow(tmp_path / "log", 40)), Store(tmp_path / "store", threads=2)
    results: list[PixelFile] = []
    threads = [
        threading.Thread(target=lambda: results.append(store.evaluation(images, PREPROCESSING)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3 and len((tmp_path / "log").read_text()) == 40


def test_only_a_few_images_are_in_memory_at_once(tmp_path):
    alive = peak = 0
    lock = threading.Lock()

    class Tracked:
        def __len__(self) -> int:
            return 400

        def __getitem__(self, index: int) -> Image.Image:
            nonlocal alive, peak
            with lock:
                alive += 1
                peak = max(peak, alive)
            return Image.new("RGB", (16, 16))

    def written(done: int, n: int) -> None:
        nonlocal alive
        with lock:
            alive -= 1

    Store(tmp_path / "store", threads=2).evaluation(image_set(Tracked()), PREPROCESSING, written)
    assert alive == 0 and peak <= (2 * 2 + 2) * 8


def truncated_jpeg(path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-200])


def truncated_png(path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:300])


BROKEN = {
    "truncated jpeg": truncated_jpeg,
    "truncated png": truncated_png,
    "not an image": lambda path: path.write_text("hello"),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("kind", ["evaluation", "training"])
def test_an_undecodable_image_is_named(tmp_path, files, spoil, kind):
    spoil(files.images.paths[23])
    store = Store(tmp_path / "store")
    with pytest.raises(InputError, match=r"image 'set/23\.png' cannot be decoded") as raised:
        if kind == "evaluation":
            store.evaluation(files, PREPROCESSING)
        else:
            store.decoded(files, 2**30)
    assert "\n" not in str(raised.value)
    root = tmp_path / "store"
    assert not root.exists() or not any(path.is_dir() for path in root.iterdir())


def test_a_readers_own_message_is_kept(tmp_path):
    class Reader:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Image.Image:
            raise InputError("table.parquet: row 0: no image")

    with pytest.raises(InputError, match=r"^table\.parquet: row 0: no image$"):
        Store(tmp_path).evaluation(image_set(Reader()), PREPROCESSING)


def test_too_little_space_is_said_before_decoding(tmp_path, files, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(InputError, match=r"37 decoded images need .* free; SHIFTBENCH_CACHE"):
        Store(tmp_path / "store").evaluation(files, PREPROCESSING)
    assert not files.images.opened
    with pytest.raises(InputError, match="37 decoded images need"):
        Store(tmp_path / "store").decoded(files, 2**30)


def test_a_place_that_cannot_be_written_is_named(tmp_path, files):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot store decoded images: .*SHIFTBENCH_CACHE"):
        Store(tmp_path / "file" / "store").evaluation(files, PREPROCESSING)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_can_be_read(tmp_path, files):
    root = tmp_path / "store"
    Store(root).evaluation(files, PREPROCESSING)
    root.chmod(0o555)
    try:
        np.testing.assert_array_equal(
            Store(root).evaluation(files, PREPROCESSING)[:], expected(files)
        )
    finally:
        root.chmod(0o755)


def test_a_set_without_images_is_refused(tmp_path, files):
    nothing = files.subset(np.array([], dtype=np.int64))
    for read in (
        lambda: Store(tmp_path).evaluation(nothing, PREPROCESSING),
        lambda: Store(tmp_path).decoded(nothing, 1),
    ):
        with pytest.raises(InputError, match="without images"):
            read()
