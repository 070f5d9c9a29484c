"""Zip archives of plain files: written the same each time, and read without trust."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from shiftbench.core.errors import InputError, one_line

CHUNK = 2**20
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that zip can write


def write_archive(to: Path, members: Mapping[str, Path]) -> None:
    """Write a zip archive whose bytes depend on nothing but the members.

    Args:
        to: the archive.
        members: the file of each, by name.
    """
    with zipfile.ZipFile(to, "w") as archive:
        for name, path in members.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, 0o100644 << 16  # as on Unix, everywhere
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)


class Archive:
    """A zip archive of plain files.

    Args:
        file: opened for reading.

    Attributes:
        sizes: declared bytes by name, in the order of the file; a list, since names may repeat.
        packed: bytes in the archive of each, by name.

    Raises:
        InputError: a member is no plain file.
    """

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        for info in file.infolist():
            plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            kind = info.external_attr >> 28
            if info.is_dir() or info.flag_bits & 1 or not plain or kind not in (0, 8):
                raise InputError(f"its member {info.filename!r} is no plain file")
        self.sizes = [(info.filename, info.file_size) for info in file.infolist()]
        self.packed = {info.filename: info.compress_size for info in file.infolist()}

    def open(self, name: str) -> IO[bytes]:
        """A member's content."""
        return self._file.open(name)


BROKEN = (
    *(OSError, EOFError, ValueError, RuntimeError, OverflowError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
"""The errors that reading a broken archive raises."""


@contextmanager
def opened(file: Path) -> Iterator[Archive]:
    """An archive for reading.

    Raises:
        InputError: it is no zip archive, is broken, or holds more than plain files.
    """
    try:
        zipped = zipfile.ZipFile(file)
    except BROKEN as error:
        raise InputError(f"{file}: is no zip archive ({one_line(error)})") from error
    with zipped:
        try:
            archive = Archive(zipped)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        yield archive
