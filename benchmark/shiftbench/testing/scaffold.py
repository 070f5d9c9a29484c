"""``shiftbench new``: a package with a method, metric, source or task, to be edited."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import jinja2

from shiftbench.core.errors import InputError
from shiftbench.core.files import written_atomically
from shiftbench.core.plugins import Registry

What: TypeAlias = Literal["method", "metric", "source", "task"]
WHAT: tuple[What, ...] = get_args(What)

_EXAMPLES: Mapping[What, str] = {
    "method": "focal",
    "metric": "top-2",
    "source": "listed",
    "task": "small",
}
"""What the parts of a whole plugin are called, after its own name."""
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("shiftbench.testing"),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    autoescape=False,  # noqa: S701 - Python and TOML
)


@dataclass(frozen=True)
class Part:
    """A method, metric, source or task of a package.

    Attributes:
        what: it is.
        name: by which suites refer to it.
    """

    what: What
    name: str

    @property
    def module(self) -> str:
        """The module that it is in, without its package."""
        return self.name.replace("-", "_")

    @property
    def object(self) -> str:
        """The name of its class, or of a task."""
        if self.what == "task":
            return "TASK"
        return "".join(word.capitalize() for word in self.name.split("-"))


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: of the package.
        files: new ones, in it.
        distribution: the package's name for pip.
        added: true if it was there before.
    """

    folder: Path
    files: tuple[Path, ...]
    distribution: str
    added: bool


def new_plugin(name: str, to: Path | None) -> Written:
    """Write a package with an example of everything.

    Args:
        name: of the package.
        to: its folder; by default one of that name here.

    Raises:
        InputError: the name is none, or something is there already.
    """
    _check_name(name)
    parts = [Part(what, f"{name}-{example}") for what, example in _EXAMPLES.items()]
    return _package(name, parts, Path(name) if to is None else to)


def new_part(what: What, name: str, to: Path | None) -> Written:
    """Write a method, metric, source or task into a package, or a package with it alone.

    Args:
        what: it is.
        name: by which suites will refer to it.
        to: folder of the package; by default this one if it holds a package, or else a new folder
            ``shiftbench-NAME`` here.

    Raises:
        InputError: the name is none or taken, or something is there already.
    """
    _check_name(name)
    known = _registry(what).entries().get(name)
    if known is not None:
        raise InputError(f'"{name}" is the name of a {what} already, of {known.provider}')
    part = Part(what, name)
    folder = Path() if to is None else to
    if (folder / "pyproject.toml").exists():
        return _added(part, folder)
    return _package(f"shiftbench-{name}", [part], Path(f"shiftbench-{name}") if to is None else to)


def _check_name(name: str) -> None:
    keywords = {word.lower() for word in keyword.kwlist}  # of "none" the class would be None
    if not _NAME.fullmatch(name) or name in keywords:
        raise InputError(
            f'"{name}" is no name: it takes small letters and digits, words joined by "-", and '
            'begins with a letter, such as "my-method"'
        )


def _package(distribution: str, parts: Sequence[Part], folder: Path) -> Written:
    """Write a package, in a folder that is not there or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; name another folder with --to")
    package = distribution.replace("-", "_")
    spec = importlib.util.find_spec(package)
    if package in sys.stdlib_module_names or (spec is not None and spec.origin is not None):
        raise InputError(f'there is a module "{package}" in this environment; take another name')
    said = {"distribution": distribution, "package": package, "parts": parts}
    files = {
        Path("pyproject.toml"): _rendered("pyproject.toml", **said),
        Path("README.md"): _rendered("README.md", **said),
        Path(package) / "__init__.py": f'"""Plugins of ShiftBench: {distribution}."""\n',
    }
    for part in parts:
        files |= _files(part, package)
    _write(folder, files)
    return Written(folder, tuple(files), distribution, added=False)


def _added(part: Part, folder: Path) -> Written:
    """Write a part of a package that is there, and register it in its ``pyproject.toml``."""
    file = folder / "pyproject.toml"
    text = file.read_text(encoding="utf-8")
    try:
        project = tomllib.loads(text)["project"]
        distribution = project["name"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise InputError(f"{file}: is no package's: {error}") from error
    place, package = _package_in(folder, project)
    files = _files(part, package)
    files = {place / path if path.parts[0] == package else path: of for path, of in files.items()}
    there = next((path for path in files if (folder / path).exists()), None)
    if there is not None:
        raise InputError(f"{folder / there}: is there already; take another name")
    changed = _registered(text, part, package)
    _write(folder, files)
    with written_atomically(file) as temporary:
        temporary.write_text(changed, encoding="utf-8")
    return Written(folder, tuple(files), distribution, added=True)


def _package_in(folder: Path, project: Mapping[str, Any]) -> tuple[Path, str]:
    """The folder that a project's package is in, relative to the project's, and its name."""
    groups = project.get("entry-points", {})
    targets = [target for group in groups.values() for target in group.values()]
    named = {target.partition(":")[0].partition(".")[0] for target in targets}
    for place in (Path(), Path("src")):
        found = {file.parent.name for file in (folder / place).glob("*/__init__.py")} - {"tests"}
        found = found & named or found
        if len(found) == 1:
            return place, found.pop()
    raise InputError(f"{folder}: it does not hold one package, a folder with an __init__.py")


def _registered(text: str, part: Part, package: str) -> str:
    """A ``pyproject.toml`` that registers a part too, all else as it was.

    Raises:
        InputError: it is written in a way that a line cannot be added to.
    """
    group = f"shiftbench.{part.what}s"
    header = f'[project.entry-points."{group}"]'
    line = f'{part.name} = "{package}.{part.module}:{part.object}"'
    lines = text.splitlines()
    if header in lines:
        lines.insert(lines.index(header) + 1, line)
    else:
        lines += ["", header, line]
    changed = "\n".join(lines) + "\n"
    expected = tomllib.loads(text)
    points = expected["project"].setdefault("entry-points", {}).setdefault(group, {})
    points[part.name] = f"{package}.{part.module}:{part.object}"
    try:
        fits = tomllib.loads(changed) == expected
    except tomllib.TOMLDecodeError:
        fits = False
    if not fits:
        raise InputError(f"pyproject.toml: add {header} and in it {line} yourself, then go on")
    return changed


def _files(part: Part, package: str) -> dict[Path, str]:
    """The module of a part and its test, relative to the project's folder."""
    return {
        Path(package) / f"{part.module}.py": _rendered(
            f"{part.what}.py", part=part, package=package
        ),
        Path("tests") / f"test_{part.module}.py": _rendered(
            f"test_{part.what}.py", part=part, package=package
        ),
    }


def _rendered(name: str, **said: object) -> str:
    return _TEMPLATES.get_template(f"{name}.jinja").render(**said)


def _write(folder: Path, files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("x", encoding="utf-8") as file:  # never what is there
            file.write(text)


def _registry(what: What) -> Registry[object]:
    match what:
        case "method":
            from shiftbench.methods.registry import METHODS

            return METHODS
        case "metric":
            from shiftbench.evaluation.metrics.registry import METRICS

            return METRICS
        case "source":
            from shiftbench.data.sources.registry import SOURCES

            return SOURCES
        case "task":
            from shiftbench.data.tasks.registry import TASKS

            return TASKS
