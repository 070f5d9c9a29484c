"""Folders in object stores, through fsspec: ``s3://``, ``gs://``, ``hf://`` and what else it knows.

Whatever fails for a while is tried again, longer and longer apart, by the store's own client where
that does so. Credentials are those of the
environment, as each store's own tools find them; a URL that holds some is refused, since URLs are
shown and recorded.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from shiftbench.core.errors import InputError, StorageError, disk_full, first_line
from shiftbench.core.locations import refuse_credentials

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Between the tries of what fails; after the last, it has failed."""
_FINAL = (
    FileNotFoundError,
    PermissionError,
    FileExistsError,
    NotImplementedError,
    ImportError,
    ValueError,
)
_REFUSALS = (400, 401, 403)
_TRIES_ITSELF = ("gs", "gcs")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}
_VERSIONS = ("ETag", "etag", "generation", "xet_hash", "blob_id", "mtime", "created")
_TIMES = ("LastModified", "mtime", "updated", "created")
_OPTIONS = ("endpoint_override", "scheme", "region")

T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """What a store tells of an object.

    Attributes:
        size: bytes.
        version: differs from that of whatever stood there before.
        modified: seconds since 1970 on the store's clock; 0 if it does not tell.
    """

    size: int
    version: str
    modified: float

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Facts:
        """From what fsspec says, in the words of each store."""
        said = next((info[name] for name in _VERSIONS if info.get(name) is not None), "")
        when = next((info[name] for name in _TIMES if info.get(name) is not None), None)
        return cls(int(info.get("size") or 0), str(said).strip('"'), _seconds(when))

    @property
    def stamp(self) -> int:
        """A time in nanoseconds: to the second when it was written, and then of its version.

        Where the store does not tell when, it is now.
        """
        return int(self.modified or time.time()) * 10**9 + self._digest

    def stamped(self, time_ns: int, size: int) -> bool:
        """True if time and size of a file are those of its copy."""
        second, digest = divmod(time_ns, 10**9)
        same = (digest, size) == (self._digest, self.size)
        return same and (not self.modified or second == int(self.modified))

    @property
    def _digest(self) -> int:
        digest = hashlib.sha256(f"{self.version}/{self.size}".encode()).digest()
        return int.from_bytes(digest[:4]) % 10**9


