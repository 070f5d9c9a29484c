"""From the answers in a file to predictions as they are kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.core.words import nearest, shortened, some
from shiftbench.data.tasks.names import composed
from shiftbench.evaluation import predictions
from shiftbench.evaluation.examples import Examples
from shiftbench.leaderboard.importing.answers import Answers, Array, Integers
from shiftbench.leaderboard.importing.target import OpenedSet

VARIANT = ""
CLASSES_SHOWN = 8


def predictions_table(name: str, opened: OpenedSet, answers: Answers, where: str) -> pa.Table:
    """The answers of one evaluation set in the form in which predictions are kept.

    Where there are no logits, all that needs them is null.

    Args:
        name: of the set.
        opened: the set.
        answers: in any order.
        where: begins the messages.

    Raises:
        InputError: an example is missing, unknown or there twice, a class is none of the set's, or
            labels of the file are not the set's.
    """
    images = opened.images
    rows = rows_in_order(answers.keys, images.ids, where)
    of_task = answers.labels is not None and check_labels(opened, answers.labels[rows], where)
    if answers.logits is not None:
        return predictions.to_table(
            name, VARIANT, images, _projected(opened, answers.logits[rows], where)
        )
    if answers.classes is None:
        raise ValueError("neither classes nor logits")
    given = answers.classes[rows]
    if of_task and given.dtype.kind != "U":  # in the form of the labels, where they can be
        in_set = _positions_in_set(opened, given)
        given = in_set if (in_set >= 0).all() else given
    classes = class_positions(opened, given, where).astype(np.int32)
    examples = Examples(images.labels, classes, images.metadata)
    return predictions.table_of(name, VARIANT, images.ids, examples)


def rows_in_order(keys: Array, ids: npt.NDArray[np.str_], where: str) -> Integers:
    """For each example of a set, in its order, the row of the file that is about it.

    Args:
        keys: (n,) ids as text, or positions as int64.
        ids: (n,) of the set, in its order.
        where: begins the messages.

    Raises:
        InputError: an example is missing, unknown, or there twice.
    """
    by_id = keys.dtype.kind == "U"
    if by_id:  # a file system may have another Unicode form
        keys, ids = (np.array([*map(composed, names.tolist())], np.str_) for names in (keys, ids))
    what = "ids" if by_id else "indices"
    wanted = ids if by_id else np.arange(len(ids), dtype=np.int64)
    found, first, counts = np.unique(keys, return_index=True, return_counts=True)
    faults = [
        (found[counts > 1], "are there more than once"),
        (np.setdiff1d(found, wanted), "are not in the set"),
        (np.setdiff1d(wanted, found), "of the set are missing"),
    ]
    texts = [
        f"{len(keys)} {what} {fault} ({some(keys.tolist())})" for keys, fault in faults if len(keys)
    ]
    if texts:
        size = f"the file has {len(keys):,} rows, the set {len(ids):,} examples"
        if by_id and np.char.isdigit(found).all() and not np.char.isdigit(ids).all():
            size += '; its ids are numbers: positions in the set go into a column "index"'
        raise InputError(f"{where}: {'; '.join(texts)}; {size}")
    return first[np.searchsorted(found, wanted)].astype(np.int64)


def check_labels(opened: OpenedSet, given: Array, where: str) -> bool:
    """See that labels of a file are the set's.

    Args:
        opened: the set.
        given: (n,) in the set's order, as ``class_positions`` takes them; positions may also be
            among all classes of the task.
        where: begins the messages.

    Returns:
        True if they are positions among all classes of the task, and not of the set.

    Raises:
        InputError: they are not, so that the rows are probably in another order.
    """
    images, names, groups = opened.images, opened.names, opened.groups
    of_task = False
    if given.dtype.kind == "U" and np.char.isdigit(given).all() and not {*given} & {*names}:
        given = given.astype(np.int64)
    if given.dtype.kind == "U":
        wrong = np.flatnonzero(class_positions(opened, given, where) != images.labels)
    else:
        in_set = _positions_in_set(opened, given)
        of_set, wrong = (np.flatnonzero(found != images.labels) for found in (given, in_set))
        of_task = len(wrong) < len(of_set)
        wrong = wrong if of_task else of_set
    if not len(wrong):
        return of_task
    i = int(wrong[0])
    right = opened.names[groups[images.labels[i]][0]]
    raise InputError(
        f"{where}: {len(wrong):,} of {len(given):,} labels are not the set's: example {i} "
        f"({shortened(str(images.ids[i]), 60)}) is {shortened(right, 60)}, not "
        f"{shortened(str(given[i]), 60)}. The order of the set is {order_of(images.ids)}"
    )


def _positions_in_set(opened: OpenedSet, of_task: Integers) -> Integers:
    """Positions (n,) of the task's classes among those that a set is scored on, -1 for others."""
    size = len(opened.names)
    position = np.full(size + 1, -1)
    for k, group in enumerate(opened.groups):
        position[list(group)] = k
    known = (of_task >= 0) & (of_task < size)
    return position[np.where(known, of_task, size)].astype(np.int64)


def order_of(ids: npt.NDArray[np.str_]) -> str:
    """The order in which an index counts the examples (n,) of a set."""
    last = len(ids) - 1
    at = sorted({*range(min(3, len(ids))), last})
    told = [f"{'… ' if i == last > 3 else ''}{i} = {shortened(str(ids[i]), 60)}" for i in at]
    return ", ".join(told)


def class_positions(opened: OpenedSet, given: Array, where: str) -> Integers:
    """Positions (n,) among the classes that a set is scored on.

    Args:
        opened: the set.
        given: (n,) positions as int64, or names as text. What is no name may be a position.
        where: begins the messages.

    Raises:
        InputError: a class is none of the set's.
    """
    groups = opened.groups
    if given.dtype.kind != "U":
        wrong = np.unique(given[(given < 0) | (given >= len(groups))])
        if len(wrong):
            raise InputError(
                f"{where}: there are classes 0 to {len(groups) - 1}, so not {some(wrong.tolist())}"
            )
        return given
    means: dict[str, set[int]] = {}
    for position, group in enumerate(groups):
        for k in group:
            means.setdefault(opened.names[k], set()).add(position)
    composed_names = np.array([*map(composed, given.tolist())], np.str_)
    names, of_row = np.unique(composed_names, return_inverse=True)
    positions = np.empty(len(names), np.int64)
    for i, name in enumerate(names.tolist()):
        meant = means.get(name, set())
        if not meant and name.isascii() and name.isdigit() and int(name) < len(groups):
            meant = {int(name)}
        if len(meant) != 1:
            if meant:
                fault = "is the name of several classes; give positions"
            elif name in opened.names:
                fault = (
                    "is not among the classes that the set is scored on; give logits over all "
                    "classes of the task, which are projected"
                )
            else:
                fault = f"is none of its classes{nearest(name, means, CLASSES_SHOWN)}"
            raise InputError(f'{where}: "{shortened(name, 60)}" {fault}')
        (positions[i],) = meant
    return positions[of_row]


def _projected(opened: OpenedSet, logits: Array, where: str) -> Array:
    """Logits over the classes that a set is scored on."""
    projection, width = opened.images.projection, logits.shape[1]
    if projection is not None and width == len(opened.names):
        return projection(logits)
    if width == len(opened.groups):
        return logits
    accepted = " or ".join(map(str, sorted({len(opened.names), len(opened.groups)})))
    raise InputError(f"{where}: logits over {width} classes, but there are {accepted}")
