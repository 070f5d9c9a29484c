"""A suite of three runs, which stores are tried with."""

from __future__ import annotations

from rich.console import Console

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {lr: 5e-4, epochs: 1, batch_size: 16, warmup_steps: 1}
  wise-ft: {alphas: [0.5]}
budget: {steps: 2, evaluation_images: 20}
"""
QUIET = Console(quiet=True)
