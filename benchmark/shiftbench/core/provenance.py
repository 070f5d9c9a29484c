"""Provenance of results: the code, the packages and the machine. Light to import."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import InputError
from shiftbench.core.version import __version__

if TYPE_CHECKING:
    import torch

PACKAGES = (
    *("torch", "torchvision", "open_clip_torch", "timm", "peft", "transformers", "ray"),
    *("numpy", "scipy", "pillow", "pyarrow", "safetensors"),
)
GIT_TIMEOUT_S = 10
PREFIX = "SHIFTBENCH_"
SUBMITTED = "SHIFTBENCH_GIT_SHA"
"""Environment variable with the commit of the code, for jobs that run outside their checkout.

Its value is of the form that ``git describe --always --dirty --abbrev=40 --exclude '*'`` prints:
the commit, and ``-dirty`` where files differ from it.
"""
PROJECT = "shiftbench"
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Provenance:
    """The code, packages and hardware that computed a result.

    Attributes:
        shiftbench_version: of this package.
        git_sha: of the commit that was submitted (``SUBMITTED``), or else of the one that is
            checked out, if the package runs from a checkout.
        git_dirty: whether the package's files differ from that commit.
        versions: of Python and of the packages that can change a number, by name.
        hardware: ``cpu``, ``cores``, ``memory_bytes`` and the names of the ``gpus``.
    """

    shiftbench_version: str
    git_sha: str | None
    git_dirty: bool | None
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]


@lru_cache(maxsize=1)
def collect() -> Provenance:
    """The provenance of what this process computes.

    Raises:
        InputError: ``SUBMITTED`` is set, and is no commit.
    """
    sha, dirty = submitted() or git_state(Path(__file__).parent)
    return Provenance(__version__, sha, dirty, package_versions(), hardware())


def submitted() -> tuple[str, bool] | None:
    """The commit that the environment names, and whether files differ from it; ``None`` if unset.

    Raises:
        InputError: it is no commit.
    """
    text = os.environ.get(SUBMITTED, "").strip()
    if not text:
        return None
    found = re.fullmatch(r"([0-9a-f]{7,64})(-dirty)?", text)
    if found is None:
        raise InputError(
            f'{SUBMITTED}: "{text}" is not a commit; it is 7 to 64 hexadecimal digits, '
            "with -dirty after them where files differ from it"
        )
    return found[1], found[2] is not None


def submission() -> dict[str, str]:
    """The environment with which the same code computes the same elsewhere.

    Returns:
        every variable ``SHIFTBENCH_…`` of this process, and ``SUBMITTED`` where it is not set but a
        commit is checked out.

    Raises:
        InputError: ``SUBMITTED`` is set, and is no commit.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    sha, dirty = submitted() or git_state(Path(__file__).parent)
    return settings if sha is None else settings | {SUBMITTED: sha + "-dirty" * bool(dirty)}


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit, and whether the files of ``folder`` differ from it; ``None`` outside a checkout.

    A checkout of another project is none, whether git ignores the folder there (an environment), or
    tracks it (packages that somebody committed).
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if not top or not _git(folder, "ls-files", "--", ".") or not _of_project(folder, Path(top)):
        return None, None
    sha = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".")
    return sha, None if changes is None else bool(changes)


def commit_named(name: str, folder: Path) -> str | None:
    """The commit that git in a folder calls so, such as ``HEAD~1``; ``None`` if there is none."""
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return _git(folder, *asked) or None


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed ``PACKAGES``."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """CPU model, usable cores, memory in bytes, and the names of the GPUs that torch sees."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": cpu_name(),
        "cores": _usable_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
    }


def device_name(device: torch.device) -> str:
    """The model of a GPU, or of the CPU."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return cpu_name()


def reset_peak_memory(device: torch.device) -> None:
    """Let ``peak_memory_bytes`` begin anew, in a process that has done other work before."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # Linux only, and not in every container
            _CLEAR_REFS.write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory since ``reset_peak_memory``: allocated on a GPU, or resident for this process.

    Where a CPU's cannot be reset, it is that of the process so far.
    """
    import resource

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The model of the CPU, as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _of_project(folder: Path, top: Path) -> bool:
    """True if the nearest ``pyproject.toml`` from the folder up to ``top`` is this project's."""
    for parent in folder.resolve().parents:
        file = parent / "pyproject.toml"
        if file.is_file():
            try:
                project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
            except (OSError, ValueError):
                return False
            return bool(project.get("name") == PROJECT)
        if parent == top.resolve():
            return False
    return False


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command, stripped; ``None`` where there is no git or it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
