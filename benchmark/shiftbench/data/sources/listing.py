"""What counts as an image and as a class folder, and what is left over by systems and tools.

Every reader of folders goes through here. Leftovers are passed over as if they were not there;
files of other endings are counted, and files that cannot be used are faults of the set.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.core.locations import DirectoryEntry, shown
from shiftbench.data.images import ImageSet, Labels, Names
from shiftbench.data.sources.files import FileImages, fingerprint

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjpg", ".pjp")
_JPEG_2000 = (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")
_PORTABLE = (".ppm", ".pgm", ".pbm", ".pnm", ".pfm")
ENDINGS = (
    *(*_JPEG, *_JPEG_2000, *_PORTABLE),
    *(".png", ".apng", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".tga"),
)
"""Endings, in lower case, of the files that are taken for images: those that Pillow reads."""

_LEFTOVERS = frozenset(
    (
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),  # Windows
        *("$recycle.bin", "recycler", "system volume information"),
        *("@eadir", "@tmp", "@__thumb", "@recycle", "@recently-snapshot"),  # Synology and QNAP
        *("#recycle", "#snapshot", "lost+found", "__pycache__"),
    )
)
"""Files and folders, in lower case, that no person put there; hidden ones are left out before."""

_UNFINISHED = re.compile(
    r"(?i).*(~|\.tmp|\.temp|\.part|\.partial|\.filepart|\.crdownload|\.download|\.!sync|\.swp)"
    r"|~\$.*|~syncthing~.*"
    r"|.*\.sync-conflict-\d{8}-\d{6}.*"
)
"""Names of copies that editors, downloads and sync tools make beside the files themselves."""

_SAMPLED = 16  # files whose contents are part of a fingerprint


@dataclass(frozen=True)
class Listing:
    """The images of some folders.

    Attributes:
        location: of the folder that holds these folders.
        paths: of the images, relative to ``location``, (n,); sorted within a folder.
        folders: the position of each one's folder, (n,) int64.
        fingerprint: of all paths and sizes, and of some contents.
        faults: files that are there and cannot be used, a line each.
        unread: how many files are no images, by their ending ("" without one).
    """

    location: str
    paths: Names
    folders: Labels
    fingerprint: str
    faults: tuple[str, ...] = ()
    unread: Counter[str] = field(default_factory=Counter)

    def image_set(self, labels: Labels, border: int = 0) -> ImageSet:
        """Return the images with these labels (n,) int64, and what is to say about the files.

        Ids are the paths in composed form (NFC), since draws and splits follow them.
        """
        return ImageSet(
            ids=np.array([_composed(path) for path in self.paths.tolist()], np.str_),
            labels=labels,
            images=FileImages(self.location, self.paths, border),
            fingerprint=self.fingerprint,
            faults=self.faults,
            remarks=unread_remarks(self.unread),
        )


def entries(location: str) -> list[DirectoryEntry]:
    """Return what a person put into a folder, sorted by composed name; leftovers are left out.

    Raises:
        InputError: the folder cannot be read.
    """
    found = [entry for entry in locations.entries(location) if not is_leftover(entry.name)]
    return sorted(found, key=lambda entry: _composed(entry.name))


def is_leftover(name: str) -> bool:
    """Return true for a file or folder that an operating system or a sync tool left behind."""
    hidden = name.startswith(".")
    return hidden or name.lower() in _LEFTOVERS or _UNFINISHED.fullmatch(name) is not None


def is_image(name: str) -> bool:
    """Return true for a file that is taken for an image, by the ending of its name."""
    return name.lower().endswith(ENDINGS)


def folders(location: str) -> list[str]:
    """Return the names of the folders in a folder, sorted as ``entries`` are.

    Raises:
        InputError: the folder cannot be read, or a folder's name is not UTF-8.
    """
    found = [entry for entry in entries(location) if entry.is_folder]
    for entry in found:
        if entry.fault:
            raise InputError(f"{shown(f'{location}/{entry.name}')}: {entry.fault}")
    return [entry.name for entry in found]


def list_images(location: str, names: Sequence[str]) -> Listing:
    """Return the images in some folders of ``location``, in this order, nested ones included.

    The same names in another Unicode form, as macOS writes them, give the same fingerprint.

    Raises:
        InputError: a folder cannot be read.
    """
    with ThreadPoolExecutor(16) as pool:
        walks = list(pool.map(partial(_walk, location), names))
    twice = _linked_twice(location, names)
    files = [file for walk in walks for file in walk.files]
    groups = np.repeat(np.arange(len(names), dtype=np.int64), [len(walk.files) for walk in walks])
    listing = "\n".join(f"{_composed(path)}\t{size}" for path, size in files)
    # Two sets may have files of the same names and sizes, so a sample of the contents tells them.
    sample = np.unique(np.linspace(0, len(files) - 1, _SAMPLED).astype(int)) if files else ()
    contents = [_content(f"{location}/{files[i][0]}") for i in sample]
    return Listing(
        location=location,
        paths=np.array([path for path, _ in files], dtype=np.str_),
        folders=groups,
        fingerprint=fingerprint(listing, *contents),
        faults=(*twice, *(fault for walk in walks for fault in walk.faults)),
        unread=sum((walk.unread for walk in walks), Counter()),
    )


def _linked_twice(location: str, names: Sequence[str]) -> list[str]:
    """Return a line for each folder that is, by a link, the same as one before it."""
    first: dict[str, str] = {}
    faults = []
    for name in names if not locations.is_remote(location) else ():
        other = first.setdefault(os.path.realpath(f"{location}/{name}"), name)
        if other != name:
            faults.append(f"{shown(f'{location}/{name}')}: is the same folder as {shown(other)}")
    return faults


def list_outside(location: str) -> tuple[tuple[str, ...], Counter[str]]:
    """Return the faults and the endings of the files that lie beside a folder's class folders."""
    walk = _Walk()
    for entry in entries(location):
        if not entry.is_folder:
            _take(walk, f"{location}/{entry.name}", entry.name, entry)
    loose = Counter(ending_of(path) for path, _ in walk.files)
    return tuple(walk.faults), walk.unread + loose


