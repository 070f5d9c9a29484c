"""One model's answers on the examples of an evaluation set: all that a metric looks at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import RunFailedError

TOP = 5
"""Classes that are kept of each example, with their logits."""
ROWS_AT_ONCE = 4096
LOCATION = "location"
ACCEPTED = "accepted"
"""The column that lists every class that is right, as in ``3 17``, where it may be several."""

Field = Literal["top_classes", "top_logits", "log_sum_exp", "label_logit", "sum_p2"]
"""A field of an example beside label and prediction, which only models that gave logits have."""
FIELDS: tuple[Field, ...] = get_args(Field)

Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.generic]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Examples:
    """Labels and answers of n examples. Fields are ``None`` where only classes are known.

    Attributes:
        labels: (n,) classes.
        predictions: (n,) classes.
        metadata: columns (n,) to group by. The examples of one ``location`` (a camera, say) are not
            independent of each other, so whole locations are resampled. Where there is a column
            ``accepted``, the classes that it lists are right, and the label is one of them.
        top_classes: (n, k) the k = min(5, classes) classes of the highest logits, highest first.
        top_logits: (n, k) float32, their logits.
        log_sum_exp: (n,) float64, log Σ exp(logit) over all classes.
        label_logit: (n,) float32, the logit of the label.
        sum_p2: (n,) float32, Σ p² of the softmax over all classes; its relative error is 6e-8.

    Raises:
        ValueError: arrays that do not fit together.
    """

    labels: Integers
    predictions: Integers
    metadata: Mapping[str, Column] = field(default_factory=dict)
    top_classes: Integers | None = None
    top_logits: npt.NDArray[np.float32] | None = None
    log_sum_exp: Floats | None = None
    label_logit: npt.NDArray[np.float32] | None = None
    sum_p2: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shapes = {self.labels.shape, self.predictions.shape}
        shapes |= {column.shape for column in self.metadata.values()}
        if shapes != {(len(self.labels),)}:
            raise ValueError(f"labels, predictions and metadata must all be (n,), got {shapes}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fields(self) -> frozenset[Field]:
        """The fields that are known."""
        return frozenset(name for name in FIELDS if getattr(self, name) is not None)

    @property
    def clusters(self) -> npt.NDArray[np.int64] | None:
        """(n,) the location of each example as 0, 1, …; ``None`` without two to resample."""
        if LOCATION not in self.metadata:
            return None
        locations, location_of = np.unique(self.metadata[LOCATION].astype(str), return_inverse=True)
        return location_of.astype(np.int64) if len(locations) > 1 else None

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(n,) where the prediction is the label, or one of those that are accepted."""
        if ACCEPTED in self.metadata:
            return _one_of(self.predictions, self.metadata[ACCEPTED].astype(str))
        right: npt.NDArray[np.bool_] = self.labels == self.predictions
        return right

    @property
    def confidence(self) -> Floats:
        """(n,) the highest softmax probability. Needs ``top_logits`` and ``log_sum_exp``."""
        if self.top_logits is None or self.log_sum_exp is None:
            raise ValueError("class-only predictions have no confidence")
        highest: Floats = self.top_logits[:, 0].astype(np.float64)
        return np.minimum(np.exp(highest - self.log_sum_exp), 1.0)

    @property
    def nll(self) -> Floats:
        """(n,) -log p of the label, in nats. Needs ``label_logit`` and ``log_sum_exp``."""
        if self.label_logit is None or self.log_sum_exp is None:
            raise ValueError("class-only predictions have no likelihood")
        return self.log_sum_exp - self.label_logit.astype(np.float64)

    def take(self, indices: Integers) -> Examples:
        """The examples at ``indices``, in that order; one may be there several times."""
        return Examples(
            labels=self.labels[indices],
            predictions=self.predictions[indices],
            metadata={name: column[indices] for name, column in self.metadata.items()},
            top_classes=_rows(self.top_classes, indices),
            top_logits=_rows(self.top_logits, indices),
            log_sum_exp=_rows(self.log_sum_exp, indices),
            label_logit=_rows(self.label_logit, indices),
            sum_p2=_rows(self.sum_p2, indices),
        )


