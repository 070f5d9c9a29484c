"""What is compared with which official code: each yields the largest difference it found."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from PIL import Image
from shiftbench.data.images import ImageSet
from shiftbench.data.prompts import FMOW, FMOW_CATEGORIES, prompts
from shiftbench.data.sources.builtin.imagenet import ImageNetA, ImageNetR, ObjectNet
from shiftbench.execution.schedule import learning_rate
from shiftbench.methods import objective
from shiftbench.methods.contrastive import contrastive_loss
from shiftbench.models.backbones import load_backbone
from shiftbench.models.classifier import zero_shot_head
from shiftbench.models.weights import interpolate
from torch import Tensor, nn

from tests.parity.differences import FP64, Comparison, Difference, difference
from tests.parity.official import load

CLASSES = 1000


def interpolation(root: Path) -> Iterator[Difference]:
    """WiSE-FT's merge of all weights of the miniature backbone and a perturbed copy."""
    merge = load(root, "src.wise_ft")._merge
    state = load_backbone("miniature").clip.state_dict()
    theta0 = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    draw = torch.Generator().manual_seed(0)
    theta1 = {k: t + 0.01 * torch.randn(t.shape, generator=draw) for k, t in theta0.items()}
    for alpha in (0.0, 0.3, 0.5, 0.9, 1.0):
        ours = interpolate(theta0, theta1, alpha)
        theirs = merge(alpha, theta0, theta1, None, 0.0)
        pairs = [(ours[name].flatten(), theirs[name].flatten()) for name in theirs]
        one, other = (torch.cat(side) for side in zip(*pairs, strict=True))
        yield difference(f"weights, alpha {alpha}", one, other)


def head(root: Path) -> Iterator[Difference]:
    """The zero-shot head of FMoW's classes with the checkout's own templates, and its logits."""
    zeroshot = load(root, "src.models.zeroshot", ["src.models.modeling"])
    texts = load(root, "src.templates.fmow_template", ["src.templates.utils"])
    backbone = load_backbone("miniature")
    classes = SimpleNamespace(classnames=FMOW_CATEGORIES)
    zeroshot.templates = SimpleNamespace(fmow=texts.fmow_template)
    zeroshot.datasets = SimpleNamespace(fmow=lambda *_, **__: classes)
    zeroshot.clip = SimpleNamespace(tokenize=backbone.tokenizer)
    zeroshot.tqdm = lambda names: names
    zeroshot.print = lambda *_: None
    settings = {"template": "fmow", "train_dataset": "fmow", "id": "fmow", "classnames": None}
    places = {"data_location": None, "batch_size": 1, "workers": 0, "device": "cpu"}
    theirs = zeroshot.get_zeroshot_classifier(SimpleNamespace(**settings, **places), backbone.clip)
    ours = zero_shot_head(backbone, [prompts(FMOW, name) for name in FMOW_CATEGORIES])
    yield difference("head weights", ours.weight, theirs.weight, 1e-5)
    yield difference("logit scale", ours.weight.norm(dim=1), theirs.weight.norm(dim=1), 1e-5)
    raw = torch.randn(64, ours.in_features, generator=torch.Generator().manual_seed(1))
    yield difference("logits", ours(nn.functional.normalize(raw, dim=-1)), theirs(raw), 1e-5)


def schedules(root: Path) -> Iterator[Difference]:
    """The learning rate of every step, linear warm-up and cosine."""
    cosine_lr = load(root, "src.models.utils").cosine_lr
    for steps, warmup in ((1000, 0), (1000, 500), (6005, 500), (37, 5)):
        group: dict[str, float] = {}
        adjust = cosine_lr(SimpleNamespace(param_groups=[group]), 3e-5, warmup, steps)
        theirs = []
        for step in range(steps):
            adjust(step)
            theirs.append(float(group["lr"]))
        ours = [learning_rate(step, steps, 3e-5, warmup) for step in range(steps)]
        yield difference(f"learning rates, {steps} steps, {warmup} warm-up", ours, theirs, FP64)


def contrastive(root: Path) -> Iterator[Difference]:
    """The contrastive loss and its gradients, with the diagonal and with classes as targets."""
    theirs = load(root, "clip.loss").ClipLoss()
    labels = torch.arange(48) % 7
    for subject, duplicates, given in (
        ("contrastive loss", "keep", ()),
        ("contrastive loss, soft targets", "soft", (labels,)),
    ):
        leaves = _contrastive_inputs(48)
        ours = contrastive_loss(*leaves, labels, duplicates)  # type: ignore[arg-type]
        official = theirs(*leaves, *given)
        yield difference(subject, ours, official)
        pairs = zip(_gradients(ours, leaves), _gradients(official, leaves), strict=True)
        for name, (one, other) in zip(("images", "texts", "scale"), pairs, strict=True):
            yield difference(f"{subject}, gradient of {name}", one, other, 1e-5)


