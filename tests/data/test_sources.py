"""What every source promises, over every kind, on files of the real layouts."""

from __future__ import annotations

import builtins
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from shiftbench.core.errors import InputError
from shiftbench.core.stamps import observed
from shiftbench.data.sources.any_source import AnySource
from shiftbench.data.sources.base import AbsentError, Source, read_once
from shiftbench.data.sources.registry import SOURCES
from shiftbench.data.verify import check
from shiftbench.testing.sources import SOURCES as SOURCE_CHECKS
from shiftbench.testing.sources import Placed

from tests.data import collection_layouts, layouts


@dataclass(frozen=True)
class Case:
    """A source, how its files are written, what they hold, and one file to change."""

    spec: dict[str, object]
    write: Callable[[Path], None]
    examples: int
    folder: str
    file: str


def _write_iwildcam(root: Path) -> None:
    layouts.iwildcam(root)


def _subset(place: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        layouts.imagenet(root)
        layouts.subset(root, place)

    return write


def _write_sketch(root: Path) -> None:
    layouts.imagenet(root)
    layouts.class_folders(root / "sketch", layouts.WNIDS, 3)


def _write_c(root: Path) -> None:
    layouts.imagenet(root)
    layouts.imagenet_c(root, ["fog", "snow"])


IMAGES = (".JPEG", ".jpeg", ".jpg", ".png")
V2 = "imagenetv2-matched-frequency-format-val"
BATCHES = "cifar-10-batches-py"
CASES = {
    "imagenet-train": Case(
        {"kind": "imagenet", "split": "train"},
        layouts.imagenet,
        20,
        "imagenet/train",
        f"{layouts.WNIDS[0]}/{layouts.WNIDS[0]}_0.JPEG",
    ),
    "imagenet-val": Case(
        {"kind": "imagenet", "split": "val"},
        layouts.imagenet,
        10,
        "imagenet/val",
        f"{layouts.WNIDS[1]}/{layouts.WNIDS[1]}_1.JPEG",
    ),
    "imagenet-v2": Case({"kind": "imagenet-v2"}, layouts.imagenet_v2, 12, V2, "3/3_0.jpeg"),
    "imagenet-r": Case(
        {"kind": "imagenet-r"},
        _subset("imagenet-r"),
        4,
        "imagenet-r",
        f"{layouts.WNIDS[1]}/{layouts.WNIDS[1]}_0.jpg",
    ),
    "imagenet-a": Case(
        {"kind": "imagenet-a"},
        _subset("imagenet-a"),
        4,
        "imagenet-a",
        f"{layouts.WNIDS[1]}/{layouts.WNIDS[1]}_0.jpg",
    ),
    "imagenet-sketch": Case(
        {"kind": "imagenet-sketch"},
        _write_sketch,
        15,
        "sketch",
        f"{layouts.WNIDS[1]}/{layouts.WNIDS[1]}_0.JPEG",
    ),
    "imagenet-c": Case(
        {"kind": "imagenet-c", "corruptions": ["fog", "snow"]},
        _write_c,
        10,
        "imagenet-c",
        f"snow/5/{layouts.WNIDS[1]}/{layouts.WNIDS[1]}_0.JPEG",
    ),
    "objectnet": Case(
        {"kind": "objectnet"}, layouts.objectnet, 6, "objectnet-1.0", "images/bike/bike0.png"
    ),
    "cifar10-train": Case(
        {"kind": "cifar10", "split": "train"}, layouts.cifar10, 100, BATCHES, "data_batch_4"
    ),
    "cifar10-test": Case(
        {"kind": "cifar10", "split": "test"}, layouts.cifar10, 30, BATCHES, "test_batch"
    ),
    "cifar10.1": Case(
        {"kind": "cifar10.1"}, layouts.cifar101, 20, "CIFAR-10.1", "cifar10.1_v6_data.npy"
    ),
    "cifar10.2": Case(
        {"kind": "cifar10.2"}, layouts.cifar102_npz, 20, "CIFAR-10.2", "cifar102_test.npz"
    ),
    "cifar10-c": Case(
        {"kind": "cifar10-c", "corruptions": ["fog", "spatter"]},
        lambda root: layouts.cifar10_c(root, ["fog", "spatter"]),
        20,
        "CIFAR-10-C",
        "fog.npy",
    ),
    "iwildcam": Case(
        {"kind": "iwildcam", "split": "val"},
        layouts.iwildcam,
        5,
        "iwildcam_v2.0",
        "train/image13.jpg",
    ),
    "fmow": Case(
        {"kind": "fmow", "split": "test"}, layouts.fmow, 3, "fmow_v1.1", "images/rgb_img_10.png"
    ),
    "image-folder": Case(
        {"kind": "image-folder", "path": "pets"},
        lambda root: layouts.class_folders(root / "pets", ["cat", "dog"], 3, ".png"),
        6,
        "pets",
        "cat/cat_1.png",
    ),
    "imagenet-folder": Case(
        {"kind": "imagenet-folder", "path": "stylized/val"},
        _subset("stylized/val"),
        4,
        "stylized/val",
        f"{layouts.WNIDS[1]}/{layouts.WNIDS[1]}_0.jpg",
    ),
    "cifar100": Case(
        {"kind": "cifar100", "split": "test"},
        collection_layouts.cifar100,
        40,
        "cifar-100-python",
        "test",
    ),
    "cifar100-c": Case(
        {"kind": "cifar100-c", "corruptions": ["fog"], "severity": 3},
        lambda root: collection_layouts.cifar100_c(root, ["fog"]),
        10,
        "CIFAR-100-C",
        "fog.npy",
    ),
    "coop": Case(
        {"kind": "coop", "dataset": "oxford-pets", "split": "test"},
        collection_layouts.oxford_pets,
        6,
        "oxford_pets",
        "images/pug/image_1.jpg",
    ),
    "coop-aircraft": Case(
        {"kind": "coop", "dataset": "fgvc-aircraft", "split": "val"},
        collection_layouts.fgvc_aircraft,
        3,
        "fgvc_aircraft",
        "images/0000004.jpg",
    ),
    "domains": Case(
        {"kind": "domains", "dataset": "pacs", "domains": ["photo", "sketch"]},
        collection_layouts.pacs,
        38,
        "PACS",
        "sketch/dog/dog_3.png",
    ),
    "transfer": Case(
        {"kind": "transfer", "dataset": "rendered-sst2", "split": "val"},
        lambda root: collection_layouts.transfer(root, "sst2", ["negative", "positive"]),
        4,
        "sst2",
        "val/negative/negative_0.jpg",
    ),
    "patch-camelyon": Case(
        {"kind": "patch-camelyon", "split": "val"},
        collection_layouts.patch_camelyon,
        4,
        "PatchCamelyon",
        "data/valid-00000-of-00001-abc123.parquet",
    ),
    "camelyon17": Case(
        {"kind": "camelyon17", "split": "val"},
        collection_layouts.camelyon17,
        3,
        "camelyon17_v1.0",
        "patches/patient_022_node_4/patch_patient_022_node_4_x_9_y_9.png",
    ),
    "waterbirds": Case(
        {"kind": "waterbirds", "split": "test"},
        collection_layouts.waterbirds,
        8,
        "waterbirds_v1.0",
        "000.Bird_0/bird_0002.jpg",
    ),
    "celeba": Case(
        {"kind": "celeba", "split": "val"},
        collection_layouts.celeba,
        8,
        "celebA_v1.0",
        "img_align_celeba/000002.jpg",
    ),
    "imagenet-vid-robust": Case(
        {"kind": "imagenet-vid-robust"},
        collection_layouts.vid_robust,
        6,
        "imagenet_vid_ytbb_robust/imagenet-vid-robust",
        "val/clip_a/000015.JPEG",
    ),
    "ytbb-robust": Case(
        {"kind": "ytbb-robust"},
        collection_layouts.ytbb_robust,
        5,
        "imagenet_vid_ytbb_robust/ytbb-robust",
        "ytbb_videos/aa-_a_1000/frame-20.jpg",
    ),
    "parquet": Case(
        {"kind": "parquet", "path": "pets"},
        lambda root: layouts.parquet(root / "pets/a.parquet", [0, 1, 1, 0], ["cat", "dog"]),
        4,
        "pets",
        "a.parquet",
    ),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def written(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    case.write(root)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "data"))


def source_of(case: Case, **more: object) -> Source:
    return TypeAdapter(AnySource).validate_python(case.spec | more)


def test_every_kind_is_here() -> None:
    kinds = {str(case.spec["kind"]) for case in CASES.values()}
    assert kinds == {kind for kind, entry in SOURCES.entries().items() if entry.builtin}


def test_opens(case: Case, written: Path) -> None:
    images = source_of(case).open(str(written))
    n = case.examples
    assert len(images) == len(images.images) == len(images.ids) == n
    assert len(set(images.ids.tolist())) == n
    assert images.ids.dtype.kind == "U"
    assert images.labels.dtype == np.int64
    assert images.labels.min() >= 0
    for column in images.metadata.values():
        assert len(column) == n
    for index in range(n):
        image = images.images[index]
        assert image.mode == "RGB"
        assert min(image.size) >= 10


@pytest.mark.parametrize("promise", SOURCE_CHECKS)
def test_every_source_keeps_the_contract_that_plugins_are_checked_against(
    case: Case, written: Path, promise: str
) -> None:
    SOURCE_CHECKS[promise](Placed(source_of(case), str(written)))


def test_reads_the_same_through_a_remote_file_system(case: Case, written: Path) -> None:
    local = source_of(case).open(str(written))
    remote = source_of(case).open(f"file://{written}")
    assert remote.ids.tolist() == local.ids.tolist()
    assert remote.labels.tolist() == local.labels.tolist()
    assert remote.images[1].tobytes() == local.images[1].tobytes()
    assert check(source_of(case), f"file://{written}/nowhere").status == "absent"


def test_fingerprint_tells_of_a_changed_file(case: Case, root: Path) -> None:
    before = source_of(case).open(str(root)).fingerprint
    file = root / case.folder / case.file
    content = file.read_bytes()
    if case.file.endswith(IMAGES):  # sizes tell, not contents
        file.write_bytes(content + b"\0")
    elif file.suffix == ".parquet":
        layouts.parquet(file, [0, 1, 1, 1])
    elif file.suffix == ".npz":
        layouts.cifar102_npz(root, seed=99)
    elif file.parent.name == "cifar-100-python":
        collection_layouts.cifar100(root, seed=99)
    else:
        file.write_bytes(content[:-40] + bytes(20) + content[-20:])
    if file.name.startswith(("data_batch", "test_batch")):
        layouts.cifar_batch(file, len(content) // 30720 * 10, 99)
    assert source_of(case).open(str(root)).fingerprint != before


def test_every_file_that_a_source_reads_is_looked_at(case: Case, written: Path) -> None:
    """Whatever file changes that the source reads, its set is checked again."""
    source = source_of(case)
    opened: set[Path] = set()
    real = io.open

    def noted(file: object, *arguments: object, **options: object) -> object:
        if isinstance(file, (str, Path)) and Path(file).is_relative_to(written):
            opened.add(Path(file))
        return real(file, *arguments, **options)  # type: ignore[call-overload]

    with observed() as seen, read_once(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", noted)
        patch.setattr(builtins, "open", noted)
        source.whole(str(written))
        source.label_names(str(written))
        source.documented(str(written))
    known = seen.stamps.keys()
    unseen = [f for f in opened if not {f"content {f}", f"entries {f.parent}"} & known]
    assert seen.stamps and not unseen


def test_absent_data_is_one_clear_line(case: Case, root: Path) -> None:
    shutil.rmtree(root / case.folder)
    source = source_of(case)
    with pytest.raises(AbsentError) as error:
        source.open(str(root))
    assert "\n" not in str(error.value)
    assert str(root) in str(error.value)
    finding = check(source, str(root))
    assert finding.status == "absent"
    assert "\n" not in finding.detail
    assert "get it from" in finding.detail or "check the path" in finding.detail


def test_missing_file_is_noticed(case: Case, root: Path) -> None:
    source = source_of(case)
    before = source.open(str(root))
    (root / case.folder / case.file).unlink()
    try:
        after = source.open(str(root))
    except InputError as error:
        assert case.file.split("/")[-1].split(".")[0] in str(error) or source.title in str(error)
    else:
        assert len(after) == len(before) - 1
        assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.file.endswith(IMAGES)], ids=lambda c: c.folder
)
def test_broken_image_names_its_file(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    root = tmp_path
    file = root / case.folder / case.file
    file.write_bytes(file.read_bytes()[:60])
    images = source_of(case).open(str(root))
    failures = []
    for index in range(len(images)):
        try:
            images.images[index]
        except InputError as error:
            failures.append(str(error))
    (message,) = failures
    assert file.name in message
    assert "\n" not in message


def test_limit_draws_the_same_part_every_time(case: Case, written: Path) -> None:
    whole = source_of(case).open(str(written))
    n = case.examples // 2
    part = source_of(case, limit=n, balanced=True).open(str(written))
    assert len(part) == n
    position = {name: i for i, name in enumerate(whole.ids.tolist())}
    indices = [position[name] for name in part.ids.tolist()]
    assert indices == sorted(indices)
    assert part.labels.tolist() == whole.labels[indices].tolist()
    assert part.images[0].tobytes() == whole.images[indices[0]].tobytes()
    counts = np.bincount(part.labels, minlength=whole.labels.max() + 1)
    available = np.bincount(whole.labels)
    # No class has two more than another that had some left.
    assert all(
        counts.max() - counts[k] <= 1 for k in range(len(counts)) if counts[k] < available[k]
    )


def test_parts_split_every_class(case: Case, written: Path) -> None:
    whole = source_of(case).open(str(written))
    one = source_of(case, part=(0, 0.6)).open(str(written))
    two = source_of(case, part=(0.6, 1)).open(str(written))
    assert sorted(one.ids.tolist() + two.ids.tolist()) == sorted(whole.ids.tolist())
    counts = np.bincount(whole.labels)
    assert np.bincount(one.labels, minlength=len(counts)).tolist() == [
        round(0.6 * n) for n in counts
    ]


def test_size_needs_no_more_than_it_must(case: Case, written: Path) -> None:
    source = source_of(case)
    documented = source.documented(str(written)).examples
    assert source.size(str(written)) == (documented or case.examples)
    if documented is not None:
        assert source.size(str(written / "nowhere")) == documented


def test_limited_size(case: Case, written: Path) -> None:
    assert source_of(case, limit=2).size(str(written)) == 2


def test_an_impossible_part_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller fraction"):
        source_of(CASES["cifar10.1"], part=(0.5, 0.5))
