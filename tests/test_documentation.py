"""Every block of the documentation works, or says why it is not run.

What is done with the blocks of a page, one after the other, in a folder that has what they name:

- ``bash``: the real command line has to accept every ``shiftbench …`` with all its options; the
  suite that it names is planned with all its overrides; methods, tasks and plugins that it names
  have to exist. A verb of ``TYPED`` is then typed. ``make`` has to name targets, ``pip`` extras and
  folders, ``pytest`` files. Whatever else is typed at a shell needs a mark.
- ``python`` is executed. All suites are cut to one step of few methods.
- ``yaml`` is planned: as a suite, or as the part of a suite or of a task that it is.
- ``toml`` is of a package's entry points, whose kinds have to exist.
- ``text`` is what commands print.

A mark is a comment above a block, ``<!-- not run: why -->``. Its ``shiftbench`` lines are checked
all the same, but not typed.
"""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from safetensors.torch import load_file
from shiftbench.cli import VERBS, app, main
from shiftbench.core import mirror
from shiftbench.core.plugins import KINDS, VARIABLE
from shiftbench.data.miniature.definition import backbone_dir
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.registry import TASKS
from shiftbench.leaderboard import store
from shiftbench.methods.registry import METHODS
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite
from shiftbench.testing.plugins import find

