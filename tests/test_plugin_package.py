"""A method in an installed package of its own, through a whole suite; broken ones beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shiftbench.leaderboard.store import read

from tests.test_end_to_end import shiftbench

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parent / "fixtures" / "mylab"
SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  mixout: &short {lr: 5e-4, epochs: 1, batch_size: 48, warmup_steps: 1}
  wise-ft: {parent: mixout, alphas: [0, 0.5, 1]}
  raises: *short
budget: {steps: 2, evaluation_images: 40}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Iterator[Path]:
    """The package, built and installed by pip into a folder that Python looks into."""
    folder = tmp_path_factory.mktemp("mylab")
    source = shutil.copytree(PACKAGE, folder / "source")
    site = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", site, source],
        check=True,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        yield folder


def test_an_installed_method_runs_and_a_broken_one_harms_nobody(installed: Path) -> None:
    suite = installed / "suite.yaml"
    suite.write_text(SUITE)
    done = shiftbench("run", suite, "--results", installed / "results")
    assert done.returncode == 1, done.stderr
    rows = read(installed / "results").to_pylist()
    status = {row["label"]: row["status"] for row in rows}
    assert status == {"zero-shot": "done", "mixout": "done", "wise-ft": "done", "raises": "failed"}
    by_label = {row["label"]: row for row in rows}
    assert by_label["mixout"]["origin"].startswith("mylab-methods 1.2 +")
    assert by_label["mixout"]["distance"] > 0
    assert "no such batch norm" in by_label["raises"]["error"]
    assert by_label["raises"]["origin"].startswith("mylab-methods 1.2 +")


OF_ALL = """
data: miniature
backbones: [miniature]
tasks:
  cifar10-night:
    id_test: {metric: hesitation}
    shifts: {night: {metric: hesitation}}
    also_metrics: ["worst-group:hour", "ece:10"]
methods:
  zero-shot: {}
  mixout: {lr: 5e-4, epochs: 1, batch_size: 48, warmup_steps: 1}
  wise-ft: {parent: mixout, alphas: [0, 0.5, 1]}
budget: {steps: 2, evaluation_images: 40}
"""


def test_a_method_a_metric_a_source_and_a_task_of_one_package_work_together(
    installed: Path,
) -> None:
    suite, results = installed / "all.yaml", installed / "all"
    suite.write_text(OF_ALL)
    done = shiftbench("run", suite, "--results", results)
    assert done.returncode == 0, done.stderr
    rows = read(results).to_pylist()
    headlines = [row for row in rows if row["primary"]]
    assert {row["metric"] for row in headlines} == {"hesitation"}
    beside = {(row["evaluation_set"], row["metric"]) for row in rows if not row["primary"]}
    assert beside == {
        *(
            (name, metric)
            for name in ("id-val", "id-test", "night")
            for metric in ("accuracy", "ece:10")
        ),
        ("night", "worst-group:hour"),  # the others do not say the hour
    }
    for row in headlines:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["interval"] == "bootstrap over examples"
    on_id_val = [
        row for row in headlines if row["label"] == "wise-ft" and row["evaluation_set"] == "id-val"
    ]
    (chosen,) = (row["value"] for row in on_id_val if row["selection"] == "id-val")
    assert chosen == min(row["value"] for row in on_id_val) < max(r["value"] for r in on_id_val)
    assert "hesitation: id-test, night" in done.stdout  # a run ends with its report
    page = installed / "report.html"
    reported = shiftbench("report", suite, "--results", results, "--html", page)
    assert reported.returncode == 0, reported.stderr
    assert "bootstrap of 40 units" in page.read_text()
    verified = shiftbench("verify", "--all", "--results", results)
    assert verified.returncode == 0, verified.stdout + verified.stderr


NIGHT = """
data: miniature
backbones: [miniature]
tasks:
  cifar10-night: {}
  darker:
    from: cifar10
    shifts: {cifar10.1: null, cifar10.2: null, darker: {source: {kind: night, light: 0.3}}}
methods: {zero-shot: {}}
"""


def test_an_installed_source_is_verified_and_planned(installed: Path) -> None:
    suite = installed / "night.yaml"
    suite.write_text(NIGHT)
    verified = shiftbench("data", "verify", suite)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "night: 600 images" in verified.stdout
    refused = shiftbench("plan", _with(suite, "kind: night, light: 0.3", "kind: absent-source"))
    assert refused.returncode == 2
    assert "night-broken.yaml:8: tasks.darker.shifts.darker.source: " in refused.stderr
    assert "mylab-methods 1.2 (mylab.nowhere:Absent)" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def _with(suite: Path, old: str, new: str) -> Path:
    changed = suite.with_stem(f"{suite.stem}-broken")
    changed.write_text(suite.read_text().replace(old, new))
    return changed


def test_a_method_that_cannot_be_imported_is_named_and_the_others_work(installed: Path) -> None:
    listed = shiftbench("list", "methods")
    assert listed.returncode == 0, listed.stderr
    assert "mixout" in listed.stdout
    assert "absent" in listed.stdout
    suite = installed / "absent.yaml"
    suite.write_text(SUITE.replace("raises: *short", "absent: *short"))
    refused = shiftbench("run", suite, "--results", installed / "nothing")
    assert refused.returncode == 2
    assert "mylab-methods 1.2" in refused.stderr
    assert "mylab.nowhere" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (installed / "nothing").exists()
