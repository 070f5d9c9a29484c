"""What a node is asked before it works, and what is said of one that lacks something."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from shiftbench.core.mirror import local
from shiftbench.distributed import nodes
from shiftbench.distributed.nodes import Sight, look, sight
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.suite.file import Resources


@pytest.fixture
def expected(tmp_path: Path) -> Sight:
    """What a driver sees of a folder with results and one with data."""
    for name in ("results", "data/cifar10", "data/imagenet"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "results" / ".probe").touch()
    data, results = str(tmp_path / "data"), tmp_path / "results"
    return sight(Setup("s", {}, results, data, Resources(), Remarks()), ".probe")


def test_a_node_that_sees_the_same_has_no_fault(expected: Sight) -> None:
    assert look(pickle.loads(pickle.dumps(expected))) == []


def test_a_node_that_lacks_something_says_what(
    expected: Sight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results" / ".probe").unlink()  # a folder of that name, on the node's own disk
    (tmp_path / "data" / "imagenet").rename(tmp_path / "data" / "imagenet2")
    monkeypatch.setattr(nodes, "_code", lambda: "another")
    missing = replace(expected, plugins=("methods/mine",))
    results, data, code, plugin = look(missing)
    assert results.startswith(f"sees another results folder {tmp_path / 'results'}, or none")
    assert data == f"sees another data folder {tmp_path / 'data'}: it lacks imagenet"
    assert "another version of shiftbench" in code
    assert plugin.startswith("lacks the plugin methods/mine")
    (tmp_path / "data" / "cifar10").rmdir()
    (tmp_path / "data" / "imagenet2").rmdir()
    (tmp_path / "data").rmdir()
    assert any(line.startswith("does not see the data (") for line in look(expected))


def test_results_in_a_store_are_found_on_a_machine_with_another_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".probe").touch()
    url = f"file://{tmp_path / 'store'}"
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "here"))
    setup = Setup("s", {}, local(url), "miniature", Resources(), Remarks())
    expected, sent = sight(setup, ".probe"), pickle.dumps(setup)
    assert expected.results == url
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "there"))
    received = pickle.loads(sent)
    assert received.results == local(url)
    assert received.results.is_relative_to(tmp_path / "there")
    assert replace(received, results=setup.results) == setup
    assert look(expected) == []
    (tmp_path / "store" / ".probe").unlink()
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "third"))
    assert "another results folder file://" in look(expected)[0]
