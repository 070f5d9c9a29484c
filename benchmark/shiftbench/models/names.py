"""What the name of a backbone means: an entry of open_clip's table, a folder, or a file of weights.

No torch, and nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from shiftbench.core.errors import InputError
from shiftbench.models import hub
from shiftbench.models.published import did_you_mean
from shiftbench.models.registry import BACKBONES

HUB, LOCAL = "hf-hub:", "local-dir:"
CONFIG = "open_clip_config.json"
TRANSFORMERS_CONFIG = "config.json"
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
ACCEPTED = (
    "miniature, <pretrained>/<model> such as openai/ViT-B-16, hf-hub:org/name, a folder with "
    f"{CONFIG} or transformers' {TRANSFORMERS_CONFIG}, a file of weights, or file and model such "
    "as ./epoch_3.pt/ViT-B-16"
)


@dataclass(frozen=True)
class Published:
    """An entry of open_clip's table, in its own spelling; perhaps there is none."""

    tag: str
    model: str


@dataclass(frozen=True)
class Folder:
    """A folder with a configuration and weights.

    Attributes:
        path: of the folder.
        commit: of a repository of the Hub that it is the copy of.
    """

    path: Path
    commit: str | None = None


@dataclass(frozen=True)
class File:
    """A file of weights, such as a checkpoint of open_clip's training.

    Attributes:
        path: of the file.
        model: of open_clip's architectures; ``None`` where files beside it say.
    """

    path: Path
    model: str | None = None


Meaning: TypeAlias = Published | Folder | File


def meaning(name: str) -> Meaning:
    """What ``name`` stands for.

    Raises:
        InputError: nothing; or a repository of the Hub that is not on this machine.
    """
    if name in BACKBONES.entries():
        found = BACKBONES.load(name)
        return Folder(Path(str(found() if callable(found) else found)))
    if name.startswith(HUB):
        return _of_hub(name)
    path = Path(name.removeprefix(LOCAL)).expanduser()
    if path.is_file():
        return File(path)
    if _has_config(path):
        return Folder(path)
    for parent in path.parents:
        if parent.is_file():
            return File(parent, "-".join(path.relative_to(parent).parts))
    if name.startswith((LOCAL, ".", "~")) or path.is_absolute() or path.is_dir():
        kind = "in this folder" if path.is_dir() else "there: no such file or folder"
        raise InputError(f"backbone {name!r}: no {CONFIG} or {TRANSFORMERS_CONFIG} {kind}")
    if any(part.endswith(SUFFIXES) for part in path.parts):
        raise InputError(f"backbone {name!r}: there is no such file")
    return _published(name)


def _has_config(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (CONFIG, TRANSFORMERS_CONFIG))


def _of_hub(name: str) -> Folder:
    path = hub.snapshot(name.removeprefix(HUB), (CONFIG, TRANSFORMERS_CONFIG))
    if path is None:
        raise InputError(
            f"backbone {name!r} is not on this machine; download it with: shiftbench backbone "
            f"fetch {name}"
        )
    return Folder(path, path.name)


def _published(name: str) -> Published:
    """``<pretrained>/<model>`` in open_clip's spelling."""
    tag, slash, model = name.partition("/")
    if not (tag and slash and model):
        hint = did_you_mean(name)
        raise InputError(f"unknown backbone {name!r}; {hint or f'accepted: {ACCEPTED}'}")
    return Published(tag.lower().replace("-", "_"), model.replace("/", "-"))
