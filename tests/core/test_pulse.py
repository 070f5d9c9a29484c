"""Signs of life, and waiting for a lock, which is one."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from shiftbench.core.locks import locked
from shiftbench.core.pulse import beat, felt


def test_beats_are_felt_in_the_block_and_seldom_enough() -> None:
    often: list[int] = []
    seldom: list[int] = []
    beat()
    with felt(lambda: seldom.append(1), every_s=1000):
        beat()
        with felt(lambda: often.append(1), every_s=0):
            beat()
            beat()
        beat()
    beat()
    assert (len(often), len(seldom)) == (2, 1)


def test_a_lock_that_another_holds_is_waited_for_with_signs_of_life(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with felt(lambda: order.append("waits"), every_s=1000), locked(tmp_path / "lock") as alone:
            order.append(f"second {alone}")

    with locked(tmp_path / "lock") as alone:
        thread = Thread(target=second)
        thread.start()
        while not order:
            thread.join(0.001)
        order.append(f"first {alone}")
    thread.join()
    assert order == ["waits", "first True", "second True"]
