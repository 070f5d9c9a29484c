"""The archive that a job on a cluster gets: what is in it, whatever git ignores, and how small."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from shiftbench.cli.submit import _check_paths as check_paths
from shiftbench.core.errors import InputError
from shiftbench.core.source_digest import source_digest
from shiftbench.execution.upload import MINIATURE_BACKBONE, write_archive
from shiftbench.leaderboard.published.reading import read_published
from shiftbench.leaderboard.published.settings import read_stated
from shiftbench.suite.suite import Suite

MYLAB = Path(__file__).parents[1] / "fixtures" / "mylab"
SUITE = """
extends: ../base/base.yaml
methods: {zero-shot: {}}
"""
BASE = """
data: miniature
tasks: [cifar10]
backbones: [miniature]
methods: {zero-shot: {}}
"""


def unpacked(folder: Path, suite: str, *plugins: str) -> tuple[str, Path]:
    """The suite as the job names it, and the job's working directory."""
    named = write_archive(folder / "job.zip", suite, plugins)
    with zipfile.ZipFile(folder / "job.zip") as archive:
        archive.extractall(folder / "job")
    return named, folder / "job"


def plan(folder: Path, suite: str) -> subprocess.CompletedProcess[str]:
    """What a job would do first: plan the suite, with nothing but the archive and packages."""
    code = (
        "import sys, shiftbench; from pathlib import Path; from shiftbench.cli import main;"
        "assert Path(shiftbench.__file__).is_relative_to(Path.cwd()); sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "plan", suite, "--resolved"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_suite_goes_with_what_it_extends_and_all_that_is_shipped(tmp_path: Path) -> None:
    for name, text in (("mine/suite.yaml", SUITE), ("base/base.yaml", BASE)):
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text(text)
    named, job = unpacked(tmp_path, str(tmp_path / "mine" / "suite.yaml"))
    assert named == "submitted/mine/suite.yaml"
    read_published(job / "shiftbench/published")
    assert read_stated(job / "shiftbench/published").statements  # reports of real runs need both
    assert (job / "shiftbench/suites/nine-shifts.yaml").is_file()
    assert not list(job.rglob("__pycache__"))
    done = plan(job, named)
    assert done.returncode == 0, done.stderr
    assert "name: suite" in done.stdout


def test_an_upload_is_about_a_megabyte_and_the_same_content_the_same_file(tmp_path: Path) -> None:
    assert write_archive(tmp_path / "a.zip", "nine-shifts", miniature=False) == "nine-shifts"
    write_archive(tmp_path / "b.zip", "nine-shifts", miniature=False)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert (tmp_path / "a.zip").stat().st_size < 1_500_000
    write_archive(tmp_path / "c.zip", "nine-shifts")
    with zipfile.ZipFile(tmp_path / "a.zip") as less, zipfile.ZipFile(tmp_path / "c.zip") as all_:
        assert {*all_.namelist()} - {*less.namelist()} == {MINIATURE_BACKBONE}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as an installer leaves it, found before all else."""
    site = tmp_path / "site"
    (site / "mylab_methods-1.2.dist-info").mkdir(parents=True)
    (site / "mylab").symlink_to(MYLAB / "mylab")
    info = site / "mylab_methods-1.2.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab-methods\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[shiftbench.methods]\nmixout = mylab.mixout:Mixout\n")
    monkeypatch.syspath_prepend(site)
    return site


def test_a_plugin_goes_along_with_its_entry_points(installed: Path, tmp_path: Path) -> None:
    digest = source_digest("mylab.mixout")
    _, job = unpacked(tmp_path, "quickstart", "mylab-methods")
    assert (job / "mylab/mixout.py").read_bytes() == (MYLAB / "mylab/mixout.py").read_bytes()
    code = "from shiftbench.methods.registry import METHODS; print(METHODS.entry('mixout').origin)"
    origin = subprocess.check_output([sys.executable, "-c", code], cwd=job, text=True)
    assert origin.strip() == f"mylab-methods 1.2 +{digest}"  # so the runs have the same ids


def test_plugins_under_development_go_along(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "alone.py").write_text("import helping\n")
    (tmp_path / "site" / "helping.py").write_text("")
    monkeypatch.setenv("SHIFTBENCH_PLUGINS", "alone=alone:Method")
    _, job = unpacked(tmp_path, "quickstart")
    assert (job / "alone.py").is_file()
    assert (job / "helping.py").is_file()


def test_what_is_no_plugin_is_named(installed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--plugin: there is no package or module nowhere"):
        write_archive(tmp_path / "job.zip", "quickstart", ["nowhere"])
    with pytest.raises(InputError, match="--plugin numpy: it has no entry points"):
        write_archive(tmp_path / "job.zip", "quickstart", ["numpy"])


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("mine: {method: from-checkpoint, path: PLACE, head: linear}", "path"),
        ("autoft: {objective: PLACE}", "objective"),
    ],
)
def test_files_of_methods_that_lie_beside_a_suite_are_refused(
    tmp_path: Path, method: str, key: str
) -> None:
    (tmp_path / "mine.yaml").write_text("lr: 1e-4\nweight_decay: 0\n")
    file = tmp_path / "suite.yaml"
    start = BASE.replace("methods: {zero-shot: {}}", "methods:")

    def check(place: object) -> None:
        file.write_text(f"{start}  {method.replace('PLACE', str(place))}\n")
        check_paths(Suite.load(file))

    check(tmp_path / "mine.yaml")
    with pytest.raises(InputError, match=rf'suite\.yaml:6: .*{key}: .*root /, got "\./mine\.yaml"'):
        check("./mine.yaml")
    label = method.partition(":")[0]
    base = method.replace("PLACE", str(tmp_path / "mine.yaml"))
    own = f"tasks: {{cifar10: {{methods: {{{label}: {{{key}: mine.yaml}}}}}}}}"
    file.write_text(f"{start}  {base}\n".replace("tasks: [cifar10]", own))
    with pytest.raises(InputError, match=rf'suite\.yaml:3: tasks\.cifar10.*{key}: .*"mine\.yaml"'):
        check_paths(Suite.load(file))
