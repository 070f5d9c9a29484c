"""Measure a machine with a GPU in one run; needs neither ray nor the suite's command line.

    python -m tests.perf.gpu [--out FOLDER] [--only SECTION …] [--limit SECONDS] [--smoke]

Writes ``gpu.json`` and ``gpu.md`` after every section, so that a run that is cut off has left what
it measured. A section that fails says why, and the next one begins; ``--limit`` begins no more
sections after so many seconds. ``--smoke`` runs everything at sizes of seconds, on a CPU too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.perf.gpu import evaluation, machine, parts, training
from tests.perf.gpu.report import markdown
from tests.perf.gpu.world import SMOKE, Sizes, draw, model_config, write_backbone


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("perf-gpu"))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--limit", type=float, default=1e9)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    begun = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = SMOKE if arguments.smoke else Sizes()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="perf-gpu-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        os.environ["SHIFTBENCH_CACHE"] = str(root / "cache")
        side = model_config(sizes.model)["vision_cfg"]["image_size"]
        results: dict[str, Any] = {"sizes": vars(sizes)}
        sections: dict[str, Callable[[], Any]] = {
            # Processes are started before CUDA is.
            "files": lambda: draw(root, sizes),
            "backbone": lambda: write_backbone(root / "backbone", sizes.model, device),
            "machine": lambda: machine.facts(device),
            "rates": lambda: machine.rates(device, sizes.matmul),
            "operations": lambda: training.operations(sizes.model, sizes.classes, device),
            "training": lambda: training.without_data(sizes, device),
            "timeline": lambda: parts.timeline(sizes, device, arguments.out),
            "evaluation": lambda: evaluation.sweep(sizes, root, device),
            "fed": lambda: training.from_files(sizes, root, device),
            "saft": lambda: parts.saft(sizes, device),
            "batches": lambda: evaluation.batches(sizes, device),
            "decoding": lambda: parts.decoding(sizes, root, device, side),
            "nvjpeg": lambda: parts.nvjpeg(root, device),
            "rounding": lambda: evaluation.rounding(sizes, root, device),
        }
        always = ("files", "backbone", "machine", "rates", "operations")
        took: dict[str, float] = {}
        for name, measure in sections.items():
            if name == "nvjpeg" and device.type != "cuda":
                continue
            if arguments.only and name not in (*always, *arguments.only):
                continue
            elapsed = time.monotonic() - begun
            if elapsed > arguments.limit:
                results[name] = {"skipped": f"after {elapsed:.0f} s"}
                continue
            started = time.monotonic()
            try:
                results[name] = measure()
            except Exception as error:  # what the other sections measure must not be lost
                traceback.print_exc()
                results[name] = {"failed": f"{type(error).__name__}: {error}"}
            if device.type == "cuda":
                torch.cuda.empty_cache()
            took[name] = round(time.monotonic() - started, 1)
            print(f"{time.monotonic() - begun:6.1f} s  {name} took {took[name]} s", flush=True)
            results["took"] = took
            (arguments.out / "gpu.json").write_text(json.dumps(results, indent=1))
            (arguments.out / "gpu.md").write_text(markdown(results))
    print((arguments.out / "gpu.md").read_text())


if __name__ == "__main__":
    main()
