"""A suite done stage by stage, without the checks of a launch, which decode every image."""

from __future__ import annotations

from pathlib import Path

import torch
from shiftbench.execution.record import write_record
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.stages.predict import predict
from shiftbench.execution.stages.score import score
from shiftbench.execution.workspace import Workspace
from shiftbench.suite.file import Resources
from shiftbench.suite.plan import Plan, evaluation_metrics
from shiftbench.suite.suite import Suite


def run(folder: Path, text: str) -> Plan:
    """Do what is left of a suite, stage by stage."""
    (folder / "suite.yaml").write_text(text)
    plan = Plan.build(Suite.load(folder / "suite.yaml"))
    setup = Setup("s", plan.runs, folder / "results", "miniature", Resources(), Remarks())
    workspace = Workspace(setup, torch.device("cpu"))
    for found in plan.runs.values():
        write_record(setup, found.id)
        if found.create().kept:
            fit(workspace, found.id)
        for variant in found.create().variants():
            for name in evaluation_metrics(found.task):
                predict(workspace, found.id, variant, name)
        score(workspace, found.id)
    return plan
