"""Comparisons of weights that name the first difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from shiftbench.testing.checks import require


def require_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Weights are equal, bit for bit.

    Raises:
        ContractError: names the first that is not.
    """

    def differs(name: str) -> bool:
        return not torch.equal(found[name], expected[name])

    _compare(found, expected, where, differs)


def require_close(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    where: str,
    *,
    rtol: float,
    atol: float,
) -> None:
    """Weights are equal but for rounding.

    Raises:
        ContractError: names the first that is not.
    """

    def differs(name: str) -> bool:
        return not torch.allclose(found[name], expected[name], rtol=rtol, atol=atol)

    _compare(found, expected, where, differs)


def _compare(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    where: str,
    differs: Callable[[str], bool],
) -> None:
    require(found.keys() == expected.keys(), f"{where}: other names of weights")
    for name in found:
        if differs(name):
            gap = (found[name].double() - expected[name].double()).abs().max().item()
            require(False, f"{where}: {name} differs by up to {gap:.3g}")
