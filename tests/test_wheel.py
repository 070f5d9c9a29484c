"""What a wheel holds, and what Ray uploads of a package: everything, used far from a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from sysconfig import get_path

import pytest
from shiftbench.leaderboard.store import read, write_run

from tests.leaderboard.real_records import golden

ROOT = Path(__file__).parents[1]
PARTS = ("benchmark", "suites", "results/published", "LICENSE", "README.md")
BUILD = ("pyproject.toml",)
pytestmark = pytest.mark.slow
# Names that code which looks for modules in the working directory would take for ours.
WRONG = {"imagenet-r": 0.65}  # zero-shot CLIP has 0.777
AGAINST_PUBLISHED = """
from pathlib import Path
from shiftbench.core.shipped import shipped
from shiftbench.leaderboard.store import read
from shiftbench.report.model import build
report = build(read(Path("results")))
assert [fault.partition(":")[0] for fault in report.golden_faults] == [
    "zero-shot openai/ViT-B-16 on imagenet-r"
], report.golden_faults
(tradeoff,) = report.rankings[0].tradeoffs
assert tradeoff.rho.keys() == {"imagenet-v2", "imagenet-sketch"}, report.trend_note
verdicts = {value.verdict for line in report.comparisons for value in line.published}
assert verdicts >= {"reproduced", "differs"}, verdicts
assert (shipped("suites") / "quickstart.yaml").is_file()
"""
LURES = ("benchmark.py", "suite.py", "methods/__init__.py", "data/__init__.py", "core/__init__.py")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel, built from a copy of the sources, is installed into."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*PARTS, *BUILD):
        source, target = ROOT / name, folder / "source" / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, target, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, target)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([*pip, "wheel", *offline, "-w", folder, folder / "source"], check=True)
    (wheel,) = folder.glob("shiftbench-*.whl")
    subprocess.run([*pip, "install", *offline, "--target", folder / "site", wheel], check=True)
    return folder / "site"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory whose files have the names of our rooms, and break when imported."""
    for name in LURES:
        lure = tmp_path / name
        lure.parent.mkdir(exist_ok=True)
        lure.write_text("raise SystemExit('this is not shiftbench')\n")
    return tmp_path


def python(
    site: Path, folder: Path, words: Sequence[object], *, isolated: bool = True
) -> subprocess.CompletedProcess[str]:
    """Python that has the wheel, and ``isolated`` from the checkout that is installed here too.

    Without ``site`` no .pth file is read, so that packages are found and editable installs are not.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(site), get_path("purelib"))),
        "COLUMNS": "120",
    }
    flags = ["-S"] if isolated else []
    return subprocess.run(
        [sys.executable, *flags, *map(str, words)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_wheel_lists_plans_compares_and_reports(site: Path, elsewhere: Path, world: Path) -> None:
    write_run(elsewhere / "results", "zs", golden("imagenet", WRONG))
    code = f"""
import os
import sys
from pathlib import Path
import shiftbench
from shiftbench.cli import main
from shiftbench.core.shipped import shipped

own = [place for place in sys.path if not place.endswith("-packages")]
assert not any(Path(place or ".").resolve().is_relative_to({str(ROOT)!r}) for place in own), own
assert Path(shiftbench.__file__).is_relative_to({str(site)!r})
assert shipped("suites").is_relative_to({str(site)!r})
os.environ["COLUMNS"] = "200"  # sources are not broken into lines
for line in ("list suites", "plan quickstart", "report --html page.html", "compare"):
    assert main(line.split()) == 0, line
from shiftbench.suite.json_schema import SCHEMA_FILE, schema_text
assert SCHEMA_FILE.read_text() == schema_text()
import zipfile
from shiftbench.execution.upload import write_archive
assert write_archive(Path("job.zip"), "quickstart") == "quickstart"  # what submit uploads
names = {{*zipfile.ZipFile("job.zip").namelist()}}
wanted = ("published/papers.parquet", "published/settings.yaml", "suites/quickstart.yaml")
assert {{"shiftbench/" + name for name in wanted}} <= names
{AGAINST_PUBLISHED}"""
    done = python(site, elsewhere, ["-c", code])
    assert done.returncode == 0, done.stderr
    for suite in (ROOT / "suites").glob("*.yaml"):
        assert f"{suite.stem} " in done.stdout
    assert "zero-shot" in done.stdout
    assert "open_clip zero-shot table" in done.stdout  # a source of published rows
    assert done.stdout.count("golden row zero-shot openai/ViT-B-16 on imagenet-r: 65.00 %") == 2
    assert "Leaderboard" in (elsewhere / "page.html").read_text()


def test_a_package_that_ray_uploads_for_a_job_has_suites_and_published_values(
    tmp_path: Path, elsewhere: Path
) -> None:
    """What a job has of a checkout's package: links to folders beside it became folders in it."""
    from ray._private.runtime_env.packaging import create_package

    write_run(elsewhere / "results", "zs", golden("imagenet", WRONG))
    package, archive = ROOT / "benchmark/shiftbench", tmp_path / "package.zip"
    create_package(str(package), archive, include_gitignore=True, include_parent_dir=True)
    shutil.unpack_archive(archive, tmp_path / "uploaded")
    done = python(tmp_path / "uploaded", elsewhere, ["-c", AGAINST_PUBLISHED])
    assert done.returncode == 0, done.stderr


def test_the_command_and_the_module_of_a_wheel(site: Path, elsewhere: Path) -> None:
    for words in ([site / "bin" / "shiftbench"], ["-m", "shiftbench"]):
        done = python(site, elsewhere, [*words, "status", "nowhere"])
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith('error: there is no file or suite "nowhere"')


def test_a_wheel_runs_a_shipped_suite_on_ray(site: Path, elsewhere: Path, world: Path) -> None:
    """Workers find the wheel too, and none of the files that are called as our rooms are."""
    settings = ("methods=[zero-shot, full]", "tasks=[cifar10]", "budget.steps=1")
    words = [word for setting in settings for word in ("--set", setting)]
    done = python(
        site, elsewhere, ["-m", "shiftbench", "run", "quickstart", *words], isolated=False
    )
    assert done.returncode == 0, done.stderr
    found = read(elsewhere / "results").to_pylist()
    assert {(row["label"], row["status"]) for row in found} == {
        ("zero-shot", "done"),
        ("full", "done"),
    }
    assert all(row["git_sha"] is None for row in found)  # what ran is in no checkout
