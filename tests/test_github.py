"""The templates and the workflow of the public leaderboard say things that exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from shiftbench.cli import VERBS, app, main

from tests.leaderboard.test_verify import store_run

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
WORKFLOW = yaml.safe_load((GITHUB / "workflows" / "leaderboard.yml").read_text())
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
TEXTS = [
    *(step["run"] for step in STEPS if "run" in step),
    (GITHUB / "ISSUE_TEMPLATE" / "submission.yml").read_text(),
    (GITHUB / "PULL_REQUEST_TEMPLATE" / "submission.md").read_text(),
    (ROOT / "docs" / "submit.md").read_text(),
]


def commands(text: str) -> list[list[str]]:
    """The commands of shiftbench in a text: lines of scripts, and what is in backticks."""
    found = re.findall(r"(?:^|`)\s*(shiftbench [^`\n]+)", text, flags=re.MULTILINE)
    return [shlex.split(line) for line in found]


def test_every_command_exists_with_its_options() -> None:
    group = typer.main.get_command(app)
    context = group.make_context("shiftbench", [], resilient_parsing=True)
    checked = 0
    for _, verb, *words in (command for text in TEXTS for command in commands(text)):
        assert verb in VERBS
        command: Any = group.get_command(context, verb)  # type: ignore[attr-defined]
        if hasattr(command, "commands") and words:
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known
        checked += 1
    assert checked >= 10


def test_bundles_are_read_by_trusted_code_without_secrets() -> None:
    assert set(WORKFLOW[True]) == {"pull_request", "push", "workflow_dispatch"}  # `on` is true
    assert WORKFLOW["permissions"] == {"contents": "read"}
    check, publish = WORKFLOW["jobs"]["check"], WORKFLOW["jobs"]["publish"]
    assert "permissions" not in check and "secrets" not in str(WORKFLOW)
    code, proposed = check["steps"][:2]
    assert "base.sha" in code["with"]["ref"] and "head.sha" in proposed["with"]["ref"]
    installed = [step["run"] for step in check["steps"] if "pip install" in step.get("run", "")]
    assert all("./tool" in line and "proposed" not in line for line in installed)
    for step in STEPS:  # what somebody else names is never part of a script's text
        assert "${{" not in step.get("run", "")
        if str(step.get("uses", "")).startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
    assert publish["if"] == "github.event_name != 'pull_request'"


@pytest.fixture
def proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the workflow has checked out: a repository with a bundle that is handed in."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "proposed"
    folder.mkdir()
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "base")
    results = tmp_path / "results"
    sets = {"id-test": "accuracy", "imagenet-r": "accuracy"}
    store_run(results, "a1", sets=sets, shifts=("imagenet-r",))
    bundle = folder / "submissions" / "2030-01-31-mine.zip"
    bundle.parent.mkdir()
    assert main(["export", "--to", str(bundle), "--results", str(results)]) == 0
    return folder


def git(folder: Path, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *settings, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_check_of_a_pull_request_passes_and_fails_as_it_should(
    proposed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    by_name = {step.get("name"): step for step in WORKFLOW["jobs"]["check"]["steps"]}
    base = git(proposed, "rev-parse", "HEAD")

    def only_adds_bundles() -> subprocess.CompletedProcess[str]:
        git(proposed, "add", "--all")
        git(proposed, "commit", "--quiet", "--message", "more")
        script = by_name["It only adds bundles"]["run"]
        return subprocess.run(
            [bash, "-e", "-o", "pipefail", "-c", script],
            env={"BASE": base, "PATH": "/usr/bin:/bin:/usr/local/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    def make_site() -> int:
        (command,) = commands(by_name[[*by_name][-2]]["run"])
        return main(command[1:])

    assert only_adds_bundles().returncode == 0
    assert make_site() == 0
    assert "2030-01-31-mine" in (tmp_path / "site" / "history.html").read_text()
    (proposed / "submissions" / "2030-02-01-empty.zip").write_bytes(b"")
    assert only_adds_bundles().returncode == 0
    assert make_site() == 1
    assert "2030-02-01-empty.zip: REFUSED" in capsys.readouterr().out
    (proposed / "setup.py").write_text("import this")
    refused = only_adds_bundles()
    assert refused.returncode == 1 and "setup.py" in refused.stdout


@pytest.mark.parametrize(("code", "published"), [(0, True), (1, True), (2, False)])
def test_a_bundle_that_is_left_out_does_not_keep_the_site_from_being_published(
    tmp_path: Path, code: int, published: bool
) -> None:
    (step,) = (s for s in WORKFLOW["jobs"]["publish"]["steps"] if s.get("name") == "Make the site")
    bash = shutil.which("bash")
    assert bash is not None
    command = tmp_path / "shiftbench"
    command.write_text(f"#!{bash}\nexit {code}\n")
    command.chmod(0o755)
    done = subprocess.run(
        [bash, "-e", "-o", "pipefail", "-c", step["run"]],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=False,
    )
    assert (done.returncode == 0) is published


def test_the_issue_template_asks_for_what_is_needed() -> None:
    template = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "submission.yml").read_text())
    assert {"name", "description", "body"} <= template.keys()
    fields = [item for item in template["body"] if item["type"] != "markdown"]
    assert len({item["id"] for item in fields}) == len(fields) == 5
    assert all(item["attributes"]["label"] for item in fields)
