"""A digest of the code behind a plugin, so that an edit of it makes other runs. Imports none of it.

The code of a plugin is its whole package, and whatever that imports from outside of the
environment: a module in the working folder, an editable installation. What lies in the environment
(the standard library and site-packages) has versions, which rows record. Imports are read from the
source; those that are computed while running are not seen.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path

DIGITS = 12
CODE = (*SOURCE_SUFFIXES, *{Path(suffix).suffix for suffix in EXTENSION_SUFFIXES})
"""Endings of the files that count: Python sources and compiled modules."""
KNOWN = {*sys.stdlib_module_names, __name__.partition(".")[0]}
"""Packages that are not looked into: the standard library, and this one, for whose changes the
version of run identities stands."""


@dataclass(frozen=True)
class _Digest:
    """A digest, and the size and time of every file and folder that it was made of."""

    value: str
    stamps: tuple[tuple[Path, tuple[int, int]], ...]

    @property
    def valid(self) -> bool:
        """True while no file was edited and none has come or gone."""
        return all(_stamp(path) == stamp for path, stamp in self.stamps)


_known: dict[tuple[str, str], _Digest] = {}
"""By module, and where it lies."""


def source_digest(module: str) -> str:
    """First hex digits of the SHA-256 over all source files behind a module.

    Args:
        module: dotted name. The whole package that it lies in counts: the outermost one that has an
            ``__init__.py``, or the module alone where there is none.

    Returns:
        12 hex digits; "" if the module is not found.
    """
    key = module, _place(module.partition(".")[0])
    known = _known.get(key)
    if known is None or not known.valid:
        known = _known[key] = _computed(module)
    return known.value


def own_code() -> str:
    """Stands for the state of this package's files by sizes and times: an edit makes another one.

    For what is remembered of one machine only.
    """
    folder = Path(__file__).parents[1]
    stats = {path: path.stat() for path in sorted(folder.rglob("*.py"))}
    lines = [f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def source_files(module: str) -> dict[Path, str]:
    """All source files behind a module, each with the name of its module; see ``source_digest``."""
    return _files(module)[0]


def _place(module: str) -> str:
    """Where a module would be imported from, as a text; "" if nowhere."""
    spec = _spec(module)
    return "" if spec is None else f"{spec.origin} {list(spec.submodule_search_locations or ())}"


def _computed(module: str) -> _Digest:
    files, folders = _files(module)
    stamps = tuple((path, _stamp(path)) for path in (*files, *folders))
    if not files:
        return _Digest("", stamps)
    lines = sorted(f"{name} {file.name} {_of_file(file)}" for file, name in files.items())
    return _Digest(hashlib.sha256("\n".join(lines).encode()).hexdigest()[:DIGITS], stamps)


def _files(module: str) -> tuple[dict[Path, str], set[Path]]:
    """The files behind a module by the names of their modules, and the folders of its package."""
    files: dict[Path, str] = {}
    folders: set[Path] = set()
    names: set[str] = set()
    left = list(_whole_package(module, folders))
    while left:
        file, name = left.pop()
        if file in files:
            continue
        files[file] = name
        new = _imports(file, name) - names if file.suffix in SOURCE_SUFFIXES else set()
        names |= new
        left += [found for imported in sorted(new) for found in _outside(imported)]
    return files, folders


def _whole_package(module: str, folders: set[Path]) -> Iterator[tuple[Path, str]]:
    """The files of the package that a module lies in, with the names of their modules.

    Folders that are looked through are added to ``folders``.
    """
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        spec = _spec(name)
        if spec is None:
            return
        if spec.origin is None or not Path(spec.origin).is_file():
            continue  # a namespace, which may belong to many
        file = Path(spec.origin)
        if not spec.submodule_search_locations:
            yield file, name
            return
        root = file.parent
        for path in root.rglob("*"):
            if path.is_dir():
                if path.name != "__pycache__":
                    folders.add(path)
            elif path.suffix in CODE:
                inner = path.relative_to(root).with_suffix("").parts
                yield path, ".".join((name, *inner)).removesuffix(".__init__")
        folders.add(root)
        return


def _imports(file: Path, name: str) -> set[str]:
    """The modules that the import statements of a file name, perhaps with a class as last part."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = [*(above if node.level else []), *filter(None, [node.module])]
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return {name for name in found if name.partition(".")[0] not in KNOWN}


def _outside(module: str) -> Iterator[tuple[Path, str]]:
    """The files of a module and of the packages above it, if they lie outside of the environment.

    A last part that is no module, such as a class, is passed over.
    """
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        spec = _spec(name)
        if spec is None:
            return
        if spec.origin is None or not Path(spec.origin).is_file():
            continue
        file = Path(spec.origin)
        if _in_environment(file):
            return
        yield file, name


def _spec(module: str) -> ModuleSpec | None:
    """Where a module would be imported from; unlike ``importlib.util`` it imports no parent."""
    parent, dot, _ = module.rpartition(".")
    try:
        if not dot:
            return importlib.util.find_spec(module)
        above = _spec(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        return PathFinder.find_spec(module, list(above.submodule_search_locations))
    except (ImportError, ValueError, AttributeError):
        return None


@cache
def _environment() -> tuple[Path, ...]:
    """The folders of the standard library and of installed packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = sysconfig.get_paths()
    folders = [*(paths[name] for name in names), *site.getsitepackages()]
    return tuple({Path(folder).resolve() for folder in [*folders, site.getusersitepackages()]})


def _in_environment(file: Path) -> bool:
    resolved = file.resolve()
    return any(resolved.is_relative_to(folder) for folder in _environment())


def _of_file(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of the last change; of what is gone, zeros."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
