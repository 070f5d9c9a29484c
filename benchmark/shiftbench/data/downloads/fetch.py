"""Downloads a data set into a data root: resumed, checked, unpacked, all or nothing."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from shiftbench.core.errors import InputError, first_line
from shiftbench.data.downloads.catalogue import CATALOGUE, Download
from shiftbench.data.downloads.transfer import Progress, download


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
        catalogue: the downloads there are, by name.

    Returns:
        False when the data set was there already.

    Raises:
        InputError: the name is unknown, no mirror gives the file, or it cannot be written.
    """
    if name not in catalogue:
        raise InputError(f'"{name}" cannot be downloaded; these can: {", ".join(catalogue)}')
    wanted = catalogue[name]
    if all((root / path).exists() for path in wanted.makes):
        return False
    try:
        cellar = root / ".downloads"
        cellar.mkdir(parents=True, exist_ok=True)
        for file in wanted.files:
            if file.folder and (root / file.folder / file.name).exists():
                continue
            arrived = download(file, cellar, progress, wanted.home)
            if file.folder:
                (root / file.folder).mkdir(parents=True, exist_ok=True)
                arrived.replace(root / file.folder / file.name)
            else:
                _unpack(arrived, root, wanted.makes)
                arrived.unlink()
        if not any(cellar.iterdir()):
            cellar.rmdir()
    except OSError as error:
        raise InputError(f"{root}: {error.strerror or error}") from error
    return True


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
