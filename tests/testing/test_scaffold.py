"""What ``new`` writes: names, packages, additions; and that its tests pass."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.testing.scaffold import WHAT, new_part, new_plugin


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Watch:
    """Sees which tests of another session pass."""

    def __init__(self) -> None:
        self.passed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.append(report.nodeid)


def entry_points(folder: Path) -> dict[str, dict[str, str]]:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return dict(project["entry-points"])


def test_a_part_is_a_package_of_its_own_and_others_are_added(folder: Path) -> None:
    written = new_part("method", "small-step", None)
    assert (written.distribution, written.added) == ("shiftbench-small-step", False)
    assert (folder / "shiftbench-small-step/tests/test_small_step.py").exists()
    package = folder / "shiftbench-small-step"
    said = package / "pyproject.toml"
    said.write_text(said.read_text() + "\n# kept as it is\n")
    again = new_part("metric", "first-two", package)
    assert again.added and (package / "shiftbench_small_step/first_two.py").exists()
    assert said.read_text().count("# kept as it is") == 1
    new_part("method", "other", package)
    assert entry_points(package) == {
        "shiftbench.methods": {
            "small-step": "shiftbench_small_step.small_step:SmallStep",
            "other": "shiftbench_small_step.other:Other",
        },
        "shiftbench.metrics": {"first-two": "shiftbench_small_step.first_two:FirstTwo"},
    }


def test_a_package_in_src_is_added_to(folder: Path) -> None:
    (folder / "src/lab").mkdir(parents=True)
    (folder / "src/lab/__init__.py").touch()
    (folder / "pyproject.toml").write_text('[project]\nname = "lab"\nversion = "1"\n')
    new_part("task", "tiny", None)
    assert (folder / "src/lab/tiny.py").exists() and (folder / "tests/test_tiny.py").exists()
    assert entry_points(folder) == {"shiftbench.tasks": {"tiny": "lab.tiny:TASK"}}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Smooth", "is no name"),
        ("my_method", "is no name"),
        ("3d", "is no name"),
        ("a/b", "is no name"),
        ("", "is no name"),
        ("lambda", "is no name"),
        ("none", "is no name"),
        ("full", "is the name of a method already, of shiftbench"),
    ],
)
def test_bad_names_are_one_line_and_nothing_is_written(
    folder: Path, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        new_part("method", name, None)
    assert "\n" not in str(caught.value)
    assert not list(folder.iterdir())


def test_nothing_is_overwritten(folder: Path) -> None:
    package = new_part("method", "smooth", None).folder
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    for refused in (
        lambda: new_part("method", "smooth", None),
        lambda: new_part("metric", "smooth", package),
        lambda: new_plugin("mine", package),
    ):
        with pytest.raises(InputError, match="is there already"):
            refused()
    after = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("name", ["json", "numpy"])
def test_a_package_does_not_hide_another(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=f'there is a module "{name}"'):
        new_plugin(name, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[project\n", "is no package's"),
        ("[tool.ruff]\n", "is no package's"),
        ('[project]\nname = "lab"\n', "does not hold one package"),
        ('[project]\nname = "lab"\nentry-points = {}\n', "add .* yourself"),
    ],
)
def test_a_project_that_cannot_be_added_to_is_left_alone(
    folder: Path, text: str, message: str
) -> None:
    (folder / "pyproject.toml").write_text(text)
    if "entry-points" in text:
        (folder / "lab").mkdir()
        (folder / "lab/__init__.py").touch()
    with pytest.raises(InputError, match=message):
        new_part("method", "smooth", None)
    assert (folder / "pyproject.toml").read_text() == text


def test_the_tests_of_a_new_package_pass_and_its_parts_are_checked(
    folder: Path, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a package that is not installed; in this process, which has imported torch."""
    assert main(["new", "plugin", "birdlab"]) == 0
    shown = capsys.readouterr().out
    assert "wrote birdlab/birdlab/birdlab_focal.py" in shown
    assert shown.splitlines()[-1].strip() == "shiftbench check-plugin birdlab"
    assert [*entry_points(folder / "birdlab")] == [f"shiftbench.{what}s" for what in WHAT]
    monkeypatch.setattr(sys, "path", [*sys.path])  # which pytest adds to
    watch = Watch()
    words = ["-q", "-s", "-p", "no:cacheprovider", "birdlab"]
    assert pytest.main(words, plugins=[watch]) == 0
    assert len(watch.passed) == 8


def test_every_new_file_is_tidy(folder: Path) -> None:
    new_plugin("birdlab", None)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,I,W",
         "--line-length", "100"],
        capture_output=True, text=True, cwd="birdlab",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
