"""Downloads the data sets that are free to download: resumed, checked, unpacked, all or nothing.

Sizes and checksums are those that torchvision (CIFAR-10) and TensorFlow Datasets (the others)
record. Where neither has one, the archive's own checks and ``data verify`` must do.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shiftbench.core.errors import InputError, first_line

_GITHUB = "https://raw.githubusercontent.com/modestyachts"
_HUGGING_FACE = "https://huggingface.co/datasets"
_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are there, and the bytes in all where known."""

ATTEMPTS = 4
"""Times that nothing may arrive from a mirror before the next one is tried."""

PAUSE = 0.5
"""Seconds before another attempt; twice as many after each one in vain."""

_BLOCK = 1024 * 1024
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Attributes:
        name: what to call it.
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
        files: what it consists of.
        makes: the file or folder of the data root that is there when it is complete.
        home: where a person finds it.
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
}
"""What can be downloaded without an agreement, by the name of the source it is read as."""


class _MirrorError(Exception):
    """One mirror cannot give a file; ``broken`` when what came from it must be discarded."""

    def __init__(self, message: str, broken: bool = False) -> None:
        super().__init__(message)
        self.broken = broken


def fetch(
    name: str,
    root: Path,
    progress: Progress | None = None,
    catalogue: dict[str, Download] = CATALOGUE,
) -> bool:
    """Download a data set into a data root.

    Calling it again goes on where an interrupted download stopped.

    Args:
        name: of ``catalogue``.
        root: the data root, made when it is not there.
        progress: told of the bytes that have arrived.
        catalogue: what there is to download.

    Returns:
        False when the data set was there already.

    Raises:
        InputError: the name is unknown, no mirror gives the file, or it cannot be written.
    """
    if name not in catalogue:
        raise InputError(f'"{name}" cannot be downloaded; these can: {", ".join(catalogue)}')
    download = catalogue[name]
    if all((root / path).exists() for path in download.makes):
        return False
    try:
        cellar = root / ".downloads"
        cellar.mkdir(parents=True, exist_ok=True)
        for file in download.files:
            if file.folder and (root / file.folder / file.name).exists():
                continue
            arrived = _any_mirror(file, cellar, progress, download.home)
            if file.folder:
                (root / file.folder).mkdir(parents=True, exist_ok=True)
                arrived.replace(root / file.folder / file.name)
            else:
                _unpack(arrived, root, download.makes)
                arrived.unlink()
        if not any(cellar.iterdir()):
            cellar.rmdir()
    except OSError as error:
        raise InputError(f"{root}: {error.strerror or error}") from error
    return True


def _any_mirror(file: Remote, cellar: Path, progress: Progress | None, home: str) -> Path:
    """The downloaded and checked file, from the first mirror that gives it."""
    finished = cellar / file.name
    if finished.exists():  # unpacking it was interrupted
        return finished
    part = cellar / f"{file.name}.part"
    failures = []
    for url in file.urls:
        try:
            _with_retries(file, url, part, progress)
            _check(file, part)
        except _MirrorError as error:
            failures.append(f"{url}: {error}")
            if error.broken:
                _discard(part)
        else:
            part.replace(finished)
            _discard(part)
            return finished
    raise InputError(f"{file.name}: no mirror gives it ({'; '.join(failures)}); see {home}")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


def _origin(part: Path) -> Path:
    """The file beside a partial download that says where it came from."""
    return part.with_suffix(".origin")


