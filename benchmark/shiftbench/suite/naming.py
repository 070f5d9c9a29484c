"""Which run a person means."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from shiftbench.core.errors import InputError
from shiftbench.core.words import nearest, some


class Called(NamedTuple):
    """What a run can be called by.

    Attributes:
        run_id: of the run.
        label: of its method.
        task: its name.
        seed: of the run.
    """

    run_id: str
    label: str
    task: str
    seed: int

    @property
    def names(self) -> tuple[str, str, str]:
        """Such as ``full``, ``full/cifar10`` and ``full/cifar10/0``."""
        return self.label, f"{self.label}/{self.task}", f"{self.label}/{self.task}/{self.seed}"


def meant(text: str, runs: Collection[Called]) -> str:
    """The id of the one run that a text means.

    Args:
        text: the beginning of an id, or method, method/task or method/task/seed.
        runs: all there are; one with several labels once for each.

    Raises:
        InputError: it means none of them, or several.
    """
    found = [run for run in runs if run.run_id == text]
    found = found or [run for run in runs if text in run.names]
    found = found or [run for run in runs if text and run.run_id.startswith(text)]
    found = [*{run.run_id: run for run in found}.values()]
    if not found:
        known = {name for run in runs for name in run.names}
        raise InputError(
            f'"{text}" is no run: neither an id nor method/task/seed{nearest(text, known)}'
        )
    if len(found) > 1:
        listed = some([f"{run.names[-1]} ({run.run_id[:6]})" for run in found])
        raise InputError(f'"{text}" means {len(found)} runs: {listed}')
    return found[0].run_id
