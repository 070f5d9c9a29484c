"""Whatever is killed, frozen or full while a suite runs on a cluster, nothing of it is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.distributed.chaos import (
    EVENTS,
    SUITE,
    Machine,
    outcome,
    run_through,
    small_disk,
)


@pytest.mark.slow
@pytest.mark.cluster
def test_a_run_to_which_everything_happens_ends_as_one_to_which_nothing_does(
    tmp_path: Path, world: Path
) -> None:
    cache = os.environ["SHIFTBENCH_CACHE"]
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    undisturbed, struck = tmp_path / "undisturbed", tmp_path / "struck"
    machine = Machine(suite, undisturbed, cache)
    try:
        run_through(machine, [])
        machine.results = struck
        with small_disk(struck) as mounted:
            events = [event for event in EVENTS if mounted or event != "disk full"]
            happened = run_through(machine, events)
            assert {each.event for each in happened} == {*events}
            assert outcome(struck) == outcome(undisturbed)
    finally:
        machine.nodes.shutdown()
