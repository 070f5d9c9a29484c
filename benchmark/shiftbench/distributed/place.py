"""The workspace of a process that Ray started."""

from __future__ import annotations

import ray
import torch

from shiftbench.execution.setup import Setup
from shiftbench.execution.workspace import Workspace


def workspace_here(setup: Setup) -> Workspace:
    """A workspace on the GPU that Ray gave this process, or on as many CPU threads."""
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU")
    torch.set_num_threads(max(1, int(setup.resources.cpus_per_worker)))
    return Workspace(setup, torch.device("cuda" if gpus else "cpu"))
