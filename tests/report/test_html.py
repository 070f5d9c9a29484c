from __future__ import annotations

import csv
import io
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.core.errors import InputError
from shiftbench.evaluation import predictions, statistics
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import done, rows
from shiftbench.leaderboard.store import read, write_run
from shiftbench.report.html import assets
from shiftbench.report.html.charts import drawn
from shiftbench.report.html.charts.figure import COLOURS, NEUTRAL
from shiftbench.report.html.charts.records import logit_of
from shiftbench.report.html.charts.trainings import STATES
from shiftbench.report.html.figures import write_figures
from shiftbench.report.html.page import as_json, remark_of, render
from shiftbench.report.model import build
from shiftbench.report.reproduce import DATA, reproductions
from shiftbench.report.scores import MEAN, Member
from shiftbench.report.searches import searches
from shiftbench.report.tables import escape_latex, to_csv, to_latex
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.leaderboard.records import info, results, run
from tests.report.of_table import rankings
from tests.report.page_records import (
    ALPHAS,
    EVIL,
    SETS,
    curve_values,
    published,
    write_results,
)


def nowhere(name):
    raise InputError(f'there is no suite "{name}"')


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_results(folder)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    return read(folder)


@pytest.fixture(scope="module")
def page(folder, table):
    return build(table, folder, title=f"Toy {EVIL}", published=published(), find=nowhere)


@pytest.fixture(scope="module")
def html(page):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "vega", lambda: "window.vegaEmbed = null;")
        return render(page)


@pytest.fixture(scope="module")
def figures(page):
    return {figure.name: figure for figure in drawn.all_figures(page)}


@pytest.fixture(scope="module")
def cifar(page):
    (of_ranking,) = [of for of in page.rankings if of.ranking.task == "cifar10"]
    return of_ranking


# Data


def test_rankings_are_those_of_the_rows(page, table):
    assert [of_ranking.ranking for of_ranking in page.rankings] == rankings(table)


def test_every_method_knows_its_members(cifar):
    members = {method.name: method.members for method in cifar.ranking.methods}
    assert members["full"] == (Member("full0", "", 0), Member("full1", "", 1))
    assert members["zero-shot"] == (Member("zero", "", 0),)
    wise = (Member("wise0", "alpha=0.5", 0), Member("wise1", "alpha=0.5", 1))
    assert members["wise-ft"] == wise
    oracles = (Member("wise0", "alpha=0.0", 0), Member("wise1", "alpha=0.0", 1))
    assert members["wise-ft · oracle"] == oracles


def test_namesakes_keep_their_own_runs(tmp_path):
    for run_id, lr in (("a", 1e-5), ("b", 1e-3)):
        write_run(tmp_path, run_id, run(run_id, {"id-test": 0.5, "x": 0.5}, config={"lr": lr}))
    (of_ranking,) = build(read(tmp_path)).rankings
    assert {method.name: method.members for method in of_ranking.ranking.methods} == {
        "full (lr=1e-05)": (Member("a", "", 0),),
        "full (lr=0.001)": (Member("b", "", 0),),
    }


def test_cells_say_what_their_interval_is(cifar):
    scores = {method.name: method.scores for method in cifar.ranking.methods}
    assert scores["full"].get("cifar10.1").interval == "Student's t over seeds"
    assert scores["full"].get("cifar10.1").seeds == (0, 1)
    assert scores["zero-shot"].get("cifar10.1").interval == "by hand"
    assert scores["zero-shot"].get(MEAN).mean == pytest.approx((0.9 + 0.85) / 2)
    assert scores["full"].get("id-test").n == (100,)


def test_partial_means_say_what_is_missing(page):
    (ranking,) = [of.ranking for of in page.rankings if of.ranking.task == "imagenet"]
    (method,) = [method for method in ranking.methods if method.label == "full"]
    assert method.rank is None
    assert remark_of(method, MEAN) == "missing or incomplete: imagenet-r"
    assert remark_of(method, "imagenet-r") == "29,000 of 30,000 images"


def test_methods_tie_as_the_statistics_say(cifar, folder):
    ranked = [method for method in cifar.ranking.methods if method.rank is not None]
    variants = {"wise-ft": "alpha=0.5"}
    methods = {}
    for method in ranked:
        seeds = [None] if method.name == "zero-shot" else [0, 1]
        methods[method.name] = {
            seed: by_set(folder, member.run_id, variants.get(method.name, ""))
            for seed, member in zip(seeds, method.members, strict=True)
        }
    metrics = dict.fromkeys(SETS[1:], "accuracy")
    found = {
        frozenset((d.first, d.second)): d.adjusted for d in statistics.compare(methods, metrics)
    }
    letters = cifar.ties.letters
    for first, second in combinations(letters, 2):
        tied = bool(set(letters[first]) & set(letters[second]))
        assert tied == (found[frozenset((first, second))] > 0.05)
    assert letters["full"] == letters[EVIL] != letters["zero-shot"]
    assert letters.keys() == {method.name for method in ranked}  # and not the oracle's


def by_set(folder, run_id, variant):
    import pyarrow.compute as pc

    table = predictions.read(RunFolder.of(folder, run_id).predictions)
    table = table.filter(pc.field("variant") == variant)
    return {name: table.filter(pc.field("set") == name) for name in SETS}


def test_missing_predictions_are_said(page, table, cifar, folder, tmp_path):
    assert all(of_ranking.ties.known for of_ranking in page.rankings)
    alone = build(table).rankings
    assert not alone[0].ties.known
    assert "no results folder" in alone[0].ties.note
    assert not any(of_ranking.ties.letters for of_ranking in alone)
    write_results(tmp_path)
    RunFolder.of(tmp_path, "full1").predictions.unlink()
    ties = build(read(tmp_path), tmp_path).rankings[0].ties
    assert "full" not in ties.letters
    assert ties.letters["saft"]
    assert "predictions are missing: full" in ties.note


def test_each_file_of_predictions_is_read_once(folder, table, monkeypatch):
    """Also that of zero-shot, which stands beside every number of shots."""
    few = info("few", task="cifar10", data_kind="miniature/2", leakage=None, shots=4)
    of = results(dict.fromkeys(SETS, 0.5), data_fingerprint="d")
    files = []
    reading = pq.read_table

    def counted(file, **options):
        files.append(file)
        return reading(file, **options)

    monkeypatch.setattr(pq, "read_table", counted)
    more = build(pa.concat_tables([table, done(few, of)]), folder)
    assert [of_ranking.ranking.shots for of_ranking in more.rankings[:2]] == [4, None]
    read_files = [file for file in files if file.name == "predictions.parquet"]
    assert RunFolder.of(folder, "zero").predictions in read_files
    assert len(read_files) == len(set(read_files)) > 5


def test_curves_are_means_over_seeds_in_the_order_of_alpha(cifar):
    assert [(point.label, point.alpha) for point in cifar.curves] == [
        ("wise-ft", alpha) for alpha in ALPHAS
    ]
    for point in cifar.curves:
        for name in SETS:
            expected = np.mean([curve_values(point.alpha, seed)[name] for seed in (0, 1)])
            assert point.scores[name].mean == pytest.approx(expected)


def test_masks_are_summed_by_layer(page):
    shares = {share.layer: (share.share, share.density) for share in page.layer_shares}
    assert list(shares) == ["visual conv1", "visual block 2", "visual block 10"]
    assert shares["visual conv1"] == pytest.approx(((0.4 + 0.6) / 2, (4 + 6) / 2 / 50))
    assert shares["visual block 10"] == pytest.approx(((0.3 + 0.2) / 2, (3 + 2) / 2 / 25))


def test_searches_tell_their_rungs(page, table):
    (search,) = page.searches
    assert [(r.steps, r.reached, r.stopped) for r in search.rungs] == [(3, 3, 1), (9, 2, 0)]
    assert [trial.state for trial in search.trials].count("failed") == 1
    (alone,) = searches(rows(table), None)
    assert alone.note == "There is no results folder."


def test_the_published_cloud_is_only_of_the_real_imagenet(page, cifar, table):
    import pyarrow.compute as pc

    (real,) = [of for of in page.rankings if of.ranking.task == "imagenet"]
    assert real.axes == {"imagenet-v2": "id-test"}  # not R: our accuracy on its classes is unknown
    assert cifar.axes == {}
    shifts = {point.shift for point in page.cloud}
    assert shifts >= {"imagenet-v2", "imagenet-r"}
    on_line = [p for p in page.baselines if p.shift == "imagenet-v2"]
    assert all(p.low <= p.ood_accuracy <= p.high for p in on_line)
    small = table.filter(pc.field("data_kind") == "miniature/2")
    assert build(small, published=published()).cloud == ()


def test_published_values_stand_beside_ours(page):
    values = [value for c in page.comparisons for value in c.published]
    assert [value.value for value in values] == [0.66]
    assert page.published_note is None


# How to reproduce


SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  full: {lr: 1e-4}
  "true": {method: wise-ft, parent: full}
