"""ShiftBench: a distributed benchmark of robust fine-tuning for vision-language models."""

__version__ = "0.1.0"
