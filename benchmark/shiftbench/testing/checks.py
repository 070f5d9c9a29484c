"""Checks of a contract: each is a function that says nothing, or what the first difference is."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from sysconfig import get_path
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from shiftbench.core.errors import last_line

S = TypeVar("S")
Check: TypeAlias = Callable[[S], None]


class ContractError(AssertionError):
    """Something does not do what its contract says; the message is the first difference."""


class NotCheckedError(Exception):
    """A check that says nothing of its subject, and why."""


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        subject: what was checked, such as ``method smooth``.
        check: what it should do.
        status: whether it does; ``skipped`` where that could not be found out.
        detail: the first difference, or why nothing was found out.
        error: that the check ended with, where it failed.
    """

    subject: str
    check: str
    status: Literal["passed", "failed", "skipped"]
    detail: str = ""
    error: Exception | None = None


def outcomes(name: str, checks: Mapping[str, Check[S]], subject: S) -> Iterator[Outcome]:
    """Do some checks, one after the other, whatever comes of them.

    Args:
        name: of the subject.
        checks: by what they are about.
        subject: that they are given.
    """
    for title, check in checks.items():
        try:
            check(subject)
        except NotCheckedError as reason:
            yield Outcome(name, title, "skipped", str(reason))
        except Exception as error:  # a plugin may fail in any way at all
            yield Outcome(name, title, "failed", _described(error), error)
        else:
            yield Outcome(name, title, "passed")


def demand(found: Iterable[Outcome]) -> None:
    """Raise the first failure, as a test does.

    Raises:
        ContractError: there is one; its cause is what the plugin raised.
    """
    for outcome in found:
        if outcome.status == "failed":
            message = f"{outcome.subject}: {outcome.check}: {outcome.detail}"
            raise ContractError(message) from outcome.error


def require(holds: bool | np.bool_, difference: str) -> None:
    """Raise the difference unless something holds.

    Raises:
        ContractError: it does not.
    """
    if not holds:
        raise ContractError(difference)


def _described(error: Exception) -> str:
    """An error on one line; of one that was not raised here on purpose, also where it was."""
    if isinstance(error, ContractError):
        return str(error)
    calls = traceback.extract_tb(error.__traceback__)
    others = [call for call in calls if not Path(call.filename).is_relative_to(_PACKAGE)]
    own = [call for call in others if not Path(call.filename).is_relative_to(_INSTALLED)]
    last = [*others[-1:], *own[-1:]]  # a line of the plugin rather than one of torch
    place = f" ({Path(last[-1].filename).name}:{last[-1].lineno})" if last else ""
    return f"{last_line(error)}{place}"


_PACKAGE = Path(__file__).parents[1]
_INSTALLED = Path(get_path("purelib"))
