from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from shiftbench.cli import VERBS, main
from shiftbench.leaderboard.schema import failed
from shiftbench.leaderboard.store import write_run
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.leaderboard.records import info

ROOT = Path(__file__).parents[2]
SUITE = """\
backbones: [openai/ViT-B-16]
tasks: [cifar10]
methods: {zero-shot: {}, full: {lr: 1e-4}}
seeds: [0, 1]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the suite ``x.yaml``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SHIFTBENCH_PLUGINS", raising=False)
    (tmp_path / "x.yaml").write_text(SUITE)
    return tmp_path


def run(code: str) -> None:
    """Run Python code in a new process, which must succeed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Files and folders that cannot be used


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("new method abc --to file/x", "file/x: Not a directory"),
        ("site bundles --to file/x", "file: File exists"),
        (f"new method abc --to {'x' * 300}", "File name too long"),
    ],
)
def test_a_file_in_place_of_a_folder_is_one_line(folder, capsys, words, fault):
    (folder / "file").write_text("")
    (folder / "bundles").mkdir()
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and fault in error and error.count("\n") == 1


UNREADABLE = ["gc", "status x.yaml", "verify --all", "compact", "show a1", "report"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
@pytest.mark.parametrize("words", UNREADABLE)
def test_what_may_not_be_read_or_written_is_one_line(folder, capsys, monkeypatch, words, code):
    write_run(folder / "results", "a1", failed(info("a1"), "no luck"))
    (folder / "results" / "runs" / "a1").mkdir(parents=True)

    def refused(path: object, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(path))

    for owner, name in ((os, "scandir"), (os, "listdir"), (Path, "iterdir"), (Path, "glob")):
        monkeypatch.setattr(owner, name, refused)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert f": {os.strerror(code)}" in error and error.count("\n") == 1


def test_a_fault_of_the_code_keeps_its_traceback(monkeypatch):
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "own.json")

    monkeypatch.setattr(Suite, "load", absent)
    with pytest.raises(FileNotFoundError):
        main(["plan", "x.yaml"])


# What is imported


def test_help_imports_nothing_heavy():
    run(
        "import contextlib, io, sys\n"
        "from shiftbench.cli import VERBS, main\n"
        "heavy = {'pydantic', 'torch', 'ray', 'numpy', 'pyarrow', 'yaml', 'rich', 'open_clip'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "heavy -= {'pydantic', 'rich'}  # which typer uses\n"
        "for words in ([], *([verb] for verb in VERBS), ['data', 'verify'], ['data', 'fetch']):\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        assert main([*words, '--help']) == 0\n"
        "    assert not heavy & sys.modules.keys(), (words, heavy & sys.modules.keys())\n"
    )


def test_help_is_quick():
    """Under 0.4 s of processor time, which is what a person waits on an idle machine."""
    code = (
        "import resource, subprocess, sys\n"
        "def spent():\n"
        "    usage = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "    return usage.ru_utime + usage.ru_stime\n"
        "times = []\n"
        "for _ in range(3):\n"
        "    before = spent()\n"
        "    words = [sys.executable, '-m', 'shiftbench', '--help']\n"
        "    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)\n"
        "    times.append(spent() - before)\n"
        "assert min(times) < 0.4, times\n"
    )
    run(code)


def test_planning_and_listing_import_neither_torch_nor_ray():
    run(
        "import contextlib, io, sys\n"
        "from shiftbench.cli import main\n"
        "heavy = {'torch', 'torchvision', 'ray', 'open_clip', 'wilds', 'duckdb', 'scipy'}\n"
        "for words in ('plan suites/nine-shifts.yaml', 'status miniature', 'list methods',\n"
        "              'list tasks', 'list backbones', 'list metrics', 'list suites',\n"
        "              'plan quickstart --resolved'):\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        assert main(words.split()) == 0, words\n"
        "    assert not heavy & sys.modules.keys(), (words, heavy & sys.modules.keys())\n"
    )


# Help


GROUPS = {"data": ("verify", "fetch", "miniature"), "backbone": ("fetch", "check", "list")}
ALONE = [[], *([verb] for verb in VERBS if verb not in GROUPS)]


