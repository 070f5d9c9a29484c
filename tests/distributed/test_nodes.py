"""What a node is asked before it works, and what is said of one that lacks something."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)
from shiftbench.core.errors import InputError
from shiftbench.core.mirror import local
from shiftbench.distributed import nodes
from shiftbench.distributed.nodes import Nodes, Sight, look, sight
from shiftbench.execution.group_rules import bundle
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


class Cluster:
    """Stands for ray: this machine and another node, which is said to be alive, and its answers."""

    def __init__(self, *answers: RayError | list[str]) -> None:
        self.answers = [*answers]
        self.wait = lambda refs, **options: (refs, [])
        self.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: "driver")

    def nodes(self) -> list[dict[str, object]]:
        named = {"NodeManagerHostname": "gpu1", "NodeManagerAddress": "10.0.0.2"}
        return [
            {"NodeID": of, "Alive": True, "Resources": bundle(Resources()), **named}
            for of in ("driver", "ab" * 28)
        ]

    def remote(self, **options: object) -> Callable[[object], object]:
        return lambda function: SimpleNamespace(remote=lambda *arguments: object())

    def get(self, answer: object) -> list[str]:
        given = self.answers.pop(0)
        if isinstance(given, RayError):
            raise given
        return given


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Cluster], Nodes]:
    def on(cluster: Cluster) -> Nodes:
        monkeypatch.setattr(nodes, "ray", cluster)
        monkeypatch.setattr(nodes, "_LOOK_EVERY_S", 0.0)
        return Nodes(Setup("s", {}, tmp_path, "miniature", Resources(), Remarks()))

    return on


@pytest.mark.parametrize("killed", [OutOfMemoryError("killed"), NodeDiedError("gone")])
def test_a_node_that_was_cut_off_as_it_looked_is_asked_again(
    checked: Callable[[Cluster], Nodes], killed: RayError, tmp_path: Path
) -> None:
    cluster = Cluster(killed, ["sees another data folder"])
    with checked(cluster) as these:
        these.check()
        assert len(cluster.answers) == 1
        with pytest.raises(InputError, match=r"node gpu1 \(10\.0\.0\.2\): sees another data"):
            these.check()
        these.check()  # it is known by now
        assert [*tmp_path.iterdir()] != []
    assert [*tmp_path.iterdir()] == []
    with checked(Cluster(killed)) as these:
        these.check()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "error",
    [
        RayTaskError("look", "ImportError: shiftbench", ImportError("shiftbench")),
        RuntimeEnvSetupError("no space"),
    ],
)
def test_what_the_look_itself_raised_is_a_fault(
    checked: Callable[[Cluster], Nodes], error: RayError
) -> None:
    with (
        checked(Cluster(error)) as these,
        pytest.raises(InputError, match=r"gpu1 .*cannot run shiftbench"),
    ):
        these.check()