@dataclass(frozen=True)
class Remote:
    """A folder of an object store.

    Attributes:
        url: of it; see ``plain_url``.
    """

    url: str

    @property
    def exclusive(self) -> bool:
        """True if ``create`` lets exactly one of several make an object."""
        return urlsplit(self.url).scheme != "hf"

    def all(self, name: str = "") -> dict[str, Facts]:
        """Every object below a folder, by its name in this one.

        Raises:
            StorageError: they cannot be listed.
        """

        def find() -> dict[str, Facts]:
            system, root = self._system()
            system.invalidate_cache()
            base = f"{root}/{name}".rstrip("/")
            try:
                found = system.find(base, detail=True)
            except FileNotFoundError:
                return {}
            start = len(root) + 1
            return {path[start:]: Facts.of(of) for path, of in found.items() if path != base}

        return self._tried(find, name, "cannot be listed")

    def facts(self, name: str) -> Facts | None:
        """An object; ``None`` if there is none."""

        def info() -> Facts | None:
            system, root = self._system()
            system.invalidate_cache()
            try:
                found = system.info(f"{root}/{name}")
            except FileNotFoundError:
                return None
            return Facts.of(found) if found["type"] == "file" else None

        return self._tried(info, name, "cannot be read")

    def get(self, name: str, to: Path) -> bool:
        """Write an object into a file; false if there is none."""

        def get() -> bool:
            system, root = self._system()
            try:
                system.get_file(f"{root}/{name}", str(to))
            except FileNotFoundError:
                return False
            return True

        return self._tried(get, name, "cannot be read")

    def put(self, file: Path, name: str) -> Facts:
        """Make a file an object, in place of what was there."""

        def put() -> None:
            system, root = self._system()
            system.put_file(str(file), f"{root}/{name}")

        self._tried(put, name, "cannot be written")
        return self.facts(name) or Facts(file.stat().st_size, "", 0.0)

    def read(self, name: str) -> bytes | None:
        """The content of an object; ``None`` if there is none."""

        def read() -> bytes | None:
            system, root = self._system()
            try:
                content: bytes = system.cat_file(f"{root}/{name}")
            except FileNotFoundError:
                return None
            return content

        return self._tried(read, name, "cannot be read")

    def write(self, name: str, content: bytes, mode: str = "overwrite") -> None:
        """Make some bytes an object, in place of what was there."""

        def write() -> None:
            system, root = self._system()
            path = f"{root}/{name}"
            if "file" in system.protocol:  # others have no folders
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
            try:
                system.pipe_file(path, content, mode=mode)
            except OSError as error:  # not all stores of this kind say what the condition was
                said = getattr(error.__cause__, "response", None)
                code = said.get("Error", {}).get("Code") if isinstance(said, dict) else None
                if mode == "create" and code == "PreconditionFailed":
                    raise FileExistsError(path) from error
                raise

        self._tried(write, name, "cannot be written")

    def create(self, name: str, content: bytes) -> bool:
        """Make some bytes an object; false if there is one, made by whomever.

        A store decides that (``If-None-Match: *`` of S3), so exactly one of several makes it.
        """
        try:
            self.write(name, content, "create")
        except FileExistsError:
            return self.read(name) == content  # the answer to an earlier try may have been lost
        return True

    def move(self, name: str, to: str) -> None:
        """Give an object another name."""

        def move() -> None:
            system, root = self._system()
            system.mv(f"{root}/{name}", f"{root}/{to}")

        self._tried(move, name, "cannot be moved")

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are no reason to fail."""
        doomed = [*names]

        def delete() -> None:
            system, root = self._system()
            paths = [f"{root}/{name}" for name in doomed]
            with suppress(FileNotFoundError):
                if "hf" not in system.protocol:
                    system.rm(paths)
                    return
            for path in paths:  # one was not there, or the store has no list of them
                with suppress(FileNotFoundError):
                    system.rm_file(path)

        if doomed:
            self._tried(delete, doomed[0], "cannot be deleted")

    def opened(self, name: str) -> tuple[Any, str]:
        """The file system of fsspec, and an object's or a folder's path on it."""
        system, root = self._system()
        return system, f"{root}/{name}"

    def _system(self) -> tuple[Any, str]:
        """The file system, and the folder's path on it. fsspec keeps one for each process."""
        import fsspec

        parts = urlsplit(self.url)
        _quiet(parts.scheme)
        location = self.url.partition("?")[0]
        asked = {name: of[0] for name, of in parse_qs(parts.query).items()}
        options: dict[str, Any] = {}
        if parts.scheme in ("s3", "gs", "gcs"):
            options["use_listings_cache"] = False  # others write there, too
        if parts.scheme == "file":
            options["auto_mkdir"] = True
        if "endpoint_override" in asked:
            options["endpoint_url"] = (
                f"{asked.get('scheme', 'https')}://{asked['endpoint_override']}"
            )
        if "region" in asked:
            options["client_kwargs"] = {"region_name": asked["region"]}
        try:
            system, root = fsspec.core.url_to_fs(location, **options)
        except ImportError as error:
            raise InputError(
                f"{self.shown}: {_PACKAGES.get(parts.scheme, 'a package')} is needed for it: "
                "pip install 'shiftbench[stores]'"
            ) from error
        except ValueError as error:
            raise InputError(f"{self.shown}: {first_line(error)}") from error
        return system, root.rstrip("/")

    @property
    def shown(self) -> str:
        """The URL for people, without its options."""
        return self.url.partition("?")[0]

    def _tried(self, act: Callable[[], T], name: str, problem: str) -> T:
        """What ``act`` returns, tried again after errors that may pass.

        Raises:
            FileExistsError: the object is there.
            StorageError: it failed for good.
        """
        pauses = () if urlsplit(self.url).scheme in _TRIES_ITSELF else PAUSES_S
        for pause in (*pauses, None):
            try:
                return act()
            except (InputError, FileExistsError):
                raise
            except Exception as error:  # each store's client has errors of its own
                if pause is None or _is_final(error):
                    raise self._failed(name, problem, error) from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _failed(self, name: str, problem: str, error: Exception) -> StorageError:
        where = f"{self.shown}/{name}".rstrip("/")
        if isinstance(error, FileNotFoundError):
            return StorageError(
                f"{where}: {problem}: there is no such bucket or repository, or it may not be seen "
                "with these credentials"
            )
        return StorageError(f"{where}: {problem} ({first_line(error)})")


def _is_final(error: Exception) -> bool:
    """True of what will be so the next time, too."""
    lacks_credentials = "credentials" in type(error).__name__.lower()
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error, _FINAL) or lacks_credentials or status in _REFUSALS or disk_full(error)


def _quiet(scheme: str) -> None:
    """Have a store's client print nothing: what fails is told by whoever asked for it."""
    if scheme == "s3":
        logging.getLogger("aiobotocore.credentials").setLevel(logging.WARNING)  # tells of each
    elif scheme in ("gs", "gcs"):
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        # Or it asks what kind a bucket is before each request, which not everybody may.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    elif scheme == "hf":
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()


def plain_url(text: str) -> str:
    """A URL as it names one folder, in one way.

    Raises:
        InputError: it names no bucket, or holds credentials or options that are not known.
    """
    refuse_credentials(text)
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InputError(f"{text}: {first_line(error)}") from error
    if parts.scheme in _PACKAGES and (not parts.netloc or "@" in parts.netloc):
        raise InputError(f"{text}: names no bucket; such as {parts.scheme}://bucket/folder")
    if odd := sorted(parse_qs(parts.query, keep_blank_values=True).keys() - {*_OPTIONS}):
        raise InputError(
            f"{text.partition('?')[0]}: the option {odd[0]} of a URL is not known; there are "
            f"{', '.join(_OPTIONS)}, and credentials belong into the environment"
        )
    location, mark, query = text.partition("?")
    return location.rstrip("/") + mark + query


def _seconds(when: object) -> float:
    """A store's time as seconds since 1970."""
    if isinstance(when, str):
        with suppress(ValueError):
            when = datetime.fromisoformat(when)
    if isinstance(when, datetime):
        return when.timestamp()
    return float(when) if isinstance(when, int | float) else 0.0