def _with_retries(file: Remote, url: str, part: Path, progress: Progress | None) -> None:
    """Download ``part``, going on after interruptions as long as something arrives in between."""
    vain = 0
    while True:
        before = _size(part)
        try:
            _transfer(file, url, part, progress)
            return
        except (http.client.HTTPException, OSError) as error:
            if _is_local(error):
                raise
            vain = vain + 1 if _size(part) <= before else 0
            refused = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
            if refused or vain == ATTEMPTS:
                raise _MirrorError(_reason(error)) from error
            time.sleep(PAUSE * 2**vain)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _is_local(error: Exception) -> bool:
    """Whether this machine's disk, not the network, is at fault."""
    if isinstance(error, urllib.error.URLError) or not isinstance(error, OSError):
        return False
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _transfer(file: Remote, url: str, part: Path, progress: Progress | None) -> None:
    """Append what is missing to ``part``, or begin it anew when it cannot be resumed."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise _MirrorError("not an http address")
    request = urllib.request.Request(url, headers={"User-Agent": "shiftbench"})  # noqa: S310
    start = _resume_from(file, url, part, request)
    if file.size is not None and start == file.size:
        return
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _MirrorError("has fewer bytes than were there already", broken=True) from error
        raise
    with response:
        if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise _MirrorError("sends a web page instead of the file")
        resumed = response.status == http.client.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _MirrorError("sends another part than was asked for", broken=True)
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        if file.size is not None and total not in (None, file.size):
            raise _MirrorError(f"has {total:,} bytes instead of {file.size:,}")
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        _origin(part).write_text(f"{url}\n{version}\n")
        with part.open("ab" if resumed else "wb") as out:
            done = start
            while block := response.read(_BLOCK):
                out.write(block)
                done += len(block)
                if progress is not None:
                    progress(file.name, done, total)
    if total is not None and done < total:
        raise http.client.IncompleteRead(b"", total - done)


def _resume_from(file: Remote, url: str, part: Path, request: urllib.request.Request) -> int:
    """The byte to go on from; asks for the rest in ``request``.

    A file of another mirror, or a changed one, is only gone on with when a checksum will tell.
    """
    start = _size(part)
    if start == 0:
        return 0
    origin = _origin(part).read_text().splitlines() if _origin(part).exists() else []
    same, version = origin[:1] == [url], "".join(origin[1:2])
    strong = version if same and not version.startswith("W/") else ""
    if not file.checksum and not strong:
        return 0
    request.add_header("Range", f"bytes={start}-")
    if strong:
        request.add_header("If-Range", strong)
    return start


def _check(file: Remote, part: Path) -> None:
    """Refuse a download of the wrong size or checksum, or a web page in disguise."""
    size = part.stat().st_size
    if file.size is not None and size != file.size:
        raise _MirrorError(f"sent {size:,} bytes instead of {file.size:,}", broken=True)
    with part.open("rb") as content:
        if content.read(512).lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise _MirrorError("sends a web page instead of the file", broken=True)
        if file.checksum:
            algorithm, _, expected = file.checksum.partition(":")
            content.seek(0)
            found = hashlib.file_digest(content, algorithm).hexdigest()
            if found != expected:
                raise _MirrorError(f"sent a file with another {algorithm} sum", broken=True)


def _unpack(archive: Path, root: Path, makes: tuple[str, ...]) -> None:
    """Unpack an archive beside the data root's folders, then move what it makes into place."""
    for left_over in archive.parent.glob(f"{archive.name}-*"):  # by a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(dir=archive.parent, prefix=f"{archive.name}-"))
    try:
        _extract(archive, beside)
        for path in makes:
            if not (beside / path).exists():
                raise ValueError(f"it does not hold {path}")
            os.replace(beside / path, root / path)  # noqa: PTH105 - refuses a filled folder
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as error:
        archive.unlink(missing_ok=True)
        raise InputError(f"{archive}: a broken or unsafe archive: {first_line(error)}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _extract(archive: Path, target: Path) -> None:
    """Unpack a tar or zip archive; nothing can be written outside ``target``."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            for name in content.namelist():
                if name.startswith(("/", "\\")) or ".." in PurePosixPath(name).parts:
                    raise ValueError(f"it would write to {name}")
            content.extractall(target)  # noqa: S202 - names are checked, zipfile makes no links
    else:
        with tarfile.open(archive) as content:
            content.extractall(target, filter="data")
