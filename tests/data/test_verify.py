"""Verification: what it says of complete, incomplete, broken and absent sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shiftbench.cli.data import app
from shiftbench.core.errors import InputError
from shiftbench.data.sources.base import Documented
from shiftbench.data.sources.builtin.cifar import Cifar10C, Cifar101
from shiftbench.data.sources.builtin.image_folder import ImageFolder
from shiftbench.data.sources.builtin.imagenet import ImageNet, ImageNetSketch, ImageNetV2
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.data.verify import Decoded, check, compare, distinct_sources, verify
from typer.testing import CliRunner

from tests.data import layouts
from tests.data.test_tasks import image_set


def pets(folder: str = "pets") -> Task:
    def source(low: float, high: float) -> dict[str, object]:
        return {"kind": "image-folder", "path": folder, "part": [low, high]}

    return Task.model_validate(
        {
            "name": "pets",
            "classes": "from-data",
            "train": source(0, 0.8),
            "id_test": {"source": source(0.8, 1)},
        }
    )


def test_counts_and_histograms_are_compared() -> None:
    images = image_set([0, 0, 1, 1, 2, 2])
    assert compare(images, Documented(6, 2, 3)) == ("", "")
    assert compare(images, Documented()) == ("", "")
    assert compare(images, Documented(7))[0] == "6 images instead of 7"
    assert "3 classes instead of 4" in compare(images, Documented(classes=4))[0]
    uneven = image_set([0, 0, 1, 2, 2, 2])
    fault = compare(uneven, Documented(6, 2, 3))[0]
    assert fault == "every class should have 2: label 1 has 1, label 2 has 3"
    assert compare(image_set([]), Documented())[0] == "no images"


def test_an_uncertain_number_is_a_remark_not_a_fault(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    layouts.class_folders(tmp_path / "sketch", layouts.WNIDS, 1)
    finding = check(ImageNetSketch(), str(tmp_path))
    assert finding.status == "ok"
    assert "5 images instead of 50,889" in finding.detail
    assert "not certain" in finding.detail


def test_real_counts_are_demanded(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    layouts.imagenet_v2(tmp_path)
    layouts.cifar101(tmp_path)
    for source, expected in (
        (ImageNet(split="val"), "10 images instead of 50,000"),
        (ImageNet(split="train"), "20 images instead of 1,281,167"),
        (ImageNetV2(), "12 images instead of 10,000"),
        (Cifar101(), "20 images instead of 2,000"),
    ):
        finding = check(source, str(tmp_path))
        assert finding.status == "incomplete"
        assert expected in finding.detail


def test_documented_numbers() -> None:
    sizes = {
        source.title: source.size("/nowhere")
        for task in builtin_tasks().values()
        for source in distinct_sources([task])
        if source.documented("/nowhere").examples is not None
    }
    assert sizes == {
        "imagenet (train)": 1_281_167,
        "imagenet (val)": 50_000,
        "imagenet-c": 750_000,
        "imagenet-v2": 10_000,
        "imagenet-r": 30_000,
        "imagenet-sketch": 50_889,
        "objectnet": 18_574,
        "imagenet-a": 7_500,
        "cifar10 (train)": 50_000,
        "cifar10 (test)": 10_000,
        "cifar10-c": 190_000,
        "cifar10.1": 2_000,
        "cifar10.2": 2_000,
        "iwildcam (train)": 129_809,
        "iwildcam (id_val)": 7_314,
        "iwildcam (id_test)": 8_154,
        "iwildcam (val)": 14_961,
        "iwildcam (test)": 42_791,
        "fmow (train)": 76_863,
        "fmow (test)": 22_108,
    }
    assert Cifar10C(limit=10_000, balanced=True).size("/nowhere") == 10_000


def test_sets_that_several_roles_share_are_checked_once(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path / "pets", ["cat", "dog"], 5, ".png")
    (finding,) = verify([pets(), pets()], str(tmp_path))
    assert (finding.status, finding.detail) == ("ok", "10 images")


@pytest.mark.parametrize("decoded", ["sample", "all"])
def test_images_that_cannot_be_decoded_are_found(tmp_path: Path, decoded: Decoded) -> None:
    layouts.class_folders(tmp_path / "pets", ["cat", "dog"], 5, ".png")
    file = tmp_path / "pets/dog/dog_3.png"
    file.write_bytes(file.read_bytes()[:100])
    finding = check(ImageFolder(path="pets"), str(tmp_path), decoded)
    assert finding.status == "incomplete"
    assert "dog_3.png: cannot be decoded" in finding.detail
    assert "\n" not in finding.detail


def test_only_the_deep_check_finds_one_among_many(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path / "pets", ["cat"], 100, ".png")
    sample = {round(i * 99 / 31) for i in range(32)}
    hidden = sorted(path.name for path in (tmp_path / "pets/cat").iterdir())
    index = next(i for i in range(1, 99) if not sample & {i - 1, i, i + 1})
    (tmp_path / "pets/cat" / hidden[index]).write_bytes(b"broken")
    assert check(ImageFolder(path="pets"), str(tmp_path)).status == "ok"
    assert check(ImageFolder(path="pets"), str(tmp_path), "all").status == "incomplete"


def test_absent_sets_say_where_to_get_them(tmp_path: Path) -> None:
    found = verify(builtin_tasks().values(), str(tmp_path))
    findings = {finding.name: finding for finding in found}
    assert {finding.status for finding in findings.values()} == {"absent"}
    assert "https://objectnet.dev" in findings["objectnet"].detail
    typed = f"shiftbench data fetch imagenet-r --to {tmp_path}"
    assert typed in findings["imagenet-r"].detail
    assert all("\n" not in finding.detail for finding in findings.values())


def test_the_command_prints_a_line_a_set(tmp_path: Path) -> None:
    runner = CliRunner()
    layouts.cifar10(tmp_path)
    shutil.rmtree(tmp_path / "cifar-10-batches-py")
    result = runner.invoke(app, ["verify", "--task", "cifar10", "--data", str(tmp_path)])
    assert result.exit_code == 1
    lines = result.output.strip().splitlines()
    assert len(lines) == 5
    assert all(line.startswith("absent") for line in lines)
    assert "shiftbench data fetch cifar10.2" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify"], "--data"),
        (["verify", "--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["verify", "--data", "miniature", "--task", "cifar"], 'did you mean "cifar10"'),
        (["fetch", "imagenet", "--to", "x"], "cannot be downloaded"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_help_shows_examples() -> None:
    for verb in ("verify", "fetch", "miniature"):
        result = CliRunner().invoke(app, [verb, "--help"])
        assert result.exit_code == 0
        assert f"shiftbench data {verb}" in result.output
