import csv
import io

import pyarrow as pa
import pytest
from shiftbench.leaderboard.published.schema import PUBLISHED_SCHEMA
from shiftbench.leaderboard.schema import LABELS_UNCHECKED, done, failed
from shiftbench.report.html.page import render
from shiftbench.report.markdown import write_markdown
from shiftbench.report.model import build
from shiftbench.report.scores import MEAN
from shiftbench.report.tables import to_csv, to_latex
from shiftbench.report.words import SHORT, TRADEOFFS, duration, title_of

from tests.leaderboard.real_records import golden
from tests.leaderboard.records import info, results, run
from tests.report.of_table import markdown, printed, rankings

IMAGENET = ("id-test", "imagenet-v2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a")


def values(*percent, sets=IMAGENET):
    return {name: value / 100 for name, value in zip(sets, percent, strict=False)}


@pytest.fixture
def table():
    return pa.concat_tables(
        [
            run(
                "zs",
                values(68.3, 61.9, 77.7, 48.2, 53.0, 49.8),
                method="zero-shot",
                label="zero-shot",
                reference=True,
                seeded=False,
                train_seconds=0.0,
            ),
            run("f0", values(81.0, 70.5, 65.0, 46.0, 50.0, 36.0), seed=0),
            run("f1", values(82.0, 71.5, 66.0, 47.0, 51.0, 37.0), seed=1),
            run("part", values(80.0, 70.0), label="lp_ft"),
            failed(info("dead", label="l2-sp"), "loss [red]is[/red] NaN | at step *4*"),
        ]
    )


GOLDEN = """\
## imagenet · miniature · all training data

accuracy: id-test, imagenet-v2, imagenet-r, imagenet-sketch, objectnet, imagenet-a; \
OOD: mean over all 5 shifts (imagenet-v2, imagenet-r, imagenet-sketch, objectnet, imagenet-a)

Ties are not known. There is no results folder.

| # | tied | method | selection | seeds | ID | V2 | R | Sketch | ObjNet | A | OOD | 95 % of OOD \
| cost |
| --: | :-- | :-- | :-- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |
| 1 | – | zero-shot | fixed | 1 | 68.3 | 61.9 | 77.7 | 48.2 | 53.0 | 49.8 \
| 58.1 | 57.7 to 58.6 | 0 s |
| 2 | – | full | fixed | 2 | 81.5 ±0.7 | 71.0 ±0.7 | 65.5 ±0.7 | 46.5 ±0.7 | 50.5 ±0.7 | 36.5 ±0.7 \
| 54.0 ±0.7 | 47.6 to 60.4 | 60 s |
|  | – | lp\\_ft | fixed | 1 | 80.0 | 70.0 | – | – | – | – | partial | – | 60 s |

TRADEOFFS

| method | on the frontier | area | gain | gain per hour |
| :-- | :-- | --: | --: | --: |
| zero-shot | selected | 0.0 | +0.0 | – |
| full | selected | 0.0 | -4.1 | -247 |

## Failed runs

- imagenet · miniature · l2-sp · seed 0 (dead): loss \\[red\\]is\\[/red\\] NaN \\| at step \\*4\\*
"""


def test_markdown(table):
    text = markdown(table, title="A *suite*", published=PUBLISHED_SCHEMA.empty_table())
    assert text.startswith("# A \\*suite\\*\n\n")
    assert text.endswith(GOLDEN.replace("TRADEOFFS", TRADEOFFS))


def test_the_printed_ranking_fits_100_columns(table):
    text = printed(table)
    rows = [line for line in text.splitlines() if not line.startswith("failed")]
    assert max(map(len, rows)) <= 100
    assert [line.split()[:2] for line in rows[2:5]] == [
        ["1", "zero-shot"],
        ["2", "full"],
        ["lp_ft", "1"],
    ]
    assert "81.5 ±0.7" in text
    assert "…" not in text