@pytest.mark.parametrize("words", ALONE + [[g, verb] for g in GROUPS for verb in GROUPS[g]])
def test_every_help_has_worked_examples(words, capsys):
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples" in shown
    assert f"shiftbench {' '.join(words)}".rstrip() in shown.partition("Examples")[2]


def test_the_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {verb} " in shown for verb in VERBS)


def test_the_version_is_printed(capsys):
    from shiftbench import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"shiftbench {__version__}\n"


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "shiftbench", "plan", "nowhere.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "error: nowhere.yaml: there is no such file\n"


# Exit codes


@pytest.mark.parametrize(
    "words", ["rum", "plan", "plan x.yaml --sets a=1", "list", "list things", "status a b", "--no"]
)
def test_wrong_usage_is_exit_code_2(words, capsys):
    assert main(words.split()) == 2
    assert capsys.readouterr().err


BAD = {
    "misspelt key": (SUITE.replace("seeds", "sedes"), [], 'x.yaml:4: unknown key "sedes"'),
    "misspelt method key": (SUITE.replace("lr:", "rl:"), [], "x.yaml:3: methods.full: unknown key"),
    "unknown method": (SUITE.replace("full", "ful"), [], "x.yaml:3: methods.ful: unknown method"),
    "unknown task": (SUITE.replace("cifar10", "cifar"), [], "x.yaml:2: tasks.cifar: "),
    "unknown backbone": (SUITE.replace("openai/ViT-B-16", "clip"), [], "x.yaml:1: backbones[0]: "),
    "zero shots": (SUITE + "shots: [0]\n", [], "x.yaml:5: shots[0]: "),
    "not a number": (SUITE.replace("1e-4", ".nan"), [], "x.yaml:3: methods.full.lr: "),
    "empty list": (SUITE.replace("[0, 1]", "[]"), [], "x.yaml:4: seeds: "),
    "no YAML": (SUITE + "x: [", [], "not valid YAML"),
    "circle": ("extends: x.yaml\n", [], "x.yaml:1: extends: "),
    "override": (SUITE, ["--set", "methods.full.rl=1"], "--set methods.full.rl=1: methods.full: "),
    "data": (SUITE, ["--data", "nowhere"], '"nowhere" is not a folder'),
}


