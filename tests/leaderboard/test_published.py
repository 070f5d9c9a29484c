from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.leaderboard.published import reading
from shiftbench.leaderboard.published.__main__ import main
from shiftbench.leaderboard.published.making import CONVERTERS, NOT_RESULTS, convert
from shiftbench.leaderboard.published.reading import (
    average_of_cells,
    find_published,
    published_lines,
    read_published,
)
from shiftbench.leaderboard.published.schema import (
    COLLECTIONS,
    ORACLE_PER_COLUMN,
    PUBLISHED_SCHEMA,
    UNCROPPED,
)
from shiftbench.leaderboard.published.testbed import UNTYPED
from shiftbench.leaderboard.schema import SCHEMA
from shiftbench.leaderboard.store import write_run
from shiftbench.methods.registry import METHODS

from tests.leaderboard.records import run

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "published"
CSV = ROOT.parent / "shared" / "published"
SHIFTS = ("imagenet-v2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a")
WISE_FT = "arXiv:2109.01903"

needs_csv = pytest.mark.skipif(not CSV.is_dir(), reason="the CSV files are not here")


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return read_published(FOLDER)


@pytest.fixture(scope="module")
def rows(table):
    return table.to_pylist()


def values(rows, **wanted):
    """The values of the rows that have what is wanted, in their order."""
    return [r["value"] for r in rows if all(r[name] == item for name, item in wanted.items())]


# What is there


def test_counts(rows):
    assert Counter(row["collection"] for row in rows) == {
        "papers": 958,
        "papers-since-2023": 244,
        "openclip-zero-shot": 121 * 39,  # 38 data sets and their average
        "model-soups-finetunes": 72 * 7,
        "imagenet-testbed": 338 * 13 - 51,  # where a model was not evaluated
    }
    cells = Counter((row["collection"], row["line"], row["column"]) for row in rows)
    assert set(cells.values()) == {1}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        # arXiv 2109.01903, Table 1: zero-shot, end to end, and both kinds of WiSE-FT
        (0.762, {"evaluation_set": "id-test", "method": "zero-shot", "note": "as printed"}),
        (0.654, {"evaluation_set": "imagenet-a", "label": "full-ft"}),
        (0.795, {"evaluation_set": "imagenet-v2", "parent": "full", "variant": "alpha=0.5"}),
        (0.707, {"evaluation_set": "objectnet", "label": "wise-ft-lc", "variant": "alpha=0.5"}),
        (0.871, {"evaluation_set": "id-test", "parent": "full", "selection": ORACLE_PER_COLUMN}),
    ],
)
def test_table_1_of_wise_ft(rows, value, wanted):
    of_table = [
        row | {"note": "as printed" if "CLIP paper" in (row["note"] or "") else None}
        for row in rows
        if row["source"] == f"{WISE_FT} Table 1"
    ]
    setting = {"task": "imagenet", "backbone": "openai/ViT-L-14-336", "metric": "accuracy"}
    assert values(of_table, **setting, shots=None, kind="original", **wanted) == [value]


@pytest.mark.parametrize(
    ("place", "value", "wanted"),
    [
        ("Table 6", 0.464, {"evaluation_set": "iwildcam-ood", "metric": "macro-f1"}),
        ("Table 6", 0.748, {"task": "fmow", "evaluation_set": "id-test", "metric": "accuracy"}),
        ("Table 6", 0.497, {"evaluation_set": "fmow-ood", "metric": "worst-region"}),
        ("Table 6", 0.944, {"task": "cifar10", "evaluation_set": "cifar10.2"}),
        ("Table 2", 0.936, {"task": "stanford-cars", "evaluation_set": "id-test"}),
    ],
)
def test_wise_ft_on_other_tasks(rows, place, value, wanted):
    wanted |= {"source": f"{WISE_FT} {place}", "selection": ORACLE_PER_COLUMN, "method": "wise-ft"}
    assert values(rows, **wanted, backbone="openai/ViT-L-14-336") == [value]


