"""Worst-region accuracy, as WILDS defines it for FMoW."""

from __future__ import annotations

from shiftbench.evaluation.metrics.base import Metric
from shiftbench.evaluation.metrics.builtin.worst_group import WorstGroup


class WorstRegion(WorstGroup):
    """The lowest accuracy over regions, without those whose name contains "Other".

    It is ``acc_worst_region`` of ``FMoWDataset.eval`` in the ``wilds`` package.
    """

    name = "worst-region"
    title = "worst-region accuracy"
    columns = ("region",)
    left_out = "Other"

    def __init__(self, argument: str | None = None) -> None:
        Metric.__init__(self, argument)

    def _noun(self) -> str:
        return "regions"
