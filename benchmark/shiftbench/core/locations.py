"""Files and folders that may be local or remote, and the cache directory.

A location is a local path or a URI such as ``s3://bucket/folder``. Local files are read with the
standard library; remote ones through the file systems of pyarrow. Locations are shown and recorded,
so a URI that holds credentials is refused before anything else is done with it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from shiftbench.core.errors import InputError, first_line
from shiftbench.core.stamps import note, note_remote

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CACHE_VARIABLE = "SHIFTBENCH_CACHE"
_BLOCK = 64 * 1024
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_OF_WEB = re.compile(r"(\[[^\]@]*\]|[^:@]*)(:\d*)?")
_OF_OTHERS = re.compile(r"([^:@]*@)?(\[[^\]@]*\]|[^:@]*)(:\d*)?")
_OF_BUCKETS = re.compile(r"[^:@]*")
_OF_GOOGLE = re.compile(r"(anonymous@)?[^:@]*")  # how pyarrow is told to use no credentials
_HOSTS = {
    **dict.fromkeys(("http", "https"), _OF_WEB),
    **dict.fromkeys(("s3", "s3a"), _OF_BUCKETS),
    **dict.fromkeys(("gs", "gcs"), _OF_GOOGLE),
}
"""What stands in a URL before its path, by scheme, where it holds no credentials."""
_SECRET_OPTION = re.compile(r"(?i)([?&][^=&]*(?:key|secret|passw|token|sig)[^=&]*=)[^&]+")


class DirectoryEntry(NamedTuple):
    """One entry of a folder.

    Attributes:
        name: as the system gives it: bytes that are not UTF-8 are surrogates.
        size: in bytes, 0 for a folder.
        is_folder: true also of a link to one.
        fault: why it cannot be used, such as a link that leads nowhere; "" if it can.
    """

    name: str
    size: int
    is_folder: bool
    fault: str = ""


def cache_dir() -> Path:
    """Where decoded images and the miniature world are kept: $SHIFTBENCH_CACHE or ~/.cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "shiftbench"


def is_remote(location: str) -> bool:
    """True if a location is a URI."""
    return "://" in location


def without_credentials(text: str) -> str:
    """A text for people: credentials in its URLs are left out."""
    return _URL.sub(lambda found: _bare(found[0]), text) if "://" in text else text


def refuse_credentials(text: str) -> None:
    """See that no URL in a text holds credentials.

    Raises:
        InputError: one does; the message does not show them.
    """
    shown = without_credentials(text)
    if shown != text:
        raise InputError(
            f"{shown}: a URL is shown and recorded, so it must hold no credentials; give them in "
            "the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def _bare(url: str) -> str:
    """A URL less its credentials."""
    scheme, _, rest = url.partition("://")
    location, mark, options = rest.partition("?")
    host, slash, path = location.partition("/")
    if not _HOSTS.get(scheme.lower(), _OF_OTHERS).fullmatch(host):
        _, at, after = location.rpartition("@")  # a secret may hold a slash, so not of the host
        location = f"…@{after}" if at else f"…{slash}{path}"
    return f"{scheme}://{location}" + _SECRET_OPTION.sub(r"\1…", mark + options)


def join(root: str, path: str) -> str:
    """The location of ``path`` under ``root``; absolute paths and URIs stay as they are."""
    if is_remote(path) or Path(path).is_absolute():
        return path
    return f"{root.rstrip('/')}/{path}"


def filesystem(location: str) -> tuple[FileSystem, str]:
    """The pyarrow file system of a location, and the path on it.

    Raises:
        InputError: the URI holds credentials, is of no kind that pyarrow knows, or cannot be
            reached.
    """
    from pyarrow import ArrowInvalid, fs

    if not is_remote(location):
        return fs.LocalFileSystem(), location
    refuse_credentials(location)
    note_remote()
    try:
        found: tuple[FileSystem, str] = fs.FileSystem.from_uri(location)
    except (ArrowInvalid, OSError, ValueError) as error:
        raise InputError(f"{location}: {first_line(error)}") from error
    return found


def kind_of(location: str) -> Literal["file", "folder"] | None:
    """The kind of what is at a location; ``None`` if nothing is."""
    if not is_remote(location):
        note("kind", location)
        if os.path.isdir(location):  # noqa: PTH112 - locations are strings
            return "folder"
        return "file" if os.path.isfile(location) else None  # noqa: PTH113
    from pyarrow.fs import FileType

    system, path = filesystem(location)
    try:
        found = system.get_file_info(path).type
    except OSError as error:
        raise InputError(f"{location}: {first_line(error)}") from error
    return {FileType.File: "file", FileType.Directory: "folder"}.get(found)  # type: ignore[return-value]


def entries(location: str) -> list[DirectoryEntry]:
    """The entries of a folder, sorted by name; hidden files are left out.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        found = _remote_entries(location) if is_remote(location) else _local_entries(location)
    except OSError as error:
        raise InputError(f"{shown(location)}: {error.strerror or first_line(error)}") from error
    return sorted(found)


def shown(location: str) -> str:
    """A location or file name for messages: on one line, bytes that are not UTF-8 escaped."""
    text = os.fsencode(location).decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _local_entries(location: str) -> list[DirectoryEntry]:
    note("entries", location)
    with os.scandir(location) as scan:
        return [_local_entry(item) for item in scan if not _hidden(item.name)]


def _local_entry(item: os.DirEntry[str]) -> DirectoryEntry:
    try:
        item.name.encode()
    except UnicodeEncodeError:
        return DirectoryEntry(item.name, 0, item.is_dir(), "its name is not UTF-8")
    if item.is_dir():
        return DirectoryEntry(item.name, 0, True)
    try:
        return DirectoryEntry(item.name, item.stat().st_size, False)
    except OSError as error:
        broken = "is a link that leads nowhere" if item.is_symlink() else str(error.strerror)
        return DirectoryEntry(item.name, 0, False, broken)


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _remote_entries(location: str) -> list[DirectoryEntry]:
    from pyarrow.fs import FileSelector, FileType

    system, path = filesystem(location)
    return [
        DirectoryEntry(info.base_name, info.size or 0, info.type == FileType.Directory)
        for info in system.get_file_info(FileSelector(path))
        if not _hidden(info.base_name)
    ]


def opened(location: str) -> BinaryIO:
    """A file to read from, with random access.

    Raises:
        OSError: it is not there or cannot be read.
    """
    if not is_remote(location):
        note("content", location)
        return open(location, "rb")  # noqa: PTH123
    system, path = filesystem(location)
    file: Any = system.open_input_file(path)
    return file  # type: ignore[no-any-return]


def read(location: str) -> bytes:
    """All bytes of a file.

    Raises:
        InputError: it is not there or cannot be read.
    """
    try:
        with opened(location) as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{location}: {error.strerror or first_line(error)}") from error


def file_digest(location: str) -> str:
    """Hex digest of a file's size and of blocks spread over it: its ends, when it is remote.

    A local file of up to 4 MiB is read whole, a larger one at 64 places, so that arrays of fixed
    size that hold other images get another digest without reading gigabytes.

    Raises:
        InputError: the file is not there or cannot be read.
    """
    blocks = 2 if is_remote(location) else 64
    digest = hashlib.sha256()
    try:
        with opened(location) as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(str(size).encode())
            last = max(size - _BLOCK, 0)
            step = max(last // (blocks - 1), 1 if blocks == 2 else _BLOCK)
            for start in (*range(0, last, step), last):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    except OSError as error:
        raise InputError(f"{location}: {error.strerror or first_line(error)}") from error
    return digest.hexdigest()