def test_few_shots(rows):
    """CoOp with 16 images of every class (arXiv 2109.01903, Table 7)."""
    wanted = {"method": "coop", "shots": 16, "backbone": "openai/ViT-B-16"}
    assert values(rows, **wanted, evaluation_set="imagenet-a") == [0.4993]


def test_curves_of_alpha(rows):
    """21 points on six sets, for two kinds of WiSE-FT on two backbones."""
    curve = [row for row in rows if row["source"] == f"{WISE_FT} alpha tables"]
    assert {row["variant"] for row in curve} == {f"alpha={i * 5 / 100}" for i in range(21)}
    kinds = Counter((row["backbone"], row["parent"]) for row in curve)
    assert kinds == {
        (backbone, parent): 126
        for backbone in ("openai/ViT-L-14-336", "openai/ViT-B-16")
        for parent in ("full", "linear-probe")
    }


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        # VRF (arXiv 2411.06966): curves over WiSE-FT's checkpoint, and the method itself
        (0.787, {"method": "wise-ft", "variant": "alpha=0.5", "evaluation_set": "imagenet-r"}),
        (0.366, {"method": "wise-ft", "variant": "alpha=1.0", "evaluation_set": "imagenet-a"}),
        (0.767, {"method": "output-ensemble", "variant": "alpha=0.5", "parent": "full"}),
        (0.484, {"method": "vrf", "note": "over full-ft", "evaluation_set": "imagenet-a"}),
        # TRACER (arXiv 2605.29380), Tables 1 and 2
        (0.5492, {"method": "tracer", "metric": "accuracy", "evaluation_set": "imagenet-a"}),
        (0.103, {"method": "tracer", "metric": "ece-of-batches", "evaluation_set": "objectnet"}),
        (0.124, {"method": "carot", "metric": "ece-of-batches", "evaluation_set": "imagenet-a"}),
        (0.7563, {"method": "arf", "evaluation_set": "imagenet-r"}),
        (0.8244, {"method": "lp-ft", "evaluation_set": "id-test"}),  # Table 2 has another
        # R-Adapter (arXiv 2408.05749)
        (0.597, {"method": "r-adapter", "evaluation_set": "objectnet", "kind": "second-hand"}),
        (0.535, {"method": "mask-fill", "evaluation_set": "imagenet-a"}),
    ],
)
def test_papers_since_2023(rows, value, wanted):
    of_file = [
        row | {"note": (row["note"] or "").split("; ")[0]}
        for row in rows
        if row["collection"] == "papers-since-2023" and row["backbone"] == "openai/ViT-B-16"
    ]
    assert value in values(of_file, **wanted)


def test_papers_since_2023_have_no_rows_that_are_known_to_be_wrong(rows):
    """TRACER's second LP-FT row, and its LP-FT of ViT-L/14, which is another method's row."""
    of_tracer = [row for row in rows if row["source"].startswith("arXiv:2605.29380")]
    assert len(of_tracer) == 66
    lp_ft = [row for row in of_tracer if row["method"] == "lp-ft"]
    assert {row["backbone"] for row in lp_ft} == {"openai/ViT-B-16"}
    assert values(lp_ft, evaluation_set="id-test") == [0.8244]


def test_a_curve_of_papers_since_2023_agrees_with_the_papers_own(table):
    """VRF measured WiSE-FT's checkpoint again; WiSE-FT's own curve is of the same models."""
    curves = [
        {line.first.variant: line.cells for line in published_lines(table) if chosen(line.first)}
        for chosen in (
            lambda row: "weight space" in row.source,
            lambda row: (
                row.source == f"{WISE_FT} alpha tables"
                and (row.backbone, row.parent) == ("openai/ViT-B-16", "full")
            ),
        )
    ]
    assert len(curves[0]) == 11
    for variant, cells in curves[0].items():
        tolerance = 0.013 if variant in ("alpha=0.0", "alpha=1.0") else 0.0011  # the ends are noted
        assert cells == pytest.approx(curves[1][variant], abs=tolerance), variant


