"""File names that stand for texts of any kind, and files under temporary names."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shiftbench.core.files import file_name, written_atomically
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.models.checkpoints import save

ODD = (
    *("../../esc", "..", ".", "", "/etc/x", "a/b", "a\\b", "x" * 300, "é" * 300, ".hidden"),
    *("new\nline", "nul\0", "a:b", "a-b ", "~", "alpha=0.5~", "\ud800", "a?", "a*", "a-"),
)


@pytest.mark.parametrize("text", ["imagenet-v2", "cifar10.1", "alpha=0.5", "my set", "A_b"])
def test_plain_names_stay_as_they_are(text: str) -> None:
    assert file_name(text, ".parquet") == f"{text}.parquet"


def test_no_name_leaves_its_folder_and_no_two_share_a_file(tmp_path: Path) -> None:
    names = [file_name(text, ".parquet") for text in ODD]
    assert len(set(names)) == len(ODD)
    for name in names:
        assert len(name.encode()) <= 255
        (tmp_path / name).write_text("x")
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    again = [file_name(name.removesuffix(".parquet"), ".parquet") for name in names]
    assert not set(again) & set(names) - {file_name("a-", ".parquet")}


@pytest.mark.parametrize("name", ["../../esc", "x" * 300, "a\\b"])
def test_predictions_of_a_set_of_any_name_stay_in_their_run(tmp_path: Path, name: str) -> None:
    part = RunFolder.of(tmp_path, "3f1c").part("alpha=0.5", name)
    assert part.resolve().parent == tmp_path / "runs/3f1c/parts/alpha=0.5"
    part.parent.mkdir(parents=True)
    part.write_text("x")


WRITES_AND_IS_KILLED = """
import os, signal, sys
from pathlib import Path
from shiftbench.core.files import written_atomically
with written_atomically(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_processes_left_half_written_goes_when_a_run_is_begun_again(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim({"train": "x"})
    file = folder.path / "fit.json"
    subprocess.run([sys.executable, "-c", WRITES_AND_IS_KILLED, str(file)], check=False)
    (half,) = folder.path.glob(".*.tmp")
    elsewhere = half.with_name(".fit.json.00000000-1-00000000.tmp")  # of another machine
    elsewhere.write_text("under way")
    with written_atomically(file) as mine:
        mine.write_text("whole")
        folder.claim({"train": "x"})
        assert not half.exists() and mine.exists() and elsewhere.exists()
    assert file.read_text() == "whole"
    os.utime(elsewhere, (0, 0))
    folder.claim({"train": "x"})
    assert not elsewhere.exists() and file.exists()


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_have_the_permissions_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        save(tmp_path / "weights.safetensors", {"weight": torch.zeros(2)}, {})
        with written_atomically(tmp_path / "fit.json") as temporary:
            temporary.write_text("{}")
    finally:
        os.umask(before)
    for name in ("weights.safetensors", "fit.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask
