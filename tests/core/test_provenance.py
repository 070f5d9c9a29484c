import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from shiftbench import __version__
from shiftbench.core.errors import InputError
from shiftbench.core.provenance import (
    SUBMITTED,
    collect,
    cpu_name,
    device_name,
    git_state,
    hardware,
    package_versions,
    peak_memory_bytes,
    reset_peak_memory,
)


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", "-C", str(folder), *settings, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)
    (package / "code.py").write_text("x = 1\n")
    (package.parent / "pyproject.toml").write_text('[project]\nname = "shiftbench"\n')
    (package.parent / ".gitignore").write_text("env/\n__pycache__/\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "first")
    return package


def test_a_clean_checkout_has_its_commit(checkout):
    assert git_state(checkout) == (git(checkout, "rev-parse", "HEAD"), False)


def test_a_change_a_new_file_and_a_deletion_are_dirty(checkout):
    (checkout / "code.py").write_text("x = 2\n")
    assert git_state(checkout)[1] is True
    git(checkout, "checkout", "-q", ".")
    assert git_state(checkout)[1] is False
    (checkout / "new.py").write_text("")
    assert git_state(checkout)[1] is True
    (checkout / "new.py").unlink()
    (checkout / "code.py").unlink()
    assert git_state(checkout)[1] is True


def test_files_beside_the_package_and_ignored_ones_are_not_dirty(checkout):
    (checkout.parent / "results.txt").write_text("")
    (checkout / "__pycache__").mkdir()
    (checkout / "__pycache__" / "code.pyc").write_text("")
    assert git_state(checkout)[1] is False


def test_a_package_installed_inside_another_project_is_no_checkout(checkout):
    installed = checkout.parent / "env" / "package"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("x = 1\n")
    assert git_state(installed) == (None, None)


@pytest.mark.parametrize("place", ["vendored/package", "site-packages/package"])
def test_a_package_that_another_project_has_committed_is_no_checkout(checkout, place):
    (checkout.parent / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    folder = checkout.parent / place
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("x = 1\n")
    git(checkout.parent, "add", ".")
    git(checkout.parent, "commit", "-q", "-m", "packages too")
    assert git_state(folder) == (None, None)
    (checkout.parent / "pyproject.toml").unlink()
    git(checkout.parent, "commit", "-q", "-a", "-m", "no file that names the project")
    assert git_state(folder) == (None, None)


@pytest.fixture
def collected_anew():
    collect.cache_clear()
    yield
    collect.cache_clear()


@pytest.mark.usefixtures("collected_anew")
@pytest.mark.parametrize(("suffix", "dirty"), [("", False), ("-dirty", True)])
def test_a_submitted_job_has_the_commit_that_was_submitted(monkeypatch, suffix, dirty):
    monkeypatch.setenv(SUBMITTED, "0123abc" * 5 + suffix)
    assert (collect().git_sha, collect().git_dirty) == ("0123abc" * 5, dirty)


@pytest.mark.usefixtures("collected_anew")
def test_a_submitted_commit_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv(SUBMITTED, "main")
    with pytest.raises(InputError, match=f'{SUBMITTED}: "main" is not a commit'):
        collect()


def test_outside_git_and_without_git_nothing_is_claimed(checkout, tmp_path, monkeypatch):
    (tmp_path / "plain").mkdir()
    assert git_state(tmp_path / "plain") == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(checkout) == (None, None)


def test_versions_are_of_what_is_installed():
    import numpy as np

    versions = package_versions()
    assert versions["numpy"] == np.__version__
    assert versions["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert {"torch", "ray", "open_clip_torch", "pillow"} <= versions.keys()


def test_packages_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr("shiftbench.core.provenance.PACKAGES", ("numpy", "no-such-package-at-all"))
    assert package_versions().keys() == {"python", "numpy"}


def test_hardware_is_plain_json():
    machine = hardware()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 2**28
    assert machine["cpu"] == cpu_name() != ""


def test_device_and_memory():
    import torch

    cpu = torch.device("cpu")
    assert device_name(cpu) == cpu_name()
    before = peak_memory_bytes(cpu)
    assert 2**24 < before < 2**42
    block = bytearray(2**26)
    block[::4096] = b"x" * len(block[::4096])
    assert peak_memory_bytes(cpu) >= before


def test_everything_is_collected_once():
    assert collect() is collect()
    assert collect().shiftbench_version == __version__


def test_importing_the_leaderboard_is_light():
    """What plan and --help import must not pull in torch, ray or pandas."""
    code = (
        "import sys, shiftbench.core.provenance, shiftbench.leaderboard.store, "
        "shiftbench.leaderboard.schema, shiftbench.report.ranking, "
        "shiftbench.report.terminal, shiftbench.evaluation.scoring, "
        "shiftbench.evaluation.predictions;"
        "heavy = {'torch', 'ray', 'pandas', 'scipy', 'duckdb', 'open_clip'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="Linux tells it")
def test_a_runs_peak_of_memory_is_not_that_of_the_run_before() -> None:
    cpu = torch.device("cpu")
    large = np.ones(25_000_000)
    before = peak_memory_bytes(cpu)
    del large
    reset_peak_memory(cpu)
    assert peak_memory_bytes(cpu) < before - 100_000_000