seeds: [0]
"""


@pytest.fixture
def suite(tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text(SUITE)
    return file


def rows_of(file, overrides=(), **changes):
    plan = Plan.build(Suite.load(file, overrides))
    made = [
        run(
            *(run_id, {"id-test": 0.5}),
            task=of.task.name,
            data_kind=of.data_kind,
            backbone=of.backbone,
            suite="toy",
            seed=of.seed,
            shots=of.shots,
            budget=of.budget.model_dump(),
            **changes,
        )
        for run_id, of in plan.runs.items()
    ]
    return plan, pa.concat_tables(made)


@pytest.mark.parametrize("overrides", [[], ["seeds=[3, 4]", "shots=[2]"], ["budget.steps=5"]])
def test_commands_plan_the_very_run(suite, overrides):
    plan, made = rows_of(suite, overrides)
    found = reproductions(rows(made), lambda name: suite)
    assert list(found) == [*plan.runs]
    for run_id, reproduction in found.items():
        words = shlex.split(reproduction.command)
        assert words[:5] == ["shiftbench", "run", "toy", "--data", "miniature"]
        settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        again = Plan.build(Suite.load(suite, settings, "miniature"))
        assert run_id in again.runs
        assert set(again.runs) <= set(plan.runs)


def test_real_data_are_named_by_a_placeholder(suite):
    suite.write_text(SUITE.replace("data: miniature\n", ""))
    _, made = rows_of(suite)
    for reproduction in reproductions(rows(made), lambda name: suite).values():
        assert f"--data {DATA}" in reproduction.command


def test_a_changed_suite_has_no_command(suite):
    _, made = rows_of(suite)
    suite.write_text(SUITE.replace("1e-4", "1e-3"))
    for reproduction in reproductions(rows(made), lambda name: suite).values():
        assert reproduction.command is None
        assert "plans other runs" in reproduction.note
        assert '"lr": 1e-05' in reproduction.note


def test_an_unknown_suite_has_no_command(table):
    for reproduction in reproductions(rows(table), nowhere).values():
        assert reproduction.command is None
        assert 'there is no suite "toy"' in reproduction.note


# Charts


def test_logits():
    assert logit_of(0.5) == 0
    assert logit_of(0.9) == pytest.approx(np.log(9))
    assert logit_of(1.0, n=100) == pytest.approx(np.log(0.995 / 0.005))
    assert logit_of(0.0, n=100) == pytest.approx(-logit_of(1.0, n=100))


def test_charts_are_valid_and_their_data_are_there(figures, page):
    assert len(figures) == len(drawn.all_figures(page))
    for kind in ("r1-id-ood", "r1-sets", "r1-alpha", "r1-cost", "mask-shares", "learned-weights"):
        assert kind in figures
    assert "search-5ea5c4" in figures
    for figure in figures.values():
        figure.chart.to_dict()  # raises for what Vega-Lite does not know
        text = json.dumps(figure.spec(with_data=False))
        asked = set(re.findall(r'"data": \{"name": "([^"]+)"\}', text))
        assert asked
        assert asked <= figure.data.keys()
        assert "datasets" not in text


def test_equal_names_of_data_mean_equal_data(figures):
    seen = {}
    for figure in figures.values():
        for name, records in figure.data.items():
            assert seen.setdefault(name, records) == records


def test_the_frontier_is_what_nothing_beats(figures):
    data = figures["r1-cost"].data
    points = [(r["cost"], r["value"]) for r in data["r1-points"] if r["set"] == MEAN]
    beaten = {
        (cost, value)
        for cost, value in points
        for c, v in points
        if c <= cost and v >= value and (c, v) != (cost, value)
    }
    frontier = {(r["cost"], r["value"]) for r in data["r1-frontier"]}
    assert frontier == set(points) - beaten


def test_oracles_are_in_no_chart(figures):
    for figure in figures.values():
        assert "oracle" not in json.dumps(figure.spec(with_data=True))


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(first, second):
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_in_light_and_dark():
    css = assets.static("page.css")
    light, dark = [
        dict(re.findall(r"(--[\w-]+): (#\w{6});", css.split("prefers-color-scheme")[i]))
        for i in (0, 1)
    ]
    for theme in (light, dark):
        for name in ("--ink", "--soft", "--link", "--bad", "--good"):
            assert contrast(theme[name], theme["--page"]) >= 4.5, name
        for colour in (*COLOURS, *STATES.values(), NEUTRAL):
            assert contrast(colour, theme["--page"]) >= 3, colour


# The page


class Elements(HTMLParser):
    """All elements with their attributes, and the text of each table and script."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


def test_names_stay_text(html, page):
    elements = Elements(html)
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert [attributes.get("type") for attributes in scripts] == [
        "application/json", None, "module", "module"
    ]  # fmt: skip
    shown = [text for element, text in elements.texts if element not in ("script", "style")]
    assert shown.count(EVIL) >= 2
    assert any(EVIL in text and "NaN" in text for text in shown)
    embedded = next(text for of, text in elements.texts if of == "script" and '"specs"' in text)
    assert "<" not in embedded
    data = json.loads(embedded)["datasets"]
    assert EVIL in {record["method"] for record in data["r1-points"]}


