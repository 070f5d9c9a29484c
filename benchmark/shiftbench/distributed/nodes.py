"""Nodes are looked at before they work: what one lacks would fail runs with a misleading reason."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shiftbench.core.errors import InputError, StorageError, last_line
from shiftbench.core.files import remove, written_atomically
from shiftbench.core.locations import entries, is_remote
from shiftbench.core.mirror import address, fetched, local, shown
from shiftbench.core.plugins import others_here
from shiftbench.distributed.cluster import slots
from shiftbench.suite.file import MINIATURE

if TYPE_CHECKING:
    from shiftbench.execution.setup import Setup

ANSWER_S = 120.0
"""Seconds that a node has to answer; it may first have to unpack what was submitted."""
_LOOK_EVERY_S = 5.0


@dataclass(frozen=True)
class Sight:
    """What all nodes must see as the driver does.

    Attributes:
        results: the results folder, or its URL.
        token: name of a file in it.
        data: the data root.
        names: of the entries of the data root; empty where nothing is to be compared.
        code: a digest of this package's.
        plugins: ``kind/name`` of what other packages add.
    """

    results: str
    token: str
    data: str
    names: tuple[str, ...]
    code: str
    plugins: tuple[str, ...]


def sight(setup: Setup, token: str) -> Sight:
    """What the driver sees."""
    return Sight(
        address(setup.results), token, setup.data, _names(setup.data), _code(), (*others_here(),)
    )


def look(expected: Sight) -> list[str]:
    """What this process does not see as the driver does, a few words for each."""
    return [*_differences(expected)]


def _differences(expected: Sight) -> Iterator[str]:
    results = local(expected.results)
    where = shown(results)
    try:
        found = fetched(results / expected.token).exists()
    except (InputError, StorageError) as error:
        yield f"cannot reach the results: {error}"
    else:
        if not found:
            yield (
                f"sees another results folder {where}, or none; name one on storage that all "
                "nodes share, or a URL such as s3://bucket/results"
            )
    try:
        names = _names(expected.data)
    except InputError as error:
        yield f"does not see the data ({error})"
    else:
        if names != expected.names:
            odd = min({*names} ^ {*expected.names})
            side = "lacks" if odd in expected.names else "also has"
            yield f"sees another data folder {expected.data}: it {side} {odd}"
    if _code() != expected.code:
        yield "has another version of shiftbench; install the same, or use shiftbench submit"
    if lacking := sorted({*expected.plugins} - {*others_here()}):
        yield f"lacks the plugin {lacking[0]}; install it there, or use shiftbench submit --plugin"


def _names(data: str) -> tuple[str, ...]:
    if data == MINIATURE or is_remote(data):  # each node draws its own, or asks the same store
        return ()
    return tuple(entry.name for entry in entries(data))


def _code() -> str:
    """A digest of this package's code."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


class Nodes:
    """The nodes of the cluster that the driver is connected to; a context manager.

    Args:
        setup: of the suite.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._token = setup.results / f".probe-{uuid.uuid4().hex}"
        self._known = {ray.get_runtime_context().get_node_id()}
        self._written = False  # the file of that name
        self._next = 0.0
        self._asked: dict[Any, Mapping[str, Any]] = {}  # nodes by their answers to come

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        if self._written:
            remove(self._token)

    def check(self, wait_s: float = 0.0) -> None:
        """See that nodes which can work, and have come since, see what this process does.

        Args:
            wait_s: for their answers; those that come later are heard the next time.

        Raises:
            InputError: a line for each thing that one does not.
        """
        if not wait_s and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK_EVERY_S
        for node in ray.nodes():
            able = node["Alive"] and slots([node["Resources"]], self._setup.resources)
            if able and node["NodeID"] not in self._known:
                self._ask(node)
        if not self._asked:
            return
        heard, silent = ray.wait([*self._asked], num_returns=len(self._asked), timeout=wait_s)
        faults = [line for answer in heard for line in self._heard(answer)]
        if wait_s:
            faults += [
                f"{_name(self._asked[of])}: has not answered for {wait_s:g} s" for of in silent
            ]
        if faults:
            raise InputError(*faults)

    def _ask(self, node: Mapping[str, Any]) -> None:
        if not self._written:
            self._written = True
            with written_atomically(self._token) as temporary:
                temporary.touch()
        self._known.add(node["NodeID"])
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
        answer = ray.remote(**options)(look).remote(sight(self._setup, self._token.name))
        self._asked[answer] = node

    def _heard(self, answer: Any) -> Iterator[str]:
        """What a node does not see.

        Where the look itself was cut off, since its process was killed or the node died, which the
        cluster may notice later, the node is asked again if it is still there the next time.
        """
        node = self._asked.pop(answer)
        try:
            yield from (f"{_name(node)}: {fault}" for fault in ray.get(answer))
        except (RayTaskError, RuntimeEnvSetupError) as error:
            yield f"{_name(node)}: cannot run shiftbench ({last_line(error)})"
        except RayError:
            self._known.remove(node["NodeID"])


def _name(node: Mapping[str, Any]) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
