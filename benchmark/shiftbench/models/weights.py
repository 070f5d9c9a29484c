"""Arithmetic on weights: pure functions on state dicts.

All of them want the same names, shapes and dtypes on every side and say by name what differs. Two
names that share memory (tied weights) are refused, since they could no longer be told apart from
two that happen to be equal. Results are new tensors, on the device of the first operand.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

import torch
from torch import Tensor

from shiftbench.core.errors import InputError

Weights = Mapping[str, Tensor]

INDICES, VALUES = "/indices", "/values"


def interpolate(theta0: Weights, theta1: Weights, alpha: float) -> dict[str, Tensor]:
    """``(1 - alpha) theta0 + alpha theta1`` for every tensor (WiSE-FT, arXiv 2109.01903, eq. 1).

    Floating-point tensors, batch-norm statistics among them, are computed in float64 and rounded
    once to their own dtype; so where both ends are equal, so is the result, and ``alpha`` 0 and 1
    give back the ends bit for bit. Integer and boolean buffers (``num_batches_tracked``) are
    interpolated likewise and rounded to the nearest integer, halves to even. Statistics that
    training has left alone (``batch_norm: frozen``) are equal at both ends, so they stay.

    Args:
        theta0: weights at alpha 0.
        theta1: weights at alpha 1.
        alpha: any finite number; outside [0, 1] it extrapolates.
    """
    return average([theta0, theta1], [1 - alpha, alpha])


def average(
    thetas: Sequence[Weights], coefficients: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The weighted mean of several weights (a model soup), tensor by tensor.

    Rounded as in ``interpolate``. Weights with coefficient zero play no part.

    Args:
        thetas: one or more.
        coefficients: one each, with sum 1; ``None`` for the plain mean.
    """
    if not thetas:
        raise InputError("an average needs at least one set of weights")
    if coefficients is None:
        coefficients = [1 / len(thetas)] * len(thetas)
    if len(coefficients) != len(thetas) or not math.isclose(sum(coefficients), 1, abs_tol=1e-9):
        raise InputError(f"coefficients {list(coefficients)} must be {len(thetas)} and sum to 1")
    check_alike(*thetas)
    terms = [(t, c) for t, c in zip(thetas, coefficients, strict=True) if c != 0]
    return {
        name: _combine([theta[name] for theta, _ in terms], [c for _, c in terms], like)
        for name, like in thetas[0].items()
    }


def sparse_delta(theta0: Weights, theta1: Weights) -> dict[str, Tensor]:
    """The scalars that differ between ``theta0`` and ``theta1``, bit for bit.

    Returns:
        For each tensor with a change, ``<name>/indices`` (positions in the flattened tensor,
        ascending, int32 where they fit, else int64) and ``<name>/values`` (the new values, in the
        tensor's dtype). Values rather than differences, because adding a difference rounds.
    """
    check_alike(theta0, theta1)
    changes: dict[str, Tensor] = {}
    for name, tensor in theta0.items():
        new = theta1[name].to(tensor.device).contiguous().flatten()
        old = tensor.contiguous().flatten()
        indices = (_bits(old) != _bits(new)).nonzero().flatten()
        if len(indices):
            small = old.numel() <= torch.iinfo(torch.int32).max
            changes[name + INDICES] = indices.to(torch.int32 if small else torch.int64)
            changes[name + VALUES] = new[indices]
    return changes


def apply_sparse_delta(theta0: Weights, changes: Weights) -> dict[str, Tensor]:
    """The weights that ``changes`` (a ``sparse_delta`` from ``theta0``) leads to, bit for bit.

    Raises:
        InputError: a change of an unknown tensor, out of its range, or of another dtype.
    """
    result = {name: tensor.clone() for name, tensor in theta0.items()}
    for key, indices in changes.items():
        name, slash, part = key.rpartition("/")
        if name not in result or slash + part not in (INDICES, VALUES):
            raise InputError(f"sparse delta: {key!r} changes no tensor of these weights")
        if slash + part == VALUES:
            continue
        values = changes.get(name + VALUES)
        flat = result[name].contiguous().flatten()
        if values is None or values.shape != indices.shape or values.dtype != flat.dtype:
            raise InputError(f"sparse delta: {name!r} needs one {flat.dtype} value for each index")
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(flat):
            raise InputError(f"sparse delta: {name!r} has {len(flat)} scalars, an index is outside")
        flat[indices.long().to(flat.device)] = values.to(flat.device)
        result[name] = flat.reshape(result[name].shape)
    return result


def distance(theta0: Weights, theta1: Weights, parameters: Container[str]) -> float:
    """``‖θ1 - θ0‖₂`` over the tensors named in ``parameters``, in float64.

    Buffers have no place in it: running variances differ by orders of magnitude more than any
    weight.
    """
    squares = (
        float((theta1[name].cpu().double() - tensor.cpu().double()).square().sum())
        for name, tensor in theta0.items()
        if name in parameters
    )
    return math.sqrt(math.fsum(squares))


def without_head(weights: Weights) -> dict[str, Tensor]:
    """Weights of an ``ImageClassifier`` without those of its head."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}


def size_in_bytes(weights: Weights) -> int:
    """Memory that all tensors take together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def _combine(tensors: Sequence[Tensor], coefficients: Sequence[float], like: Tensor) -> Tensor:
    """The linear combination in float64, in the dtype and on the device of ``like``."""
    if len(tensors) == 1 and coefficients[0] == 1:
        return tensors[0].to(like.device, copy=True)
    if not like.is_floating_point() and all(torch.equal(tensors[0], t) for t in tensors[1:]):
        # Integers beyond 2**53 have no float64.
        return tensors[0].to(like.device, copy=True)
    total = tensors[0].to(like.device, torch.float64, copy=True).mul_(coefficients[0])
    for tensor, coefficient in zip(tensors[1:], coefficients[1:], strict=True):
        total.add_(tensor.to(like.device), alpha=coefficient)
    return total.to(like.dtype) if like.is_floating_point() else total.round_().to(like.dtype)


def _bits(tensor: Tensor) -> Tensor:
    """The same memory as integers, so that NaN equals itself and -0 differs from 0."""
    sizes = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(sizes[tensor.element_size()])


def check_alike(*thetas: Weights) -> None:
    """Raise ``InputError`` unless all have the same names, shapes and dtypes, and no ties."""
    first = thetas[0]
    for theta in thetas[1:]:
        if missing := sorted(first.keys() ^ theta.keys()):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(f"weights differ: only one side has {missing[0]!r}{more}")
        for name, tensor in first.items():
            other = theta[name]
            if tensor.shape != other.shape:
                raise InputError(
                    f"weights differ: {name!r} has shape {tuple(tensor.shape)} on one side and "
                    f"{tuple(other.shape)} on the other"
                )
            if tensor.dtype != other.dtype:
                raise InputError(
                    f"weights differ: {name!r} is {tensor.dtype} on one side and {other.dtype} on "
                    "the other"
                )
    for theta in thetas:
        _check_untied(theta)


def _check_untied(theta: Weights) -> None:
    owners: dict[tuple[torch.device, int], str] = {}
    for name, tensor in theta.items():
        if not tensor.numel():
            continue
        owner = owners.setdefault((tensor.device, tensor.data_ptr()), name)
        if owner != name:
            raise InputError(f"weights {owner!r} and {name!r} are tied (they share memory)")
