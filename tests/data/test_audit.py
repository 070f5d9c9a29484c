"""Leakage: content hashes, overlaps against a slow comparison, and what a task does about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shiftbench.core.errors import InputError
from shiftbench.data import audit as module
from shiftbench.data.audit import (
    EXAMPLES,
    Overlap,
    audit,
    check_overlap,
    content_hash,
    content_hashes,
    describe,
)
from shiftbench.data.images import ImageSet
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.opening import TaskData, open_ood_val, open_task

from tests.data import layouts


def picture(value: int, size: tuple[int, int] = (3, 2)) -> Image.Image:
    return Image.fromarray(np.full((*size, 3), value, np.uint8))


class Counted(list[Image.Image]):
    """Images that count how often they are decoded."""

    decoded = 0

    def __getitem__(self, index: Any) -> Any:
        self.decoded += 1
        return super().__getitem__(index)


def image_set(values: list[int], prefix: str = "x", fingerprint: str = "f") -> ImageSet:
    ids = np.array([f"{prefix}{i}" for i in range(len(values))], np.str_)
    images = Counted(picture(value) for value in values)
    return ImageSet(ids, np.zeros(len(values), np.int64), images, fingerprint)


def test_hashes_tell_pixels_mode_and_size() -> None:
    plain = content_hash(picture(7))
    assert len(plain) == 8
    assert plain == content_hash(picture(7))
    assert plain == content_hash(Image.new("L", (2, 3), 7))  # decoded images are RGB
    assert plain != content_hash(picture(8))
    assert plain != content_hash(picture(7, (2, 3)))
    assert plain != content_hash(picture(7, (6, 1)))


def test_the_same_pixels_are_found_in_another_format(tmp_path: Path) -> None:
    pixels = Image.fromarray(layouts.pixels(1))
    for ending in ("png", "bmp", "webp"):
        pixels.save(tmp_path / f"x.{ending}", lossless=True)
    found = {content_hash(Image.open(tmp_path / f"x.{end}")) for end in ("png", "bmp", "webp")}
    assert found == {content_hash(pixels)}
    pixels.save(tmp_path / "x.jpg")  # encoded again: another image to this audit
    assert content_hash(Image.open(tmp_path / "x.jpg")) not in found


@pytest.mark.parametrize("threads", [1, 3])
def test_hashes_are_in_the_order_of_the_set(threads: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, 150).tolist()
    hashes = content_hashes(image_set(values), None, threads)
    assert hashes.dtype == np.uint64
    slow = [int.from_bytes(content_hash(picture(value)), "little") for value in values]
    assert hashes.tolist() == slow


def test_hashes_are_kept_and_not_computed_again(tmp_path: Path) -> None:
    images, steps = image_set(list(range(100))), []
    first = content_hashes(images, tmp_path, progress=lambda *at: steps.append(at))
    before = images.images.decoded  # type: ignore[attr-defined]
    again = content_hashes(images, tmp_path)
    assert first.tolist() == again.tolist()
    assert before >= 100
    assert images.images.decoded - before == 16  # type: ignore[attr-defined]
    assert steps == [(64, 100), (100, 100)]
    (file,) = (tmp_path / "hashes").iterdir()
    assert file.suffix == ".npy"


def test_a_subset_and_changed_files_have_entries_of_their_own(tmp_path: Path) -> None:
    images = image_set([1, 2, 3])
    whole = content_hashes(images, tmp_path)
    part = content_hashes(images.subset(np.array([2, 0])), tmp_path)
    assert part.tolist() == whole[[2, 0]].tolist()
    changed = content_hashes(image_set([4, 5, 6], fingerprint="g"), tmp_path)
    assert not set(changed.tolist()) & set(whole.tolist())
    assert len(list((tmp_path / "hashes").iterdir())) == 3


def test_sets_whose_files_have_the_same_names_and_sizes_are_told_apart(tmp_path: Path) -> None:
    one, other = image_set([1, 2, 3]), image_set([4, 5, 6])
    assert one.fingerprint == other.fingerprint
    assert one.ids.tolist() == other.ids.tolist()
    assert audit({"train": one}, {"id-test": other}, tmp_path) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-3]),
        lambda file: np.save(file, np.zeros(2, np.uint64)),
        lambda file: np.save(file, np.zeros(3)),
    ],
    ids=["empty", "truncated", "shorter", "other type"],
)
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    images = image_set([1, 2, 3])
    expected = content_hashes(images, tmp_path).tolist()
    (file,) = (tmp_path / "hashes").iterdir()
    damage(file)
    assert content_hashes(images, tmp_path).tolist() == expected
    assert np.load(file).tolist() == expected


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "hashes").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="SHIFTBENCH_CACHE"):
        content_hashes(image_set([1]), tmp_path)


def test_an_empty_set_overlaps_with_nothing() -> None:
    empty = image_set([])
    assert content_hashes(empty, None).tolist() == []
    assert audit({"train": empty}, {"id-test": image_set([1])}) == []
    assert audit({"train": image_set([1])}, {"id-test": empty}) == []


def test_overlaps_against_a_slow_comparison() -> None:
    rng = np.random.default_rng(1)
    values = {name: rng.integers(0, 250, 60).tolist() for name in ("train", "id-val", "a", "b")}
    values["clean"] = [251, 252, 251]
    sets = {name: image_set(found, name) for name, found in values.items()}
    seen = {name: sets[name] for name in ("train", "id-val")}
    tests = {name: sets[name] for name in ("a", "b", "clean")}
    slow = []
    for s in seen:
        for t in tests:
            pairs = [
                (f"{s}{values[s].index(value)}", f"{t}{i}")
                for i, value in enumerate(values[t])
                if value in values[s]
            ]
            if pairs:
                slow.append(Overlap(s, t, len(pairs), tuple(pairs[:EXAMPLES])))
    assert len(slow) == 4
    assert audit(seen, tests) == slow


def test_an_overlap_is_described_in_one_line() -> None:
    one = Overlap("train", "id-test", 1, (("a/1.png", "b/2.png"),))
    assert describe(one) == "id-test has 1 image of train: b/2.png (there a/1.png)"
    pairs = (("1", "1"), ("2", "2"), ("3", "x"))
    many = Overlap("ood-val", "sketch", 1234, pairs)
    assert describe(many) == "sketch has 1,234 images of ood-val: 1, 2, x (there 3), …"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four classes; no image is in two sets."""
    for k, split in enumerate(("train", "val", "test", "ood", "odd")):
        for c, name in enumerate("abcd"):
            for i in range(3):
                seed = 1000 * k + 100 * c + i
                layouts.write_image(tmp_path / split / name / f"{i}.png", seed)
    return tmp_path


