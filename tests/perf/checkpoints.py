"""What a saved state costs, and what is lost with a worker: our own file, or Ray Train's report.

    python -m tests.perf.checkpoints [--megabytes 100] [--only file report async signal]

Two workers on gloo save a state after every step. The first is killed right after a save has
returned (``signal``: the second is told to end by SIGTERM before it, and hears that); what they
find when they are started again says how many steps are to be done once more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from shiftbench.distributed.session import session
from shiftbench.suite.file import Resources

STEPS, KILLED_AT = 10, 6
WAYS = ("file", "report", "async", "signal")


def loop(config: dict[str, Any]) -> None:
    """Save after every step; see what there is when it starts."""
    import ray.train
    import torch
    from shiftbench.core import notices
    from shiftbench.models.checkpoints import load_state, save_state

    way, folder = config["way"], Path(config["folder"])
    context = ray.train.get_context()
    rank, file, log = context.get_world_rank(), folder / "state", folder / "log"
    state = {"weights": torch.zeros(config["megabytes"] * 2**18), "step": 0}
    found = 0
    own = way in ("file", "signal")
    if own and file.exists():
        found = load_state(file)["step"]
    elif not own and (kept := ray.train.get_checkpoint()) is not None:
        with kept.as_directory() as there:
            found = load_state(Path(there) / "state")["step"]
    again = log.exists()
    for step in range(found + 1, STEPS + 1):
        time.sleep(0.2)
        torch.distributed.barrier()
        state["step"] = step
        begun = time.monotonic()
        if own and rank == 0:
            save_state(file, state)
        if not own:
            checkpoint = None
            if rank == 0:
                made = tempfile.mkdtemp(dir=folder)
                save_state(Path(made) / "state", state)
                checkpoint = ray.train.Checkpoint.from_directory(made)
            mode = ray.train.CheckpointUploadMode
            upload = mode.ASYNC if way == "async" else mode.SYNC
            ray.train.report({"step": step}, checkpoint=checkpoint, checkpoint_upload_mode=upload)
        if rank == 0:
            with log.open("a") as lines:
                entry = {"step": step, "seconds": time.monotonic() - begun, "found": found}
                lines.write(json.dumps(entry) + "\n")
        torch.distributed.barrier()
        if step == KILLED_AT and not again:
            if way == "signal":
                if rank == 1:
                    with notices.listening():  # as a training does, which saves then
                        os.kill(os.getpid(), signal.SIGTERM)
                        while not notices.given():
                            time.sleep(0.01)
                        with log.open("a") as lines:
                            lines.write(json.dumps({"heard": step}) + "\n")
                time.sleep(60)
            elif rank == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def measure(way: str, megabytes: int) -> dict[str, float]:
    """Seconds of a save, steps lost, notices that a worker has heard, and seconds in all."""
    import ray.train
    from ray.train.torch import TorchTrainer
    from shiftbench.distributed.notices import HeedingConfig

    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        TorchTrainer(
            loop,
            train_loop_config={"way": way, "folder": folder, "megabytes": megabytes},
            torch_config=HeedingConfig(),
            scaling_config=ray.train.ScalingConfig(
                num_workers=2, resources_per_worker={"CPU": 0.9}
            ),
            run_config=ray.train.RunConfig(
                name="checkpoints",
                storage_path=f"{folder}/train",
                failure_config=ray.train.FailureConfig(max_failures=1),
            ),
        ).fit()
        entries = [json.loads(line) for line in (Path(folder) / "log").open()]
    steps = [entry for entry in entries if "step" in entry]
    saves = sorted(entry["seconds"] for entry in steps)
    return {
        "seconds of a save": saves[len(saves) // 2],
        "steps lost": KILLED_AT - steps[-1]["found"],
        "notices heard": len(entries) - len(steps),
        "seconds in all": time.monotonic() - begun,
    }


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--only", nargs="*", choices=WAYS, default=WAYS)
    options = parser.parse_args()
    with session(None, Resources(workers=2, cpus_per_worker=0.9)):
        for way in options.only:
            found = measure(way, options.megabytes)
            print(way, *(f"{name} {value:.3g}" for name, value in found.items()), sep=" · ")


if __name__ == "__main__":
    main()
