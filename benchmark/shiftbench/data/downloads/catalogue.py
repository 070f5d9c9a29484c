"""The data sets that can be downloaded without an agreement, and where they are.

Sizes and checksums are those that torchvision (CIFAR-10 and CIFAR-100) and TensorFlow Datasets (the
others) record. Where neither has one, the archive's own checks and ``data verify`` must do.
"""

from __future__ import annotations

from dataclasses import dataclass

_GITHUB = "https://raw.githubusercontent.com/modestyachts"
_HUGGING_FACE = "https://huggingface.co/datasets"
_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Attributes:
        name: of the file when it has arrived.
        urls: mirrors, tried in turn.
        size: bytes, where known.
        checksum: ``sha256:…`` or ``md5:…``, empty where none is known.
        folder: for a plain file, the folder of the data root that it belongs to; an archive is
            unpacked into the data root instead.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    checksum: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Download:
    """A data set to download.

    Attributes:
        files: all that it consists of.
        makes: the file or folder of the data root that is there when it is complete.
        home: address of its page.
    """

    files: tuple[Remote, ...]
    makes: tuple[str, ...]
    home: str


CATALOGUE: dict[str, Download] = {
    "cifar10": Download(
        (
            Remote(
                "cifar-10-python.tar.gz",
                ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
                170_498_071,
                "md5:c58f30108f718f92721af3b95e74349a",
            ),
        ),
        ("cifar-10-batches-py",),
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "cifar10.1": Download(
        tuple(
            Remote(
                name,
                (
                    f"{_GITHUB}/CIFAR-10.1/master/datasets/{name}",
                    f"https://github.com/modestyachts/CIFAR-10.1/raw/master/datasets/{name}",
                ),
                size,
                checksum,
                "CIFAR-10.1",
            )
            for name, size, checksum in (
                (
                    "cifar10.1_v6_data.npy",
                    6_144_128,
                    "sha256:2997188e5816f5bd545dc77771b6227828c28146049fcecf3fa10775474cacc6",
                ),
                (
                    "cifar10.1_v6_labels.npy",
                    8_128,
                    "sha256:ae40beda001693674edc94d925ee8268cfe68905f8f9aff800c8dcdfcd6c9448",
                ),
            )
        ),
        ("CIFAR-10.1/cifar10.1_v6_data.npy", "CIFAR-10.1/cifar10.1_v6_labels.npy"),
        "https://github.com/modestyachts/CIFAR-10.1",
    ),
    "cifar10.2": Download(
        (
            Remote(
                "cifar102_test.npz",
                (
                    f"{_GITHUB}/cifar-10.2/master/cifar102_test.npz",
                    "https://github.com/modestyachts/cifar-10.2/raw/master/cifar102_test.npz",
                ),
                folder="CIFAR-10.2",
            ),
        ),
        ("CIFAR-10.2/cifar102_test.npz",),
        "https://github.com/modestyachts/cifar-10.2",
    ),
    "imagenet-v2": Download(
        (
            Remote(
                "imagenetv2-matched-frequency.tar.gz",
                (
                    f"{_HUGGING_FACE}/vaishaal/ImageNetV2/resolve/main/"
                    "imagenetv2-matched-frequency.tar.gz",
                    "https://imagenetv2public.s3-us-west-2.amazonaws.com/"
                    "imagenetv2-matched-frequency.tar.gz",
                ),
                1_264_079_360,
                "sha256:f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c",
            ),
        ),
        ("imagenetv2-matched-frequency-format-val",),
        "https://github.com/modestyachts/ImageNetV2",
    ),
    "imagenet-r": Download(
        (
            Remote(
                "imagenet-r.tar",
                (f"{_HENDRYCKS}/imagenet-r.tar",),
                2_191_079_936,
                "sha256:18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52",
            ),
        ),
        ("imagenet-r",),
        "https://github.com/hendrycks/imagenet-r",
    ),
    "imagenet-a": Download(
        (
            Remote(
                "imagenet-a.tar",
                (f"{_HENDRYCKS}/imagenet-a.tar",),
                687_552_512,
                "sha256:3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e",
            ),
        ),
        ("imagenet-a",),
        "https://github.com/hendrycks/natural-adv-examples",
    ),
    "imagenet-sketch": Download(
        (
            Remote(
                "ImageNet-Sketch.zip",
                (
                    f"{_HUGGING_FACE}/songweig/imagenet_sketch/resolve/main/"
                    "data/ImageNet-Sketch.zip",
                ),
            ),
        ),
        ("sketch",),
        "https://github.com/HaohanWang/ImageNet-Sketch",
    ),
    "cifar100": Download(
        (
            Remote(
                "cifar-100-python.tar.gz",
                ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
                169_001_437,
                "md5:eb9058c3a382ffc7106e4002c42a8d85",
            ),
        ),
        ("cifar-100-python",),
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
}
"""Downloads that need no agreement, by the kind of the source that reads them."""
