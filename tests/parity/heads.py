"""Ensembles of two models and few-shot heads, compared with released code on the same tensors."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from shiftbench.data.batches import WorkerPlace
from shiftbench.methods import beta_mixture
from shiftbench.methods.base import Batch, Context, Parent, TrainedMethod
from shiftbench.methods.builtin.clap import multipliers
from shiftbench.methods.builtin.dawin import Dawin, DawinConfig, entropy, shares
from shiftbench.methods.builtin.tip_adapter import TipAdapter, TipAdapterConfig
from shiftbench.methods.builtin.vrf import Vrf, VrfConfig, squared_distances
from shiftbench.methods.calibration import calibrated_temperature, confidence
from shiftbench.methods.config import TrainingConfig
from shiftbench.methods.members import Labelled, Members, Outputs
from shiftbench.methods.registry import METHODS
from shiftbench.models.backbones import load_backbone
from shiftbench.models.classifier import zero_shot_classifier
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, softmax

from tests.parity.differences import Comparison, Difference, difference
from tests.parity.official import load, stand_in

NAMES = ["cat", "dog", "ship", "truck"]
FULL = Parent("full")


def _said(n: int, seed: int, classes: int = 4) -> Members:
    draw = torch.Generator().manual_seed(seed)

    def outputs() -> Outputs:
        features = normalize(torch.randn(n, 16, generator=draw), dim=1)
        return Outputs(features.numpy(), 3 * torch.randn(n, classes, generator=draw).numpy())

    return Members(outputs(), {FULL: outputs()}, lambda *_: outputs())


def vrf(root: Path) -> Iterator[Difference]:
    """Confidence, weights and mixed probabilities."""
    calibrater = load(root, "src.models.calibration").Calibrater
    weight = load(root, "src.main").weight
    members, labels = _said(500, 0), np.arange(500) % 4
    labels = np.where(np.arange(500) % 3, members.zero_shot.logits.argmax(1), labels)
    outputs = (members.zero_shot, members.parents[FULL])
    found = [calibrated_temperature(of.logits, labels) for of in outputs]
    # Its search for a temperature need not end; what it compares with the accuracy is this.
    for t in (0.2, found[0], found[1], 5.0):
        theirs = calibrater(torch.from_numpy(outputs[0].logits), 0.0).compute_confidence(t)
        yield difference(f"VRF, confidence at {t:.3g}", confidence(outputs[0].logits, t), theirs)
    centres = members.parents[FULL].features[:100]
    fitted = {
        "centres": centres,
        "temperatures": np.array(found, np.float32),
        "point": np.array([1.5, 0.6], np.float32),
    }
    ours = softmax(torch.from_numpy(Vrf(VrfConfig()).combine("", members, fitted)).double(), 1)
    distances = torch.from_numpy(squared_distances(outputs[1].features, centres, 1))[:, None]
    w = weight(distances)
    parts = [
        softmax(torch.from_numpy(of.logits).double() / float(np.float32(t)), 1)
        for of, t in zip(outputs, found, strict=True)
    ]
    yield difference("VRF, probabilities", ours, (1 - w) * parts[0] + w * parts[1])


def dawin(root: Path) -> Iterator[Difference]:
    """Shares with and without offset, and the mixture's means and groups."""
    with stand_in("wandb"):
        packages = "main_dawin utils mixturemodel datasets clip"
        main = load(root, "main_dawin", ["utils", "mixturemodel"], packages)
    members = _said(2000, 1, 50)
    outputs = {"zs": members.zero_shot, "ft": members.parents[FULL]}
    found = {}
    for offset in (False, True):
        args = SimpleNamespace(
            offset_adjustment=offset, ensemble_coef="", save_outputs=0, device="cpu", prefix=""
        )
        own = main.DaWin.__new__(main.DaWin)
        own.args, own.basemodel, own.preprocess = args, None, None
        own.zs_sd = own.ft_sd = None
        own.expertise, own.temperature_scales = "negexp_ent_ratio", [0.96, 1.0066]

        def cached(*_: Any, dataset_name: str, state_dict: None, args: Any = args) -> Any:
            del dataset_name, state_dict
            logits = torch.from_numpy(outputs[args.prefix].logits)
            return None, logits, torch.zeros(len(logits)).long(), lambda z, device: z

        with (
            mock.patch.object(main, "get_feats_logits_and_labels", cached),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            own.build_datastore(dsname="x")
        entropies = [
            entropy(o.logits, t) for o, t in zip(outputs.values(), (0.96, 1.0066), strict=True)
        ]
        found[offset] = shares(*entropies, offset=offset)
        theirs = own.datastore["coefficient"].flatten()
        yield difference(f"DaWin, shares, offset {offset}", found[offset], theirs, 1e-5)
    values = np.sort(found[True])
    official = load(root, "mixturemodel", (), "mixturemodel")
    starts = iter(range(beta_mixture.STARTS))

    class SameClusters:
        def __init__(self, **_: Any) -> None:
            self.seed = next(starts)

        def fit(self, data: np.ndarray) -> Any:
            of = beta_mixture._clusters(data[:, 0], 3, self.seed).argmax(1)
            return SimpleNamespace(labels_=of)

    with (
        mock.patch.object(official, "KMeans", SameClusters),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        mixture = official.BetaMixtureModel(n_mixtures=3)
        mixture.fit(values[:, None])
    a, b = mixture.beta_params_.T
    means, group = beta_mixture.fit_mixture(values, 3)
    yield difference("DaWin, means of the mixture", means, a / (a + b), 1e-9)
    yield difference("DaWin, groups", group, mixture.predict(values[:, None]), 0.0)
    mixed = Dawin(DawinConfig(space="probabilities", temperatures=(0.96, 1.0066)))
    ours = softmax(torch.from_numpy(mixed.combine("", members, {})).double(), 1)
    share = torch.from_numpy(found[True])[:, None]
    parts = [
        softmax(torch.from_numpy(o.logits).double() / t, 1)
        for o, t in zip(outputs.values(), (0.96, 1.0066), strict=True)
    ]
    yield difference("DaWin, probabilities", ours, (1 - share) * parts[0] + share * parts[1])


def _shots(n: int = 64, seed: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % len(NAMES)
    width = load_backbone("miniature").clip.text_projection.shape[1]
    return normalize(torch.randn(n, width, generator=draw) + labels[:, None], dim=1), labels


def _ready(name: str, features: Tensor, labels: Tensor, **settings: object) -> tuple[Any, Any]:
    kind = METHODS.load(name)
    method = kind(kind.Config(**settings))  # type: ignore[call-arg]
    if not isinstance(method, TrainedMethod):
        raise TypeError(name)
    backbone = load_backbone("miniature")
    prompts = [[f"a photo of a {label}."] for label in NAMES]
    model = zero_shot_classifier(backbone, prompts, text=method.architecture().text)
    batch = Batch(features, labels)
    method.prepare(model, Context({}, lambda: iter([batch]), 20, 0, WorkerPlace()))
    return method, model


def _steps(
    method: TrainedMethod[TrainingConfig], model: Any, batch: Batch, steps: int
) -> list[float]:
    optimizer, losses = method.optimizer(method.parameters(model)), []
    for step in range(steps):
        loss = method.loss(model, batch)["loss"]
        for parameter in method.parameters(model):
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        method.before_step(model)
        optimizer.step()
        method.after_step(model, step + 1)
        losses.append(loss.item())
    return losses


def clap(root: Path) -> Iterator[Difference]:
    """Multipliers, logits, and the prototypes after 20 steps."""
    registry = mock.MagicMock()
    dassl = {
        "engine": {"TRAINER_REGISTRY": registry, "SimpleTrainer": object},
        "metrics": {"compute_accuracy": None},
        "utils": dict.fromkeys(
            ("load_pretrained_weights", "load_checkpoint", "AverageMeter", "MetricMeter")
        ),
        "optim": dict.fromkeys(("build_optimizer", "build_lr_scheduler")),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(stand_in("dassl"))
        for name, functions in dassl.items():
            stack.enter_context(stand_in(f"dassl.{name}", **functions))
        module = load(root, "trainers.adapters", packages="trainers clip datasets")
    features, labels = _shots()
    method, model = _ready("clap", features, labels)
    base = model.head.weight.detach().clone()
    adapter = SimpleNamespace(INIT="ZS", CONSTRAINT="l2")
    settings = SimpleNamespace(TRAINER=SimpleNamespace(ADAPTER=adapter))
    scale = model.text_tower.logit_scale.detach()
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = module.AdapterMethod(
            settings, SimpleNamespace(dtype=torch.float32, logit_scale=scale), base
        )
        zero_shot = scale.exp() * features @ normalize(base, dim=1).T
        theirs.device = torch.device("cpu")
        theirs.init_lagrangian_multipliers(labels, zero_shot)
    yield difference(
        "CLAP, multipliers",
        multipliers(softmax(zero_shot, 1).gather(1, labels[:, None])[:, 0], labels, len(base)),
        theirs.alpha_constraint,
    )
    clip = module.CustomCLIP.__new__(module.CustomCLIP)
    nn.Module.__init__(clip)
    clip.adapter, clip.logit_scale = theirs, scale
    optimizer = torch.optim.SGD([theirs.prototypes], lr=0.1, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = cross_entropy(clip.forward_lp(features), labels) + theirs.zero_shot_constraint()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    ours = _steps(method, model, Batch(features, labels), 20)
    yield difference("CLAP, losses of 20 steps", ours, losses, 1e-5)
    yield difference("CLAP, prototypes", model.head.weight, theirs.prototypes, 1e-4)


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """As theirs, which are of half precision, with which a CPU multiplies nothing."""
    return torch.nn.functional.one_hot(labels, num_classes).float()


def lp_plus_plus(root: Path) -> Iterator[Difference]:
    """The last of 30 losses, and weight, bias and text weights after them."""
    with stand_in("matplotlib"), stand_in("matplotlib.pyplot"), stand_in("tqdm", tqdm=iter):
        module = load(
            root, "methods.linear_probe_p2", ["methods.method", "methods.utils"], "methods"
        )
    module.print = lambda *_: None
    features, labels = _shots()
    method, model = _ready("lp-plus-plus", features, labels)
    texts = method._texts.T
    made: list[Any] = []

    class Linear(nn.Linear):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            nn.init.zeros_(self.bias)
            made.append(self)

    args = {"train_epoch": 30, "shots": 16, "dataset": "", "output_dir": ""}
    loader = [(features, labels)]
    image_model = SimpleNamespace(encode_image=lambda images: images.clone(), dtype=torch.float32)
    probe = module.LinearProbe_P2(args)
    probe_module = SimpleNamespace(**{k: getattr(nn, k) for k in ("Module",)}, Linear=Linear)
    with (
        mock.patch.object(Tensor, "cuda", lambda tensor: tensor),
        mock.patch.object(nn.Module, "cuda", lambda self: self),
        mock.patch.object(module, "nn", probe_module),
        mock.patch.dict(module.compute_centroids.__globals__, get_one_hot=_one_hot),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        loss, _ = probe.forward(loader, loader, features, labels, texts, image_model, NAMES)
    ours = _steps(method, model, Batch(features, labels), 30)
    yield difference("LP++, loss of step 30", ours[-1], loss, 1e-3)
    yield difference("LP++, weight", model.head.weight, made[0].weight, 1e-3)


def tip_adapter(root: Path) -> Iterator[Difference]:
    """α and β of the whole grid, and the logits there."""
    with stand_in("tqdm", tqdm=iter):
        module = load(root, "utils", packages="utils clip")
    module.print = lambda *_: None
    (keys, labels), (features, answers) = _shots(), _shots(200, 4)
    heads = normalize(_shots(4, 5)[0], dim=1).T
    logits = 100.0 * features @ heads
    values = torch.nn.functional.one_hot(labels).float()
    settings = {"search_hp": True, "search_scale": [7, 3], "search_step": [200, 20]}
    module.cls_acc = lambda logits, of: float((logits.argmax(1) == of).double().mean())
    beta, alpha = module.search_hp(settings, keys.T, values, features, answers, heads)
    method = TipAdapter(TipAdapterConfig())
    never = lambda *_: None  # noqa: E731
    train = Labelled(
        Members(Outputs(keys.numpy(), np.zeros((64, 4), np.float32)), {}, never), labels.numpy()
    )  # type: ignore[arg-type]
    held_out = Labelled(
        Members(Outputs(features.numpy(), logits.numpy()), {}, never), answers.numpy()
    )  # type: ignore[arg-type]
    fitted = method.fit(lambda: held_out, lambda: train)
    yield difference("Tip-Adapter, α and β", fitted["point"], [alpha, beta], 1e-6)
    theirs = logits + alpha * (-(beta - beta * (features @ keys.T))).exp() @ values
    yield difference(
        "Tip-Adapter, logits", method.combine("", held_out.members, fitted), theirs, 1e-5
    )


def coop(root: Path) -> Iterator[Difference]:
    """Class embeddings that a context of four vectors makes, by their text encoder and ours."""
    registry = mock.MagicMock()
    backbone = load_backbone("miniature")
    tower = backbone.clip
    tokenizer = SimpleNamespace(encode=lambda text: text.split())
    dassl = {
        "engine": {"TRAINER_REGISTRY": registry, "TrainerX": object},
        "metrics": {"compute_accuracy": None},
        "utils": dict.fromkeys(("load_pretrained_weights", "load_checkpoint")),
        "optim": dict.fromkeys(("build_optimizer", "build_lr_scheduler")),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(stand_in("dassl"))
        for name, functions in dassl.items():
            stack.enter_context(stand_in(f"dassl.{name}", **functions))
        module = load(root, "trainers.coop", packages="trainers clip")
    module.clip, module._tokenizer = SimpleNamespace(tokenize=backbone.tokenizer), tokenizer
    module.print = lambda *_: None

    def transformer(x: Tensor) -> Tensor:
        return tower.transformer(x.permute(1, 0, 2), attn_mask=tower.attn_mask).permute(1, 0, 2)

    clip = SimpleNamespace(
        transformer=transformer,
        positional_embedding=tower.positional_embedding,
        ln_final=tower.ln_final,
        text_projection=tower.text_projection,
        token_embedding=tower.token_embedding,
        dtype=torch.float32,
        visual=SimpleNamespace(input_resolution=32),
    )
    options = SimpleNamespace(
        N_CTX=4,
        CTX_INIT="a photo of a",
        CSC=False,
        CLASS_TOKEN_POSITION="end",  # noqa: S106
    )
    settings = SimpleNamespace(
        TRAINER=SimpleNamespace(COOP=options), INPUT=SimpleNamespace(SIZE=[32])
    )
    learner = module.PromptLearner(settings, NAMES, clip)
    encoder = module.TextEncoder(clip)
    features, labels = _shots()
    method, model = _ready("coop", features, labels, context="template")
    (vectors,) = method.parameters(model)
    yield difference("CoOp, first context", vectors, learner.ctx)
    with torch.no_grad():
        for parameter in (vectors, learner.ctx):
            parameter.add_(0.1 * torch.arange(parameter.numel()).view(parameter.shape).sin())
        theirs = normalize(encoder(learner(), learner.tokenized_prompts), dim=1)
        ours = model.encode_text(method._tokens)
    yield difference("CoOp, class embeddings", ours, theirs, 1e-5)


HEADS: tuple[Comparison, ...] = (
    ("VRF", ".", vrf),
    ("dawin", "dawin_rft", dawin),
    ("CLAP", ".", clap),
    ("LP++", ".", lp_plus_plus),
    ("Tip-Adapter", ".", tip_adapter),
    ("CoOp", ".", coop),
)
