"""Towers with batch norm: the same weights however a batch is cut up, and statistics that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from open_clip.model import _build_vision_tower
from pydantic import ValidationError
from shiftbench.core.errors import InputError
from shiftbench.data.batches import WorkerPlace, micro_batches
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.training import Trained, Trainer
from shiftbench.methods.base import Batch, Context, TrainedMethod
from shiftbench.methods.builtin.saft import SaftConfig
from shiftbench.methods.builtin.soup import Soup, SoupConfig
from shiftbench.methods.builtin.wise_ft import CurveConfig, WiseFt
from shiftbench.methods.config import TrainingConfig
from shiftbench.models.batch_norm import with_statistics
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.weights import distance
from shiftbench.testing.toys import make_derivation
from torch import Tensor, nn

from tests.methods.settings import make_method
from tests.models.tiny import RESNET

EXAMPLES, CLASSES, BATCH = 24, 3, 8
TOWERS = {
    "resnet": RESNET,
    "efficientnet": {"timm_model_name": "efficientnet_lite0", "timm_pool": "avg"},
    "mobilenet": {"timm_model_name": "mobilenetv2_050", "timm_pool": "avg"},
}
SETTINGS = {"batch_size": BATCH, "epochs": 1, "warmup_steps": 0, "lr": 1e-3}


def make_model(tower: str = "resnet") -> ImageClassifier:
    """A random tower whose statistics are not those of the images."""
    torch.manual_seed(0)
    config = {"image_size": 32, **TOWERS[tower]}
    model = ImageClassifier(_build_vision_tower(16, config), nn.Linear(16, CLASSES))
    for module in with_statistics(model):
        module.running_mean.normal_(0, 0.1)
        module.running_var.uniform_(0.5, 2)
    return model.eval()


def make_examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(EXAMPLES) % CLASSES
    images = torch.randn(EXAMPLES, 3, 32, 32, generator=generator)
    return images + labels.view(-1, 1, 1, 1), labels


def train(
    model: ImageClassifier,
    method: TrainedMethod[TrainingConfig],
    place: WorkerPlace = WorkerPlace(),
    micro_batch: int | None = None,
) -> Trained:
    """Train as a run does, on the examples."""
    images, labels = make_examples()
    schedule = make_schedule(EXAMPLES, method.training, place.size, micro_batch)

    def batches(steps: range) -> Iterator[Batch]:
        order = micro_batches(EXAMPLES, BATCH, 0, steps, place, schedule.micro_batch)
        for pairs in order:
            indices = [index for _, index in pairs]
            yield Batch(images[indices], labels[indices])

    context = Context({}, lambda: iter([Batch(images, labels)]), schedule.steps, 0, place)
    method.prepare(model, context)
    probe = Batch(images[:2], labels[:2])
    return Trainer(model, method, schedule, batches, seed=0, place=place, probe=probe).run()


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_buffers()}


def apart(model: ImageClassifier, other: ImageClassifier) -> float:
    """How far two trainings of one start are apart, as a share of how far they went."""
    start, names = make_model().state_dict(), dict(model.named_parameters())
    way = distance(start, model.state_dict(), names)
    return distance(other.state_dict(), model.state_dict(), names) / way


def on_two_workers(
    function: Callable[..., object], folder: Path, *arguments: object
) -> list[Tensor]:
    """What each of two workers gives of ``function``, a state dict."""
    mp.spawn(_worker, (function, folder, arguments), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _worker(rank: int, function: Callable[..., object], folder: Path, arguments: tuple) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    try:
        torch.save(function(WorkerPlace(rank, 2), *arguments), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def trained(place: WorkerPlace, batch_norm: str) -> dict[str, Tensor]:
    model = make_model()
    train(model, make_method("full", **SETTINGS, batch_norm=batch_norm), place)
    return model.state_dict()


@pytest.mark.parametrize("tower", TOWERS)
def test_frozen_statistics_stay_and_micro_batches_change_nothing(tower: str) -> None:
    whole, cut = make_model(tower), make_model(tower)
    before = buffers(whole)
    losses = train(whole, make_method("full", **SETTINGS)).losses
    of_cut = train(cut, make_method("full", **SETTINGS), micro_batch=1).losses
    assert of_cut == pytest.approx(losses, rel=1e-4)
    for model in (whole, cut):
        assert all(torch.equal(tensor, before[name]) for name, tensor in buffers(model).items())
    for name, parameter in whole.named_parameters():
        assert not torch.equal(parameter, dict(make_model(tower).named_parameters())[name]), name


@pytest.mark.parametrize(
    "name",
    [
        *("bitfit", "ema", "feature-distillation", "freeze-embedding", "ftp", "full", "l2-sp"),
        *("saft", "spd", "swa"),
    ],
)
def test_no_method_moves_the_statistics(name: str) -> None:
    changes = {"head": "linear", "towers": "image", "refresh_every": 2} if name == "saft" else {}
    model, method = make_model(), make_method(name, **SETTINGS, **changes)
    before = buffers(model)
    train(model, method)
    after = method.weights(model)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    # A method that sets the mode itself does not undo it.
    assert not any(module.training for module in with_statistics(model.train()))


def test_saft_changes_nothing_outside_its_mask_of_a_batch_norm_tower() -> None:
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    method = make_method("saft", **SETTINGS, head="linear", towers="image", density=0.01)
    train(model, method)
    changed = sum(int((t != before[name]).sum()) for name, t in model.state_dict().items())
    assert 0 < changed <= method.details(model)["selected"]
    with pytest.raises(ValidationError, match="nothing but the selected weights changes"):
        SaftConfig(batch_norm="train")


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_two_workers_give_the_weights_of_one(batch_norm: str, tmp_path: Path) -> None:
    """With batch norm that trains, its statistics are those of the global batch."""
    one = make_model()
    train(one, make_method("full", **SETTINGS, batch_norm=batch_norm))
    two = make_model()
    first, second = on_two_workers(trained, tmp_path, batch_norm)
    assert all(torch.equal(first[name], second[name]) for name in first)
    two.load_state_dict(first)
    assert apart(one, two) < 0.01
    before, of_two = buffers(make_model()), buffers(two)
    for name, tensor in buffers(one).items():
        if batch_norm == "frozen":
            assert torch.equal(of_two[name], before[name])
        else:
            assert not torch.equal(tensor, before[name])
            torch.testing.assert_close(of_two[name], tensor, rtol=1e-3, atol=1e-4)


def test_training_statistics_refuses_micro_batches() -> None:
    config = TrainingConfig(batch_norm="train", batch_size=8)
    assert make_schedule(24, config, workers=2, micro_batch=4).micro_batch == 4
    for whole_batch in (False, True):
        with pytest.raises(InputError, match=r"batch_norm: train needs the 8 examples.*is 4"):
            make_schedule(24, config, micro_batch=4, whole_batch=whole_batch)
    frozen = TrainingConfig(batch_size=8)
    assert make_schedule(24, frozen, micro_batch=4, whole_batch=True).micro_batch == 8


def test_recomputed_activations_change_nothing() -> None:
    whole, chunked = make_model(), make_model()
    chunked.chunk = 2
    losses = train(whole, make_method("full", **SETTINGS)).losses
    assert train(chunked, make_method("full", **SETTINGS)).losses == pytest.approx(losses, rel=1e-4)
    assert apart(whole, chunked) < 0.01
    before = buffers(make_model())
    assert all(torch.equal(tensor, before[name]) for name, tensor in buffers(chunked).items())


def test_what_is_derived_has_the_frozen_statistics_too() -> None:
    start, tuned = make_model(), make_model()
    train(tuned, make_method("full", **SETTINGS))
    curve = WiseFt(CurveConfig(alphas=(0.3, 0.5)))
    soup = Soup(SoupConfig(parents=("a", "b"), kind="uniform"))
    for method in (curve, soup):
        parents = {parent: tuned.state_dict() for parent in method.parents()}
        derived = method.derive(method.variants()[0], make_derivation(start.state_dict(), parents))
        assert all(torch.equal(derived[name], t) for name, t in start.named_buffers())


def test_the_distance_is_of_parameters_only() -> None:
    start, moved = make_model(), make_model()
    for module in with_statistics(moved):
        module.running_var.add_(1000)
    with torch.no_grad():
        moved.head.bias.add_(2)
    names = dict(start.named_parameters())
    assert distance(start.state_dict(), moved.state_dict(), names) == pytest.approx(12**0.5)
