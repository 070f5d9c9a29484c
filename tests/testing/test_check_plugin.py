"""``check-plugin`` on the fixture package: by name, by distribution, with settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.testing import check_source, check_task, workers
from shiftbench.testing.checks import NotCheckedError
from shiftbench.testing.plugins import check, find

MYLAB = Path(__file__).parents[1] / "fixtures/mylab"
POINTS = """[shiftbench.methods]
mixout = mylab.mixout:Mixout
raises = mylab.broken:Raises
[shiftbench.metrics]
hesitation = mylab.hesitation:Hesitation
[shiftbench.sources]
night = mylab.night:Night
absent-source = mylab.nowhere:Absent
[shiftbench.tasks]
cifar10-night = mylab.night:TASK
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves of the package."""
    folder = tmp_path / "mylab_methods-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab-methods\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(MYLAB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def test_names_kinds_and_distributions_are_found() -> None:
    assert find("mixout") == find("methods/mixout") == [("methods", "mixout")]
    assert find("ece:15") == [("metrics", "ece:15")]
    assert find("cifar10.1") == [("sources", "cifar10.1")]
    assert [name for _, name in find("mylab-methods")] == [
        *("mixout", "raises", "cifar10-night", "hesitation", "absent-source", "night")
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mixuot", 'neither registered nor a package .*did you mean "mixout"'),
        ("metrics/mixout", 'unknown metric "mixout"'),
        ("cifar10", "the name of several things; say tasks/cifar10 or sources/cifar10"),
        ("mixout:3", "neither registered nor a package"),
    ],
)
def test_what_is_not_there_is_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find(name)
    assert "\n" not in str(caught.value)


def test_a_method_that_works_passes_every_check(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_time(subject: object) -> None:  # the tests of a new package have that
        raise NotCheckedError("no time")

    monkeypatch.setattr(workers, "agree_with_one_worker", no_time)
    assert main(["check-plugin", "mixout", "--set", "p=0.1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("method mixout\n")
    for line in ("goes on bit for bit after an interruption", "runs on the miniature"):
        assert f"  ✓ {line}" in shown
    assert "  – trains alike with 1 and 2 workers\n    no time\n" in shown
    assert shown.splitlines()[-1] == "9 passed, 1 skipped"


def test_the_first_difference_is_shown_and_the_exit_code_is_1(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-plugin", "absent-source"]) == 1
    captured = capsys.readouterr()
    assert "  ✗ can be loaded" in captured.out
    assert captured.err.startswith("source absent-source: can be loaded: source")
    assert "mylab.nowhere" in captured.err


def test_a_bug_is_found_with_its_line(world: Path) -> None:
    failed = [found for found in check(("methods", "raises"), {}, "miniature")
              if found.status == "failed"]  # fmt: skip
    assert {found.check for found in failed} >= {"lowers the loss", "runs on the miniature"}
    assert failed[0].detail == "KeyError: 'no such batch norm' (broken.py:14)"


@pytest.mark.parametrize("name", ["hesitation", "night", "cifar10-night"])
def test_metrics_sources_and_tasks_pass_theirs(world: Path, name: str) -> None:
    (found,) = find(name)
    outcomes = [*check(found, {}, "miniature")]
    assert [o for o in outcomes if o.status != "passed"] == []
    assert len(outcomes) >= 4


def test_settings_are_of_one_method_or_source(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["mylab-methods", "--set", "p=1"], "settings are of one plugin, and 6 are meant"),
        (["hesitation", "--set", "p=1"], "metric hesitation has no settings"),
        (["mixout", "--set", "q=1"], 'mixout: unknown key "q"'),
        (["night", "--set", "light=2"], "light: must be less than 1"),
    ):
        assert main(["check-plugin", *words]) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1


def test_a_test_of_the_package_checks_a_source_and_a_task(world: Path) -> None:
    from mylab.night import TASK, Night  # type: ignore[import-not-found]

    check_source(Night(light=0.7))
    check_task(TASK)
