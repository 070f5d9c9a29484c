"""What it costs to start a training: a warm worker against a group of Ray Train workers.

    python -m tests.perf.workers

Prints seconds for a training that does nothing, and their ratio, measured in the same session.
"""

from __future__ import annotations

import statistics
import tempfile
import time

from shiftbench.distributed.session import session
from shiftbench.suite.file import Resources

REPEATS = 5


def main() -> None:
    """Measure and print."""
    with session(None, Resources()):
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        def nothing() -> int:
            return 1

        class Warm:
            def fit(self) -> float:
                started = time.monotonic()
                TorchTrainer(nothing, scaling_config=ScalingConfig(num_workers=0)).fit()
                return time.monotonic() - started

        started = time.monotonic()
        worker = ray.remote(num_cpus=1)(Warm).remote()
        ray.get(worker.fit.remote())
        first = time.monotonic() - started
        warm = statistics.median(ray.get([worker.fit.remote() for _ in range(REPEATS)]))
        ray.kill(worker)

        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            run_config = RunConfig(name="nothing", storage_path=folder)
            started = time.monotonic()
            TorchTrainer(
                nothing, scaling_config=ScalingConfig(num_workers=1), run_config=run_config
            ).fit()
            group = time.monotonic() - started
    print(f"first training of a new worker: {first:8.3f} s")
    print(f"each further one, when warm:    {warm:8.4f} s")
    print(f"a group of one worker:          {group:8.3f} s, {group / warm:,.0f} times the warm one")


if __name__ == "__main__":
    main()
