"""The traps of the CIFAR-10 family's layouts."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.sources.builtin.cifar import Cifar10, Cifar10C, Cifar101, Cifar102

from tests.data import layouts


def test_batches_are_planes_of_colour(tmp_path: Path) -> None:
    layouts.cifar10(tmp_path)
    images = Cifar10(split="train").open(str(tmp_path))
    batch = pickle.loads((tmp_path / "cifar-10-batches-py/data_batch_2").read_bytes())
    red, green, blue = batch[b"data"][3].reshape(3, 32, 32)
    index = images.ids.tolist().index("data_batch_2/3")
    assert np.array_equal(np.asarray(images.images[index]), np.stack([red, green, blue], -1))
    assert images.labels[index] == batch[b"labels"][3]
    assert Cifar10(split="train").label_names(str(tmp_path)) == layouts.CIFAR_NAMES


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


@pytest.mark.parametrize("payload", [_Attack(), {b"data": _Attack(), b"labels": []}])
def test_a_pickle_cannot_run_code(
    tmp_path: Path, payload: object, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError, match=r"builtins\.print"):
        Cifar10(split="test").open(str(tmp_path))
    assert capsys.readouterr().out == ""


def test_the_older_dictionary_cannot_run_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "CIFAR-10.2").mkdir()
    file = tmp_path / "CIFAR-10.2/cifar102_test.npy"
    np.save(file, {"images": _Attack()}, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"builtins\.print"):
        Cifar102().open(str(tmp_path))
    assert capsys.readouterr().out == ""


def test_10_2_reads_either_file_and_prefers_the_npz(tmp_path: Path) -> None:
    layouts.cifar102_npy(tmp_path, seed=1)
    old = Cifar102().open(str(tmp_path))
    assert np.array_equal(np.asarray(old.images[5]), layouts.cifar_images(20, 1)[5])
    layouts.cifar102_npz(tmp_path, seed=2)
    new = Cifar102().open(str(tmp_path))
    assert np.array_equal(np.asarray(new.images[5]), layouts.cifar_images(20, 2)[5])
    assert old.labels.tolist() == new.labels.tolist()
    assert old.fingerprint != new.fingerprint


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_c_severities_are_fifths_of_the_rows(tmp_path: Path, severity: int) -> None:
    layouts.cifar10_c(tmp_path, ["fog", "frost"], n=20)
    images = Cifar10C(corruptions=("frost", "fog"), severity=severity).open(str(tmp_path))
    assert len(images) == 40
    assert images.ids[20] == f"fog/{severity}/0"
    for index in (0, 7, 19, 20, 39):
        image = index % 20
        assert np.asarray(images.images[index]).flat[0] == 10 * severity + image
        assert images.labels[index] == image % 10


def test_labels_that_fit_no_images_are_refused(tmp_path: Path) -> None:
    layouts.cifar101(tmp_path)
    labels = tmp_path / "CIFAR-10.1/cifar10.1_v6_labels.npy"
    for bad, message in [
        (np.zeros(19, np.int32), r"20 integer labels"),
        (np.zeros(20, np.float32), r"20 integer labels"),
        (np.full(20, 10), r"0 to 9"),
        (np.full(20, -1), r"0 to 9"),
    ]:
        np.save(labels, bad)
        with pytest.raises(InputError, match=message):
            Cifar101().open(str(tmp_path))


@pytest.mark.parametrize(
    "images",
    [np.zeros((20, 32, 32, 3), np.float32), np.zeros((20, 3, 32, 32), np.uint8), np.zeros(20)],
)
def test_arrays_of_other_types_and_shapes_are_refused(tmp_path: Path, images: np.ndarray) -> None:
    layouts.cifar101(tmp_path)
    np.save(tmp_path / "CIFAR-10.1/cifar10.1_v6_data.npy", images)
    with pytest.raises(InputError, match="images"):
        Cifar101().open(str(tmp_path))


def test_a_truncated_file_is_one_clear_line(tmp_path: Path) -> None:
    layouts.cifar101(tmp_path)
    layouts.cifar10(tmp_path)
    layouts.cifar102_npz(tmp_path)
    for source, name in [
        (Cifar101(), "CIFAR-10.1/cifar10.1_v6_data.npy"),
        (Cifar10(split="test"), "cifar-10-batches-py/test_batch"),
        (Cifar102(), "CIFAR-10.2/cifar102_test.npz"),
    ]:
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[:5000])
        with pytest.raises(InputError, match="cannot be read") as error:
            source.open(str(tmp_path))
        assert "\n" not in str(error.value)


def test_a_changed_file_is_read_again_in_the_same_process(tmp_path: Path) -> None:
    layouts.cifar102_npz(tmp_path, seed=3)
    assert (
        np.asarray(Cifar102().open(str(tmp_path)).images[0]).flat[0]
        == (layouts.cifar_images(20, 3).flat[0])
    )
    layouts.cifar102_npz(tmp_path, seed=4)
    assert np.array_equal(
        np.asarray(Cifar102().open(str(tmp_path)).images[0]), layouts.cifar_images(20, 4)[0]
    )