def learned_loss(root: Path) -> Iterator[Difference]:
    """AutoFT's nine terms, and the gradients of a weighted sum of all."""
    official = load(root, "src.losses.learnedloss", ["src.losses.utils", "clip.loss"])
    names = [name.replace("_", "") for name in objective.LOSSES]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    anchor = [theta.detach().clone() for theta in model.parameters()]
    with torch.no_grad():
        for theta in model.parameters():
            theta.add_(0.1 * torch.randn_like(theta))
    inputs, labels = 3 * torch.randn(64, 20), torch.randint(0, 10, (64,))
    leaves = _contrastive_inputs(64)
    weights = list(model.parameters())

    def theirs(loss_weights: Tensor) -> Tensor:
        # The released code has no device but a GPU.
        with mock.patch.object(Tensor, "cuda", lambda tensor: tensor):
            learned = official.LearnedLoss(names, loss_weights, anchor)
        loss: Tensor = learned(model, model(inputs), labels, *leaves)
        return loss

    logits = model(inputs)
    terms = {
        "ce": objective.cross_entropy(logits, labels),
        "dcm": objective.dcm(logits, labels),
        "entropy": objective.entropy(logits),
        "flyp": contrastive_loss(*leaves),
        "hinge": objective.hinge(logits, labels),
        "l1_init": objective.l1_init(weights, anchor),
        "l1_zero": objective.l1_zero(weights),
        "l2_init": objective.l2_init(weights, anchor),
        "l2_zero": objective.l2_zero(weights),
    }
    for alone, name in zip(torch.eye(len(names)), objective.LOSSES, strict=True):
        yield difference(f"loss {name}", terms[name], theirs(alone))
    mixed = torch.linspace(0.1, 2.0, len(names))
    total = sum(w * terms[name] for w, name in zip(mixed, objective.LOSSES, strict=True))
    wanted = [*weights, *leaves]
    pairs = list(zip(_gradients(total, wanted), _gradients(theirs(mixed), wanted), strict=True))
    one, other = (torch.cat([part.flatten() for part in side]) for side in zip(*pairs, strict=True))
    yield difference("gradients of all nine losses", one, other, 1e-5)


def projections(root: Path) -> Iterator[Difference]:
    """Labels and projected logits of ImageNet-A, -R and ObjectNet, on folders of empty images."""
    modules = {"src.datasets.imagenet", "src.datasets.common", "src.datasets.imagenet_classnames"}
    a, r, objectnet = (
        load(root, f"src.datasets.{name}", modules)
        for name in ("imagenet_a", "imagenet_r", "objectnet")
    )
    wnids = [f"n{number:08d}" for number in range(CLASSES)]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for wnid in wnids:
            (base / "imagenet/val" / wnid).mkdir(parents=True)
        for name, module in (("imagenet-a", a), ("imagenet-r", r)):
            _images(base / name, [wnids[number] for number in module.CLASS_SUBLIST])
        mappings = base / "objectnet-1.0/mappings"
        mappings.mkdir(parents=True)
        for file in Path(objectnet.__file__).with_name("objectnet_metadata").iterdir():
            (mappings / file.name).write_bytes(file.read_bytes())
        _images(base / "objectnet-1.0/images", objectnet.get_metadata()[2])
        for name, ours, official in (
            ("ImageNet-A", ImageNetA(), a.ImageNetA),
            ("ImageNet-R", ImageNetR(), r.ImageNetR),
            ("ObjectNet", ObjectNet(), objectnet.ObjectNet),
        ):
            theirs = official(None, location=folder, batch_size=1, num_workers=0)
            yield from _projected(name, ours.open(folder), theirs)


def _projected(name: str, ours: ImageSet, theirs: object) -> Iterator[Difference]:
    logits = np.random.default_rng(0).normal(size=(100, CLASSES)).astype(np.float32)
    if ours.projection is None:
        raise ValueError(f"{name} has no projection")
    projected = theirs.project_logits(torch.from_numpy(logits), "cpu")  # type: ignore[attr-defined]
    yield difference(f"projected logits of {name}", ours.projection(logits), projected, 0.0)
    data = theirs.test_dataset  # type: ignore[attr-defined]
    folder_of = getattr(data, "label_map", data.class_to_idx)
    labels = [folder_of[Path(path).parent.name] for path, _ in data.samples]
    found = dict(zip(ours.ids.tolist(), ours.labels.tolist(), strict=True))
    ids = ["/".join(Path(path).parts[-2:]) for path, _ in data.samples]
    yield difference(f"labels of {name}", [found[i] for i in ids], labels, 0.0)


def _images(folder: Path, classes: object) -> None:
    """One small image in the folder of each class."""
    for name in classes:  # type: ignore[attr-defined]
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "one.png")


def _contrastive_inputs(n: int) -> list[Tensor]:
    """Normalised features and embeddings, and a scale, that gradients flow to."""
    draw = torch.Generator().manual_seed(2)
    features = (torch.randn(n, 32, generator=draw) for _ in range(2))
    leaves = [nn.functional.normalize(tensor, dim=-1) for tensor in features]
    return [tensor.requires_grad_() for tensor in (*leaves, torch.tensor(math.exp(2.66)))]


def _gradients(loss: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves)


COMPARISONS: tuple[Comparison, ...] = (
    ("wise-ft", ".", interpolation),
    ("wise-ft", ".", head),
    ("wise-ft", ".", schedules),
    ("wise-ft", ".", projections),
    ("FLYP", ".", head),
    ("FLYP", ".", schedules),
    ("FLYP", ".", contrastive),
    ("auto-ft", "autoft", head),
    ("auto-ft", "autoft", schedules),
    ("auto-ft", "autoft", contrastive),
    ("auto-ft", "autoft", learned_loss),
)
