"""What counts as an image and a class folder: the same set whatever systems and tools leave."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shiftbench.core.errors import InputError
from shiftbench.data.sources.builtin.image_folder import ImageFolder
from shiftbench.data.verify import check

from tests.data import layouts

NAMES = ("circle", "square", "stripe")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layouts.class_folders(tmp_path / "set", NAMES, 3, ".png")
    return tmp_path / "set"


def ids_of(folder: Path) -> list[str]:
    images = ImageFolder(path=folder.name).open(str(folder.parent))
    assert not images.faults
    return images.ids.tolist()


def test_leftovers_of_systems_and_sync_tools_are_no_classes_and_no_images(folder: Path) -> None:
    expected = ids_of(folder)
    for place in (folder, folder / "circle"):
        for name in ("__MACOSX", "@eaDir", "#recycle", "lost+found", ".ipynb_checkpoints"):
            layouts.write_image(place / name / "circle" / "0.png")
        for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "~$a.docx", "a.png.part"):
            (place / name).write_bytes(b"left")
        for name in ("0.sync-conflict-20240101-120000-ABCDEFG.png", "~syncthing~0.png.tmp"):
            layouts.write_image(place / name)
    assert ids_of(folder) == expected
    assert ImageFolder(path="set").label_names(str(folder.parent)) == NAMES
    finding = check(ImageFolder(path="set"), str(folder.parent))
    assert (finding.status, finding.detail, finding.remark) == ("ok", "9 images", "")


def test_jfif_is_jpeg_and_other_endings_are_counted_and_named(folder: Path) -> None:
    for ending in (".jfif", ".JPE", ".pjpeg"):
        Image.new("RGB", (8, 8)).save(folder / f"circle/x{ending}", "JPEG")
    for name in ("a.heic", "b.HEIC", "notes.txt", "README"):
        (folder / "square" / name).write_bytes(b"x")
    layouts.write_image(folder / "outside.png")
    finding = check(ImageFolder(path="set"), str(folder.parent))
    assert finding.status == "ok"
    remark = "files not read: 2 .heic, 1 without an ending, 1 .png, 1 .txt"
    assert finding.detail == f"12 images; {remark}"
    assert finding.remark == remark


def test_a_class_without_images_is_refused_unless_the_suite_leaves_it_out(folder: Path) -> None:
    root = str(folder.parent)
    (folder / "aaa_empty").mkdir()
    (folder / "aaa_empty/0.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"aaa_empty.*1 \.heic.*empty_folders: leave-out"):
        ImageFolder(path="set").open(root)
    assert check(ImageFolder(path="set"), root).status == "refused"
    left_out = ImageFolder(path="set", empty_folders="leave-out")
    assert left_out.label_names(root) == NAMES
    assert left_out.open(root).labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert "left out: aaa_empty" in check(left_out, root).remark
    assert len(ImageFolder(path="set", rename={"aaa_empty": None}).open(root)) == 9


def test_files_that_cannot_be_used_are_named_and_the_others_read(folder: Path) -> None:
    circle = folder / "circle"
    os.rename(  # noqa: PTH104 - a name that is not text
        circle / "circle_0.png", os.fsencode(circle) + b"/caf\xe9.png"
    )
    (circle / "circle_1.png").write_bytes(b"")
    (circle / "gone.png").symlink_to("../.annex/xx.png")
    (circle / ".#notes.txt").symlink_to("someone@host.4711:1")
    (folder / "square/loop").symlink_to("..")
    shutil.copy(circle / "circle_2.png", folder / "square/é.png")
    shutil.copy(circle / "circle_2.png", folder / "square/e\u0301.png")
    (folder / "zebra").symlink_to("nowhere")
    images = ImageFolder(path="set").open(str(folder.parent))
    assert len(images) == 3 - 2 + 3 + 1 + 3
    faults = "\n".join(images.faults)
    assert images.faults[0].endswith("zebra: is a link that leads nowhere")
    assert "circle/caf\\xe9.png: its name is not UTF-8" in faults
    assert "circle/circle_1.png: is empty" in faults
    assert "circle/gone.png: is a link that leads nowhere" in faults
    assert "square/loop: is a link to a folder that it lies in" in faults
    assert "square/'\\xe9.png': its name is the same text as that of 'e\\u0301.png'" in faults
    assert len(images.faults) == 6
    finding = check(ImageFolder(path="set"), str(folder.parent))
    assert finding.status == "incomplete"
    assert finding.detail.endswith("and 3 more")
    assert finding.detail.isprintable()


def test_two_class_folders_that_are_one_by_a_link_are_a_fault(folder: Path) -> None:
    """Else every image would have two labels."""
    (folder / "disc").symlink_to("circle")
    images = ImageFolder(path="set").open(str(folder.parent))
    assert len(images.faults) == 1 and images.faults[0].endswith(
        "disc: is the same folder as circle"
    )
    (folder / "disc").unlink()
    shutil.move(folder / "circle", folder.parent / "elsewhere")
    (folder / "circle").symlink_to("../elsewhere")
    assert len(ids_of(folder)) == 9


def test_a_class_folder_whose_name_is_not_utf8_is_one_line(folder: Path) -> None:
    os.rename(folder / "circle", os.fsencode(folder) + b"/caf\xe9")  # noqa: PTH104
    with pytest.raises(InputError, match=r"caf\\xe9: its name is not UTF-8"):
        ImageFolder(path="set").open(str(folder.parent))


def grey(bits: int) -> np.ndarray:
    return (np.linspace(0, 2**bits - 1, 64).reshape(8, 8)).astype(np.uint16)


@pytest.mark.parametrize("ending", [".png", ".tif", ".pgm", ".jp2"])
def test_16_bits_are_scaled_and_never_white(folder: Path, ending: str) -> None:
    Image.fromarray(grey(16)).save(folder / f"circle/aa{ending}")
    images = ImageFolder(path="set").open(str(folder.parent))
    assert images.ids[0] == f"circle/aa{ending}"
    found = np.asarray(images.images[0])[..., 0].astype(int)
    assert np.abs(found - np.rint(grey(16) / 257)).max() <= 1


def test_12_bits_in_a_16_bit_file_are_dark_not_white(folder: Path) -> None:
    Image.fromarray(grey(12)).save(folder / "circle/aa.png")
    found = np.asarray(ImageFolder(path="set").open(str(folder.parent)).images[0])
    assert np.array_equal(found[..., 1], np.rint(grey(12) / 257))


def test_floats_from_0_to_1_are_scaled_and_others_are_refused(folder: Path) -> None:
    root, file = str(folder.parent), folder / "circle/aa.tif"
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(file)
    found = np.asarray(ImageFolder(path="set").open(root).images[0])[..., 2]
    assert found.ravel().tolist() == np.rint(np.linspace(0, 255, 64)).astype(int).tolist()
    for wrong in (-0.1, 255.0, np.nan):
        Image.fromarray(np.full((8, 8), wrong, np.float32)).save(file)
        with pytest.raises(InputError, match=r"aa\.tif.*mode F"):
            ImageFolder(path="set").open(root).images[0]


def test_32_bit_whole_numbers_are_scaled_by_their_range(folder: Path) -> None:
    root, file = str(folder.parent), folder / "circle/aa.tif"
    Image.fromarray(np.full((8, 8), 2**30, np.int32)).save(file)
    assert np.asarray(ImageFolder(path="set").open(root).images[0]).max() in (127, 128)
    Image.fromarray(np.full((8, 8), -1, np.int32)).save(file)
    with pytest.raises(InputError, match=r"aa\.tif.*mode I"):
        ImageFolder(path="set").open(root).images[0]
