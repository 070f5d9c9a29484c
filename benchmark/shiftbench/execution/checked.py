"""The data of a plan that passed all checks, and a cache of that, by the files' sizes and times.

Checking opens every set and decodes every image. What passed once passes again as long as nothing
has changed: the plan, this package and what it uses, and all folders and files that were looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shiftbench.core.provenance import package_versions
from shiftbench.core.remembering import place_of, recalled, remember
from shiftbench.core.source_digest import own_code
from shiftbench.core.stamps import observed, unchanged
from shiftbench.core.version import __version__
from shiftbench.data.images import NONE_UNREADABLE, Unreadable
from shiftbench.data.sources.registry import plugin_origins
from shiftbench.data.tasks.opening import open_ood_val
from shiftbench.execution.remarks import Remarks
from shiftbench.suite.identity import IDENTITY_VERSION
from shiftbench.suite.plan import evaluation_metrics

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet
    from shiftbench.data.tasks.definition import Task
    from shiftbench.suite.plan import Plan, Run

VERSION = 1

SetKey = tuple[str, str]
"""Names of a task and of one of its evaluation sets."""


class SetState(NamedTuple):
    """The files behind a result.

    Attributes:
        train_fingerprint: of the task's training set.
        fingerprint: of the evaluation set.
        incomplete_reason: what is missing; ``None`` when both are complete.
        remark: other things to know of the files, for the rows.
    """

    train_fingerprint: str
    fingerprint: str
    incomplete_reason: str | None
    remark: str | None = None


@dataclass(frozen=True)
class Checked:
    """The data of a plan that passed all checks.

    Attributes:
        root: the data root.
        sets: the state of every evaluation set, by task and set.
        leakage: test images that methods see, by task and whether they search on OOD validation.
        unreadable: images to leave out.
    """

    root: str
    sets: Mapping[SetKey, SetState]
    leakage: Mapping[tuple[str, bool], str]
    unreadable: Unreadable

    @property
    def remarks(self) -> Remarks:
        """Remarks on the data, for the rows."""
        gaps = {
            key: state.incomplete_reason
            for key, state in self.sets.items()
            if state.incomplete_reason is not None
        }
        files = {key: state.remark for key, state in self.sets.items() if state.remark is not None}
        return Remarks(gaps, self.leakage, files, self.unreadable)

    def fingerprints(self, run: Run) -> dict[str, str]:
        """Fingerprints of the sets that the outcome of a run depends on, by name."""
        return fingerprints_of(run.task, self.sets)

    def searched_fingerprints(self, run: Run) -> dict[str, str]:
        """Fingerprints of the sets that the search of a run looks at, by name."""
        seen = {"train": self.sets[run.task.name, "id-val"].train_fingerprint}
        if run.searched:
            seen["ood-val"] = ood_val_of(run, self.root).fingerprint
        return seen

    def to_json(self) -> dict[str, Any]:
        """All of it but the root."""
        return {
            "sets": [[*key, list(state)] for key, state in self.sets.items()],
            "leakage": [[*key, text] for key, text in self.leakage.items()],
            "unreadable": {digest: sorted(ids) for digest, ids in self.unreadable.items()},
        }

    @classmethod
    def from_json(cls, root: str, content: Mapping[str, Any]) -> Checked:
        """What ``to_json`` gave."""
        return cls(
            root,
            {(task, name): SetState(*state) for task, name, state in content["sets"]},
            {(task, searched): text for task, searched, text in content["leakage"]},
            {digest: frozenset(ids) for digest, ids in content["unreadable"].items()},
        )


def fingerprints_of(task: Task, sets: Mapping[SetKey, SetState]) -> dict[str, str]:
    """Fingerprints of a task's training set and of every evaluation set, by name.

    Sets that are scored beside are not among them: with other files they are scored again, and
    nothing is trained again.
    """
    states = {name: sets[task.name, name] for name in evaluation_metrics(task.without_also())}
    train = {"train": states["id-val"].train_fingerprint}
    return train | {name: state.fingerprint for name, state in states.items()}


def ood_val_of(run: Run, root: str, unreadable: Unreadable = NONE_UNREADABLE) -> ImageSet:
    """The OOD validation images that the search of a run is scored on."""
    if run.search is None or run.search.ood_val is None:
        raise ValueError(f"{run.label} has no search")
    task = run.task.model_copy(update={"ood_val": run.search.ood_val})
    return open_ood_val(task, root, unreadable)[1]


def remembered(
    plan: Plan, root: str, *, allow_incomplete: bool, check: Callable[[], Checked]
) -> Checked:
    """What ``check`` returns, or what it returned when all that it looks at was as it is.

    Nothing is remembered of data in an object store, whose files have no times that could be
    trusted, and of sources from other packages, which may look anywhere.

    Raises:
        InputError: as ``check`` does.
    """
    if plugin_origins(*plan.suite.tasks.values()):
        return check()
    place = place_of("checks", _parts(plan, root, allow_incomplete))

    def read(content: Mapping[str, Any]) -> Checked | None:
        as_it_was = unchanged(content["stamps"])
        return Checked.from_json(root, content["checked"]) if as_it_was else None

    if (known := recalled(place, read)) is not None:
        return known
    with observed() as looked_at:
        checked = check()
    if looked_at.settled:
        remember(place, {"stamps": looked_at.stamps, "checked": checked.to_json()})
    return checked


def _parts(plan: Plan, root: str, allow_incomplete: bool) -> dict[str, Any]:
    """All but the data that decides how the checks end."""
    suite = plan.suite
    return {
        "version": [VERSION, IDENTITY_VERSION, __version__, own_code()],
        "packages": package_versions(),
        "root": str(Path(root).absolute()),
        "allow_incomplete": allow_incomplete,
        "runs": list(plan.runs),
        "tasks": [task.model_dump_json() for task in suite.tasks.values()],
        "searches": sorted({run.search.id for run in plan.runs.values() if run.search}),
        "resources": suite.resources.model_dump(mode="json"),
        "own_resources": {
            task: {label: each.model_dump(mode="json") for label, each in own.items()}
            for task, own in suite.own_resources.items()
        },
    }
