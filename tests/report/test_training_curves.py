"""What the page and ``shiftbench show`` say of a training's curve and of its run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import failed
from shiftbench.leaderboard.store import read, write_run
from shiftbench.leaderboard.training_curve import TrainingCurve
from shiftbench.report import trainings as drawing
from shiftbench.report.html import assets
from shiftbench.report.html.page import render
from shiftbench.report.model import build
from shiftbench.report.run_facts import facts_of, sparkline

from tests.leaderboard.records import info, run

EVIL = "<script>alert(1)</script>"


def curve(steps: int = 100, **more: object) -> TrainingCurve:
    numbers = [*range(1, steps + 1)]
    columns = {
        "step": numbers,
        "loss": [4.0 / step for step in numbers],
        "learning_rate": [1e-3] * steps,
        "gradient_norm": [None, *([1.5] * (steps - 1))],
        "images_per_second": [100.0] * steps,
        "id_val": [None] * steps,
    }
    return TrainingCurve({**columns, **more})  # type: ignore[arg-type]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two seeds of a method, one of which is called like markup; a failed run; one under way."""
    scores = {"id-test": 0.9, "imagenet-v2": 0.8}
    for seed in (0, 1):
        write_run(tmp_path, f"full{seed}", run(f"full{seed}", scores, seed=seed))
        curve(term_hinge=[0.5] * 100).write(RunFolder.of(tmp_path, f"full{seed}").metrics)
    write_run(tmp_path, "evil0", run("evil0", scores, label=EVIL, method="evil"))
    curve(7, **{f"term_{EVIL}": [0.1] * 7}).write(RunFolder.of(tmp_path, "evil0").metrics)
    write_run(tmp_path, "zero0", run("zero0", scores, label="zero-shot", method="zero-shot"))
    error = RunFolder.of(tmp_path, "dead0").error
    row = failed(info("dead0", label="lora"), "NaN [red]", str(error.relative_to(tmp_path)))
    write_run(tmp_path, "dead0", row)
    curve(3, loss=[1.0, 9.0, math.nan]).write(RunFolder.of(tmp_path, "dead0").metrics)
    error.write_text("Traceback (most recent call last):\n  it broke [bold]\n")
    begun = RunFolder.of(tmp_path, "beef0")
    curve(2).write(begun.metrics)
    asked = {"label": "l2-sp", "task": {"name": "imagenet"}, "seed": 3, "backbone": "miniature"}
    asked |= {"method": "l2-sp", "shots": None, "budget": {}, "config": {"lr": 1.0}}
    begun.record.write_text(json.dumps({"run": asked}))
    return tmp_path


