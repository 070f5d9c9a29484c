"""Training that is held near its beginning, compared with released code on the same tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from shiftbench.methods.builtin.feature_distillation import (
    FeatureDistillation,
    FeatureDistillationConfig,
)
from shiftbench.methods.builtin.ftp import Ftp, FtpConfig
from shiftbench.methods.builtin.ldifs import Ldifs, LdifsConfig, Outputs, layers_of
from shiftbench.methods.builtin.mask_fill import filled
from shiftbench.methods.builtin.spd import Spd, SpdConfig
from shiftbench.methods.relevance import patch_relevance
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import make_context, make_model
from torch import Tensor, nn

from tests.parity.differences import Comparison, Difference, difference
from tests.parity.official import load, stand_in

STEPS = 20


def gradients(model: nn.Module, step: int) -> None:
    """Give every parameter a gradient that leads away from where it began, and back again."""
    start = make_model().state_dict()
    draw = torch.Generator().manual_seed(step)
    middle = 0.05 if step % 6 < 3 else -0.05
    for name, parameter in model.named_parameters():
        noise = 0.01 * torch.randn(parameter.shape, generator=draw)
        parameter.grad = parameter.detach() - start[name] + middle + noise


def changes(model: nn.Module) -> Tensor:
    """All that has changed since the beginning, flattened."""
    start = make_model().state_dict()
    return torch.cat([(p.detach() - start[name]).flatten() for name, p in model.named_parameters()])


def ours(method: Ftp | Spd) -> Tensor:
    """The changes after some steps of ours."""
    model = make_model()
    method.prepare(model, make_context(method, model))
    optimizer = method.optimizer(method.parameters(model))
    for step in range(1, STEPS + 1):
        gradients(model, step)
        method.before_step(model)
        optimizer.step()
        method.after_step(model, step)
    return changes(model)


def theirs(optimizer: Any, model: nn.Module) -> Tensor:
    """The changes after some steps of a released optimizer."""
    for step in range(1, STEPS + 1):
        gradients(model, step)
        optimizer.step()
    return changes(model)


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """All parameters as released optimizers want them: beside their values at the beginning."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    kept = [p.detach().clone() for p in parameters]
    return [{"params": list(parameters), "pre": kept, "name": list(names)}]


def trainable_projection(root: Path) -> Iterator[Difference]:
    """What 20 steps of AdamP change, without the head as in its README."""
    module = load(root, "util.FTP", packages="util")
    for kappa in (1.0, 0.3, 0.0):
        model = make_model()
        settings = {"lr": 1e-2, "weight_decay": 0.0, "exclude_set": {"head.weight", "head.bias"}}
        found = theirs(module.AdamP(groups(model), k=kappa, **settings), model)
        yield difference(
            f"FTP, kappa {kappa}", ours(Ftp(FtpConfig(kappa=kappa, lr=1e-2))), found, 1e-5
        )


def selective_decay(root: Path) -> Iterator[Difference]:
    """What 20 steps of AdamSPD change."""
    module = load(root, "adamSPD", packages="adamSPD")
    for strength in (0.5, 1.0, 3.0):
        model = make_model()
        found = theirs(module.AdamSPD(groups(model), lr=1e-2, weight_decay=strength), model)
        held = ours(Spd(SpdConfig(strength=strength, lr=1e-2)))
        yield difference(f"SPD, strength {strength}", held, found, 1e-5)


def transformers() -> tuple[ImageClassifier, ImageClassifier, Tensor, Tensor]:
    """A small pretrained model, one that has moved, images, and labels."""

    def make(seed: int) -> ImageClassifier:
        torch.manual_seed(seed)
        gelu = QuickGELU
        tower = VisionTransformer(32, 8, 64, 12, 4, 4.0, output_dim=24, act_layer=gelu)
        with torch.no_grad():
            for parameter in tower.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        return ImageClassifier(tower, nn.Linear(24, 5)).eval()

    start, model = make(0), make(0)
    with torch.no_grad():
        for name, parameter in make(1).visual.named_parameters():
            model.visual.get_parameter(name).lerp_(parameter, 0.1)
    draw = torch.Generator().manual_seed(2)
    return start, model, torch.randn(16, 3, 32, 32, generator=draw), torch.arange(16) % 5


def latent_distance(root: Path) -> Iterator[Difference]:
    """LDIFS of a tower of 12 blocks and its gradient, by the checkout's slices of the tower."""
    module = load(root, "loss.ldifs", packages="loss")
    start, model, images, labels = transformers()
    layers = layers_of(start.visual)

    class Sliced(nn.Module):
        """What the released encoder gives at its five slices."""

        N_slices = 5

        def __init__(self, tower: nn.Module) -> None:
            super().__init__()
            self.tower, self.outputs = tower, Outputs(tower, layers)

        def get_features(self, images: Tensor) -> list[Tensor]:
            with self.outputs.kept() as found:
                self.tower(images)
            return list(found.values())

    kept, trained = Sliced(start.visual), Sliced(model.visual)
    classifier = SimpleNamespace(image_encoder=trained, classification_head=model.head)
    official = module.CE_LDIFS(kept, classifier, alpha=10.0)(images, model(images), labels)
    weights = list(model.parameters())
    gradient = flat(torch.autograd.grad(official, weights))
    method, copy = Ldifs(LdifsConfig(strength=10.0)), transformers()[0]
    method.prepare(copy, make_context(method, copy))
    copy.load_state_dict(model.state_dict())
    copy.visual.requires_grad_(True)
    loss = method.loss(copy, _batch(images, labels))["loss"]
    yield difference("LDIFS, loss", loss, official, 1e-5)
    own = flat(torch.autograd.grad(loss, list(copy.parameters())))
    yield difference("LDIFS, gradient", own, gradient, 1e-4)


def masked_images(root: Path) -> Iterator[Difference]:
    """Relevance, filled images and the distillation of features, on the checkout's own tower."""
    start, model, images, labels = transformers()
    attack = type(
        "Attack", (), {"__init__": _attack, "__call__": lambda self, *a: self.forward(*a)}
    )
    with stand_in("torchattacks"), stand_in("torchattacks.attack", Attack=attack):
        masking = load(root, "utils.masking", packages="utils")
    package = "models.clip.model"
    clip = load(root, package, ["models.clip.multihead_attention"], packages="models")
    towers = [clip.VisionTransformer(32, 8, 64, 12, 4, 24) for _ in range(2)]
    for tower, of in zip(towers, (start, model), strict=True):
        tower.load_state_dict(of.visual.state_dict())

    class Classifier(nn.Module):
        backbone = towers[1]

        def forward(self, images: Tensor, **options: Any) -> Tensor:
            return model.classify(nn.functional.normalize(self.backbone(images, **options), dim=-1))

    _, relevance = masking.get_MMCAM(Classifier(), images, labels, get_patch_cam=True)
    relevance = relevance / relevance.amax(dim=1, keepdim=True)
    yield difference("relevance", patch_relevance(model, images, labels), relevance, 1e-4)
    for name in ("ObjMaskSingleFill(0.3)", "CtxMaskSingleFill(0.5)"):
        torch.manual_seed(3)
        masked = masking.get_masking(name, model=Classifier(), save_mask=False)(images, labels)
        torch.manual_seed(3)
        mask = relevance > float(name[-4:-1])
        chosen = (mask if name.startswith("Obj") else ~mask).view(16, 4, 4)
        own = filled(images, images[torch.randperm(16)], chosen)
        yield difference(f"Mask-Fill, {name}", own, masked)
    torch.manual_seed(4)
    masked = masking.get_masking("RandMaskSingleFill(0.5)", model=Classifier())(images)
    torch.manual_seed(4)
    chances = torch.empty(16, 1, 4, 4).uniform_()[:, 0]
    own = filled(images, images[torch.randperm(16)], chances < 0.5)
    yield difference("Mask-Fill, random", own, masked)
    method = FeatureDistillation(FeatureDistillationConfig(strength=30.0))
    method.prepare(start, make_context(method, start))
    term = method.loss(model, _batch(masked, labels))["feature_distance"]
    distance = nn.MSELoss()(towers[1](masked), towers[0](masked))
    yield difference("feature distillation", term, distance, 1e-5)


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _batch(images: Tensor, labels: Tensor) -> Any:
    from shiftbench.methods.base import Batch

    return Batch(images, labels)


def _attack(self: Any, name: str, model: nn.Module) -> None:
    self.model, self.device = model, torch.device("cpu")


HOLDING: tuple[Comparison, ...] = (
    ("FTP", ".", trainable_projection),
    ("Selective-Projection-Decay", ".", selective_decay),
    ("ldifs_code", ".", latent_distance),
    ("robust-finetuning", ".", masked_images),
)