def test_open_clips_fmow_is_not_wilds_worst_region(rows):
    """It counts "Other" as a region, so 31 of 121 models have 0: no metric of ours."""
    fmow = [r for r in rows if r["collection"] == "openclip-zero-shot" and r["task"] == "fmow"]
    assert {row["metric"] for row in fmow} == {"worst-region-with-other"}
    assert sum(row["value"] == 0 for row in fmow) == 31
    assert all("Other" in row["note"] for row in fmow)


def test_objectnet_of_wise_ft_flyp_and_autoft_is_noted_as_uncropped(rows):
    of_papers = [row for row in rows if row["collection"].startswith("papers")]
    noted = [row for row in of_papers if UNCROPPED in (row["note"] or "")]
    assert {row["evaluation_set"] for row in noted} == {"objectnet"}
    sources = {row["source"] for row in noted}
    assert {f"{WISE_FT} Table 1", f"{WISE_FT} Table 8", f"{WISE_FT} alpha tables"} <= sources
    objectnet = [row for row in of_papers if row["evaluation_set"] == "objectnet"]
    for row in objectnet:
        if row["label"] in ("flyp", "autoft", "wise-ft", "wise-ft-lc"):
            assert row in noted
    printed = [row for row in objectnet if "CLIP paper" in (row["note"] or "")]
    assert len(printed) == 2
    assert not [row for row in printed if row in noted]


def test_recipes_of_full_fine_tuning_that_differ_are_noted(rows):
    wanted = {"task": "imagenet", "backbone": "openai/ViT-B-16", "label": "full-ft", "shots": None}
    full = [row for row in rows if all(row[name] == item for name, item in wanted.items())]
    on_a = values(full, evaluation_set="imagenet-a")
    assert (min(on_a), max(on_a)) == (0.366, 0.4554)
    assert all("36.6 to 45.5" in row["note"] for row in full)


def test_it_is_noted_that_tpgm_looked_at_the_test_set(rows):
    of_tpgm = [row for row in rows if row["method"] == "tpgm"]
    assert len(of_tpgm) == 5
    assert all("radii on the images that ID accuracy is measured on" in r["note"] for r in of_tpgm)


@pytest.mark.parametrize(
    ("method", "count", "note"),
    [
        ("car-ft", 5, "there is no released code"),
        ("lipsum-ft", 11, "flips images and keeps the checkpoint that is best on"),
        ("mask-fill", 6, "does not say which masks"),
        ("static-sd", 5, "the source's loss is not known"),
    ],
)
def test_it_is_noted_where_settings_may_not_be_the_papers(rows, method, count, note):
    found = [row for row in rows if row["method"] == method]
    assert len(found) == count
    assert all(note in row["note"] for row in found)


def test_model_stock_of_another_papers_baselines(rows):
    found = {r["evaluation_set"]: r["value"] for r in rows if r["method"] == "model-stock"}
    assert found == {
        "id-test": 0.8407,
        "imagenet-v2": 0.7483,
        "imagenet-r": 0.7177,
        "imagenet-a": 0.5123,
        "imagenet-sketch": 0.5177,
    }


def test_open_clip(rows):
    """Values of docs/openclip_results.csv."""
    wanted = {"collection": "openclip-zero-shot", "backbone": "openai/ViT-B-16"}
    found = {
        (row["task"], row["evaluation_set"], row["metric"]): row["value"]
        for row in rows
        if all(row[name] == item for name, item in wanted.items())
    }
    assert found["imagenet", "id-test", "accuracy"] == 0.6834
    assert found["imagenet", "imagenet-r", "accuracy"] == 0.7770
    assert found["iwildcam", "iwildcam-ood", "macro-f1"] == 0.1099
    assert found["fmow", "fmow-ood", "worst-region-with-other"] == 0.1888
    assert found["cifar10", "id-test", "accuracy"] == 0.9077
    assert found["stanford-cars", "id-test", "headline"] > 0.5
    assert len(found) == 39