def page(results: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(assets, "vega", lambda: "window.vegaEmbed = null;")
    return render(build(read(results), results, curves=True))


def test_the_page_draws_the_seeds_of_each_method_and_names_stay_text(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = page(results, monkeypatch).partition('<section id="trainings"')[2]
    section = section.partition("</section>")[0]
    assert section.count("<details") == 3 and '<details class="training" open' not in section
    assert EVIL not in section and "&lt;script&gt;" in section
    full = section.partition("full · imagenet")[2].partition("</details>")[0]
    assert full.count("<svg") == 3 and full.count("<polyline") == 6  # loss, hinge, norm
    assert re.search(r"hinge <small>0\.5 → 0\.5</small>", full)
    points = re.findall(r'points="([^"]*)"', full)
    for line in points:
        places = [tuple(map(float, point.split(","))) for point in line.split()]
        assert len(places) <= drawing.POINTS
        assert all(0 <= x <= drawing.WIDTH and 0 <= y <= drawing.HEIGHT for x, y in places)
    assert points[0].split()[-1].startswith(f"{drawing.WIDTH},")


def test_runs_of_one_label_with_other_settings_are_not_its_seeds(results: Path) -> None:
    scores = {"id-test": 0.9, "imagenet-v2": 0.8}
    write_run(results, "fast0", run("fast0", scores, seed=2, config={"lr": 1.0}))
    curve().write(RunFolder.of(results, "fast0").metrics)
    drawn = build(read(results), results, curves=True).trainings.drawn
    seeds = [[line.seed for line in of.panels[0].lines] for of in drawn if of.label == "full"]
    assert sorted(seeds) == [[0, 1], [2]]


def test_of_many_methods_only_some_are_drawn(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "METHODS", 1)
    text = page(results, monkeypatch)
    assert text.count('<details class="training" open') == 1
    assert "2 more methods trained and are not drawn" in text


def test_a_report_without_curves_reads_none(results: Path) -> None:
    RunFolder.of(results, "full0").metrics.write_bytes(b"broken")
    assert build(read(results), results).trainings.drawn == ()
    drawn = build(read(results), results, curves=True).trainings.drawn
    (full,) = (training for training in drawn if training.label == "full")
    assert [line.seed for line in full.panels[0].lines] == [1]


def test_show_prints_settings_scores_and_the_curve(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "full/imagenet/1", "--results", str(results)]) == 0
    shown = capsys.readouterr().out
    assert "full/imagenet/1  full1  done" in shown
    assert re.search(r"lr +1e-05", shown)
    assert re.search(r"imagenet-v2 .*0\.8000 +\[0\.7900, 0\.8100\] +100", shown)
    assert "steps 1 to 100" in shown
    assert re.search(r"loss +4 █[▁▂▃▄▅▆▇█]{59} 0\.04\n", shown)
    assert "id_val" not in shown


def test_show_says_why_a_run_failed_and_how_far_one_is(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "lora", "--results", str(results)]) == 0
    shown = capsys.readouterr().out
    assert "failed: NaN [red]" in shown and "it broke [bold]" in shown
    assert re.search(r"loss +1 ▁█ 9", shown)
    assert main(["show", "beef", "--results", str(results)]) == 0
    shown = capsys.readouterr().out
    assert "l2-sp/imagenet/3  beef0  begun" in shown and "steps 1 to 2" in shown
    assert main(["show", "full", "--results", str(results)]) == 2
    assert "means 2 runs" in capsys.readouterr().err


WHOLE = {
    "label": "soup",
    "task": {"name": "imagenet"},
    "seed": 0,
    "backbone": "b",
    "shots": None,
    "method": "soup",
    "budget": {},
    "config": {},
}


@pytest.mark.parametrize(
    "record",
    [
        *({"run": {}}, {}, [], {"run": []}, {"run": WHOLE | {"task": "imagenet"}}),
        *({"run": WHOLE | {"label": 3}}, {"run": WHOLE | {"config": 3}}),
    ],
)
def test_a_record_that_is_not_whole_stands_in_nobodys_way(
    results: Path, capsys: pytest.CaptureFixture[str], record: object
) -> None:
    for name, content in (("foreign", record), ("whole", {"run": WHOLE})):
        folder = RunFolder.of(results, name)
        folder.path.mkdir()
        folder.record.write_text(json.dumps(content))
    assert main(["show", "full0", "--results", str(results)]) == 0
    assert main(["show", "soup", "--results", str(results)]) == 0
    assert "soup/imagenet/0  whole  begun" in capsys.readouterr().out
    assert main(["show", "foreign", "--results", str(results)]) == 2
    assert main(["gc", "--results", str(results)]) == 0


def test_show_has_all_of_it_for_programs(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "dead0", "--json", "--results", str(results)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["state"] == "failed" and document["curve"]["loss"] == [1.0, 9.0, None]
    assert document["traceback"].startswith("Traceback")
    assert main(["show", "full0", "--json", "--results", str(results)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["value"] for row in document["rows"]] == [0.9, 0.8]
    assert document["settings"] == {"lr": 1e-05} and len(document["curve"]["step"]) == 100


def test_a_broken_curve_is_one_line(results: Path) -> None:
    RunFolder.of(results, "full0").metrics.write_bytes(b"broken")
    with pytest.raises(InputError, match="the curve cannot be read"):
        facts_of(results, "full0")


def test_sparklines() -> None:
    assert sparkline([0, 1, 2, 7]) == "▁▂▃█"
    assert sparkline([3, 3]) == "▁▁"
