from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from shiftbench.core.errors import InputError
from shiftbench.models.weights import (
    apply_sparse_delta,
    average,
    distance,
    interpolate,
    size_in_bytes,
    sparse_delta,
    without_head,
)
from torch import nn

FINITE = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
PAIR = arrays.arrays(np.float32, (2, 3, 4), elements=FINITE)
ULP = np.finfo(np.float32).eps


def state(values: np.ndarray) -> dict[str, torch.Tensor]:
    return {"visual.a": torch.tensor(values[:2]), "head.weight": torch.tensor(values[2:])}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    model.train()
    for _ in range(seed + 1):
        model(torch.randn(8, 3, 4, 4))
    return model


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@settings(deadline=None)
@given(PAIR, st.floats(0, 1))
def test_interpolation_equals_float64(pair, alpha):
    result = interpolate(state(pair[0]), state(pair[1]), alpha)
    a, b = pair.astype(np.float64)
    expected = (1 - alpha) * a + alpha * b
    actual = torch.cat([result["visual.a"], result["head.weight"]])
    assert actual.dtype == torch.float32
    # One rounding of the exact value: half a unit in the last place, and float64's own error.
    scale = np.maximum(np.abs(expected), np.finfo(np.float32).tiny)
    error = np.abs(actual.numpy().astype(np.float64) - expected)
    assert np.all(error <= 0.51 * ULP * scale + 1e-14 * (np.abs(a) + np.abs(b)))


@settings(deadline=None)
@given(PAIR)
def test_ends_are_exact_and_new(pair):
    theta0, theta1 = state(pair[0]), state(pair[1])
    for end, alpha in ((theta0, 0.0), (theta1, 1.0), (theta1, 1)):
        result = interpolate(theta0, theta1, alpha)
        for name in end:
            assert same_bits(result[name], end[name])
            assert result[name].data_ptr() != end[name].data_ptr()


@settings(deadline=None)
@given(PAIR, st.floats(0, 1))
def test_what_is_equal_at_both_ends_stays_as_it_is(pair, alpha):
    theta = state(pair[0])
    result = interpolate(theta, state(pair[0]), alpha)
    assert all(torch.equal(result[name], theta[name]) for name in theta)


def test_ends_are_exact_even_next_to_infinities():
    theta0, theta1 = {"w": torch.ones(2)}, {"w": torch.tensor([math.inf, math.nan])}
    assert torch.equal(interpolate(theta0, theta1, 0)["w"], torch.ones(2))
    assert same_bits(interpolate(theta0, theta1, 1)["w"], theta1["w"])


def test_batch_norm_and_integer_buffers():
    theta0, theta1 = (network(seed).state_dict() for seed in (0, 4))
    middle = interpolate(theta0, theta1, 0.3)
    counts = [int(theta["1.num_batches_tracked"]) for theta in (theta0, middle, theta1)]
    assert counts == [1, round(0.7 * 1 + 0.3 * 5), 5]
    assert middle["1.num_batches_tracked"].dtype == torch.int64
    for name in ("1.running_mean", "1.running_var"):
        expected = 0.7 * theta0[name].double() + 0.3 * theta1[name].double()
        assert torch.allclose(middle[name].double(), expected, rtol=1e-7, atol=1e-9)
    network(0).load_state_dict(middle)


def test_integers_beyond_float64_and_booleans():
    big = 2**60 + 1
    theta0 = {"big": torch.tensor([big]), "flag": torch.tensor([True, False])}
    theta1 = {"big": torch.tensor([big]), "flag": torch.tensor([True, True])}
    result = interpolate(theta0, theta1, 0.7)
    assert int(result["big"]) == big
    assert result["flag"].tolist() == [True, True] and result["flag"].dtype == torch.bool
    assert interpolate(theta0, theta1, 0.3)["flag"].tolist() == [True, False]


def test_interpolation_at_one_half_is_its_own_mirror():
    a, b = (network(seed).state_dict() for seed in (0, 2))
    forth, back = interpolate(a, b, 0.5), interpolate(b, a, 0.5)
    assert all(torch.equal(forth[name], back[name]) for name in forth)


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, (4, 3, 4), elements=FINITE),
    st.lists(st.floats(0.1, 1), min_size=4, max_size=4) | st.none(),
)
def test_average_equals_float64(values, coefficients):
    if coefficients is not None:
        coefficients = [c / sum(coefficients) for c in coefficients]
    result = average([state(v) for v in values], coefficients)
    actual = torch.cat([result["visual.a"], result["head.weight"]]).numpy().astype(np.float64)
    expected = np.average(values.astype(np.float64), axis=0, weights=coefficients)
    bound = ULP * np.abs(expected) + 1e-12 * np.abs(values).sum(0) + 1e-37
    assert np.all(np.abs(actual - expected) <= bound)


def test_average_of_one_is_itself():
    theta = network(0).state_dict()
    assert all(same_bits(average([theta])[name], theta[name]) for name in theta)