def test_model_soups(rows):
    found = [row for row in rows if row["label"] == "model_1"]
    assert {row["method"] for row in found} == {"full"}
    assert values(found, evaluation_set="id-val") == [0.7984615384615384]
    assert values(found, evaluation_set="imagenet-r") == [0.6258]
    assert json.loads(found[0]["config"])["epochs"] == 4
    start = [row for row in rows if row["label"] == "model_0"]
    assert {(row["method"], row["config"]) for row in start} == {("linear-probe", None)}


def test_testbed(rows):
    found = [row for row in rows if row["collection"] == "imagenet-testbed"]
    resnet = [row for row in found if row["backbone"] == "resnet50"]
    assert values(resnet, evaluation_set="id-test") == [pytest.approx(0.7613)]
    assert values(resnet, evaluation_set="imagenet-a") == [0]  # by construction
    assert values(resnet, evaluation_set="id-test-on-imagenet-a-classes") == [pytest.approx(0.9186)]
    assert values(resnet, evaluation_set="ytbb-robust", metric="pm10-accuracy")
    types = Counter(row["method"] for row in found if row["evaluation_set"] == "id-test")
    assert types["standard"] == 87
    assert types[UNTYPED] == 110


def test_the_vocabulary_is_ours(rows):
    """The tasks, sets, metrics and methods that this project has are called as it calls them."""
    papers = [row for row in rows if row["collection"] == "papers"]
    for name, task in builtin_tasks().items():
        sets = task.evaluation_sets()
        of_task = [r for r in papers if r["task"] == name and r["evaluation_set"] in sets]
        assert {row["evaluation_set"] for row in of_task} == sets.keys() - {"ood-val"}
        assert all(row["metric"] == sets[row["evaluation_set"]].metric for row in of_task)
    ours = METHODS.entries().keys()
    others = {"drm", "partial-ft-top4"}
    since = [row for row in rows if row["collection"] == "papers-since-2023"]
    others |= {"arf"}
    assert {row["method"] for row in since} - others <= ours
    assert {row["method"] for row in papers} - others <= ours
    assert not ours & others
    assert {row["parent"] for row in papers} - {None} <= ours


def test_honest_about_what_is_not_published(rows):
    for name in ("low", "high", "interval", "n"):
        assert {row[name] for row in rows} == {None}
    assert {row["data_kind"] for row in rows} == {"real"}
    assert {row["kind"] for row in rows} == {"original", "second-hand"}
    assert all(row["source"] for row in rows)
    oracle = [row for row in rows if row["selection"] == ORACLE_PER_COLUMN]
    assert oracle
    assert all("each test set" in row["note"] for row in oracle)
    assert {row["variant"] for row in oracle} == {None}


# Averages


def test_averages_of_tpgm(table):
    """The repository's README averages ImageNet and four shifts."""
    found = {
        line.first.label + (line.first.variant or ""): line.cells
        for line in published_lines(table)
        if line.first.source == "TPGM repository README"
    }
    sets = ("id-test", "imagenet-v2", "imagenet-a", "imagenet-r", "imagenet-sketch")
    averages = {"full-ft": 63.58, "wise-ftalpha=0.5": 68.97, "tpgm": 69.27}
    for name, average in averages.items():
        assert 100 * average_of_cells(found[name], sets) == pytest.approx(average, abs=0.01)


def test_the_curves_agree_with_table_1(table):
    """At alpha 0.5 both are the same models: no cell differs by more than a rounding."""
    lines = [
        line
        for line in published_lines(table)
        if line.first.backbone == "openai/ViT-L-14-336" and line.first.variant == "alpha=0.5"
    ]
    for label in ("wise-ft", "wise-ft-lc"):
        cells = {
            line.first.source.removeprefix(f"{WISE_FT} "): line.cells
            for line in lines
            if line.first.label == label
        }
        for name in ("id-test", *SHIFTS):
            curve, printed = cells["alpha tables"][name], cells["Table 1"][name]
            assert curve == pytest.approx(printed, abs=0.001 + 1e-9)


def test_an_average_needs_all_its_cells():
    assert average_of_cells({"a": 0.25, "b": 0.75}, ("a", "b")) == 0.5
    assert average_of_cells({"a": 0.25}, ("a", "b")) is None
    assert average_of_cells({"a": 0.25}, ()) is None