def task(**changes: Any) -> Task:
    def folder(path: str) -> dict[str, str]:
        return {"kind": "image-folder", "path": path}

    spec: dict[str, Any] = {
        "name": "letters",
        "classes": "from-data",
        "train": folder("train"),
        "id_val": folder("val"),
        "id_test": {"source": folder("test")},
        "ood_val": {"source": folder("ood")},
        "shifts": {"odd": {"source": folder("odd")}},
    }
    return Task.model_validate(spec | changes)


def opened(root: Path, task: Task) -> tuple[TaskData, ImageSet]:
    return open_task(task, str(root), None, 0), open_ood_val(task, str(root))[1]


def copied(root: Path, source: str, target: str) -> None:
    (root / target).write_bytes((root / source).read_bytes())


def test_a_clean_task_passes(root: Path) -> None:
    data, ood_val = opened(root, task())
    assert check_overlap(task(), data, ood_val, root / "cache") is None
    assert check_overlap(task(), data, None, None) is None


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("train/a/1.png", "test/b/9.png", r"id-test has 1 image of train: b/9.png \(there a/1.png"),
        ("train/a/1.png", "odd/a/1.png", "odd has 1 image of train: a/1.png;"),
        ("val/c/0.png", "odd/a/9.png", "odd has 1 image of id-val"),
        ("ood/c/0.png", "test/a/9.png", "id-test has 1 image of ood-val"),
    ],
)
def test_a_seen_test_image_is_refused(root: Path, source: str, target: str, message: str) -> None:
    copied(root, source, target)
    data, ood_val = opened(root, task())
    with pytest.raises(InputError, match=f"task letters: {message}") as caught:
        check_overlap(task(), data, ood_val, None)
    assert "overlap: label" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_or_labelled_where_the_task_says_so(root: Path) -> None:
    copied(root, "train/a/1.png", "test/b/9.png")
    copied(root, "ood/d/1.png", "odd/b/9.png")
    labelled = task(overlap="label")
    data, ood_val = opened(root, labelled)
    train = "id-test has 1 image of train: b/9.png (there a/1.png)"
    assert check_overlap(labelled, data, None, None) == train
    both = f"{train}; odd has 1 image of ood-val: b/9.png (there d/1.png)"
    assert check_overlap(labelled, data, ood_val, None) == both


def test_ood_validation_counts_only_for_a_search(root: Path) -> None:
    copied(root, "ood/c/0.png", "test/a/9.png")
    data, ood_val = opened(root, task())
    assert "ood-val" in data.evaluation
    assert check_overlap(task(), data, None, None) is None
    with pytest.raises(InputError, match="ood-val"):
        check_overlap(task(), data, ood_val, None)


def test_what_seen_sets_share_is_no_leakage(root: Path) -> None:
    copied(root, "train/a/0.png", "val/a/9.png")
    copied(root, "train/b/0.png", "ood/b/9.png")
    copied(root, "test/b/0.png", "odd/b/9.png")
    data, ood_val = opened(root, task())
    assert check_overlap(task(), data, ood_val, None) is None


def test_a_task_that_searches_on_a_shift_is_refused(root: Path) -> None:
    """AutoFT's 4-shot ImageNet searches on ImageNet-V2, which is also a test set."""
    same = task(ood_val={"source": {"kind": "image-folder", "path": "odd"}})
    data, ood_val = opened(root, same)
    with pytest.raises(InputError, match="odd has 12 images of ood-val"):
        check_overlap(same, data, ood_val, None)


def test_a_class_split_compares_base_with_new(root: Path) -> None:
    copied(root, "train/a/1.png", "test/d/9.png")  # a base image among the new classes
    copied(root, "train/d/1.png", "test/c/9.png")  # a new class is not trained on
    half = task(class_split="base-to-new")
    data, ood_val = opened(root, half)
    with pytest.raises(InputError) as caught:
        check_overlap(half, data, ood_val, None)
    assert str(caught.value).startswith("task letters: new has 1 image of train: d/9.png (there ")


def test_the_cache_depends_on_the_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    images = image_set([1])
    key = module._key(images)
    monkeypatch.setattr("PIL.__version__", "0.0")
    assert module._key(images) != key
