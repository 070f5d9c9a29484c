"""Static self-distillation: FLYP that stays near what the pretrained model sees."""

from __future__ import annotations

from typing import ClassVar

from shiftbench.methods.builtin.tracer import SelfDistillation, SelfDistillationConfig
from shiftbench.methods.config import MethodConfig


class StaticSd(SelfDistillation):
    """TRACER's losses with the pretrained model as the teacher, which never moves.

    The baseline of arXiv 2605.29380, whose own settings and terms are not known: here they are
    those of ``tracer``.
    """

    name: ClassVar[str] = "static-sd"
    Config: ClassVar[type[MethodConfig]] = SelfDistillationConfig