def test_reruns_are_told_apart(table):
    """FLYP was run again twice by the same work, with nothing to tell the runs apart."""
    again = [
        line.cells["id-test"]
        for line in published_lines(table)
        if line.first.source.startswith("later re-run") and line.first.label == "flyp"
    ]
    assert again == [0.826, 0.822]


# Beside the leaderboard


def test_shared_columns_have_the_leaderboards_types():
    shared = set(PUBLISHED_SCHEMA.names) & set(SCHEMA.names)
    assert len(shared) == 18
    for name in shared:
        assert PUBLISHED_SCHEMA.field(name).type == SCHEMA.field(name).type


def test_duckdb_unites_both(tmp_path):
    write_run(tmp_path, "a1", run("a1", {"imagenet-r": 0.7}, backbone="openai/ViT-B-16"))
    query = """
        SELECT source IS NULL AS ours, value
        FROM (
            SELECT * FROM read_parquet($ours)
            UNION ALL BY NAME
            SELECT * FROM read_parquet($published)
        )
        WHERE evaluation_set = 'imagenet-r' AND backbone = 'openai/ViT-B-16' AND method = 'full'
        ORDER BY ours DESC, value
    """
    files = {"ours": f"{tmp_path}/leaderboard/*.parquet", "published": f"{FOLDER}/papers.parquet"}
    found = duckdb.execute(query, files).fetchall()
    assert found == [(True, 0.7), (False, 0.6505), (False, 0.656), (False, 0.656), (False, 0.656)]


# From CSV files


@needs_csv
def test_the_files_are_those_of_the_csv_files():
    tables = convert(CSV, FOLDER)
    assert tables.keys() == CONVERTERS.keys() == set(COLLECTIONS)
    for stem, made in tables.items():
        assert made.equals(pq.read_table(FOLDER / f"{stem}.parquet"))


@needs_csv
def test_every_cell_of_the_csv_files_is_accounted_for(rows):
    """It is a value, one of the line's names and settings, or empty."""
    by_cell = {(row["collection"], row["line"], row["column"]): row for row in rows}
    names = {
        "papers": {},
        "papers-since-2023": {},
        "openclip-zero-shot": {"params (M)": "details", "FLOPs (B)": "details"},
        "model-soups-finetunes": {"model_name": "label", "info": "note"}
        | dict.fromkeys(("aug", "epochs", "lr", "mix", "smoothing", "wd"), "config"),
        "imagenet-testbed": {"model": "backbone", "type": "method"},
    }
    names["openclip-zero-shot"] |= {"name": "backbone", "pretrained": "backbone"}
    percent = {"papers", "papers-since-2023", "imagenet-testbed"}
    any_of_line = {(row["collection"], row["line"]): row for row in rows}
    used = 0
    for stem, kept in names.items():
        kept_here = FOLDER / f"{stem}.csv"
        with (kept_here if kept_here.exists() else CSV / f"{stem}.csv").open(newline="") as file:
            for number, cells in enumerate(csv.DictReader(file), start=2):
                one = any_of_line.get((stem, number))
                if one is None:  # a model that was evaluated nowhere
                    assert [name for name, text in cells.items() if text] == ["model", "type"]
                    continue
                for column, text in cells.items():
                    row = by_cell.get((stem, number, column))
                    if row is not None:
                        scale = 100 if stem in percent else 1
                        assert scale * row["value"] == pytest.approx(float(text), rel=1e-12)
                        used += 1
                    elif text and column in kept:
                        told = one[kept[column]]
                        assert text in told or float(text) in json.loads(told).values()
                    elif stem.startswith("papers"):
                        assert paper_says(one, column, text), (number, column, text)
                    else:
                        assert not text, (stem, number, column)
    assert used == len(rows)


