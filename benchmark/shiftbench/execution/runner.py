"""What one process does for a run: fit it, predict with each of its variants, score it. No ray.

Each stage leaves its result in the run's folder under a final name, and finds nothing to do when
it is there. So a process may be killed anywhere, and the same call goes on.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from shiftbench.core.errors import RunFailedError
from shiftbench.core.locations import cache_dir
from shiftbench.core.provenance import peak_memory_bytes
from shiftbench.data.base import draw
from shiftbench.data.batches import (
    AugmentedImages,
    WorkerPlace,
    caption_templates,
    feature_batches,
    image_batches,
    micro_batches,
)
from shiftbench.data.roots import resolve
from shiftbench.data.store import Store
from shiftbench.data.tasks import ID_TEST, Task, open_ood_val, open_task, whole_set
from shiftbench.evaluation import predictions
from shiftbench.evaluation.inference import (
    Array,
    DecodedOnAccess,
    Pixels,
    cached_features,
    head_logits,
    image_features,
    same_image_tower,
)
from shiftbench.evaluation.metrics import score
from shiftbench.evaluation.scoring import Prediction, results_of, selections
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.runinfo import run_info
from shiftbench.execution.schedule import Schedule, make_schedule
from shiftbench.execution.training import Trained, Trainer
from shiftbench.leaderboard.runfolder import Fit, RunFolder, SearchFolder
from shiftbench.leaderboard.schema import done
from shiftbench.leaderboard.store import write_run
from shiftbench.methods.base import Architecture, Batch, Context, Method
from shiftbench.models.backbones import load_backbone
from shiftbench.models.checkpoints import load, save
from shiftbench.models.classifier import (
    ImageClassifier,
    text_head,
    tokenized,
    zero_shot_classifier,
)
from shiftbench.models.weights import apply_sparse_delta, sparse_delta
from shiftbench.suite.plan import Run, evaluation_metrics

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet
    from shiftbench.data.tasks import EvaluationSet, TaskData
    from shiftbench.methods.base import MethodConfig, Weights
    from shiftbench.suite.file import Resources

ZERO_SHOT = "zero-shot"
"""What a mixture calls the pretrained model."""
RAW_PIXELS_LIMIT = 2 * 2**30  # bytes of decoded training images kept on disk for one task


@dataclass(frozen=True)
class Best:
    """The best epoch so far: its score on ID validation, and the steps done by then."""

    score: float
    step: int

    @classmethod
    def read(cls, file: Path) -> Best | None:
        """What the weights in ``file`` scored; ``None`` when there are none."""
        return cls(**load(file)[1]) if file.exists() else None


class Runner:
    """One process's view of a suite's runs, with what is worth keeping between them.

    Args:
        suite: its name, for the rows.
        runs: the plan's runs by id.
        results: the results folder.
        data: the data root, as the suite or ``--data`` names it.
        resources: how training is fed.
        remarks: what the rows must say of the data.
        device: where to compute.
    """

    def __init__(
        self,
        suite: str,
        runs: Mapping[str, Run],
        results: Path,
        data: str,
        resources: Resources,
        remarks: Remarks,
        device: torch.device,
    ) -> None:
        self._suite = suite
        self._runs = runs
        self._results = results
        self._root = resolve(data)
        self._resources = resources
        self._remarks = remarks
        self.device = device
        self._store = Store(cache_dir() / "store")
        self._backbone = lru_cache(maxsize=2)(load_backbone)
        self._task = lru_cache(maxsize=4)(self._open_task)
        self._zero_shot = lru_cache(maxsize=4)(self._make_zero_shot)
        self._weights = lru_cache(maxsize=3)(self._load_weights)
        self._variant = lru_cache(maxsize=1)(self._load_variant)
        self._logits = lru_cache(maxsize=4)(self._make_logits)

    # Stage 1: fit

    def fit(
        self,
        run_id: str,
        place: WorkerPlace = WorkerPlace(),
        on_step: Callable[[int, int], None] = lambda step, steps: None,
    ) -> None:
        """Train a run, or go on with it, and leave its weights.

        Args:
            run_id: of a run whose method has weights of its own.
            place: this worker among those that share the training.
            on_step: called with the steps done and the steps in all.

        Raises:
            RunFailedError: a loss is not finite.
        """
        run, folder = self._runs[run_id], RunFolder.of(self._results, run_id)
        if folder.fitted:
            return
        started = datetime.now(UTC).isoformat(timespec="seconds")
        method = self.method(run)
        if method.inputs == "weights":
            begun = time.monotonic()
            weights = method.combine(
                self._start(run), self.parents(run), lambda w: self.id_val_score(run, w)
            )
            trained, step = Trained(seconds=time.monotonic() - begun), 0
            details: dict[str, Any] = {}
        else:
            weights, trained, step, details = self._train(run, method, folder, place, on_step)
        if place.rank == 0:
            self._save_weights(run, folder, weights)
            folder.write_fit(
                Fit(
                    **asdict(trained),
                    peak_memory_bytes=peak_memory_bytes(self.device),
                    world_size=place.size,
                    started=started,
                    step=step,
                    distance=distance(self._start(run), weights),
                    details=details,
                )
            )

    def _train(
        self,
        run: Run,
        method: Method[MethodConfig],
        folder: RunFolder,
        place: WorkerPlace,
        on_step: Callable[[int, int], None],
    ) -> tuple[Weights, Trained, int, dict[str, Any]]:
        """The weights, what the training did, the step that they are of, and the details."""
        examples = self.data(run).train
        model = self.model(run)
        schedule = make_schedule(
            len(examples),
            method.training,
            place.size,
            self.micro_batch(method),
            run.budget.steps,
        )
        method.prepare(model, self.context(run, method, place, schedule.steps))
        best = Best.read(folder.best)
        chosen = method.training.checkpoint == "id-val"

        def on_save(step: int) -> None:
            nonlocal best
            if not chosen or place.rank > 0:
                return
            value = self.score_in_training(run, method, model, *self._id_val(run))
            if best is None or value > best.score:
                best = Best(value, step)
                save(folder.best, self.plain(run, method.weights(model)), asdict(best))

        trained = Trainer(
            model,
            method,
            schedule,
            self.batches(run, method, schedule, place),
            seed=run.seed,
            place=place,
            state_file=folder.state,
            on_step=lambda step: on_step(step, schedule.steps),
            on_save=on_save,
        ).run()
        details = method.details(model)
        if chosen and best is not None:
            return load(folder.best)[0], trained, best.step, details
        return self.plain(run, method.weights(model)), trained, schedule.steps, details

    def method(self, run: Run) -> Method[MethodConfig]:
        """A run's method, with the settings that its search found."""
        method = run.create()
        search = method.search()
        if search is None or run.search is None:
            return method
        found = SearchFolder.of(self._results, run.search.id).read_found()
        return search.candidate(found.values)

    def model(self, run: Run) -> ImageClassifier:
        """A pretrained model, ready for a method's ``prepare``, on the device."""
        model = deepcopy(self.pretrained(run)).to(self.device)
        model.head.requires_grad_(self.architecture(run).head == "linear")
        model.chunk = self._resources.micro_batch
        return model

    def micro_batch(self, method: Method[MethodConfig]) -> int | None:
        """Examples of a method that a worker holds at a time; ``None`` for its whole share."""
        whole = method.whole_batch or method.inputs != "images"
        return None if whole else self._resources.micro_batch

    def context(
        self, run: Run, method: Method[MethodConfig], place: WorkerPlace, steps: int
    ) -> Context:
        """What a method may look at when it prepares."""
        examples = self.data(run).train
        preprocessing = self._backbone(run.backbone).preprocessing
        batch = self._resources.micro_batch or 256

        def images() -> Iterator[Batch]:
            pixels = DecodedOnAccess(examples.images, preprocessing)
            labels = torch.from_numpy(examples.labels)
            known: Array | None = None
            if method.inputs == "features":
                known = self._pretrained_features(run, examples, pixels)
            for start in range(0, len(examples), batch):
                part = slice(start, start + batch)
                if known is not None:
                    inputs = torch.from_numpy(np.array(known[part])).to(self.device)
                else:
                    raw = torch.from_numpy(np.array(pixels[part])).to(self.device)
                    inputs = preprocessing.normalise(raw)
                yield Batch(inputs, labels[part].to(self.device))

        return Context(self.parents(run), images, steps, run.seed, place)

    def batches(
        self,
        run: Run,
        method: Method[MethodConfig],
        schedule: Schedule,
        place: WorkerPlace = WorkerPlace(),
        order_seed: int | None = None,
    ) -> Callable[[range], Iterator[Batch]]:
        """This worker's micro-batches of a range of steps, on the device.

        Args:
            run: whose training set is read.
            method: says what it wants.
            schedule: how steps are cut up.
            place: this worker among those that share the run.
            order_seed: of order, augmentation and captions; ``None`` for the run's.
        """
        seed = run.seed if order_seed is None else order_seed
        examples = self.data(run).train
        preprocessing = self._backbone(run.backbone).preprocessing
        prompts = self.pretrained(run).prompts
        device, on_gpu = self.device, self.device.type == "cuda"
        accumulate = schedule.batch_size // place.size // schedule.micro_batch

        def order(steps: range) -> Iterator[list[tuple[int, int]]]:
            n, batch, micro = len(examples), schedule.batch_size, schedule.micro_batch
            return micro_batches(n, batch, seed, steps, place, micro)

        def captions(labels: Tensor, positions: Tensor) -> Tensor | None:
            if not method.captions or prompts is None:
                return None
            templates = caption_templates(positions.numpy(), len(prompts), seed)
            return prompts[torch.from_numpy(templates), labels].to(device, non_blocking=True)

        def images(steps: range) -> Iterator[Batch]:
            decoded = self._store.raw(examples, RAW_PIXELS_LIMIT)
            dataset = AugmentedImages(decoded, examples.labels, preprocessing, seed)
            loader_workers = self._resources.data_workers
            parts = image_batches(dataset, order(steps), loader_workers, on_gpu)
            for i, (pixels, labels, positions) in enumerate(parts):
                yield Batch(
                    preprocessing.normalise(pixels.to(device, non_blocking=True)),
                    labels.to(device, non_blocking=True),
                    captions(labels, positions),
                    steps[i // accumulate],
                )

        def features(steps: range) -> Iterator[Batch]:
            pixels = DecodedOnAccess(examples.images, preprocessing)
            known = self._pretrained_features(run, examples, pixels)
            parts = feature_batches(known, examples.labels, order(steps))
            for i, (inputs, labels) in enumerate(parts):
                yield Batch(inputs.to(device), labels.to(device), None, steps[i // accumulate])

        return images if method.inputs == "images" else features

    def _save_weights(self, run: Run, folder: RunFolder, weights: Weights) -> None:
        """Keep the weights, or what changed of the pretrained ones where that is smaller."""
        facts = {"run": run.id, "backbone": self._backbone(run.backbone).identity}
        whole = {name: tensor.cpu() for name, tensor in weights.items()}
        changes = sparse_delta(self._start(run), whole)
        if _bytes(changes) < _bytes(whole):
            save(folder.weights, changes, {**facts, "form": "changes"})
        else:
            save(folder.weights, whole, {**facts, "form": "whole"})

    # Stage 2: predict

    def predict(self, run_id: str, variant: str, evaluation_set: str) -> None:
        """Leave the predictions of one variant on one evaluation set."""
        run, folder = self._runs[run_id], RunFolder.of(self._results, run_id)
        file = folder.part(variant, evaluation_set)
        if file.exists():
            return
        started = time.monotonic()
        images = self._evaluation_images(run, evaluation_set)
        logits = self._combined_logits(run, variant, evaluation_set)
        if images.projection is not None:
            logits = images.projection(logits)
        table = predictions.to_table(evaluation_set, variant, images, logits)
        facts = {"seconds": str(time.monotonic() - started), "fingerprint": images.fingerprint}
        if evaluation_set == ID_TEST:
            self._predict_parts(run, variant, images, logits)
        predictions.write(file, table.replace_schema_metadata(facts))

    def _predict_parts(self, run: Run, variant: str, images: ImageSet, logits: Array) -> None:
        """Leave the predictions on the ID test images that have the classes of a shift."""
        folder = RunFolder.of(self._results, run.id)
        for name, (_, kept, part) in self.data(run).on_classes_of_shifts(images).items():
            projected = logits[kept] if part.projection is None else part.projection(logits[kept])
            table = predictions.to_table(name, variant, part, projected)
            facts = {"fingerprint": part.fingerprint}
            predictions.write(folder.part(variant, name), table.replace_schema_metadata(facts))

    def _combined_logits(self, run: Run, variant: str, evaluation_set: str) -> Array:
        """Logits (n, classes) fp32 of a variant, which may be a mixture of others' logits."""
        mixture = run.create().mixture(variant)
        if mixture is None:
            return self._make_logits(run.id, variant, evaluation_set)
        parents = dict(run.parents)
        total: npt.NDArray[np.float64] | None = None
        for label, coefficient in mixture.items():
            if label == ZERO_SHOT:
                part = self._logits(run.id, None, evaluation_set)
            else:
                fixed = self._runs[parents[label]].create().fixed_variant()
                part = self._logits(parents[label], fixed, evaluation_set)
            term = coefficient * part.astype(np.float64)
            total = term if total is None else total + term
        if total is None:
            raise ValueError(f"{run.label}: a mixture of nothing")
        return total.astype(np.float32)

    def _make_logits(self, run_id: str, variant: str | None, evaluation_set: str) -> Array:
        """Logits before projection; variant ``None`` is the pretrained model."""
        run = self._runs[run_id]
        images = self._evaluation_images(run, evaluation_set)
        preprocessing = self._backbone(run.backbone).preprocessing
        pixels = self._store.evaluation(images, preprocessing)
        model, tower_is_pretrained = self._variant(run_id, variant)
        if tower_is_pretrained:
            features = self._pretrained_features(run, images, pixels)
        else:
            features = image_features(model, pixels, preprocessing, self.device)
        head = self._head(run, model, evaluation_set)
        return head_logits(ImageClassifier(model.visual, head), features, self.device)

    def _load_variant(self, run_id: str, variant: str | None) -> tuple[ImageClassifier, bool]:
        """The model with a variant's weights, and whether its image tower is the pretrained one."""
        run = self._runs[run_id]
        pretrained = self.pretrained(run)
        if variant is None:
            return deepcopy(pretrained).to(self.device).eval(), True
        weights = self.weights(run, variant)
        return self.loaded(run, weights), same_image_tower(weights, pretrained.state_dict())

    def loaded(self, run: Run, weights: Weights) -> ImageClassifier:
        """A model with some weights of a run, whose head is computed where it is not in them."""
        model = deepcopy(self.pretrained(run)).to(self.device).eval()
        model.load_state_dict({**model.state_dict(), **weights})
        if self.architecture(run).head == "text":
            model.head = text_head(model).to(self.device)
        return model

    def _head(self, run: Run, model: ImageClassifier, evaluation_set: str) -> nn.Linear:
        """The model's head, or one for an evaluation set with class names of its own.

        Those no head was trained for: it is made by the model's text tower, or the pretrained one
        where the weights have none.
        """
        vocabulary = self.data(run).vocabularies.get(evaluation_set)
        if vocabulary is None:
            return model.head
        classes, templates = vocabulary
        backbone = self._backbone(run.backbone)
        if model.text is not None:
            return text_head(model, tokenized(backbone, classes, templates)).to(self.device)
        return self._zero_shot(run.backbone, classes, templates, False).head.to(self.device)

    def weights(self, run: Run, variant: str) -> Weights:
        """The weights of one of a run's variants, on the CPU."""
        method = run.create()
        trained = None if method.inputs is None else self._weights(run.id)
        return method.finish(variant, self._start(run), self.parents(run), trained)

    def _load_weights(self, run_id: str) -> Weights:
        run = self._runs[run_id]
        weights, facts = load(RunFolder.of(self._results, run_id).weights)
        if facts["form"] == "whole":
            return weights
        return apply_sparse_delta(self._start(run), weights)

    def parents(self, run: Run) -> dict[str, Weights]:
        """Weights of the parents by label: of each, the variant that stands for it."""
        if run.create().mixture(run.create().fixed_variant()) is not None:
            return {}
        parents = {label: self._runs[run_id] for label, run_id in run.parents}
        return {
            label: self.weights(parent, parent.create().fixed_variant())
            for label, parent in parents.items()
        }

    def architecture(self, run: Run) -> Architecture:
        """What the run's weights cover: of derived ones, what their parents' do."""
        method = run.create()
        if method.inputs in ("images", "features") or not run.parents:
            return method.architecture()
        found = {self.architecture(self._runs[run_id]) for _, run_id in run.parents}
        if len(found) > 1:
            raise RunFailedError(
                f"{run.label}: its parents train different parts of the model, "
                "so their weights cannot be combined"
            )
        return found.pop()

    def plain(self, run: Run, weights: Weights) -> dict[str, Tensor]:
        """Copies on the CPU of the weights that the run's architecture covers.

        Raises:
            RunFailedError: they are not those of a plain model, so they could not be evaluated.
        """
        covered = without_text_head(weights, self.architecture(run))
        if odd := sorted(covered.keys() ^ self._start(run).keys()):
            raise RunFailedError(
                f"{run.label}: its weights and those of a plain model differ in {odd[0]!r} "
                f"and {len(odd) - 1} more names; the method's weights() should merge what it added"
            )
        return {name: tensor.detach().cpu().clone() for name, tensor in covered.items()}

    def _start(self, run: Run) -> Weights:
        """The pretrained weights, of the run's architecture."""
        return without_text_head(self.pretrained(run).state_dict(), self.architecture(run))

    # ID validation

    def id_val_score(self, run: Run, weights: Weights) -> float:
        """Headline score on the ID validation set of some weights of the run."""
        return self.score_of(run, self.loaded(run, weights), *self._id_val(run))

    def _id_val(self, run: Run) -> tuple[str, ImageSet]:
        return evaluation_metrics(run.task)["id-val"], self._evaluation_images(run, "id-val")

    def score_in_training(
        self,
        run: Run,
        method: Method[MethodConfig],
        model: ImageClassifier,
        metric: str,
        images: ImageSet,
    ) -> float:
        """A metric of the weights that training would end with now; ``model`` is left as it is."""
        if type(method).weights is not Method.weights:  # they are not the model's own
            model = self.loaded(run, self.plain(run, method.weights(model)))
        elif self.architecture(run).head == "text":
            model = ImageClassifier(model.visual, text_head(model).to(self.device))
        return self.score_of(run, model, metric, images)

    def score_of(self, run: Run, model: ImageClassifier, metric: str, images: ImageSet) -> float:
        """A metric of a model on images of the task's classes."""
        preprocessing = self._backbone(run.backbone).preprocessing
        pixels = self._store.evaluation(images, preprocessing)
        features = image_features(model, pixels, preprocessing, self.device)
        logits = head_logits(model, features, self.device)
        if images.projection is not None:
            logits = images.projection(logits)
        if not np.isfinite(logits).all():
            raise RunFailedError("the model's logits are not finite")
        answers = logits.argmax(axis=1)
        return score(metric, images.labels, answers, images.metadata).value

    # Stage 3: score

    def score(self, run_id: str) -> None:
        """Turn the predictions into the run's rows, and keep them all in one file."""
        run, folder = self._runs[run_id], RunFolder.of(self._results, run_id)
        method = run.create()
        sets = self._scored_sets(run)
        parts = {
            (variant, name): self._read_part(run, folder, variant, name, sets[name])
            for variant in method.variants()
            for name in sets
        }
        scored = {key: results_of(part) for key, part in parts.items()}
        id_val = {name: scored[name, "id-val"][0].score.value for name in method.variants()}
        searched = self._searched(run)
        chosen = selections(method.variants(), method.fixed_variant(), id_val, searched=searched)
        results = [
            replace(result, selection=selection)
            for variant, selection in chosen
            for name in sets
            for result in scored[variant, name]
        ]
        tables = [part.table for part in parts.values()]
        predictions.write(folder.predictions, pa.concat_tables(tables))
        fit = folder.read_fit() if folder.fitted else None
        info = run_info(
            self._suite,
            run,
            self.device,
            fit,
            None
            if run.search is None
            else SearchFolder.of(self._results, run.search.id).read_found(),
            self.data(run).train.fingerprint,
            self._remarks.leakage.get((run.task.name, searched)),
        )
        write_run(self._results, run_id, done(info, results))
        folder.drop_parts()

    def _scored_sets(self, run: Run) -> dict[str, str]:
        """The headline metric of every set that there are predictions on, by its name."""
        metrics = evaluation_metrics(run.task)
        parts = self.data(run).on_classes_of_shifts(self._evaluation_images(run, ID_TEST))
        return metrics | {name: metrics[shift] for name, (shift, _, _) in parts.items()}

    def _read_part(
        self, run: Run, folder: RunFolder, variant: str, name: str, metric: str
    ) -> Prediction:
        table = predictions.read(folder.part(variant, name))
        facts = table.schema.metadata
        seconds = facts.get(b"seconds")  # none of its own, where it is a part of another set
        return Prediction(
            variant=variant,
            evaluation_set=name,
            metric=metric,
            table=table.replace_schema_metadata(None),
            seconds=None if seconds is None else float(seconds),
            fingerprint=facts[b"fingerprint"].decode(),
            incomplete_reason=self._remarks.incomplete.get((run.task.name, whole_set(name))),
        )

    def _searched(self, run: Run) -> bool:
        """Whether the run, or one that it builds on, has settings found on OOD validation data."""
        above = (self._runs[run_id] for _, run_id in run.parents)
        return run.searched or any(map(self._searched, above))

    # What is kept between runs

    def data(self, run: Run) -> TaskData:
        """The run's task, opened."""
        # Without shots nothing is drawn, so all seeds share what is opened.
        return self._task(run.task.model_dump_json(), run.shots, run.seed if run.shots else 0)

    def _open_task(self, task: str, shots: int | None, seed: int) -> TaskData:
        return open_task(Task.model_validate_json(task), self._root, shots, seed)

    def ood_val(self, run: Run, item: EvaluationSet) -> tuple[str, ImageSet]:
        """Metric and images of the OOD validation set of a run's search, within its budget."""
        task = run.task.model_copy(update={"ood_val": item})
        _, images = open_ood_val(task, self._root)
        return item.metric, self._within_budget(run, images)

    def pretrained(self, run: Run) -> ImageClassifier:
        """The pretrained model with the zero-shot head; shared, so not to be changed."""
        data = self.data(run)
        text = self.architecture(run).text
        return self._zero_shot(run.backbone, data.classes, data.templates, text)

    def _make_zero_shot(
        self, backbone: str, classes: tuple[str, ...], templates: tuple[str, ...], text: bool
    ) -> ImageClassifier:
        return zero_shot_classifier(self._backbone(backbone), classes, templates, text=text)

    def _evaluation_images(self, run: Run, evaluation_set: str) -> ImageSet:
        return self._within_budget(run, self.data(run).evaluation[evaluation_set][1])

    def _within_budget(self, run: Run, images: ImageSet) -> ImageSet:
        """The set, or the part of it that the budget allows, the same for every run."""
        limit = run.budget.evaluation_images
        if limit is None or limit >= len(images):
            return images
        return images.subset(draw(images.ids, images.labels, limit, balanced=False))

    def _pretrained_features(self, run: Run, images: ImageSet, pixels: Pixels) -> Array:
        """Features of the pretrained image tower, computed once for all runs that need them."""
        backbone = self._backbone(run.backbone)
        parts = [backbone.identity, backbone.preprocessing.key(), images.fingerprint, *images.ids]
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

        def compute() -> Array:
            model = deepcopy(self.pretrained(run)).to(self.device)
            return image_features(model, pixels, backbone.preprocessing, self.device)

        return cached_features(cache_dir() / "features" / f"{name}.npy", compute)


def without_text_head(weights: Weights, architecture: Architecture) -> dict[str, Tensor]:
    """Weights without a head that is computed from the text tower whenever it is needed."""
    computed = architecture.head == "text"
    return {k: v for k, v in weights.items() if not (computed and k.startswith("head."))}


def distance(theta0: Weights, theta1: Weights) -> float:
    """‖θ1 - θ0‖₂ over all floating-point scalars, in float64."""
    squares = (
        float((theta1[name].cpu().double() - tensor.cpu().double()).square().sum())
        for name, tensor in theta0.items()
        if tensor.is_floating_point()
    )
    return math.sqrt(math.fsum(squares))


def _bytes(weights: Weights) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
