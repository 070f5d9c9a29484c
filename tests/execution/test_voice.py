"""What runs print in a worker: which lines are told, and how they look in the terminal."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console
from shiftbench.core.errors import RunFailedError
from shiftbench.execution.display import Display
from shiftbench.execution.jobs import Job
from shiftbench.execution.voice import MOST, Voice
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite


@contextmanager
def taken_over() -> Iterator[Voice]:
    """One that has taken this process's output over; no fixture, since pytest has its own."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        for stream in ("stdout", "stderr"):
            patch.setattr(sys, stream, io.StringIO())
        patch.setattr(sys, "breakpointhook", sys.breakpointhook)
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)
        # As Python does it: pytest keeps warnings to itself.
        patch.setattr(
            warnings, "showwarning", lambda *of: sys.stderr.write(warnings.formatwarning(*of[:4]))
        )
        found = Voice()
        found.take_over()
        yield found


def test_lines_are_told_whole_and_only_within_a_job() -> None:
    with taken_over() as voice:
        before = [stream._before for stream in voice._streams]
        told: list[str] = []
        print("nobody's")
        with voice.heard(told.append):
            print("one", end="")
            assert told == []
            print(" line\n\nand", file=sys.stdout)
            print("error", file=sys.stderr)
            sys.stdout.write("no end of line")
        print("nobody's")
        assert told == ["one line", "and", "error", "no end of line"]
        assert "nobody's\none line\n" in before[0].getvalue() and before[1].getvalue() == "error\n"


def test_bars_that_draw_over_themselves_are_told_once() -> None:
    with taken_over() as voice:
        told: list[str] = []
        with voice.heard(told.append):
            for done in range(1000):
                sys.stderr.write(f"\r\x1b[32m{done}/1000\x1b[0m")
            assert len(voice._streams[1]._begun) < 100
            sys.stderr.write("\n")
            sys.stdout.write("windows\r\n\x1b[2Jbell\x07\n")
            sys.stdout.write("x" * (MOST + 1))
            assert told == ["999/1000", "windows", "bell", "x" * (MOST + 1)]


def test_warnings_and_logging_are_heard_whoever_set_them_up_when() -> None:
    with taken_over() as voice:
        first: list[str] = []
        second: list[str] = []
        log = logging.getLogger("tests.voice")
        log.propagate = False
        with voice.heard(first.append):
            handler = logging.StreamHandler()
            log.addHandler(handler)
            log.warning("careful")
            warnings.warn("deprecated", FutureWarning, stacklevel=1)
            warnings.warn("not for users", DeprecationWarning, stacklevel=1)
        with voice.heard(second.append):
            log.warning("again")
        log.removeHandler(handler)
        assert first[0] == "careful" and len(first) == 2
        assert first[1].startswith("FutureWarning: deprecated (") and "test_voice.py:" in first[1]
        assert second == ["again"]


def test_threads_do_not_break_each_others_lines() -> None:
    with taken_over() as voice:
        told: list[str] = []

        def say(name: str) -> None:
            for _ in range(200):
                sys.stdout.write(f"{name * 20}\n")

        with voice.heard(told.append):
            threads = [Thread(target=say, args=(name,)) for name in "ab"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(told) == ["a" * 20] * 200 + ["b" * 20] * 200


def test_a_breakpoint_in_a_worker_says_what_to_do() -> None:
    with taken_over(), pytest.raises(RunFailedError, match="--debug RUN"):
        breakpoint()


def test_a_line_is_shown_above_the_bar_with_the_name_of_its_run(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "data: miniature\nbackbones: [miniature]\ntasks: [cifar10]\nmethods: [full]\n"
    )
    plan = Plan.build(Suite.load(tmp_path / "s.yaml"))
    (run_id,) = plan.runs
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    with Display(console, plan.runs, [Job("fit", run_id)]) as display:
        display.said(run_id, "[red]loss[/red] 0.1")
        display.steps({run_id: (1, 3)})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "cifar10 · miniature · full · seed 0 │ " in text
    assert "[red]loss[/red] 0.1\n" in text
    assert text.rindex("1/3") > text.index("│")