@pytest.mark.parametrize(("text", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(folder, capsys, text, options, message):
    (folder / "x.yaml").write_text(text)
    assert main(["plan", "x.yaml", *options]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not shown.out


def test_a_broken_leaderboard_is_bad_input(folder, capsys):
    (folder / "results" / "leaderboard").mkdir(parents=True)
    run_id = next(iter(Plan.build(Suite.load("x.yaml")).runs))
    (folder / "results" / "leaderboard" / f"{run_id}.parquet").write_text("broken")
    assert main(["status", "x.yaml"]) == 2
    assert f"{run_id}.parquet" in capsys.readouterr().err


def test_an_interruption_is_exit_code_130(monkeypatch):
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shiftbench.cli.status.load_suite", interrupted)
    assert main(["status", "x.yaml"]) == 130


# Suites by name


def test_a_suite_is_found_by_its_name(folder, capsys):
    assert main(["status", "nine-shifts"]) == 0
    assert re.match(r"nine-shifts: 0 of \d{3,} runs done", capsys.readouterr().out)
    (folder / "suites").mkdir()
    (folder / "suites" / "nine-shifts.yaml").write_text(SUITE)
    assert main(["status", "nine-shifts"]) == 0
    assert capsys.readouterr().out.startswith("nine-shifts: 0 of 3 runs done")


def test_a_suite_of_no_such_name_gets_the_nearest(capsys):
    assert main(["plan", "quikstart"]) == 2
    assert 'there is no file or suite "quikstart" (did you mean "quickstart"?)' in (
        capsys.readouterr().err
    )


# plan and status


def test_plan_shows_every_method_and_the_total(capsys):
    assert main(["plan", "x.yaml"]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in _lines(capsys.readouterr().out)}
    # 45,000 images for 10 epochs in batches of 512, and 5,000 + 10,000 + 2,000 + 2,000 to predict.
    assert lines["zero-shot"][:6] == ["0", "0", "1", "0", "0", "19,000"]
    assert lines["full"][:6] == ["0", "0", "2", "1,758", "900,096", "38,000"]
    assert lines["all"][:6] == ["0", "0", "3", "1,758", "900,096", "57,000"]
    assert all(lines[name][-1] == "h" for name in ("zero-shot", "full", "all"))


def test_plan_takes_overrides(capsys):
    assert main(["plan", "x.yaml", "--set", "methods.full.epochs=20", "--set", "seeds=[3]"]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in _lines(capsys.readouterr().out)}
    assert lines["full"][2:4] == ["1", "1,758"]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_plan_can_spell_the_suite_out(capsys):
    assert main(["plan", "x.yaml", "--resolved", "--set", "methods.full.epochs=20"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["methods"]["full"]["epochs"] == 20
    assert resolved["methods"]["full"]["weight_decay"] == 0.1
    assert set(resolved["tasks"]["cifar10"]["shifts"]) == {"cifar10.1", "cifar10.2"}


def test_status_counts_runs_and_gives_the_reasons_of_failures(folder, capsys):
    plan = Plan.build(Suite.load("x.yaml"))
    broken = list(plan.runs.values())[1]
    write_run(folder / "results", broken.id, failed(info(broken.id), "the loss is [inf]"))
    assert main(["status", "x.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "x: 0 of 3 runs done, 1 failed, 2 left" in shown
    assert "cifar10, openai/ViT-B-16: zero-shot 0/1, full 0/2" in shown
    assert (
        f"failed {broken.id} (cifar10, openai/ViT-B-16, full, seed 0): the loss is [inf]" in shown
    )


# data verify


def test_data_verify_takes_a_shipped_suite_and_overrides(capsys, world):
    assert main(["data", "verify", "quickstart", "--set", "tasks=[cifar10]"]) == 0
    shown = capsys.readouterr().out
    assert "cifar10.1: 600 images" in shown
    assert "imagenet" not in shown
    assert main(["data", "verify", "--data", "miniature", "--set", "tasks=[cifar10]"]) == 2
    assert "--set changes a suite; name the suite" in capsys.readouterr().err


# list


def test_list_describes_what_is_built_in(capsys):
    assert main(["list", "methods"]) == 0
    shown = capsys.readouterr().out
    for name in ("zero-shot", "linear-probe", "full", "lp-ft", "l2-sp", "wise-ft"):
        assert name in shown
    assert "Weight-space ensemble" in shown
    assert main(["list", "tasks"]) == 0
    shown = capsys.readouterr().out
    assert "cifar10.1, cifar10.2" in shown
    assert "Domain generalisation" in shown
    assert "CDLA-Permissive" in shown
    assert "Of plugins" not in shown
    assert main(["list", "metrics"]) == 0
    shown = capsys.readouterr().out
    assert "worst-group" in shown
    assert "The mean of -log p of the label" in shown
    assert main(["list", "sources"]) == 0
    assert "image-folder" in capsys.readouterr().out
    assert main(["list", "backbones"]) == 0
    assert "openai/ViT-B-16" in capsys.readouterr().out
    assert main(["list", "suites"]) == 0
    assert "quickstart" in capsys.readouterr().out


def test_list_shows_plugins_and_survives_broken_ones(folder, capsys, monkeypatch):
    (folder / "mylab.py").write_text(
        "from shiftbench.methods.base import TrainedMethod\n"
        "from shiftbench.methods.config import TrainingConfig\n"
        "class Smooth(TrainedMethod[TrainingConfig]):\n"
        '    """Smooths the logits."""\n'
        '    name = "smooth"\n    Config = TrainingConfig\n'
        "    def loss(self, model, batch): ...\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("SHIFTBENCH_PLUGINS", "smooth=mylab:Smooth,rough=nowhere:Rough")
    assert main(["list", "methods"]) == 0
    shown = capsys.readouterr()
    assert "Smooths the" in shown.out
    assert "plugin SHIFTBENCH_PLUGINS" in shown.out
    assert "broken: " in shown.out
    assert shown.err.startswith('warning: method "rough"')
    assert "zero-shot" in shown.out
    assert main(["status", "x.yaml"]) == 0


def test_list_survives_a_broken_suite(folder, capsys):
    (folder / "suites").mkdir()
    (folder / "suites" / "mine.yaml").write_text("sedes: [0]\n")
    assert main(["list", "suites"]) == 0
    shown = capsys.readouterr()
    assert "broken: " in shown.out
    assert "suites/mine.yaml:1" in shown.err
