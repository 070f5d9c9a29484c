"""The machine: what it is, and its ceilings, measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from shiftbench.core.cpus import available_cpus, loader_processes
from torch import Tensor

from tests.perf.gpu.timing import Times, seconds

PACKAGES = ("torch", "torchvision", "triton", "open_clip_torch", "numpy", "pillow", "simplejpeg")


def facts(device: torch.device) -> dict[str, Any]:
    """Names and versions."""
    found: dict[str, Any] = {
        "cpu": _cpu(),
        "cpus": available_cpus(),
        "loader_processes": loader_processes(1),
        "python": platform.python_version(),
        "shm_gib": round(_shared_memory() / 2**30, 1),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_gib": round(properties.total_memory / 2**30, 1)}
        asked = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.limit", "--format=csv"]
        found["nvidia_smi"] = subprocess.run(
            asked, capture_output=True, text=True, check=False
        ).stdout.splitlines()[-1:]
    return found


def rates(device: torch.device, side: int) -> dict[str, float]:
    """Matrix products of random data in FLOP/s, by precision, and copies in bytes/s."""
    a = torch.randn(side, side, device=device)
    b = torch.randn(side, side, device=device)
    found = {}
    for name, dtype, tf32 in [
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ]:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        found[f"matmul_{name}"] = 2 * side**3 / _product(a.to(dtype), b.to(dtype))
    torch.set_float32_matmul_precision("highest")
    source = torch.empty(side * side * 16, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    moved = 2 * source.numel() * 4
    found["copy"] = moved / _median(lambda: target.copy_(source), 10)
    if device.type == "cuda":
        pinned = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
        there = torch.empty(2**28, dtype=torch.uint8, device=device)
        found["upload"] = 2**28 / _median(lambda: there.copy_(pinned, non_blocking=True), 5)
    return found


def _product(a: Tensor, b: Tensor) -> float:
    out = a @ b
    return _median(lambda: torch.mm(a, b, out=out), 10)


def _median(work: Any, repeats: int) -> float:
    for _ in range(3):
        work()
    return Times([seconds(work) for _ in range(repeats)]).median


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} × {len(names)}"


def _shared_memory() -> int:
    """Bytes that processes can share, which is where loaders put their batches."""
    status = os.statvfs("/dev/shm")  # noqa: S108
    return status.f_blocks * status.f_frsize
