"""What a job on a cluster needs of this machine, as one small archive. No ray, no torch."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from shiftbench.core.errors import InputError
from shiftbench.core.plugins import KINDS, VARIABLE, development_modules
from shiftbench.core.shipped import shipped
from shiftbench.core.source_digest import source_files
from shiftbench.suite.finding import find
from shiftbench.suite.reading import chain

PACKAGE = Path(__file__).parents[1]
SUITES = "submitted"
"""The folder of the archive with the suite's own files."""
MINIATURE_BACKBONE = "shiftbench/data/miniature/backbone/open_clip_model.safetensors"
_DATE = (1980, 1, 1, 0, 0, 0)  # of all files, so that the same content is uploaded once
_LEFT_OUT = ("__pycache__", "*.pyc", ".*")


def write_archive(
    archive: Path, suite: str, plugins: Iterable[str] = (), *, miniature: bool = True
) -> str:
    """Write the package, a suite and its plugins as a job's working directory.

    It holds the package as a wheel does, so it is the same made from a checkout and from an
    installed wheel, and it is imported before a version that the cluster may have.

    Args:
        archive: file to write.
        suite: a file, or the name of one.
        plugins: installed distributions, or modules that can be imported here. The modules that
            ``SHIFTBENCH_PLUGINS`` names go along without being named again.
        miniature: with the miniature backbone, which is larger than all the rest.

    Returns:
        the suite as the job has to name it.

    Raises:
        InputError: there is no such suite or plugin.
    """
    named, files = _suite_files(find(suite))
    files |= _tree(PACKAGE, "shiftbench")
    if not miniature:
        del files[MINIATURE_BACKBONE]
    files |= _tree(shipped("suites"), "shiftbench/suites", "*.yaml")  # the schema is for editors
    for read in ("*.parquet", "*.yaml"):  # not what the former are made of
        files |= _tree(shipped("published"), "shiftbench/published", read)
    for module in development_modules():
        files |= _module_files(module, VARIABLE)
    for plugin in plugins:
        files |= _plugin_files(plugin)
    with zipfile.ZipFile(archive, "w") as written:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            written.writestr(entry, content)
    return named


def _suite_files(file: Path) -> tuple[str, dict[str, bytes]]:
    """How a job names a suite, and its files in the archive, as they lie to each other."""
    own = [path for path in chain(file) if not path.resolve().is_relative_to(_shipped_suites())]
    if not own:
        return file.stem, {}
    paths = [Path(os.path.abspath(path)) for path in own]  # noqa: PTH100 - links stay as they are
    top = Path(os.path.commonpath([path.parent for path in paths]))
    named = {f"{SUITES}/{path.relative_to(top).as_posix()}": path.read_bytes() for path in paths}
    return [*named][-1], named


def _shipped_suites() -> Path:
    return shipped("suites").resolve()


def _tree(folder: Path, name: str, pattern: str = "*") -> Iterator[tuple[str, bytes]]:
    """The files below a folder, whatever git ignores, by their names in the archive."""
    for file in folder.rglob(pattern):
        inner = file.relative_to(folder)
        hidden = any(Path(part).match(pattern) for part in inner.parts for pattern in _LEFT_OUT)
        if file.is_file() and not hidden:
            yield f"{name}/{inner.as_posix()}", file.read_bytes()


def _plugin_files(plugin: str) -> Iterator[tuple[str, bytes]]:
    """The files of a plugin: an installed distribution, with its entry points, or a module."""
    try:
        distribution = metadata.distribution(plugin)
    except (metadata.PackageNotFoundError, ValueError):
        yield from _module_files(plugin, "--plugin")
        return
    groups = {f"shiftbench.{kind}" for kind in KINDS}
    points = [point for point in distribution.entry_points if point.group in groups]
    if not points:
        raise InputError(f"--plugin {plugin}: it has no entry points in {', '.join(groups)}")
    for point in points:
        yield from _module_files(point.module, f"--plugin {plugin}")
    folder = f"{distribution.name.replace('-', '_')}-{distribution.version}.dist-info"
    facts = {"Metadata-Version": "2.1", "Name": distribution.name, "Version": distribution.version}
    lines = "".join(f"{key}: {value}\n" for key, value in facts.items())
    yield f"{folder}/METADATA", lines.encode()
    yield f"{folder}/entry_points.txt", (distribution.read_text("entry_points.txt") or "").encode()


def _module_files(module: str, named: str) -> Iterator[tuple[str, bytes]]:
    """The files behind a module; all of a package, code or not.

    Raises:
        InputError: there is no such module.
    """
    found = source_files(module)
    if not found:
        raise InputError(f"{named}: there is no package or module {module}")
    for file, name in found.items():
        place = name.replace(".", "/")
        if file.name == "__init__.py":
            yield from _tree(file.parent, place)
        else:
            # A module keeps its ending, and a compiled one its whole name.
            yield f"{place.rpartition('/')[0]}/{file.name}".lstrip("/"), file.read_bytes()