def unread_remarks(unread: Counter[str]) -> tuple[str, ...]:
    """Return the remark that files of some endings were not read; nothing if there are none."""
    if not unread:
        return ()
    counts = (
        f"{count:,} {ending or 'without an ending'}"
        for ending, count in sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    )
    return (f"files not read: {', '.join(counts)}",)


def ending_of(path: str) -> str:
    """Return the ending of a file's name in lower case, with its dot; "" without one."""
    return shown(PurePosixPath(path).suffix.lower())


@dataclass
class _Walk:
    files: list[tuple[str, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)


def _walk(location: str, folder: str) -> _Walk:
    walk = _Walk()
    above = tuple(map(os.path.realpath, (location, f"{location}/{folder}")))
    _descend(walk, location, folder, above)
    return walk


def _descend(walk: _Walk, location: str, folder: str, above: tuple[str, ...]) -> None:
    """Add what a folder holds; ``above`` are the folders that hold it, itself included."""
    seen: dict[str, str] = {}
    for entry in entries(f"{location}/{folder}"):
        path = f"{folder}/{entry.name}"
        where = f"{location}/{path}"
        twin = seen.setdefault(_composed(entry.name), entry.name)
        if twin != entry.name and (entry.is_folder or is_image(entry.name)):
            fault = f"its name is the same text as that of {twin!a}, in another Unicode form"
            walk.faults.append(f"{location}/{folder}/{entry.name!a}: {fault}")
        elif not entry.is_folder:
            _take(walk, where, path, entry)
        elif entry.fault:
            walk.faults.append(f"{shown(where)}: {entry.fault}")
        elif (real := os.path.realpath(where)) in above:
            walk.faults.append(f"{shown(where)}: is a link to a folder that it lies in")
        else:
            _descend(walk, location, path, (*above, real))


def _take(walk: _Walk, where: str, path: str, entry: DirectoryEntry) -> None:
    """Add a file to those that are images, that are faulty or that are not read."""
    ending = ending_of(entry.name)
    if ending and not is_image(entry.name):
        walk.unread[ending] += 1
    elif entry.fault:
        walk.faults.append(f"{shown(where)}: {entry.fault}")
    elif not ending:
        walk.unread[ending] += 1
    elif entry.size == 0:
        walk.faults.append(f"{shown(where)}: is empty")
    else:
        walk.files.append((path, entry.size))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _content(location: str) -> bytes:
    try:
        return locations.read(location)
    except InputError:  # said when it is decoded; a fingerprint can do without
        return b""