SPECIAL = torch.tensor([0.0, -0.0, math.nan, math.inf, 1e-45, 1.0])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_sparse_delta_is_exact(dtype):
    generator = torch.Generator().manual_seed(0)
    old = torch.randint(-9, 9, (7, 5), generator=generator).to(dtype)
    new = old.clone()
    new[2, 3], new[6, 4] = (~new[2, 3], ~new[6, 4]) if dtype == torch.bool else (77, -78)
    theta0 = {"a": old, "same": torch.ones(3), "scalar": torch.tensor(1.0)}
    theta1 = {"a": new, "same": torch.ones(3), "scalar": torch.tensor(2.0)}
    changes = sparse_delta(theta0, theta1)
    assert set(changes) == {"a/indices", "a/values", "scalar/indices", "scalar/values"}
    assert changes["a/indices"].tolist() == [2 * 5 + 3, 6 * 5 + 4]
    assert changes["a/indices"].dtype == torch.int32 and changes["a/values"].dtype == dtype
    before = old.clone()
    result = apply_sparse_delta(theta0, changes)
    assert all(torch.equal(result[name], theta1[name]) for name in theta1)
    assert torch.equal(old, before)


@given(st.permutations(range(6)))
def test_sparse_delta_keeps_every_bit_pattern(order):
    theta0, theta1 = {"w": SPECIAL}, {"w": SPECIAL[list(order)]}
    result = apply_sparse_delta(theta0, sparse_delta(theta0, theta1))
    assert same_bits(result["w"], theta1["w"])


def test_sparse_delta_of_transposed_weights():
    theta0 = {"w": torch.arange(6.0).reshape(2, 3).T}
    theta1 = {"w": theta0["w"].contiguous().clone()}
    theta1["w"][2, 1] = 9.0
    result = apply_sparse_delta(theta0, sparse_delta(theta0, theta1))
    assert torch.equal(result["w"], theta1["w"])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"b/indices": torch.tensor([0]), "b/values": torch.ones(1)}, "b/indices"),
        ({"a": torch.ones(2)}, "'a' changes no tensor"),
        ({"a/indices": torch.tensor([0])}, "one torch.float32 value"),
        ({"a/indices": torch.tensor([0]), "a/values": torch.ones(2)}, "value for each"),
        ({"a/indices": torch.tensor([0]), "a/values": torch.ones(1).half()}, "torch.float32"),
        ({"a/indices": torch.tensor([2]), "a/values": torch.ones(1)}, "outside"),
        ({"a/indices": torch.tensor([-1]), "a/values": torch.ones(1)}, "outside"),
    ],
)
def test_a_sparse_delta_that_does_not_fit_is_refused(changes, word):
    with pytest.raises(InputError, match=word):
        apply_sparse_delta({"a": torch.zeros(2)}, changes)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"b": torch.ones(2)}, ["'a'", "1 more"]),
        ({"a": torch.ones(2), "b": torch.ones(2)}, ["'b'"]),
        ({"a": torch.ones(3)}, ["'a'", "(2,)", "(3,)"]),
        ({"a": torch.ones(2, dtype=torch.float16)}, ["'a'", "float32", "float16"]),
    ],
)
@pytest.mark.parametrize(
    "function",
    [lambda a, b: interpolate(a, b, 0.5), lambda a, b: average([a, b]), sparse_delta],
)
def test_unequal_weights_are_refused_by_name(function, other, words):
    with pytest.raises(InputError) as raised:
        function({"a": torch.ones(2)}, other)
    assert all(word in str(raised.value) for word in words)


def test_tied_weights_are_refused_by_name():
    layer = nn.Linear(3, 3)
    tied = {"encoder.weight": layer.weight, "decoder.weight": layer.weight}
    free = {name: tensor.clone() for name, tensor in tied.items()}
    for first, second in ((tied, free), (free, tied)):
        with pytest.raises(InputError, match=r"encoder\.weight.*decoder\.weight.*tied"):
            interpolate(first, second, 0.5)


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_alpha_must_be_finite(alpha):
    with pytest.raises(InputError, match="sum to 1"):
        interpolate({"a": torch.ones(1)}, {"a": torch.zeros(1)}, alpha)


@pytest.mark.parametrize("coefficients", [[1.0], [0.5, 0.6], [math.nan, 1.0]])
def test_coefficients_must_fit(coefficients):
    with pytest.raises(InputError, match="sum to 1"):
        average([{"a": torch.ones(1)}, {"a": torch.zeros(1)}], coefficients)
    with pytest.raises(InputError, match="at least one"):
        average([])


def test_distance_counts_every_scalar_of_the_parameters():
    theta0 = {"a": torch.zeros(2, 2), "b": torch.ones(1), "count": torch.tensor(3)}
    theta1 = {"a": torch.full((2, 2), 2.0), "b": torch.tensor([4.0]), "count": torch.tensor(9)}
    assert distance(theta0, theta1, {"a", "b"}) == 5.0  # √(4 · 2² + 3²)
    assert distance(theta0, theta0, {"a", "b"}) == 0.0


def test_the_head_can_be_left_out():
    weights = {"visual.w": torch.ones(2), "head.weight": torch.ones(3), "header": torch.ones(1)}
    assert list(without_head(weights)) == ["visual.w", "header"]


def test_size_counts_the_bytes_of_each_dtype():
    assert size_in_bytes({"a": torch.zeros(3), "b": torch.zeros(2, dtype=torch.float16)}) == 16