def paper_says(row, column, text):
    """Whether a row of papers.csv has the text of one of its other columns."""
    match column:
        case "train_dataset":
            return row["task"] == text
        case "shots":
            return (row["shots"] or "full") == (int(text) if text.isdigit() else text)
        case "eval_dataset":
            return row["evaluation_set"] in (text, "id-test", f"{text}-ood")
        case "metric":
            return text.replace("_", "-").removesuffix("-accuracy") in row["metric"] + "-accuracy"
        case "method":
            return row["label"] == text
        case "variant" if text in ("alpha=best", "alpha=id-val"):
            return row["variant"] is None and row["selection"] is not None
        case "variant" if text:
            return float(row["variant"].split("=")[1]) == float(text.split("=")[1])
        case "selection":
            return (row["selection"] or "") == text.replace(" ", "-")
        case "note":
            return text in (row["note"] or "")
    return row[column] == text if text else row[column] is None


@needs_csv
def test_what_is_no_result_is_in_the_package():
    """The names of iWildCam's classes ship with the task."""
    folders = (CSV, FOLDER)
    stems = [path.stem for folder in folders for path in folder.glob("*.csv")]
    assert sorted(stems) == sorted([*CONVERTERS, *NOT_RESULTS])
    shipped = (ROOT / "benchmark/shiftbench/data/iwildcam_labels.csv").read_text()
    assert (CSV / "iwildcam-labels.csv").read_text() == shipped


PAPERS = """\
train_dataset,shots,eval_dataset,metric,value,method,variant,selection,backbone,source,kind,note
imagenet,full,imagenet-r,accuracy,65.6,full-ft,,,openai/ViT-B-16,arXiv:2109.01903 Table 8,original,
"""


def test_the_same_bytes_every_time(tmp_path):
    (tmp_path / "papers.csv").write_text(PAPERS)
    for name in ("first", "second"):
        main(["--from", str(tmp_path), "--to", str(tmp_path / name)])
    first, second = (tmp_path / n / "papers.parquet" for n in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    row = read_published(tmp_path / "first").to_pylist()[0]
    assert (row["method"], row["value"], row["line"]) == ("full", 0.656, 2)
    assert row["url"] == "https://arxiv.org/abs/2109.01903"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (PAPERS.replace("65.6", "656"), "line 2, value: 656 is not a score"),
        (PAPERS.replace("65.6", "n/a"), 'line 2, value: "n/a" is not a number'),
        (PAPERS.replace(",accuracy,", ",loss,"), "loss"),
        (PAPERS.replace("full-ft,,", "full-ft,beta=1,"), 'unknown variant "beta=1"'),
        (PAPERS.replace("eval_dataset", "set"), "eval_dataset"),
    ],
)
def test_faults_of_csv_files(tmp_path, text, fault):
    (tmp_path / "papers.csv").write_text(text)
    with pytest.raises(InputError, match=fault):
        convert(tmp_path)


def test_unknown_csv_files(tmp_path, capsys):
    with pytest.raises(InputError, match="no CSV files"):
        convert(tmp_path)
    (tmp_path / "blog.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"blog\.csv: only these are known: imagenet-testbed"):
        convert(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["--from", str(tmp_path), "--to", str(tmp_path)])
    assert "only these are known" in capsys.readouterr().err


def test_every_column_says_what_it_means():
    schema = pq.read_schema(FOLDER / "papers.parquet")
    assert schema.equals(PUBLISHED_SCHEMA, check_metadata=True)
    assert all(item.metadata[b"description"] for item in schema)


# Finding and reading


def test_the_shipped_ones_are_read_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_published() == FOLDER
    with pytest.raises(InputError, match="no published results"):
        read_published(tmp_path)


def test_a_shipped_file_that_is_missing_is_told(tmp_path, monkeypatch):
    for path in FOLDER.glob("*.parquet"):
        if path.stem != "imagenet-testbed":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(reading, "shipped", lambda _: tmp_path)
    with pytest.raises(InputError, match=r"imagenet-testbed\.parquet is missing"):
        read_published()


def test_files_of_something_else(tmp_path):
    write_run(tmp_path, "a1", run("a1", {"imagenet-r": 0.7}))
    with pytest.raises(InputError, match=r"a1\.parquet: not published results of version 2"):
        read_published(tmp_path / "leaderboard")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"x\.parquet: cannot be read"):
        read_published(tmp_path)
