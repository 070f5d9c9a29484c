from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from shiftbench.core.errors import RunFailedError
from shiftbench.models import sparse
from shiftbench.models.sparse import (
    SparseParameters,
    join_positions,
    kth_largest,
    sampled,
    select_mask,
    selected_count,
    split_positions,
)
from torch import Tensor, nn
from torch.optim import AdamW

# Few distinct values, neighbours in the last bit, both zeros and subnormals: many ties.
NEIGHBOURS = [0.0, -0.0, 1e-45, 1e-40, 1.0, float(np.nextafter(np.float32(1), np.float32(2)))]
SCORE = st.one_of(st.sampled_from(NEIGHBOURS), st.floats(0, 2.0**100, width=32))
SCORES = st.lists(
    st.one_of(
        arrays.arrays(np.float32, st.integers(0, 40), elements=SCORE),
        arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=SCORE),
    ),
    min_size=1,
    max_size=4,
)
DENSITY = st.one_of(st.floats(0.001, 1), st.sampled_from([0.1, 0.29, 0.5, 1.0]))


def slow_top(values: list[float], k: int) -> list[int]:
    """Positions of the k largest, ascending; of equal ones the first."""
    return sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:k])


@pytest.fixture(params=[1 << 20, 7])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "CHUNK", request.param)


@given(SCORES, DENSITY, st.sampled_from([1 << 20, 7]))
def test_a_global_selection_equals_a_full_sort(scores, density, size) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "CHUNK", size)
        found = select_mask([torch.from_numpy(part) for part in scores], density)
    values = [float(x) for part in scores for x in part.ravel()]
    sizes = [part.size for part in scores]
    k = selected_count(density, len(values))
    assert join_positions(found, sizes).tolist() == slow_top(values, k)
    assert all(part.dtype == torch.int64 for part in found)


@given(SCORES, DENSITY)
def test_a_selection_in_every_tensor_equals_a_full_sort(scores, density) -> None:
    found = select_mask([torch.from_numpy(part) for part in scores], density, "per-tensor")
    for part, chosen in zip(scores, found, strict=True):
        values = [float(x) for x in part.ravel()]
        assert chosen.tolist() == slow_top(values, selected_count(density, part.size))


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_equal_scores_do_not_select_more_than_k(value: float) -> None:
    scores = [torch.full((3, 10), value), torch.full((70,), value)]
    found = select_mask(scores, 0.35)
    assert found[0].tolist() == list(range(30))
    assert found[1].tolist() == list(range(5))


def test_fewer_nonzero_scores_than_k_are_filled_up_with_zeros() -> None:
    scores = torch.zeros(1000)
    scores[[5, 900]] = 1e-38
    assert select_mask([scores], 0.004)[0].tolist() == [0, 1, 5, 900]


def test_k_is_that_of_the_decimal_density() -> None:
    assert math.floor(0.29 * 100) == 28
    assert selected_count(0.29, 100) == 29
    assert selected_count(0.001, 149_620_736) == 149_620
    assert selected_count(1e-5, 10**6) == 10
    for wrong in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="density"):
            selected_count(wrong, 10)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_fail_the_run(value: float) -> None:
    with pytest.raises(RunFailedError, match="not finite"):
        select_mask([torch.zeros(3), torch.tensor([1.0, value, 2.0])], 0.5)


def test_negative_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        select_mask([torch.tensor([1.0, -1.0])], 0.5)


def test_scores_of_any_layout_are_read_in_logical_order() -> None:
    scores = torch.rand(6, 7)
    assert select_mask([scores.T.contiguous().T], 0.2)[0].equal(select_mask([scores], 0.2)[0])


@pytest.mark.parametrize("scope", ["global", "per-tensor"])
def test_a_random_selection_is_as_large_and_depends_on_the_seed_alone(scope) -> None:
    sizes = [300, 5, 0, 700]
    scores = [torch.rand(n) for n in sizes]
    first = sampled(sizes, 0.13, scope, seed=1)
    if scope == "per-tensor":
        assert [len(part) for part in first] == [len(p) for p in select_mask(scores, 0.13, scope)]
    assert sum(len(part) for part in first) == (130 if scope == "global" else 39 + 91)
    for part, n in zip(first, sizes, strict=True):
        assert part.tolist() == sorted(set(part.tolist()))
        assert all(0 <= index < n for index in part.tolist())
    again, other = sampled(sizes, 0.13, scope, seed=1), sampled(sizes, 0.13, scope, seed=2)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_random_selection_is_uniform() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        for part, start in zip(sampled([8, 12], 0.25, seed=seed), (0, 8), strict=True):
            counts[part.numpy() + start] += 1
    assert counts.sum() == 10_000
    # Each is Binomial(2000, 1/4), standard deviation 19.4; five of them for 20 counts.
    assert np.abs(counts - 500).max() < 97


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_positions_and_indices_are_one_another(sizes, data) -> None:
    n = sum(sizes)
    chosen = sorted(data.draw(st.sets(st.integers(0, max(n - 1, 0)), max_size=n)))
    positions = torch.tensor([p for p in chosen if p < n], dtype=torch.int64)
    parts = split_positions(positions, sizes)
    mask = torch.zeros(n, dtype=torch.bool)
    mask[positions] = True
    for part, of_tensor in zip(parts, mask.split(sizes), strict=True):
        assert part.tolist() == of_tensor.nonzero().flatten().tolist()
    assert join_positions(parts, sizes).equal(positions)


def tensors() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [
        nn.Parameter(torch.randn(4, 3)),
        nn.Parameter(torch.randn(5)),
        nn.Parameter(torch.ones(2)),
    ]


INDICES = [torch.tensor([1, 11]), torch.tensor([0, 2, 4]), torch.tensor([], dtype=torch.int64)]


def selected(of: list[nn.Parameter]) -> Tensor:
    return torch.cat([p.detach().flatten()[i] for p, i in zip(of, INDICES, strict=True)])


def test_adamw_moves_and_decays_only_what_is_selected() -> None:
    dense = tensors()
    start = [tensor.detach().clone() for tensor in dense]
    compact = SparseParameters(dense, INDICES)
    w = compact.values.detach().double().numpy().copy()
    m, v = np.zeros(5), np.zeros(5)
    optimizer = AdamW([compact.values], lr=0.05, weight_decay=0.1)
    for t in range(1, 101):
        loss = dense[0].sin().sum() + dense[1].square().sum()
        loss.backward()
        compact.gather_gradient()
        optimizer.step()
        for tensor in dense:
            tensor.grad = None
        compact.scatter()
        g = np.concatenate([np.cos(w[:2]), 2 * w[2:]])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w = w * (1 - 0.05 * 0.1) - 0.05 * step
    np.testing.assert_allclose(selected(dense).numpy(), w, rtol=1e-4, atol=1e-5)
    for tensor, before, chosen in zip(dense, start, INDICES, strict=True):
        rest = torch.ones(tensor.numel(), dtype=torch.bool)
        rest[chosen] = False
        after = tensor.detach().flatten()[rest]
        assert after.numpy().tobytes() == before.flatten()[rest].numpy().tobytes()
    assert optimizer.state[compact.values]["exp_avg"].shape == (5,)


def test_without_a_gradient_the_selected_weights_still_decay() -> None:
    dense = tensors()
    before = selected(dense)
    compact = SparseParameters(dense, INDICES)
    optimizer = AdamW([compact.values], lr=0.5, weight_decay=0.1)
    compact.gather_gradient()
    assert compact.values.grad is not None
    assert not compact.values.grad.any()
    optimizer.step()
    compact.scatter()
    torch.testing.assert_close(selected(dense), before * (1 - 0.5 * 0.1))
    assert dense[2].tolist() == [1, 1]


def test_another_selection_reads_the_tensors_into_the_same_parameter() -> None:
    dense = tensors()
    compact = SparseParameters(dense, INDICES)
    values = compact.values
    none = torch.tensor([], dtype=torch.int64)
    compact.select([torch.tensor([0, 1, 2]), none, torch.tensor([0, 1])])
    assert compact.values is values
    assert values.tolist() == [*dense[0].flatten()[:3].tolist(), 1, 1]
    with pytest.raises(ValueError, match="5 scalars are trained, not 1"):
        compact.select([torch.tensor([0]), none, none])


def test_a_transposed_parameter_is_written_in_logical_order() -> None:
    tensor = nn.Parameter(torch.arange(6.0).view(2, 3).T)
    compact = SparseParameters([tensor], [torch.tensor([1, 4])])
    assert compact.values.tolist() == [3, 2]
    with torch.no_grad():
        compact.values.copy_(torch.tensor([-1.0, -2.0]))
    compact.scatter()
    assert tensor.tolist() == [[0, -1], [1, 4], [-2, 5]]


@pytest.mark.parametrize("k", [1, 3, 7, 12])
def test_the_kth_largest_of_all_scores(k: int) -> None:
    scores = [torch.tensor([[0.5, 3, -0.0], [2, 2, 1e-30]]), torch.tensor([2, 0.25, 9, 0, 7, 0.5])]
    everything = sorted(torch.cat([part.flatten() for part in scores]).tolist(), reverse=True)
    assert kth_largest(scores, k) == everything[k - 1]
