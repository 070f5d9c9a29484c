"""Merges of weights, compared with released code on the miniature backbone and copies of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import torch
from shiftbench.methods.base import DerivedMethod, Parent
from shiftbench.methods.builtin.dare import dropped
from shiftbench.methods.builtin.lines import layer_scales
from shiftbench.methods.builtin.tpgm import Tpgm, TpgmConfig, endless
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.registry import METHODS
from shiftbench.models.backbones import load_backbone
from shiftbench.testing.toys import make_derivation, make_model
from torch import Tensor

from tests.parity.differences import Comparison, Difference, difference
from tests.parity.official import load, stand_in

State = dict[str, Tensor]


def tuned(n: int) -> tuple[State, list[State]]:
    """The image tower of the miniature backbone, and n copies that moved partly together."""
    tower = load_backbone("miniature").clip.visual.state_dict()
    start = {f"visual.{k}": t for k, t in tower.items() if t.is_floating_point()}
    draw = torch.Generator().manual_seed(0)

    def noise() -> State:
        return {k: 0.01 * torch.randn(t.shape, generator=draw) for k, t in start.items()}

    together = noise()
    alone = [noise() for _ in range(n)]
    return start, [{k: t + together[k] + own[k] for k, t in start.items()} for own in alone]


def merged(name: str, start: State, thetas: list[State], **settings: object) -> Tensor:
    """What a method makes of weights, flattened."""
    kind = METHODS.load(name)
    seeds = tuple(range(len(thetas)))
    method = kind(kind.Config(parents=("full",), over_seeds=seeds, **settings))  # type: ignore[call-arg]
    derivation = make_derivation(start, dict(zip(method.parents(), thetas, strict=True)))
    derived = cast("DerivedMethod[MethodConfig]", method)
    return flat(derived.derive(method.fixed_variant(), derivation))


def flat(weights: Any) -> Tensor:
    """All tensors in the order of their names."""
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def model_stock(root: Path) -> Iterator[Difference]:
    """Whole tensors and rows, of two and three models."""
    module = load(root, "mergekit.merge_methods.model_stock", packages="mergekit")
    module.rectify_embed_sizes = lambda *_: None
    for n in (2, 3):
        start, thetas = tuned(n)
        for angle in ("tensor", "row"):
            task = module.ModelStockMergeTask()
            task.base_model, task.weight_info, task.filter_wise = "base", None, angle == "row"
            theirs = {}
            for name, theta0 in start.items():
                given = {"base": theta0} | {i: theta[name] for i, theta in enumerate(thetas)}
                # Tensors of more than two dimensions have rows of their last one there.
                flattened = {k: t.flatten(1) if t.ndim > 2 else t for k, t in given.items()}
                theirs[name] = task.execute(flattened)
            ours = merged("model-stock", start, thetas, angle=angle)
            yield difference(f"Model Stock of {n}, by {angle}", ours, flat(theirs), 1e-5)


def ties(root: Path) -> Iterator[Difference]:
    """Trimmed, elected and merged changes of one, two and three models."""
    module = load(root, "src.utils.ties_utils", ["src.utils.utils"])
    module.print = lambda *_: None
    for n in (1, 2, 3):
        start, thetas = tuned(n)
        changes = torch.stack([flat(theta) - flat(start) for theta in thetas])
        theirs = flat(start) + module.ties_merging(changes, reset_thresh=20, merge_func="dis-mean")
        ours = merged("ties", start, thetas, density=0.2)
        yield difference(f"TIES of {n}", ours, theirs)


def lines(root: Path) -> Iterator[Difference]:
    """The share of each tensor's change, from 0 to 1."""
    with stand_in("wandb"):
        module = load(root, "src.eval.eval")
    module.print = lambda *_: None
    names = [name for name in tuned(0)[0] if "resblocks" in name or "proj" in name]
    blocks = 1 + max(int(name.split(".")[3]) for name in names if "resblocks" in name)
    ones = SimpleNamespace(vector={name: torch.ones(1) for name in names})
    for alpha in (0.0, 0.3, 1.0):
        scaled = module.LiNeS_scaling(ones, alpha, 1 - alpha, blocks).vector
        ours = layer_scales(names, alpha)
        theirs = [float(scaled[name]) for name in names]
        yield difference(f"LiNeS, alpha {alpha}", [ours[name] for name in names], theirs)


def drops(root: Path) -> Iterator[Difference]:
    """Rescaled changes, where the same ones are dropped."""
    module = load(
        root, "model_merging_methods.mask_weights_utils", packages="model_merging_methods utils"
    )
    delta = torch.randn(1000, 100, generator=torch.Generator().manual_seed(1))
    for density in (0.1, 0.5):
        ours = dropped(delta, density, (0, 0, 0))
        with mock.patch.object(module.torch, "bernoulli", lambda _, gone=ours == 0: gone.float()):
            theirs = module.mask_input_with_mask_rate(delta, 1 - density, True, "random")
        yield difference(f"DARE, density {density}", ours, theirs)


def projections(root: Path) -> Iterator[Difference]:
    """The weights after 20 steps on the radii, by both norms."""
    module = load(root, "utils.tpgm", packages="utils")
    module.print = lambda *_: None
    start = make_model()
    draw = torch.Generator().manual_seed(2)
    begun = start.state_dict()
    state = {k: t + 0.1 * torch.randn(t.shape, generator=draw) for k, t in begun.items()}
    derivation = make_derivation(begun, {Parent("full"): state})
    for norm in ("l2", "mars"):
        config = TpgmConfig(norm=norm, iterations=20, batch_size=12)  # type: ignore[arg-type]
        ours = Tpgm(config).derive("", derivation)
        model = make_model()
        model.load_state_dict(state)
        trainer = module.tpgm_trainer.__new__(module.tpgm_trainer)  # whose device is always CUDA
        trainer.device, trainer.pre_trained, trainer.max_iters = "cpu", start, config.iterations
        trainer.tpgm = module.TPGM(model, norm_mode=norm)
        trainer.pgm_optimizer = torch.optim.Adam(trainer.tpgm.parameters(), lr=config.lr)
        batches = endless(derivation.id_val_batches, config.batch_size, derivation.seed)
        trainer.pgmloader = [(b.inputs, b.labels) for b in islice(batches, config.iterations)]
        trainer.dataset_iterator = iter(trainer.pgmloader)
        trainer.criterion = torch.nn.CrossEntropyLoss()
        trainer.tpgm_iters(model)
        trainer.tpgm_iters(model, apply=True)
        yield difference(f"TPGM, {norm}", flat(ours), flat(model.state_dict()), 1e-5)


MERGES: tuple[Comparison, ...] = (
    ("mergekit", ".", model_stock),
    ("LiNeS", ".", ties),
    ("LiNeS", ".", lines),
    ("MergeLM", ".", drops),
    ("TPGM", "ImageNet_ViT_Exp", projections),
)