def test_markup_in_what_others_wrote_is_shown_as_it_is(table):
    assert "(dead): loss [red]is[/red] NaN | at step *4*" in printed(table)


def test_text_from_others_cannot_break_the_markdown_table():
    sets = {"id-test": 0.5, "a|b": 0.5, "<script>": 0.5}
    text = markdown(run("a", sets, backbone="../x_y_z\nend"))
    header = next(line for line in text.splitlines() if line.startswith("| #"))
    assert "a\\|b" in header
    assert "&lt;script>" in header
    assert "## imagenet · ../x\\_y\\_z end" in text


def test_selections_and_variants_are_named():
    scores = {"id-test": 0.5, "imagenet-r": 0.4, "imagenet-a": 0.2}
    rows = [
        *results(scores, "alpha=0.5", "fixed"),
        *results(scores, "alpha=0.5", "id-val"),
        *results({**scores, "imagenet-a": 0.9}, "alpha=1.0", None),
    ]
    wise = done(info("w", label="wise-ft"), rows)
    text = markdown(wise)
    assert "| 1 | – | wise-ft | fixed alpha=0.5 |" in text
    assert "| 1 | – | wise-ft | id-val alpha=0.5 |" in text
    assert "|  | – | wise-ft | oracle alpha=1.0 |" in text
    shown = printed(wise)
    assert "wise-ft · oracle" in shown
    assert "wise-ft · fixed" not in shown


def test_incomplete_data_are_marked_and_explained():
    rows = results({"id-test": 0.5, "objectnet": 0.4}, incomplete_reason="9 of 10 files")
    table = done(info(), rows)
    assert "50.0*" in printed(table)
    assert "incomplete* imagenet · objectnet: 9 of 10 files" in printed(table)
    assert "| 50.0\\* |" in markdown(table)
    assert "## Incomplete data\n\n- imagenet · id-test · 9 of 10 files\n" in markdown(table)


def test_remarks_on_files_and_unchecked_labels_are_in_every_report():
    rows = results({"id-test": 0.5, "objectnet": 0.4}, data_remark="3 files of .avif not read")
    table = done(info("a", label="mine"), rows)
    told = pa.array([LABELS_UNCHECKED, None][: table.num_rows], pa.string())
    position = table.schema.get_field_index("unchecked")
    table = table.set_column(position, table.schema.field(position), told)
    remarks = (
        ("imagenet", "id-test", "3 files of .avif not read"),
        ("imagenet", "objectnet", "3 files of .avif not read"),
        ("imagenet", "id-test", "labels not checked of mine, seed 0 (a)"),
    )
    model = build(table)
    assert model.data_remarks == remarks
    page = render(model)
    for task, evaluation_set, remark in remarks:
        assert f"remark {task} · {evaluation_set}: {remark}" in printed(table)
        assert f"- {task} · {evaluation_set} · {remark}" in markdown(table)
        assert f"<li>{task} · {evaluation_set} · {remark}</li>" in page
    assert '<a href="#remarks">' in page


def test_a_single_shift_with_incomplete_data_shows_its_value():
    scores = {"id-test": 0.5, "iwildcam-ood": 0.25}
    table = done(info(), results(scores, incomplete_reason="9 of 10 files"))
    model = build(table)
    assert "25.0*" in printed(table)
    assert "| 25.0\\* | 24.0 to 26.0 |" in markdown(table)
    assert "25.0*" in to_latex(model)
    assert "partial" not in printed(table) + markdown(table) + to_latex(model)
    (line,) = model.rankings[0].ranking.methods
    assert line.rank is None