from tests.data import layouts

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "cluster/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TYPED = {
    *("list", "plan", "status", "show", "report", "compare", "diff", "verify", "import", "gc"),
    *("export", "export-model", "predict", "new", "init", "data", "backbone"),
}
"""Verbs that read what is there or write a file. ``run`` is typed by ``tests/test_users.py``."""
ELSEWHERE = {"--figures", "--hub", "--rerun"}
"""Options of these that draw, which ``tests/report`` does, train, or need a network."""
CUT = ("budget.steps=1", "budget.evaluation_images=20")
OF_QUICKSTART = ("tasks=[cifar10]", "methods=[zero-shot, full, wise-ft]")
BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)
MARK = re.compile(r"<!-- not run: (?P<reason>[^>]*\w[^>]*) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        place: file and line, for messages.
        language: what stands behind the fence.
        text: the content, not indented.
        reason: why it is not run; empty if it has to be.
    """

    place: str
    language: str
    text: str
    reason: str


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        before = text[: found.start()]
        mark = MARK.search(before)
        yield Block(
            place=f"{page.name}:{before.count(chr(10)) + 1}",
            language=found["language"],
            text=textwrap.dedent(found["text"]),
            reason="" if mark is None else mark["reason"],
        )


@pytest.fixture(autouse=True)
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites of one step, of few methods where the quickstart is meant; pages without a library."""
    load = Suite.load

    def cut_short(file: Any, overrides: Any = (), data: str | None = None) -> Suite:
        few = OF_QUICKSTART if str(file) == "quickstart" else ()
        return load(file, (*overrides, *few, *CUT), data)

    monkeypatch.setattr(Suite, "load", staticmethod(cut_short))
    monkeypatch.setattr("shiftbench.report.html.assets.vega", lambda: "")  # bundling takes seconds
    monkeypatch.setattr("shiftbench.core.mirror.opened", mirror.local)  # no store is asked
    planned.cache_clear()


@pytest.fixture(scope="module")
def made(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: pictures, a checkpoint, results of the quickstart."""
    folder = tmp_path_factory.mktemp("made")
    names, number = ("crow", "wren"), 0
    for place, each in (
        *(("pictures/train", 10), ("pictures/test", 4), ("pictures/drawings", 4)),
        ("photos", 1),
    ):
        for name in names:
            for i in range(each):
                number += 1
                layouts.write_image(folder / place / name / f"{i}.png", number)
    layouts.write_image(folder / "image.jpg", 1)
    layouts.parquet(folder / "pictures/night.parquet", [0, 1] * 3, names, first=100)
    beans = folder / "AI-Lab-Makerere--beans/data"
    layouts.parquet(beans / "train-00000-of-00001.parquet", [0, 1] * 8, names, first=200)
    (folder / "cupl.json").write_text('{"tench": ["A green fish."], "goldfish": ["A red fish."]}')
    state = load_file(backbone_dir() / "open_clip_model.safetensors")
    (folder / "mine").mkdir()
    torch.save({"epoch": 10, "state_dict": state}, folder / "mine/epoch_10.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = [f"--set={text}" for text in (*OF_QUICKSTART, *CUT)]
        assert main(["run", "quickstart", "--executor", "in-process", *small]) == 0
    shutil.copytree(folder / "results", folder / "results-before")
    (folder / "results/example").symlink_to(ROOT / "results/example")
    return folder


@pytest.fixture
def ids(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The ids of the results by label, in a copy of the folder that is worked in."""
    shutil.copytree(made, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    rows = store.read(Path("results"), columns=["run_id", "label"]).to_pylist()
    return {row["label"]: row["run_id"] for row in rows}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(blocks(page))], ids=lambda page: page.stem
)
def test_every_block_of_a_page_works(
    page: Path, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        # Names that stand for the reader's own.
        text = block.text.replace("3f1c…", ids["full"]).replace("3f1c ", f"{ids['wise-ft']} ")
        check(block, text.replace("my-method", "full"), names, monkeypatch)


def check(
    block: Block, text: str, names: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Do with a block what its language asks for."""
    if block.language == "bash":
        for words in lines(text):
            check_line(words, block, monkeypatch)
    elif block.language == "python":
        code = compile(text, block.place, "exec", dont_inherit=True)
        if not block.reason:
            exec(code, names)  # noqa: S102
    elif block.language == "yaml":
        check_settings(text)
    elif block.language == "toml":
        groups = tomllib.loads(text)["project"]["entry-points"]
        assert {group.removeprefix("shiftbench.") for group in groups} <= {*KINDS}, block.place
    else:
        assert block.language == "text", f"{block.place}: of which language is it?"


def lines(text: str) -> Iterator[list[str]]:
    """The words of every line of a shell that is no comment."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


# Commands


def check_line(words: list[str], block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """See that a line can be typed, and type it if that is cheap."""
    if block.reason:
        for own in within(words):
            check_command(own)
    elif words[0] == "shiftbench":
        check_command(words[1:])
        if typed(words[1:]):
            assert main(words[1:]) == 0, f"{block.place}: {shlex.join(words)}"
    elif words[0] == "make":
        targets = re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {*words[1:]} <= {target.replace("$(VENV)", ".venv") for target in targets}
    elif words[:2] == ["pip", "install"]:
        check_installation(words[2:], monkeypatch)
    elif words[1:3] == ["-m", "pytest"]:
        files = [word for word in words[3:] if "/" in word or Path(word).exists()]
        assert files and all((ROOT / file).exists() or Path(file).exists() for file in files)
    else:
        raise AssertionError(f'{block.place}: "{words[0]}" is not run here: mark the block')


def within(words: list[str]) -> Iterator[list[str]]:
    """What a line has another program do: the arguments of each ``shiftbench`` in it."""
    if words[0] == "sbatch":
        (script,) = (i for i, word in enumerate(words) if word.endswith(".sbatch"))
        yield ["run", *words[script + 1 :]]
    for word in words:
        if word.startswith("shiftbench "):  # as ray exec is given it
            yield from within(shlex.split(word))
    for i, word in enumerate(words[:-1]):
        if word == "shiftbench" and words[i + 1] in VERBS:
            yield words[i + 1 :]


def check_command(words: list[str]) -> None:
    """See that the command line accepts a command, and that there is what it names."""
    given = parsed(words)
    if suite := given.get("suite") or given.get("again"):
        data = given.get("data")
        planned(suite, tuple(given.get("overrides") or ()), data, str(Path.cwd()))
    if words[0] == "check-plugin":
        assert find(given["name"])
    for task in as_list(given.get("task")):
        assert task in TASKS.entries(), f'there is no task "{task}"'
    for label in as_list(given.get("method")):
        assert label in METHODS.entries(), f'there is no method "{label}"'


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line makes of a command: its arguments and options by name."""
    group = typer.main.get_command(app)
    command: Any = group.get_command(group.make_context("shiftbench", [], resilient_parsing=True),
                                     words[0])  # fmt: skip
    assert command is not None, f'there is no verb "{words[0]}"'
    rest = words[1:]
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    given: dict[str, Any] = command.make_context(words[0], list(rest)).params
    return given


@functools.cache
def planned(suite: str, overrides: tuple[str, ...], data: str | None, folder: str) -> Plan:
    """The plan of a suite that a command in a folder names."""
    return Plan.build(Suite.load(suite, overrides, data))


def as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [*(value or ())]


def typed(words: list[str]) -> bool:
    """Whether a command is cheap, and of what is here. A report on hundreds of runs takes long."""
    strange = any(word.startswith("/") or "://" in word or word in ELSEWHERE for word in words)
    of_many = words[0] == "report" and "results/example" in words
    return words[0] in TYPED and not strange and not of_many


def check_installation(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """See that there is what pip is to install; a folder is registered as pip would."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        own = re.fullmatch(r"(?:shiftbench|\.)(?:\[([\w,]+)\])?", word)
        if own is not None:
            assert {*(own[1] or "test").split(",")} <= project["optional-dependencies"].keys()
        elif word != "-e":
            register(Path(word), monkeypatch)


def register(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    entries = [
        f"{group.removeprefix('shiftbench.')}/{name}={target}"
        for group, targets in groups.items()
        for name, target in targets.items()
    ]
    monkeypatch.setenv(VARIABLE, ",".join(entries))
    monkeypatch.syspath_prepend(folder.resolve())


# Settings


def check_settings(text: str) -> None:
    """Plan a suite, or one that has these settings of a suite or of a task."""
    named = re.match(r"# (\S+\.yaml)\n", text)
    file = Path("part.yaml" if named is None else named[1])
    settings: Mapping[str, Any] = yaml.safe_load(text)
    if named is None and settings.keys() <= Task.model_fields.keys():
        images = {
            split: {"kind": "image-folder", "path": f"pictures/{where}"}
            for split, where in (("train", "train"), ("id_test", "test"))
        }
        task = {"classes": ["tench", "goldfish"], "templates": "simple", **images, **settings}
        suite = {"data": ".", "backbones": ["miniature"], "methods": {"zero-shot": {}}}
        text = yaml.safe_dump({**suite, "tasks": {"part": task}})
    elif named is None:
        text = f"extends: miniature\ntasks: [cifar10]\n{text}"
    file.write_text(text, encoding="utf-8")
    Plan.build(Suite.load(file))


# The examples of --help, of which the reference of the commands is made


def examples() -> Iterator[str]:
    """Every command among the examples of every verb."""
    group = typer.main.get_command(app)
    context = group.make_context("shiftbench", [], resilient_parsing=True)
    commands: list[Any] = [group, *(group.get_command(context, verb) for verb in VERBS)]
    for command in commands:
        commands.extend(getattr(command, "commands", {}).values() if command is not group else ())
        for paragraph in (command.epilog or "").split("\n\n"):
            if paragraph.lstrip("\n").startswith("  "):
                yield " ".join(paragraph.split())


def test_the_command_line_accepts_its_own_examples() -> None:
    found = [*examples()]
    assert len(found) > 30
    for example in found:
        for words in lines(example):
            for own in within(words):
                parsed(own)


# The check itself


@pytest.mark.parametrize(
    ("language", "text", "message"),
    [
        ("bash", "shiftbench run quickstart --wrokers 2", "wrokers"),
        ("bash", "shiftbench data verfy", "verfy"),
        ("bash", "shiftbench plan miniature --set methods.ful.lr=1", "ful"),
        ("bash", "shiftbench plan quikstart", "quikstart"),
        ("bash", "shiftbench report --task cifar", "cifar"),
        ("bash", "shiftbench show ful/cifar10", "show ful/cifar10"),
        ("bash", "shiftbnech run quickstart", "mark the block"),
        ("bash", "make quickstrat", "quickstrat"),
        ("bash", "pip install 'shiftbench[tensorbord]'", "tensorbord"),
        ("python", "import shiftbench\nshiftbench.runs", "runs"),
        ("yaml", "methods: {full: {learning_rate: 1}}", "learning_rate"),
        ("yaml", "template: simple", "template"),
        ("toml", '[project.entry-points."shiftbench.method"]\nx = "y:Z"', "method"),
        ("", "shiftbench run quickstart", "language"),
    ],
)
def test_what_does_not_work_is_found(
    language: str,
    text: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    Path("page.md").write_text(f"Text.\n\n```{language}\n{text}\n```\n")
    (block,) = blocks(Path("page.md"))
    with pytest.raises((Exception, SystemExit)) as raised:
        check(block, block.text, {}, monkeypatch)
    assert message in f"{raised.value!r} {raised.value}{capsys.readouterr()}"


def test_a_mark_has_a_reason_and_its_commands_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    line = "sbatch --nodes=4 x.sbatch quickstart --set seeds=[0]"
    page.write_text(f"<!-- not run: needs Slurm -->\n\n```bash\n{line}\n```\n")
    (block,) = blocks(page)
    assert block.reason == "needs Slurm"
    check(block, block.text, {}, monkeypatch)
    with pytest.raises(Exception, match="sedes"):
        check(block, block.text.replace("seeds", "sedes"), {}, monkeypatch)
    page.write_text(f"<!-- not run:  -->\n\n```bash\n{line}\n```\n")
    (block,) = blocks(page)
    assert not block.reason
