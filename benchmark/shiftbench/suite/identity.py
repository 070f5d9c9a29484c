"""The identity of a run: everything that can change its outcome, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shiftbench.data.tasks.definition import IN_NO_IDENTITY

if TYPE_CHECKING:
    from shiftbench.data.tasks.definition import Task
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.file import Budget

NAMES = {"parent", "parents", "over_seeds"}
LABELS: Any = {**dict.fromkeys(NAMES, True), "settings": NAMES}
"""Settings that only name other runs, also those of a method that another one wraps."""

IDENTITY_VERSION = 4  # raised whenever the same specification computes something else;
# where that is so of one method alone, its ``revision`` is raised instead.


def identity(
    *,
    task: Task,
    data_kind: str,
    backbone: str,
    method: str,
    plugin: str | None,
    config: MethodConfig,
    parents: tuple[str, ...],
    seed: int,
    shots: int | None,
    budget: Budget,
    search: str | None = None,
    sources: Mapping[str, str] | None = None,
    metrics: Mapping[str, str] | None = None,
    whole: bool = False,
    files: Mapping[str, str] | None = None,
    revision: int = 0,
) -> dict[str, Any]:
    """Everything that can change the outcome of a run, and nothing else, as JSON.

    Args:
        task: what to train and evaluate on; sets that are scored beside are left out.
        data_kind: see ``Suite.data_kind``.
        backbone: its ``backbone_identity``.
        method: registered name.
        plugin: of a method that is not built in, distribution, version and digest of its code.
        config: its settings; labels of parents, which are names only, are left out.
        parents: ids of the parents' runs.
        seed: of the run.
        shots: training images per class.
        budget: upper limits.
        search: id of the search that its settings come from.
        sources: distribution and version by kind of the sources that are not built in; a run
            without any has the identity that it would have without this key.
        metrics: the same of metrics, by name.
        whole: whether it trains on what is held out for ID validation too.
        files: the digest of what each setting names that is a file; in place of its path.
        revision: of the method; at 0 it is left out.
    """
    left_out = LABELS | dict.fromkeys(files or (), True)
    return {
        "version": IDENTITY_VERSION,
        "task": task.model_dump(mode="json", exclude={*IN_NO_IDENTITY}),
        "data_kind": data_kind,
        "backbone": backbone,
        "method": method,
        "plugin": plugin,
        "config": config.model_dump(mode="json", exclude=left_out),
        "parents": parents,
        "seed": seed,
        "shots": shots,
        "budget": budget.model_dump(mode="json"),
        "search": search,
        **({"sources": dict(sources)} if sources else {}),
        **({"metrics": dict(metrics)} if metrics else {}),
        **({"whole": True} if whole else {}),
        **({"files": dict(files)} if files else {}),
        **({"revision": revision} if revision else {}),
    }


def run_id(spec: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of ``spec`` as JSON, however it is spelled.

    The order of keys does not count, nor whether a whole number is written ``10`` or ``10.0``.
    """
    parts = [f'"{key}":{json_text(spec[key])}' for key in sorted(spec)]  # keys are plain words
    return hashlib.sha256(f"{{{','.join(parts)}}}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class JsonText:
    """A value as JSON, so that what many identities share is written once."""

    text: str


def json_text(value: Any) -> str:
    """The one text of a JSON value; of text that was made before, itself."""
    if isinstance(value, JsonText):
        return value.text
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
