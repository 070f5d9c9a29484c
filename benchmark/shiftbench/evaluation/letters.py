"""Compact letter displays: methods that share a letter cannot be told apart."""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LETTERS = string.ascii_lowercase

Booleans = npt.NDArray[np.bool_]


def groups(differs: npt.ArrayLike) -> tuple[tuple[int, ...], ...]:
    """Groups of methods that cannot be told apart: two share a group if and only if so.

    This is a compact letter display (Piepho, 2004, doi 10.1198/1061860043515). A method may be in
    several groups, since "cannot be told apart" is not transitive: the first may not differ from
    the second nor the second from the third, although the first and the third do.

    Args:
        differs: (n, n) symmetric booleans, rows in rank order.

    Returns:
        for each method the numbers of its groups from 1, ascending; group 1 holds the best.
    """
    same = ~_symmetric(differs)
    n = len(same)
    covered = np.zeros((n, n), dtype=bool)
    found: list[list[int]] = []
    for first, second in itertools.combinations_with_replacement(range(n), 2):
        if first == second and same[first].sum() > 1:
            continue  # a group of its own is only for what differs from all others
        if covered[first, second] or not same[first, second]:
            continue
        members = list(dict.fromkeys([first, second]))
        for other in range(n):
            if other not in members and same[other, members].all():
                members.append(other)
        covered[np.ix_(members, members)] = True
        found.append(sorted(members))
    found.sort()
    return tuple(
        tuple(number for number, members in enumerate(found, start=1) if method in members)
        for method in range(n)
    )


def letters(numbers: Sequence[int], groups: int) -> str:
    """The groups of a method as letters, such as ``ab``.

    Where there are more groups than letters, those beyond ``z`` are ``aa``, ``ab``, …, and all
    methods have commas between their groups, such as ``b,aa``.

    Args:
        numbers: of the method's groups, from 1.
        groups: how many there are of all methods.
    """
    return ("" if groups <= len(LETTERS) else ",").join(map(_letter, numbers))


def _letter(number: int) -> str:
    """1 is ``a``, 26 is ``z``, 27 is ``aa``."""
    before, place = divmod(number - 1, len(LETTERS))
    return (_letter(before) if before else "") + LETTERS[place]


def _symmetric(differs: npt.ArrayLike) -> Booleans:
    square: Booleans = np.asarray(differs, dtype=bool)
    if square.ndim != 2 or not np.array_equal(square, square.T) or square.diagonal().any():
        raise ValueError("decisions are a symmetric matrix, and nothing differs from itself")
    return square
