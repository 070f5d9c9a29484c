"""The script that compares our arithmetic with official code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.parity import __main__ as script
from tests.parity.comparisons import schedules

CHECKOUTS = (
    *("wise-ft", "FLYP", "auto-ft", "mergekit", "LiNeS", "MergeLM", "TPGM"),
    *("CaRot", "TRACER", "CLIPood", "CLIP-LoRA"),
    *("FTP", "Selective-Projection-Decay", "ldifs_code", "robust-finetuning"),
    *("VRF", "dawin", "CLAP", "LP++", "Tip-Adapter", "CoOp", "PromptSRC", "wilds"),
)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_without_checkouts_it_says_what_it_skipped_and_the_metrics_of_wilds_agree(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert script.main([]) == 0
    printed = lines(capsys)
    compared = [line.split()[3] for line in printed if "installed" in line]
    assert compared == ["accuracy", "macro-f1", "worst-region"]
    skipped = [line for line in printed if line.startswith("skipped: ")]
    assert [line.split()[1] for line in skipped] == list(CHECKOUTS)
    assert skipped[0].endswith("no --checkouts FOLDER")
    assert "interpolation, head, schedules, projections" in skipped[0]


def test_a_checkout_that_is_not_in_the_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--checkouts", str(tmp_path)]) == 0
    skipped = [line for line in lines(capsys) if line.startswith("skipped: ")]
    assert [line.split()[-1] for line in skipped] == [str(tmp_path / name) for name in CHECKOUTS]


def test_official_code_that_computes_something_else_fails_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A constant rate, in a module that imports what is not there.
    module = tmp_path / "wise-ft/src/models/utils.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "from src.absent import Logger\n"
        "from . import eval\n"
        "def cosine_lr(optimizer, rate, warmup, steps):\n"
        "    return lambda step: optimizer.param_groups[0].update(lr=rate)\n"
    )
    monkeypatch.setattr(script, "ALL", (("wise-ft", ".", schedules),))
    assert script.main(["--checkouts", str(tmp_path)]) == 1
    found = [line for line in lines(capsys) if line.startswith("wise-ft")]
    assert len(found) == 4
    assert all(line.endswith("DIFFERS") for line in found)
    assert not [name for name in sys.modules if name.partition(".")[0] == "src"]
