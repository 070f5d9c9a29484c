import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shiftbench.evaluation.letters import groups, letters


@st.composite
def symmetric(draw):
    n = draw(st.integers(1, 8))
    differs = np.zeros((n, n), dtype=bool)
    for i, j in itertools.combinations(range(n), 2):
        differs[i, j] = differs[j, i] = draw(st.booleans())
    return differs


@given(symmetric())
def test_two_methods_share_a_group_if_they_cannot_be_told_apart(differs):
    found = groups(differs)
    for i, j in itertools.product(range(len(differs)), repeat=2):
        assert bool(set(found[i]) & set(found[j])) == (i == j or not differs[i, j])
    assert 1 in found[0]
    assert set(itertools.chain(*found)) == set(range(1, max(map(max, found)) + 1))


def test_groups_of_neighbours_overlap():
    differs = np.abs(np.subtract.outer(range(5), range(5))) > 1
    assert groups(differs) == ((1,), (1, 2), (2, 3), (3, 4), (4,))
    assert [letters(own, 4) for own in groups(differs)] == ["a", "ab", "bc", "cd", "d"]


def test_groups_at_the_extremes():
    assert groups(np.zeros((3, 3))) == ((1,), (1,), (1,))
    assert groups(~np.eye(3, dtype=bool)) == ((1,), (2,), (3,))
    assert groups(np.zeros((0, 0))) == ()


def test_letters_beyond_26_groups_are_unambiguous():
    assert letters((1, 26), 26) == "az"
    assert letters((1, 26), 27) == "a,z"  # "az" would be a group of its own among 52 or more
    assert letters((26, 27, 28), 28) == "z,aa,ab"
    names = [letters((number,), 800) for number in range(1, 801)]
    assert names[701:703] == ["zz", "aaa"]
    assert len(set(names)) == 800


@pytest.mark.parametrize("differs", [[[False, True], [False, False]], [[True]], [True, False]])
def test_decisions_that_contradict_themselves_are_refused(differs):
    with pytest.raises(ValueError, match="symmetric"):
        groups(differs)
