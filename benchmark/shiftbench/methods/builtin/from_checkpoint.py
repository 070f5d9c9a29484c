"""Weights that were fine-tuned elsewhere, evaluated and ranked like a method's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.methods.base import Architecture, DerivedMethod
from shiftbench.methods.config import FileOfSuite, MethodConfig
from shiftbench.models.foreign import check_classes, digest, fitted, read_foreign

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Derivation, Weights
    from shiftbench.models.foreign import Foreign


class CheckpointConfig(MethodConfig):
    """The weights, and the classifier that goes with them."""

    path: Annotated[
        FileOfSuite,
        Field(
            min_length=1,
            description="file or folder of the weights, relative to the suite's file; what it "
            "holds, not where it lies, is part of the run's identity",
        ),
    ]
    head: Annotated[
        Literal["auto", "linear", "text", "zero-shot"],
        Field(
            description="the classifier: linear, as it is in the file; text, class embeddings of "
            "the file's own text tower; zero-shot, those of the backbone's; auto: the first of "
            "these that there is"
        ),
    ] = "auto"


class FromCheckpoint(DerivedMethod[CheckpointConfig]):
    """Weights fine-tuned elsewhere; a parent for WiSE-FT, soups and every other derived method."""

    name: ClassVar[str] = "from-checkpoint"
    Config: ClassVar[type[MethodConfig]] = CheckpointConfig
    elsewhere: ClassVar[bool] = True
    kept: bool = True
    seeded: bool = False

    def __init__(self, config: CheckpointConfig) -> None:
        if config.head == "auto":  # found out now, so that it is recorded
            path = Path(config.path)
            config = config.model_copy(update={"head": _head_in(path, digest(path))})
        super().__init__(config)

    def selects(self) -> bool:
        """False: nothing is looked at here. What has been elsewhere, nobody knows."""
        return False

    def architecture(self) -> Architecture:
        """With the text tower where the classifier is made of it."""
        of_text = self.config.head == "text"
        return Architecture(text=True, head="text") if of_text else Architecture()

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """Refuse a file whose image tower is another than the backbone's."""
        foreign = self._read()
        like = {f"visual.{name}": tensor for name, tensor in tower().state_dict().items()}
        try:
            fitted(foreign.visual, like, self.config.path)
        except InputError as error:
            raise RunFailedError(str(error)) from error

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """The weights as they are, in the model's number format.

        Raises:
            InputError: they do not fit, or the classifier is one of other classes than the task's.
        """
        foreign, like = self._read(), derivation.zero_shot
        found: dict[str, Tensor] = dict(foreign.visual)
        match self.config.head:
            case "text":
                found |= foreign.text
            case "linear":
                if foreign.classes is not None:
                    check_classes(foreign.classes, derivation.classes, self.config.path)
                found |= foreign.head
            case _:
                found |= {name: like[name] for name in ("head.weight", "head.bias")}
        return fitted(found, like, self.config.path)

    def _read(self) -> Foreign:
        """The file's weights.

        Raises:
            InputError: it does not have the classifier that is asked for.
        """
        foreign, head = read_foreign(Path(self.config.path)), self.config.head
        there = {"linear": foreign.head, "text": foreign.text}.get(head, foreign.visual)
        if not there:
            what = "classifier" if head == "linear" else "text tower"
            raise InputError(f"{self.config.path}: head: {head}, but there is no {what} in it")
        return foreign


@functools.lru_cache(maxsize=8)
def _head_in(path: Path, _digest: str) -> Literal["linear", "text", "zero-shot"]:
    """The classifier that the weights in a file have."""
    foreign = read_foreign(path)
    return "linear" if foreign.head else "text" if foreign.text else "zero-shot"
