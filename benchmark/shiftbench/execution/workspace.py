"""All that one process keeps between runs: backbones, tasks, models, weights, features."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shiftbench.core.cpus import loader_processes
from shiftbench.core.errors import RunFailedError
from shiftbench.core.locations import cache_dir
from shiftbench.data.loading import ImageLoader
from shiftbench.data.prompts import Prompts
from shiftbench.data.roots import resolve
from shiftbench.data.store import Store
from shiftbench.data.subsets import draw
from shiftbench.data.tasks.definition import Task, beside
from shiftbench.data.tasks.opening import open_ood_val, open_task
from shiftbench.evaluation.features import FeatureStore, arithmetic, key_of, versions
from shiftbench.evaluation.inference import Array, Pixels, image_features
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.execution.kept import Kept
from shiftbench.execution.setup import Setup
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.methods.base import Architecture, DerivedMethod, Method
from shiftbench.models.backbones import Backbone, load_backbone
from shiftbench.models.checkpoints import load
from shiftbench.models.classifier import (
    ImageClassifier,
    text_head,
    zero_shot_classifier,
    zero_shot_head,
)
from shiftbench.models.compiling import compile_blocks, compiling_pays, forward_operations
from shiftbench.models.gpu import suit_gpu
from shiftbench.models.prompted import prompted
from shiftbench.models.weights import apply_sparse_delta, without_head

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet, Unreadable
    from shiftbench.data.tasks.definition import EvaluationSet
    from shiftbench.data.tasks.opening import TaskData
    from shiftbench.evaluation.metrics.base import Metric
    from shiftbench.methods.base import TrainedMethod, Weights
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.plan import Run

CPU = torch.device("cpu")


@dataclass
class Slot:
    """A model on the device that one set of weights after the other is loaded into.

    Attributes:
        model: in eval mode.
        holder: that the weights which it has are of.
    """

    model: ImageClassifier
    holder: object = None


class Workspace:
    """One process's view of a suite's runs, with all that is worth keeping between them.

    The stages (``execution.stages``) read from it. Nothing in it depends on which run comes next,
    so a run's outcome is the same whatever the process did before.

    Args:
        setup: of the suite.
        device: where to compute.

    Attributes:
        setup: as given.
        device: as given.
        runs: the plan's runs by id.
        resources: that a run may use.
        store: decoded images.
        loaders: what decodes training images ahead, by all that it depends on.
        features_on_disk: of images and of the classes of zero-shot heads, shared by all processes.
        evaluated: of ``execution.evaluated``, by run id and name of the weights.
    """

    def __init__(self, setup: Setup, device: torch.device) -> None:
        self.setup = setup
        self.device = device
        self.runs = setup.runs
        self.resources = setup.resources
        self.store = Store(cache_dir() / "store", processes=self.data_workers)
        self.loaders: Kept[ImageLoader] = Kept(1)
        self.features_on_disk = FeatureStore(
            cache_dir() / "features", self.resources.limits.features_bytes
        )
        self.evaluated: Kept[Any] = Kept(16)
        self._root = resolve(setup.data)
        self._backbones: Kept[Backbone] = Kept(2)
        self._tasks: Kept[TaskData] = Kept(4)
        self._shrunk: Kept[ImageSet] = Kept(2)
        self._images: Kept[ImageSet] = Kept(16)
        self._zero_shot: Kept[ImageClassifier] = Kept(4)
        self._weights: Kept[Weights] = Kept(3)
        self._on_device: Kept[Weights] = Kept(3)
        self._operations: Kept[float] = Kept(2)
        self._compiled: Kept[bool] = Kept(16)
        self._slots: Kept[Slot] = Kept(1)

    @property
    def data_workers(self) -> int:
        """Processes that decode for this one, as ``resources.data_workers`` says."""
        if self.resources.data_workers is not None:
            return self.resources.data_workers
        on_gpu = self.device.type == "cuda"
        return loader_processes(self.resources.gpus_per_worker or 1 if on_gpu else 0)

    # Runs and their methods

    def folder(self, run: Run) -> RunFolder:
        """The folder of a run's files."""
        return RunFolder.of(self.setup.results, run.id)

    def method(self, run: Run) -> Method[MethodConfig]:
        """A run's method, with the settings that its search found."""
        method = run.create()
        search = method.search()
        if search is None or run.search is None:
            return method
        found = SearchFolder.of(self.setup.results, run.search.id).read_found()
        return search.candidate(found.values)

    def architecture(self, run: Run) -> Architecture:
        """The parts of a model that a run's weights cover: of derived ones, those of their parents.

        Raises:
            RunFailedError: the parents' weights cover different parts.
        """
        method = run.create()
        if not isinstance(method, DerivedMethod) or not run.parents:
            return method.architecture()
        found = {self.architecture(self.runs[run_id]) for _, run_id in run.parents}
        if len(found) > 1:
            raise RunFailedError(
                f"{run.label}: its parents train different parts of the model, "
                "so their weights cannot be combined"
            )
        return found.pop()

    # Data

    @property
    def _unreadable(self) -> Unreadable:
        return self.setup.remarks.unreadable

    def data(self, run: Run) -> TaskData:
        """The run's task, opened."""
        task, shots, seed, whole = key = self.data_key(run)
        return self._tasks.get(
            key,
            lambda: open_task(
                Task.model_validate_json(task),
                self._root,
                shots,
                seed,
                self._unreadable,
                whole=whole,
            ),
        )

    def data_key(self, run: Run) -> tuple[str, int | None, int, bool]:
        """Task as JSON, shots, seed, and whether validation data train too: runs of one key share.

        Without shots nothing is drawn, so all seeds share what is opened.
        """
        return run.task.model_dump_json(), run.shots, run.seed if run.shots else 0, run.whole

    def training_images(self, run: Run, method: TrainedMethod[MethodConfig]) -> ImageSet:
        """The training set as a method reads it: of its files, or shrunk once and kept.

        Raises:
            RunFailedError: images would be smaller than what the backbone takes.
        """
        examples, store = self.data(run).train, method.training.store
        if store is None:
            return examples
        size, form = self.backbone(run).preprocessing.size, store.form
        if store.side < size:
            raise RunFailedError(
                f"{run.label}: store.side is {store.side}, but {run.backbone} takes images of "
                f"{size} pixels"
            )

        def shrunk() -> ImageSet:
            name = f"{examples.fingerprint}-{form.key()}"
            return replace(examples, images=self.store.shrunk(examples, form), fingerprint=name)

        return self._shrunk.get((self.data_key(run), form), shrunk)

    def evaluation_images(self, run: Run, evaluation_set: str) -> ImageSet:
        """An evaluation set of the run's task, within the run's budget."""
        return self._images.get(
            (self.data_key(run), run.budget.evaluation_images, evaluation_set),
            lambda: self._within_budget(run, self.data(run).evaluation[evaluation_set][1]),
        )

    def ood_val(self, run: Run, item: EvaluationSet) -> tuple[Metric, ImageSet]:
        """Metric and images of the OOD validation set of a run's search, within its budget."""
        task = run.task.model_copy(update={"ood_val": item})
        _, images = open_ood_val(task, self._root, self._unreadable)
        return metric(item.metric), self._within_budget(run, images)

    def _within_budget(self, run: Run, images: ImageSet) -> ImageSet:
        """The set, or the part of it that the budget allows, the same for every run."""
        limit = run.budget.evaluation_images
        if limit is None or limit >= len(images):
            return images
        return images.subset(draw(images.ids, images.labels, limit, balanced=False))

    # Pretrained models

    def backbone(self, run: Run) -> Backbone:
        """The run's pretrained model, as open_clip has it."""
        return self._backbones.get(run.backbone, lambda: load_backbone(run.backbone))

    def pretrained(self, run: Run) -> ImageClassifier:
        """The pretrained model with the zero-shot head; shared, so not to be changed."""
        data, architecture = self.data(run), self.architecture(run)
        plain = self.zero_shot(run, data.prompts, text=architecture.text)
        if (shape := architecture.prompts) is None:
            return plain
        tokenizer, names = self.backbone(run).tokenizer, data.classes
        key = run.backbone, data.prompts, names, shape
        return self._zero_shot.get(key, lambda: prompted(plain, tokenizer, shape, names))

    def copied(self, run: Run) -> ImageClassifier:
        """A copy of the pretrained model on the device, in eval mode, to do with as one likes."""
        model = deepcopy(self.pretrained(run)).to(self.device)
        if self.device.type == "cuda":  # on a CPU it saves nothing, and changes the last bits
            suit_gpu(model)
        return model.eval()

    def zero_shot(self, run: Run, prompts: Prompts, *, text: bool = False) -> ImageClassifier:
        """The run's pretrained model as a classifier of any classes; shared, not to be changed.

        Args:
            run: whose backbone is meant.
            prompts: of the classes.
            text: whether the text tower is a part of it.
        """
        return self._zero_shot.get(
            (run.backbone, prompts, text), lambda: self._zero_shot_classifier(run, prompts, text)
        )

    def temperature(self, run: Run) -> float:
        """By which the run's pretrained model multiplies cosines: the norm of its head's rows."""
        rows = self.zero_shot(run, self.data(run).prompts).head.weight
        return float(rows[0].detach().double().norm())

    def _zero_shot_classifier(self, run: Run, prompts: Prompts, text: bool) -> ImageClassifier:
        backbone = self.backbone(run)

        def rows() -> Array:
            return zero_shot_head(backbone, prompts).weight.detach().numpy()

        made_by = (arithmetic(CPU), versions("transformers", "tokenizers"))
        texts = (text for of_class in prompts for text in (*of_class, ""))
        key = key_of("head", *made_by, backbone.identity, *texts)
        kept = torch.from_numpy(self.features_on_disk.get(key, rows).copy())
        return zero_shot_classifier(backbone, prompts, text=text, rows=kept)

    def features(self, run: Run, model: ImageClassifier, pixels: Pixels) -> Array:
        """Features (n, width) of a model's image tower, in the precision that the run asks for."""
        preprocessing, precision = self.backbone(run).preprocessing, run.budget.evaluation_precision
        return image_features(model, pixels, preprocessing, self.device, precision)

    def compile(self, run: Run, model: ImageClassifier, examples: int, passes: int = 1) -> bool:
        """Compile a model's blocks in place, as ``resources.compile`` says; whether it was done.

        Args:
            run: of the model.
            model: on the device, with frozen what will not be trained.
            examples: images that will go through it, repetitions included.
            passes: how much an image costs, in forward passes: 1 to evaluate, 3 to train.
        """
        return self._compiles(run, model, lambda: examples * passes) and compile_blocks(model) > 0

    def evaluates_compiled(self, run: Run) -> bool:
        """Whether models of the run's task and backbone are compiled for their evaluation.

        All the suite's runs of both count, so that they share features whichever comes first.
        """

        def images() -> int:
            own = (of for name, of in self.data(run).evaluation.items() if not beside(name))
            once = sum(len(images) for _, images in own)
            alike = (
                of
                for of in self.runs.values()
                if (of.task, of.backbone) == (run.task, run.backbone)
            )
            return once * sum(len(of.create().variants()) for of in alike)

        return self._compiled.get(
            (self.data_key(run), run.backbone),
            lambda: self._compiles(run, self.pretrained(run), images),
        )

    def _compiles(self, run: Run, model: ImageClassifier, images: Callable[[], int]) -> bool:
        setting, size = self.resources.compile, self.backbone(run).preprocessing.size
        if setting == "off" or (setting == "auto" and self.device.type == "cpu"):
            return False
        operations = self._operations.get(
            run.backbone, lambda: forward_operations(model.visual, size)
        )
        return setting == "on" or compiling_pays(model, images() * operations)

    # Weights

    def start(self, run: Run) -> Weights:
        """The pretrained weights that the run's architecture covers."""
        return self.covered(run, self.pretrained(run).state_dict())

    def covered(self, run: Run, weights: Weights) -> Weights:
        """Weights without a head that is computed from the text tower whenever it is needed."""
        return without_head(weights) if self.architecture(run).head == "text" else weights

    def plain(self, run: Run, weights: Weights) -> dict[str, Tensor]:
        """Copies on the CPU of the weights that the run's architecture covers.

        Raises:
            RunFailedError: they are not those of a plain model, so they could not be evaluated.
        """
        covered = self.covered(run, weights)
        if odd := sorted(covered.keys() ^ self.start(run).keys()):
            raise RunFailedError(
                f"{run.label}: its weights and those of a plain model differ in {odd[0]!r} "
                f"and {len(odd) - 1} more names; the method's weights() should merge what it added"
            )
        return {name: tensor.detach().cpu().clone() for name, tensor in covered.items()}

    def stored(self, run: Run) -> Weights:
        """The weights in a run's folder, which may hold only what changed of the pretrained."""

        def read() -> Weights:
            weights, facts = load(self.folder(run).weights)
            whole = facts["form"] == "whole"
            return weights if whole else apply_sparse_delta(self.start(run), weights)

        return self._weights.get(run.id, read)

    def keep(self, run: Run, weights: Weights) -> None:
        """Have the weights at hand that were just stored in a run's folder."""
        self._weights.get(run.id, lambda: weights)

    def on_device(self, key: Hashable, weights: Weights) -> Weights:
        """Weights where models are evaluated, moved there once for all that is derived of them.

        Args:
            key: names them.
            weights: on the CPU, or already there.
        """
        if self.device.type == "cpu":
            return weights
        return self._on_device.get(
            key, lambda: {name: tensor.to(self.device) for name, tensor in weights.items()}
        )

    # Fine-tuned models

    def loaded(self, run: Run, weights: Weights) -> ImageClassifier:
        """A model with some weights of a run, whose head is computed where it is not in them."""
        model = self.copied(run)
        self.load(model, weights)
        return model

    def slot(self, key: Hashable, run: Run, *, compiled: bool) -> Slot:
        """The model into which one set of weights after the other is loaded to be evaluated.

        Args:
            key: of its structure.
            run: whose model has that structure.
            compiled: whether its blocks are compiled.
        """

        def make() -> Slot:
            model = self.copied(run)
            if compiled:
                compile_blocks(model)
            return Slot(model)

        return self._slots.get(key, make)

    def load(self, model: ImageClassifier, weights: Weights) -> None:
        """Load some weights of a run in place of a model's own."""
        model.load_state_dict({**model.state_dict(), **weights})
        if not any(name.startswith("head.") for name in weights):
            model.head = text_head(model).to(self.device)