def test_nothing_is_fetched(html):
    elements = Elements(html)
    links = [
        a.get(k) for _, a in elements.found for k in ("href", "src", "action", "data") if k in a
    ]
    assert links
    assert all(link.startswith("#") for link in links)
    (policy,) = [a["content"] for _, a in elements.found if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_nothing_is_hidden(html):
    text = " ".join(text for of, text in Elements(html).texts if of not in ("script", "style"))
    assert "29,000 of 30,000 images" in text
    assert "12 test images of laion" in text
    assert "1 failed" in text
    assert "diverged" in text
    assert "There is nothing to compare with." in text
    assert 'no command is known: there is no suite "toy"' in text


def test_tables_are_tables(html):
    elements = Elements(html).found
    tables = sum(tag == "table" for tag, _ in elements)
    assert tables == sum(tag == "caption" for tag, _ in elements) > 5
    assert all("scope" in attributes for tag, attributes in elements if tag == "th")
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {a["href"][1:] for tag, a in elements if tag == "a"}
    assert wanted <= set(ids)


def test_the_same_rows_give_the_same_page(page, monkeypatch):
    monkeypatch.setattr(assets, "vega", lambda: "window.vegaEmbed = null;")
    small = replace(page, rankings=())
    assert render(small) == render(small)


def test_an_empty_page(tmp_path):
    text = render(build(read(tmp_path), tmp_path))
    assert "No run has finished yet." in text


def test_json_cannot_end_its_script():
    value = {"a": "</script><!--&\u2028", "b": [1.5, None]}
    text = as_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        as_json(float("nan"))


def test_exports_become_globals():
    text = assets.as_global("const a=1,b=2;export{a as x,b};", "x")
    assert "export" not in text
    assert text.endswith("globalThis.x = a;\n")
    assert assets.as_global("const b=2;export{b};", "b").endswith("globalThis.b = b;\n")
    with pytest.raises(ValueError, match="does not export y"):
        assets.as_global("export{a as x};", "y")
    with pytest.raises(ValueError, match="one statement"):
        assets.as_global("export default 1;", "x")


# Other files


def test_csv_has_every_number(page):
    rows = list(csv.DictReader(io.StringIO(to_csv(page))))
    expected = 0
    for of_ranking in page.rankings:
        ranking = of_ranking.ranking
        for method in ranking.methods:
            for name in (*method.scores.by_set, MEAN):
                (row,) = [
                    r
                    for r in rows
                    if (r["task"], r["label"], r["selection"], r["evaluation_set"])
                    == (ranking.task, method.label, method.selection, name)
                ]
                expected += 1
                estimate = method.scores.get(name)
                whole = remark_of(method, name) is None
                assert row["complete"] == ("true" if whole else "false")
                assert row["tied"] == of_ranking.ties.letters.get(method.name, "")
                assert row["runs"] == " ".join(member.run_id for member in method.members)
                if estimate is None:
                    assert row["value"] == ""
                else:
                    assert float(row["value"]) == estimate.mean
    assert len(rows) == expected


def test_latex_marks_the_best_and_escapes(page):
    text = to_latex(page)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(page.rankings)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
    zero_shot = next(line for line in text.splitlines() if "zero-shot" in line)
    assert r"\textbf{90.0}" in zero_shot  # the best on 10.1
    evil = next(line for line in text.splitlines() if "alert" in line)
    assert evil.count(" & ") == zero_shot.count(" & ")
    assert r"\textless{}script\textgreater{}" in evil


def test_latex_escapes():
    assert escape_latex(r"50 % & a_b $x^2 {~}\ #1") == (
        r"50 \% \& a\_b \$x\textasciicircum{}2 \{\textasciitilde{}\}\textbackslash{} \#1"
    )
    assert escape_latex("two\nlines") == "two lines"


def test_figures_are_images(page, figures, tmp_path, monkeypatch):
    of_two_pages = [figures["r1-sets"]] * 2
    module = "shiftbench.report.html.figures"
    monkeypatch.setattr(f"{module}.all_figures", lambda page: of_two_pages)
    files = write_figures(tmp_path / "new", page)
    stem = "each-evaluation-set-cifar10-miniature-all-training-data-miniature-2-data"
    assert [file.name for file in files] == [
        f"{name}.{kind}" for name in (stem, f"{stem}-2") for kind in ("svg", "png")
    ]
    svg, png = (file.read_bytes() for file in files[:2])
    assert svg.startswith(b"<svg")
    assert b"&lt;script&gt;" in svg
    assert b"<script" not in svg
    assert png.startswith(b"\x89PNG")
