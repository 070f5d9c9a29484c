"""Backbones, the zero-shot head, weight arithmetic and safe checkpoints."""