def test_a_mean_that_lacks_a_shift_is_marked_in_every_printer():
    table = run("a", {"id-test": 0.5, "r": 0.25}, shifts=("v2", "r"))
    over = "OOD: mean over all 2 shifts (v2, r); nothing here has v2"
    model = build(table)
    for text in (printed(table, width=200), markdown(table), to_latex(model)):
        assert over in text
        assert "partial" in text
    page = render(model)
    assert over in page
    assert ">partial</td>" in page
    row = list(csv.DictReader(io.StringIO(to_csv(model))))[-1]
    assert (row["evaluation_set"], row["shifts"], row["value"]) == ("mean OOD", "v2 r", "")
    assert (row["complete"], row["remark"]) == ("false", "missing or incomplete: v2")


def test_a_single_shift_is_the_mean_and_needs_no_column():
    table = run("a", {"id-test": 0.5, "iwildcam-ood": 0.25}, task="iwildcam")
    header = printed(table).splitlines()[1]
    assert header.split() == ["#", "method", "seeds", "ID", "OOD", "cost"]
    assert "accuracy: id-test, iwildcam-ood" in printed(table)


def test_many_shifts_are_cut_in_the_terminal_and_whole_in_markdown():
    sets = {"id-test": 0.5} | {f"corruption-{i}": 0.4 for i in range(15)}
    shown = printed(run("a", sets))
    assert "corruption-5" in shown.splitlines()[1]
    assert "9 more shifts are in the Markdown." in shown
    assert "corruption-14" in markdown(run("a", sets))


def test_several_tasks_end_in_a_mean_over_tasks():
    table = pa.concat_tables(
        [
            run("a", {"id-test": 0.5, "objectnet": 0.4}),
            run("b", {"id-test": 0.7, "cifar10.1": 0.6}, task="cifar10"),
        ]
    )
    for text in (printed(table), markdown(table)):
        assert "mean over 2 tasks · miniature · all training data" in text
    assert "| # | method | ID | 10.1 | ObjNet | OOD | 95 % of OOD | cost |" in markdown(table)
    assert "| 1 | full | 60.0 | 60.0 | 40.0 | 50.0 | 49.3 to 50.7 | 2 min |" in markdown(table)


def test_an_empty_leaderboard_says_so(table):
    empty = table.slice(0, 0)
    assert printed(empty) == "No run has finished yet.\n"
    assert markdown(empty).endswith("No run has finished yet.\n")


def test_few_shots_and_the_miniature_are_named(table):
    (ranking,) = rankings(run("a", {"id-test": 0.5}, shots=4, data_kind="miniature/1"))
    assert title_of(ranking) == "imagenet · miniature · 4 shots · miniature/1 data"
    (ranking,) = rankings(run("a", {"id-test": 0.5}, budget={"evaluation_images": 9}))
    assert title_of(ranking).endswith(" · all training data · at most 9 images a set")


def test_short_names_are_of_known_shifts():
    from shiftbench.data.tasks.registry import builtin_tasks

    shifts = {shift for task in builtin_tasks().values() for shift in task.shifts}
    assert shifts >= SHORT.keys() - {"id-test", MEAN}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0 s"), (99, "99 s"), (120, "2 min"), (5900, "98 min"), (9000, "2.5 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_report_is_written_whole_or_not_at_all(tmp_path, table, monkeypatch):
    path = tmp_path / "report.md"
    write_markdown(path, build(table))
    assert path.read_text(encoding="utf-8") == markdown(table)

    def stop(*_):
        raise RuntimeError("stopped")

    monkeypatch.setattr("shiftbench.report.markdown.to_markdown", stop)
    with pytest.raises(RuntimeError):
        write_markdown(path, build(table))
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.md"]


def test_a_zero_shot_row_that_is_not_as_published_is_told():
    table = golden("imagenet", {"imagenet-a": 0.4})
    fault = "zero-shot openai/ViT-B-16 on imagenet-a: 40.00 %, but 49.95 % in open_clip's table"
    assert f"golden row {fault}" in printed(table, width=200)
    assert "zero-shot openai/ViT-B-16 on imagenet-a: 40.00 %" in markdown(table)
    assert "Golden rows" not in markdown(golden("imagenet"))
