"""Which Parquet files a path means: a file, a folder, a pattern or several, of one split.

Folders of the Hugging Face hub hold the files of all splits beside each other, so a folder is read
only when its files are of one split, by their names, or when the split is named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.core.locations import shown
from shiftbench.core.words import nearest
from shiftbench.data.sources.base import AbsentError
from shiftbench.data.sources.listing import entries

ENDING = ".parquet"
_ARROW = ".arrow"

_SHARD = re.compile(r"(?P<split>.+?)[-_.]\d+-of-\d+([-_.][0-9a-f]+)?\.parquet")
_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words that name a split in the names of files, as the hub's own library reads them."""


def find_files(root: str, paths: tuple[str, ...], split: str | None, title: str) -> list[str]:
    """Return the locations of the files, each once, in the order of the paths and of their names.

    Args:
        root: the data root.
        paths: each a file, a folder of files, or a pattern with ``*``, ``?``, ``[…]`` or ``**``.
        split: whose files to take.
        title: of the source, for messages.

    Raises:
        AbsentError: a path leads to no file.
        InputError: the files are of several splits, or none is of the one that is wanted.
    """
    found = dict.fromkeys(file for path in paths for file in _files_of(root, path, title))
    # Of files that are named one by one, or by a pattern, the user has chosen the split.
    chosen = all(_has_pattern(path) or path.endswith(ENDING) for path in paths)
    if chosen and split is None:
        return list(found)
    splits = {file: split_of(file) for file in found}
    counts = Counter(splits.values())
    if split is not None:
        wanted = _WORDS.get(split.lower(), split)
        if wanted not in counts:
            raise InputError(f'{title}: no file is of split "{split}"{nearest(split, counts)}')
        return [file for file in found if splits[file] == wanted]
    if len(counts) > 1:
        listed = ", ".join(
            f"{name or 'none that is known'} ({count} file{'s' if count > 1 else ''})"
            for name, count in counts.items()
        )
        raise InputError(
            f"{title}: the files are of several splits: {listed}; name one as "
            '"split", or say which files as "path": a pattern such as train-*.parquet, or a list'
        )
    return list(found)


def split_of(file: str) -> str:
    """Return the split that a file's name tells, such as ``train``; "" if it tells none."""
    name = file.rsplit("/", 1)[-1]
    shard = _SHARD.fullmatch(name)
    stem = shard["split"] if shard else name.removesuffix(ENDING)
    words = [word for word in re.split(r"[^A-Za-z0-9]+", stem.lower()) if word in _WORDS]
    if words:
        return _WORDS[words[0]]
    return stem if shard else ""


def distinct_names(files: list[str]) -> list[str]:
    """Return a short name for each file: its own, or where two are the same, with its folders."""
    names = [file.rsplit("/", 1)[-1] for file in files]
    if len(set(names)) == len(names):
        return names
    parts = [file.split("/") for file in files]
    shared = 0
    while len({tuple(part[: shared + 1]) for part in parts}) == 1:
        shared += 1
    return ["/".join(part[shared:]) for part in parts]


def _files_of(root: str, path: str, title: str) -> list[str]:
    location = locations.join(root, path)
    kind = locations.kind_of(location)
    if kind == "file":
        if location.endswith(_ARROW):
            raise _of_arrow(location, title)
        return [location]
    if kind == "folder":
        found = _in_folder(location, title)
    elif _has_pattern(path):
        base, *parts = _split_pattern(location)
        found = sorted(_matching(base, parts)) if locations.kind_of(base) == "folder" else []
    else:
        found = []
    if not found:
        raise AbsentError(
            f"{title}: there is no file {shown(location)}, or folder of {ENDING} files"
        )
    return found


def _in_folder(location: str, title: str) -> list[str]:
    held = entries(location)
    names = {entry.name for entry in held}
    if names & {"dataset_dict.json", "state.json"}:
        raise _of_arrow(location, title)
    files = [entry for entry in held if not entry.is_folder and entry.name.endswith(ENDING)]
    for entry in files:
        if entry.fault:
            raise InputError(f"{shown(f'{location}/{entry.name}')}: {entry.fault}")
    if not files and any(name.endswith(_ARROW) for name in names):
        raise _of_arrow(location, title)
    return [f"{location}/{entry.name}" for entry in files]


def _of_arrow(location: str, title: str) -> InputError:
    return InputError(
        f"{title}: {shown(location)} was written by save_to_disk or is of a cache, in Arrow files; "
        "write each split with Dataset.to_parquet, and name those files"
    )


def _has_pattern(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _split_pattern(location: str) -> list[str]:
    """Return the folder before the first part that has a pattern, and the parts from there on."""
    parts = location.split("/")
    first = next(i for i, part in enumerate(parts) if _has_pattern(part))
    return ["/".join(parts[:first]) or "/", *parts[first:]]


def _matching(folder: str, parts: list[str]) -> Iterator[str]:
    """Yield the files under a folder whose path there matches the parts of a pattern."""
    part, *rest = parts
    if part == "**":
        yield from _matching(folder, rest or ["*"])
    for entry in entries(folder):
        path = f"{folder.rstrip('/')}/{entry.name}"
        if part == "**" and entry.is_folder:
            yield from _matching(path, parts)
        elif part != "**" and fnmatchcase(entry.name, part):
            if rest and entry.is_folder:
                yield from _matching(path, rest)
            elif not rest and not entry.is_folder and not entry.fault:
                yield path
