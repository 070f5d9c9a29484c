"""A fine-tuned model of a results folder, as an open_clip model that is ready to use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import Tensor, nn

from shiftbench.core.errors import InputError
from shiftbench.core.words import nearest
from shiftbench.execution.record import read_records
from shiftbench.execution.variants import variant_of
from shiftbench.execution.workspace import Workspace
from shiftbench.methods.base import EnsembleMethod

if TYPE_CHECKING:
    from pathlib import Path

    from open_clip import CLIP
    from PIL.Image import Image

    from shiftbench.data.preprocessing import Preprocessing
    from shiftbench.models.backbones import Backbone
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.models.prompted import PromptShape


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned open_clip model with the classifier that belongs to it.

    The logits that a run's predictions are made of are ``head`` of the L2-normalised image
    embeddings; the head's rows hold CLIP's temperature. Evaluation sets with other classes than the
    task's project these logits afterwards.

    Attributes:
        run_id: of the run that it comes from.
        variant: the run's variant.
        clip: the open_clip model, fp32, in eval mode. Its image tower has the variant's weights,
            and its text tower too where the method trains that; it is a plain ``open_clip.CLIP``
            that ``encode_image``, ``encode_text`` and ``state_dict`` work on as always. Towers with
            learned prompts have these too; texts then begin with the words that they replace.
        config: open_clip's ``model_cfg``.
        head: linear, embedding width to classes, with bias.
        classes: names of the classes, in the order of the logits.
        tokenizer: texts to token ids (n, context length) int64, for ``clip.encode_text``.
        preprocessing: how the model wants its images.
    """

    run_id: str
    variant: str
    clip: CLIP
    config: Mapping[str, Any]
    head: nn.Linear
    classes: tuple[str, ...]
    tokenizer: Callable[[Sequence[str]], Tensor]
    preprocessing: Preprocessing

    def preprocess(self, image: Image) -> Tensor:
        """An image as the model's input, fp32 (3, size, size); stack several to a batch."""
        pixels = torch.from_numpy(self.preprocessing.pixels(image))
        return self.preprocessing.normalise(pixels[None])[0]

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits over ``classes``, fp32 (n, classes), of preprocessed images (n, 3, size, size)."""
        features = F.normalize(self.clip.encode_image(images).float(), dim=-1)
        logits: Tensor = self.head(features)
        return logits

    def predict(self, images: Sequence[Image]) -> list[str]:
        """The likeliest class of each image."""
        device = self.head.weight.device
        inputs = torch.stack([self.preprocess(image) for image in images]).to(device)
        return [self.classes[i] for i in self.logits(inputs).argmax(dim=-1).tolist()]

    def to(self, device: str | torch.device) -> FineTuned:
        """Move the model and its head to a device; returns itself."""
        self.clip.to(device)
        self.head.to(device)
        return self


def load(results: Path, run_id: str, variant: str | None = None) -> FineTuned:
    """The model of one of a run's variants, on the CPU.

    Weights that a run does not keep, such as a point of WiSE-FT's curve, are made of its parents'.

    Args:
        results: folder of the results.
        run_id: of a run that is done.
        variant: one of the run's variants; by default the one that stands for the method.

    Raises:
        InputError: the run has no such variant, combines outputs of several models so that no
            single one makes its predictions, or its record or weights are gone.
    """
    setup = read_records(results, run_id)
    run = setup.runs[run_id]
    method = run.create()
    if isinstance(method, EnsembleMethod):
        members = ", ".join(parent for _, parent in run.parents)
        raise InputError(
            f"{run.label} combines the outputs of several models; load its members: {members}"
        )
    variant = method.fixed_variant() if variant is None else variant
    if variant not in method.variants():
        known = nearest(variant, method.variants())
        raise InputError(f'{run.label} has no variant "{variant}"{known}')
    workspace = Workspace(setup, torch.device("cpu"))
    model = variant_of(workspace, run, variant).model
    backbone = workspace.backbone(run)
    return FineTuned(
        run_id=run_id,
        variant=variant,
        clip=_as_clip(backbone, model, workspace.architecture(run).prompts),
        config=backbone.config,
        head=model.head.requires_grad_(False),
        classes=workspace.data(run).classes,
        tokenizer=backbone.tokenizer,
        preprocessing=backbone.preprocessing,
    )


def _as_clip(backbone: Backbone, model: ImageClassifier, shape: PromptShape | None) -> CLIP:
    """The backbone with the towers of a classifier."""
    if shape is not None:
        whole: Any = model.text_tower  # a copy of the backbone, all but its image tower
        whole.visual = model.visual
        prompted: CLIP = whole.requires_grad_(False).eval()
        return prompted
    towers = {f"visual.{key}": tensor for key, tensor in model.visual.state_dict().items()}
    if model.text is not None:
        towers |= model.text.state_dict()
    clip = deepcopy(backbone.clip)
    clip.load_state_dict({**clip.state_dict(), **towers})
    return clip.requires_grad_(False).eval()
