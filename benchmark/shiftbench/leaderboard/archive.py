"""Zip and tar archives of plain files: written the same each time, and read without trust."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

from shiftbench.core.errors import InputError

MOST_MEMBERS = 20_000
CHUNK = 2**20
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that zip can write


def _write_zip(to: Path, members: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(to, "w") as archive:
        for name, path in members.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, 0o100644 << 16  # as on Unix, everywhere
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)


def _write_tar(to: Path, members: Mapping[str, Path]) -> None:
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = path.stat().st_size, 0o644
            with path.open("rb") as source:
                archive.addfile(info, source)


WRITERS = {".zip": _write_zip, ".tar": _write_tar}


class Archive(Protocol):
    """What a zip and a tar archive have in common here.

    Attributes:
        sizes: declared bytes by name, in the order of the file; a list, since names may repeat.
    """

    sizes: list[tuple[str, int]]

    def open(self, name: str) -> IO[bytes]:
        """A member's content."""
        ...


class _Zip:
    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        for info in file.infolist():
            plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            kind = info.external_attr >> 28
            if info.is_dir() or info.flag_bits & 1 or not plain or kind not in (0, 8):
                raise InputError(f"its member {info.filename!r} is no plain file")
        self.sizes = [(info.filename, info.file_size) for info in file.infolist()]

    def open(self, name: str) -> IO[bytes]:
        return self._file.open(name)


class _Tar:
    def __init__(self, file: tarfile.TarFile) -> None:
        self._file = file
        self._members: dict[str, tarfile.TarInfo] = {}
        self.sizes: list[tuple[str, int]] = []
        while (info := file.next()) is not None:
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse is not None:
                raise InputError(f"its member {info.name!r} is no plain file")
            if len(self.sizes) > MOST_MEMBERS:
                break
            self.sizes.append((info.name, info.size))
            self._members[info.name] = info

    def open(self, name: str) -> IO[bytes]:
        found = self._file.extractfile(self._members[name])
        if found is None:
            raise InputError(f"its member {name!r} is no plain file")
        return found


BROKEN = (
    *(OSError, EOFError, ValueError, RuntimeError, OverflowError, NotImplementedError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error),
)
"""What reading an archive raises when it is broken."""


@contextmanager
def opened(file: Path) -> Iterator[Archive]:
    """An archive, whatever its name says; what is wrong with it is an ``InputError``."""
    with ExitStack() as stack:
        try:
            with file.open("rb") as start:
                is_zip = start.read(2) == b"PK"
            found: Archive = (
                _Zip(stack.enter_context(zipfile.ZipFile(file)))
                if is_zip
                else _Tar(stack.enter_context(tarfile.open(file, "r:")))
            )
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        except BROKEN as error:
            raise InputError(f"{file}: is no zip or tar archive ({reason(error)})") from error
        yield found


def reason(error: BaseException) -> str:
    """An error's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__