def joined(parts: Sequence[Examples], metadata: Mapping[str, Column]) -> Examples:
    """Some examples, one or more, after each other, with the same fields.

    Args:
        parts: without metadata.
        metadata: of all of them.
    """
    names = ("labels", "predictions", *parts[0].fields)
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Examples(**columns, metadata=metadata)


def of_logits(
    labels: Integers,
    logits: npt.NDArray[np.floating],
    metadata: Mapping[str, Column],
    wanted: Collection[Field] = FIELDS,
) -> Examples:
    """The answers that logits give.

    Args:
        labels: (n,) classes.
        logits: (n, classes). The prediction is their argmax; all else is of their float32 values,
            summed in float64, so that no likelihood exceeds 1.
        metadata: columns (n,).
        wanted: fields to compute; a metric that needs none needs not wait for them.

    Raises:
        RunFailedError: a logit is not finite.
        ValueError: another number of logits than of labels.
    """
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(f"{len(labels)} images, but logits of shape {logits.shape}")
    ranks = TOP if {"top_classes", "top_logits"} & set(wanted) else 1
    top_classes, top_logits = top_k(logits, min(ranks, logits.shape[1]))
    known: dict[str, Any] = {"top_classes": top_classes, "top_logits": top_logits}
    if set(wanted) - known.keys():
        known |= _over_all_classes(labels, logits)
    predictions = np.ascontiguousarray(top_classes[:, 0])
    return Examples(labels, predictions, metadata, **{name: known[name] for name in wanted})


def top_k(
    logits: npt.NDArray[np.floating], k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The ``k`` highest logits of each row, highest first; of equal ones the lower class first.

    Args:
        logits: (n, classes).
        k: at most the number of classes.

    Returns:
        classes (n, k) int32, the first column being the argmax, and their logits (n, k) float32.

    Raises:
        RunFailedError: a logit is not finite.
    """
    n = len(logits)
    classes = np.empty((n, k), dtype=np.int32)
    values = np.empty((n, k), dtype=np.float32)
    for start in range(0, n, ROWS_AT_ONCE):
        left = np.array(logits[start : start + ROWS_AT_ONCE])
        if not np.isfinite(left).all():
            raise RunFailedError("the model's logits are not finite")
        rows = np.arange(len(left))
        for rank in range(k):
            best = left.argmax(axis=1)
            classes[start + rows, rank] = best
            values[start + rows, rank] = left[rows, best]
            left[rows, best] = -np.inf
    return classes, values


def _one_of(predictions: Integers, accepted: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """(n,) where a prediction is among the numbers of a text (n,), none of which is right if ""."""
    lists, list_of = np.unique(accepted, return_inverse=True)
    right = np.zeros(len(predictions), bool)
    for k, text in enumerate(lists.tolist()):
        mine = list_of == k
        right[mine] = np.isin(predictions[mine], [int(number) for number in text.split()])
    return right


def _rows(column: npt.NDArray[T] | None, indices: Integers) -> npt.NDArray[T] | None:
    return None if column is None else column[indices]


def _over_all_classes(
    labels: Integers, logits: npt.NDArray[np.floating]
) -> dict[str, npt.NDArray[np.floating]]:
    """The fields that look at every class; see ``Examples``."""
    n = len(logits)
    log_sum_exp = np.empty(n, np.float64)
    label_logit, sum_p2 = np.empty(n, np.float32), np.empty(n, np.float32)
    for start in range(0, n, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        rounded = logits[part].astype(np.float32)
        each = rounded.astype(np.float64)
        highest = each.max(axis=1)
        odds = np.exp(each - highest[:, None])
        total = odds.sum(axis=1)
        log_sum_exp[part] = highest + np.log(total)
        sum_p2[part] = np.square(odds).sum(axis=1) / total**2
        label_logit[part] = rounded[np.arange(len(rounded)), labels[part]]
    return {"log_sum_exp": log_sum_exp, "label_logit": label_logit, "sum_p2": sum_p2}
