"""Suites by name: those in ``suites/`` of the working directory, and those that are shipped."""

from __future__ import annotations

from pathlib import Path

from shiftbench.core.errors import InputError
from shiftbench.core.shipped import shipped
from shiftbench.core.words import nearest

ENDINGS = (".yaml", ".yml")


def folders() -> list[Path]:
    """Folders that are searched for a suite by name; the first match wins."""
    places = (Path("suites"), shipped("suites"))
    found = {place.resolve(): place for place in reversed(places) if place.is_dir()}
    return list(reversed(found.values()))


def files_in(folder: Path) -> list[Path]:
    """The suite files of a folder, by name."""
    return sorted(folder.glob("*.yaml"))


def find(suite: str | Path) -> Path:
    """The file that ``suite`` means: a path, or the name of a suite such as ``quickstart``.

    Raises:
        InputError: no suite has that name.
    """
    path = Path(suite)
    if path.suffix in ENDINGS or len(path.parts) != 1 or path.is_file():
        return path
    return find_named(str(suite))


def find_named(name: str) -> Path:
    """The file of the suite called ``name``, in the folders of suites; a path is no name.

    For names that others wrote, such as those in rows of a bundle: no other file is looked at.

    Raises:
        InputError: no suite has that name.
    """
    files = {file.stem: file for folder in reversed(folders()) for file in files_in(folder)}
    if name not in files:
        raise InputError(f'there is no file or suite "{name}"{nearest(name, files)}')
    return files[name]


def find_base(file: Path, extends: str) -> Path | None:
    """The file that a suite's ``extends`` means: one beside it, else a shipped suite by name."""
    beside = file.parent / extends
    if beside.is_file():
        return beside
    among = {at: base for base in files_in(shipped("suites")) for at in (base.stem, base.name)}
    return among.get(extends)
