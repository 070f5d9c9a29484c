"""Four people, each from an empty folder to what they came for, by documented commands alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from shiftbench.cli import main
from shiftbench.data.miniature.definition import backbone_dir

from tests.data import layouts

pytestmark = pytest.mark.slow

QUICK = ["--executor", "in-process"]
NINE = {
    *("imagenet-v2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a"),
    *("cifar10.1", "cifar10.2", "iwildcam-ood", "fmow-ood"),
}

Shell = Callable[..., str]


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """Types a command in an empty folder; what it prints. Anything but exit code 0 is an error.

    Each is a process of its own to a plugin: what was imported of it is forgotten.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def shiftbench(line: str, *more: str) -> str:
        before = {*sys.modules}
        capsys.readouterr()
        try:
            code = main([*line.split(), *more])
        finally:
            for name in {*sys.modules} - before:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                    del sys.modules[name]
        shown = capsys.readouterr()
        assert code == 0, shown.out + shown.err
        return shown.out

    return shiftbench


def install(folder: str, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pip install -e``, into a folder of the test's own."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", site, "-e", folder],
        check=True,
    )  # fmt: skip
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(Path(folder).resolve())  # what the installed .pth file says


def edit(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert text.count(old) == 1, text
    Path(file).write_text(text.replace(old, new))


def shown_run(shell: Shell, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell(f"show {name} --json"))
    return found


def test_own_data_with_an_own_metric(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set of the Hugging Face Hub on disk; a metric from a package of one's own."""
    names = ["crow", "wren", "owl"]
    first = 0
    for place, n in {
        "birds/data/train-00000-of-00002": 30,
        "birds/data/train-00001-of-00002": 30,
        "birds/data/test-00000-of-00001": 12,
        "night": 9,
    }.items():
        labels = [i % 3 for i in range(n)]
        layouts.parquet(tmp_path / f"{place}.parquet", labels, names, 8, first=first)
        first += n
    shell("init birds.yaml --parquet birds --shift night=night.parquet --backbone miniature"
          " --methods zero-shot,full,wise-ft")  # fmt: skip

    shell("new metric first-two")
    install("shiftbench-first-two", tmp_path / "site", monkeypatch)
    assert "✓" in shell("check-plugin first-two")
    assert "first-two" in shell("list metrics")

    shell("data verify birds.yaml")
    own = ["--set", "tasks.birds.shifts.night.metric=first-two", "--set", "budget.steps=2"]
    own += ["--set", "tasks.birds.also_metrics=[first-two]"]
    assert "wise-ft" in shell("plan birds.yaml", *own)
    assert "first-two" in shell("run birds.yaml", *own, *QUICK)
    found = shown_run(shell, "full/birds/0")
    kept = pq.read_table(f"results/runs/{found['run_id']}/predictions.parquet")
    for name in ("id-test", "night"):
        of_set = kept.filter(pc.equal(kept["set"], name)).to_pylist()
        hits = [row["label"] in row["top_classes"][:2] for row in of_set]
        (value,) = (
            row["value"] for row in found["rows"]
            if row["evaluation_set"] == name and row["metric"] == "first-two"
        )  # fmt: skip
        assert value == pytest.approx(np.mean(hits)) and hits


def test_an_own_method_is_debugged_tuned_and_its_curve_seen(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: Path
) -> None:
    shell("new method smooth")
    install("shiftbench-smooth", tmp_path / "site", monkeypatch)
    settings = "{lr: 5e-4, batch_size: 24, warmup_steps: 1}"
    Path("mine.yaml").write_text(f"""
extends: quickstart
tasks: [cifar10]
methods:
  replace: true
  zero-shot: {{}}
  smooth: {settings}
  tuned-smooth:
    method: tuned
    of: smooth
    settings: {settings}
    search: {{n_trials: 2, inner_steps: 2, n_startup_trials: 1, finalists: 0}}
budget: {{steps: 4, evaluation_images: 40}}
""")
    source = "shiftbench-smooth/shiftbench_smooth/smooth.py"
    edit(source, "batch.labels", "batch.label")
    with pytest.raises(AttributeError, match="label") as raised:
        shell("run mine.yaml --debug smooth")
    assert Path(source).resolve() in {Path(entry.path) for entry in raised.traceback}
    edit(source, "batch.label", "batch.labels")
    shell("run mine.yaml --debug smooth")

    assert "tuned-smooth" in shell("run mine.yaml", *QUICK)
    found = shown_run(shell, "smooth")
    curve = pq.read_table(f"results/runs/{found['run_id']}/metrics.parquet").to_pydict()
    assert curve["step"] == [1, 2, 3, 4]
    assert all(0 < p < 1 for p in curve["term_p_of_label"])
    assert found["curve"]["loss"] == curve["loss"]
    assert "p_of_label" in shell("show smooth")
    tuned = shown_run(shell, "tuned-smooth")
    assert {*tuned["about"]["searched"]} == {"gamma", "lr", "weight_decay"}
    (origin,) = {row["origin"] for row in tuned["rows"]}
    assert origin.startswith("shiftbench-smooth 0.1.0 +")


def test_the_recommended_recipe_is_chosen_exported_and_used_by_plain_open_clip(
    shell: Shell, tmp_path: Path
) -> None:
    number = 0
    for place, each in (("pets/train", 12), ("pets/test", 6), ("drawings", 4)):
        for name in ("ant", "bee", "sea_cow"):
            for i in range(each):
                layouts.write_image(tmp_path / place / name / f"{i}.png", number := number + 1)
    shell("init pets.yaml --images pets --shift drawings=drawings --backbone miniature"
          " --methods zero-shot,full,wise-ft")  # fmt: skip
    short = ["--set", "budget.steps=6", "--set", "methods.full.batch_size=12"]
    shell("run pets.yaml", *short, *QUICK)
    shell("report pets.yaml --markdown report.md", *short)
    report = Path("report.md").read_text()
    assert "2 other runs are here" in shell("report pets.yaml")  # without what was set
    header, _, row = report[report.index("| recipe |") :].splitlines()[:3]
    recipe = row.split("|")[header.split("|").index(" recipe ") + 1].split()[0]
    assert recipe != "none", report
    shell(f"export-model {recipe} --to my-clip --license mit")

    model, preprocess = open_clip.create_model_from_pretrained("local-dir:./my-clip")
    head = load_file("my-clip/classifier.safetensors")
    found = shown_run(shell, recipe)
    kept = pq.read_table(f"results/runs/{found['run_id']}/predictions.parquet")
    kept = kept.filter(pc.equal(kept["set"], "id-test")).to_pylist()
    files = [tmp_path / "pets/test" / row["id"] for row in kept]
    inputs = torch.stack([preprocess(Image.open(file)) for file in files])
    with torch.no_grad():
        logits = model.encode_image(inputs, normalize=True) @ head["weight"].T + head["bias"]
    for row, own in zip(kept, logits.numpy(), strict=True):
        assert own[row["top_classes"][:3]] == pytest.approx(row["top_logits"][:3], abs=1e-4)
    lines = shell("predict my-clip", *map(str, files)).splitlines()
    classes = json.loads(Path("my-clip/classes.json").read_text())
    assert [line.split("\t")[1] for line in lines] == [classes[row["prediction"]] for row in kept]


def test_a_raw_checkpoint_gets_its_nine_shifts(shell: Shell, tmp_path: Path, world: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        f"module.{name}": tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(backbone_dir() / "open_clip_model.safetensors").items()
    }
    Path("mine").mkdir()
    torch.save({"epoch": 3, "name": "mine", "state_dict": state, "optimizer": {}},
               "mine/epoch_3.pt")  # fmt: skip
    Path("mine.yaml").write_text("""
extends: miniature
methods:
  replace: true
  zero-shot: {}
  mine: {method: from-checkpoint, path: ./mine/epoch_3.pt}
budget: {evaluation_images: 20}
""")
    for name in ("open_clip_config.json", "vocabulary.json"):  # architecture and tokenizer
        shutil.copy(backbone_dir() / name, "mine")
    assert "mine/epoch_3.pt" in shell("backbone check ./mine/epoch_3.pt")
    shell("plan mine.yaml")
    shown = shell("run mine.yaml", *QUICK)
    assert "(made elsewhere)" in shown
    rows = [
        row
        for task in ("imagenet", "cifar10", "iwildcam", "fmow")
        for row in shown_run(shell, f"mine/{task}")["rows"]
    ]
    assert {row["evaluation_set"] for row in rows if row["role"] == "shift"} == NINE
