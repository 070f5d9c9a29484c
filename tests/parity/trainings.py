"""Whole trainings of a few steps by released loops, compared with ours on the same tensors."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from scipy.stats import beta
from shiftbench.methods.base import Batch, TrainedMethod
from shiftbench.methods.builtin.carot import Carot, CarotConfig
from shiftbench.methods.builtin.clipood import Clipood, ClipoodConfig
from shiftbench.methods.builtin.tracer import Tracer, TracerConfig
from shiftbench.methods.config import TrainingConfig
from shiftbench.models.adapters import LoraAttention
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import make_batch, make_context, make_model
from torch import Tensor, nn

from tests.parity.differences import Comparison, Difference, difference
from tests.parity.official import load, stand_in

STEPS = 6
LR, DECAY = 1e-2, 0.1
TRAINED = 1e-4
"""The greatest relative difference of weights that rounding explains after six steps of Adam."""


class Encoder(nn.Module):
    """A classifier of ours as CaRot's and TRACER's loops call one."""

    train_preprocess = val_preprocess = None

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.classifier.features(images), self.classifier.encode_text(texts)
        return *features, self.classifier.temperature[None]  # as of each of several devices

    @property
    def model(self) -> Any:
        visual = SimpleNamespace(proj=self.classifier.visual.proj.weight.T)  # type: ignore[union-attr]
        text = self.classifier.text_tower.text_projection.weight.T  # type: ignore[union-attr]
        return SimpleNamespace(visual=visual, text_projection=text)


def batches() -> list[Batch]:
    """A few batches of the toy, each of other examples."""
    whole = make_batch()
    assert whole.captions is not None
    found = []
    for step in range(STEPS):
        rows = torch.randperm(30, generator=torch.Generator().manual_seed(step))[:12]
        found.append(Batch(whole.inputs[rows], whole.labels[rows], whole.captions[rows], step))
    return found


def trained(method: TrainedMethod[TrainingConfig], model: ImageClassifier) -> ImageClassifier:
    """Our steps, at a constant rate."""
    method.prepare(model, make_context(method, model, steps=STEPS))
    optimizer = torch.optim.AdamW(method.parameters(model), lr=LR, weight_decay=DECAY)
    for batch in batches():
        optimizer.zero_grad()
        torch.autograd.backward(method.loss(model, batch)["loss"])
        optimizer.step()
        method.after_step(model, batch.step + 1)
    return model


def compared(
    name: str, ours: Any, theirs: Any, begun: Any, tolerance: float = TRAINED
) -> Difference:
    """Of the way that weights have gone, so that what hardly moves counts too."""
    names = [name for name in begun if not name.startswith("head.")]

    def way(weights: Any) -> Tensor:
        return torch.cat([(weights[name] - begun[name]).flatten() for name in names])

    return difference(name, way(ours), way(theirs), tolerance)


@contextlib.contextmanager
def without_a_gpu() -> Iterator[None]:
    """Asking for CUDA does nothing, and what the released loops write goes elsewhere."""
    stay = {"cuda": lambda self, *_: self}
    place = Path.cwd()
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(action="ignore"),
        mock.patch.multiple(nn.Module, **stay),
        mock.patch.multiple(Tensor, **stay),
        mock.patch("torch.cuda.device_count", lambda: 0),
        stand_in("wandb", log=lambda *_: None),
    ):
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(place)


def released(module: Any, run: Callable[..., Any], **settings: object) -> tuple[Any, Any]:
    """The student's and the teacher's weights after a released loop over our batches."""
    encoder = Encoder(make_model(architecture=Carot(CarotConfig()).architecture()))
    teachers: list[Any] = []
    pairs = [(batch.inputs, batch.captions) for batch in batches()]
    module.datasets = SimpleNamespace(
        Toy=lambda *_, **__: SimpleNamespace(train_loader=range(STEPS))
    )
    module.get_data = lambda *_, **__: {"train_ft": SimpleNamespace(dataloader=pairs)}
    module.cosine_lr = lambda *_: lambda step: None
    module.get_zeroshot_classifier = lambda *_: nn.Identity()
    module.evaluate = lambda *_: {}
    kept = copy.deepcopy

    def copied(whole: Any, *memo: Any) -> Any:
        again = kept(whole, *memo)
        if isinstance(again, Encoder):
            teachers.append(again)
        return again

    arguments = {
        "train_dataset": "Toy",
        "data_location": None,
        "batch_size": 12,
        "use_fp16": 0,
        "clip_load": None,
        "ls": 0,
        "lr": LR,
        "wd": DECAY,
        "warmup_length": 0,
        "min_lr": 0,
        "epochs": 1,
        "save": None,
        "exp_name": "it",
        "run": 1,
        "model": "ViT-B/16",
    }
    logger = SimpleNamespace(info=lambda *_: None)
    with mock.patch("copy.deepcopy", copied):
        run(SimpleNamespace(**arguments, **settings), encoder, nn.Identity(), logger)
    states = [part.classifier.state_dict() for part in (encoder, teachers[0])]
    return states[0], states[1]


def carot(root: Path) -> Iterator[Difference]:
    """Student and teacher after the released loop."""
    for every, rise in ((1, 0.5), (2, 0.2)):
        config = CarotConfig(teacher_every=every, momentum_rise=rise)
        settings = {
            "distil_coef": config.distillation,
            "l_orth_wv": config.orthogonality,
            "cross_fnorm": config.cross_norm,
            "ema_up_freq": every,
            "m_warm_up": rise,
            "m_sche_src": config.momentum[0],
            "m_sche_tar": config.momentum[1],
        }
        with without_a_gpu():
            module = load(root, "src.models.carot_loss", ["clip.loss"])
            module.print = lambda *_: None
            student, teacher = released(module, module.carot_loss, **settings)
        method = Carot(config)
        begun = make_model(architecture=method.architecture()).state_dict()
        ours = trained(method, make_model(architecture=method.architecture())).state_dict()
        subject = f"CaRot, teacher every {every}"
        yield compared(f"{subject}: student", ours, student, begun)
        yield compared(f"{subject}: teacher", method._teacher.state(), teacher, begun)


def tracer(root: Path) -> Iterator[Difference]:
    """Student and teacher after the released loop, with the terms of its Beta script."""
    config = TracerConfig()
    settings = {
        "distil_coef": config.distillation,
        "cross_fnorm": config.cross_norm,
        "l_orth_wv": 0,
        "alpha_fd": config.features,
        "alpha_crd": config.relations,
        "beta": config.beta,
        "alpha_icl": config.interactive,
        "alpha_cross_kd": config.crossed,
        "ema_up_freq": 0,
        **dict.fromkeys(("alpha_mfd", "alpha_gd", "alpha_afd", "alpha_temp_distil"), 0),
        "max_grad_norm": 0,
        "grad_norm_multiplier": 0,
    }
    needs = [
        *("clip.loss", "src.models.beta_moving_average"),
        "src.models.clip_knowledge_distillation",
    ]
    with without_a_gpu():
        module = load(root, "src.models.tracer_loss", needs)
        module.print = lambda *_: None
        module.tqdm = lambda steps, **_: steps
        module.apply_layer_freezing = lambda *_: None
        module.cosine_grad_norm_scheduler = lambda *_: lambda step: 0.0
        student, teacher = released(module, module.tracer_loss, **settings)
    method = Tracer(config)
    begun = make_model(architecture=method.architecture()).state_dict()
    ours = trained(method, make_model(architecture=method.architecture())).state_dict()
    yield compared("TRACER: student", ours, student, begun)
    yield compared("TRACER: teacher", method._teacher.state(), teacher, begun)


def clipood(root: Path) -> Iterator[Difference]:
    """The last weights and their mean after the released loop, which here does not round them."""
    packages = "engine clip converter_dassl converter_domainbed utils"
    module = load(root, "engine", packages=packages)
    module.AverageMeter = lambda *_: SimpleNamespace(update=lambda *_: None)
    module.ProgressMeter = lambda *_, **__: SimpleNamespace(display=lambda *_: None)
    module.accuracy = lambda *_: [torch.zeros(1)]
    module.clip = SimpleNamespace(model=SimpleNamespace(convert_weights=lambda model: None))
    for value in (0.5, 0.1):
        config = ClipoodConfig(beta=value)
        start = starting_point()
        rows = start.head.weight.detach()
        tower = copy.deepcopy(start.visual)
        at = beta(value, value)
        mean = module.GeneralMovingAverage(tower, lambda t, at=at: at.pdf((t + 0.5) / (STEPS + 1)))
        arguments = SimpleNamespace(
            task="open_class", iters_per_epoch=STEPS, lam=config.margin, print_freq=STEPS,
            temperature=float(rows[0].norm()),
        )  # fmt: skip
        module.train(
            iter([(batch.inputs, batch.labels) for batch in batches()]),
            *(tower, mean, rows / rows.norm(dim=1, keepdim=True)),
            torch.optim.AdamW(tower.parameters(), lr=LR, weight_decay=DECAY),
            SimpleNamespace(step=lambda: None),
            *(0, arguments, SimpleNamespace(record_training_values=lambda *_: None), "cpu"),
        )
        method, model = Clipood(config), starting_point()
        trained(method, model)
        begun = start.visual.state_dict()
        yield compared(
            f"CLIPood, β {value}: last", model.visual.state_dict(), tower.state_dict(), begun
        )
        ours = {
            name.removeprefix("visual."): tensor
            for name, tensor in method.weights(model).items()
            if name.startswith("visual.")
        }
        yield compared(f"CLIPood, β {value}: mean", ours, mean.state_dict(), begun)


def starting_point() -> ImageClassifier:
    """The toy with a head as a zero-shot one: rows of one length, no bias; in eval mode."""
    model = make_model().eval()
    with torch.no_grad():
        model.head.weight.copy_(5 * nn.functional.normalize(model.head.weight, dim=-1))
        model.head.bias.zero_()
    return model


def clip_lora(root: Path) -> Iterator[Difference]:
    """An attention with updates, its gradients, and the weights that it merges them to."""
    official = load(root, "loralib.layers", packages="loralib").PlainMultiheadAttentionLoRA
    torch.manual_seed(0)
    base = nn.MultiheadAttention(32, 4, batch_first=True)
    nn.init.normal_(base.in_proj_bias)
    theirs = official(base, enable_lora=["q", "k", "v"], r=2, lora_alpha=1, dropout_rate=0.25)
    ours = LoraAttention(base.requires_grad_(False), rank=2, alpha=1, dropout=0.0)
    nn.init.normal_(ours.lora_b)
    layers = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.dropout.p = 0.0  # which draws in another order of dimensions
            layer.w_lora_A.copy_(ours.lora_a[i])
            layer.w_lora_B.copy_(ours.lora_b[i])
    x = torch.randn(3, 7, 32)
    mask = torch.full((7, 7), -torch.inf).triu(1)
    found = ours(x, x, x, need_weights=False, attn_mask=mask)[0]
    expected = theirs(x, x, x, need_weights=False, attn_mask=mask)[0]
    yield difference("CLIP-LoRA, attention", found, expected, 1e-5)
    torch.autograd.backward(found.square().sum())
    torch.autograd.backward(expected.square().sum())
    for name, parameter in (("A", ours.lora_a), ("B", ours.lora_b)):
        gradient = torch.stack([getattr(layer, f"w_lora_{name}").grad for layer in layers])
        assert parameter.grad is not None
        yield difference(f"CLIP-LoRA, gradient of {name}", parameter.grad, gradient, 1e-5)
    theirs.eval()
    weights = torch.cat([layer.weight for layer in layers])
    yield difference("CLIP-LoRA, merged weights", ours.merged()["in_proj_weight"], weights)


TRAININGS: tuple[Comparison, ...] = (
    ("CaRot", ".", carot),
    ("TRACER", ".", tracer),
    ("CLIPood", ".", clipood),
    ("CLIP-LoRA", ".", clip_lora),
)
