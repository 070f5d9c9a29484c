"""A public leaderboard from bundles that nobody need trust."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.leaderboard.bundles import layout
from shiftbench.leaderboard.bundles.export import export
from shiftbench.report.site import RECORD, write_site

from tests.leaderboard.test_bundle import changed, members, packed, sealed
from tests.leaderboard.test_verify import store_run

SETS = {"id-test": "accuracy", "imagenet-r": "accuracy"}
EVIL = "<img src=x onerror=alert(1)>"
FILES = {"index.html", "report.html", "history.html", "report.csv", RECORD}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good bundles that share a run."""
    folder = tmp_path_factory.mktemp("bundles")
    results = tmp_path_factory.mktemp("results")
    facts = {"sets": SETS, "shifts": ("imagenet-r",)}
    store_run(results, "a1", label="full", **facts)
    export(results, ["a1"], folder / "2030-01-31-first.zip")
    store_run(results, "b2", label=f"wise {EVIL}", parents=[("full", "a1")], seed=2, **facts)
    export(results, ["b2"], folder / "2030-02-28-second.zip")
    return folder


def copied(bundles: Path, to: Path) -> Path:
    to.mkdir()
    for file in bundles.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def ids_and_links(page: str) -> tuple[set[str], set[str]]:
    return {*re.findall(r'id="([^"]+)"', page)}, {*re.findall(r'href="([^"]+)"', page)}


def test_a_site_has_rankings_history_and_where_every_line_is_from(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "public"
    assert main(["site", str(bundles), "--to", str(to), "--title", f"Ours {EVIL}"]) == 0
    assert "2 bundles without a problem" in capsys.readouterr().out
    assert "2 runs from 2 bundles" in (to / "index.html").read_text()
    assert {path.name for path in to.iterdir()} == FILES
    pages = {path.name: path.read_text() for path in to.glob("*.html")}
    for page in pages.values():
        assert EVIL not in page and "&lt;img src=x onerror=alert(1)" in page
        assert "Content-Security-Policy" in page and str(tmp_path) not in page
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    rows = [*csv.DictReader(io.StringIO((to / "report.csv").read_text()))]
    origins = {row["label"]: row["results"] for row in rows}
    assert origins == {
        "full": "2030-01-31-first; 2030-02-28-second",
        f"wise {EVIL}": "2030-02-28-second",
    }
    assert "labels not checked: imagenet · id-test" in pages["history.html"]
    # Links between pages lead somewhere.
    anchors = {name: ids_and_links(page)[0] for name, page in pages.items()}
    for name in ("index.html", "history.html"):
        for link in ids_and_links(pages[name])[1]:
            file, _, anchor = link.partition("#")
            assert (to / file).is_file() and (not anchor or anchor in anchors[file])
    record = json.loads((to / RECORD).read_text())["bundles"]
    assert [entry["new"] for entry in record] == [["a1"], ["b2"]]
    assert record[1]["known"] == ["a1"] and len(record[0]["sha256"]) == 64


@pytest.fixture(scope="module")
def site(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the good bundles."""
    folder = tmp_path_factory.mktemp("site")
    write_site(bundles, folder)  # an empty folder may be taken
    return folder


def leads_of(site: Path) -> list[dict[str, str]]:
    leads: list[dict[str, str]] = json.loads((site / RECORD).read_text())["leads"]
    return leads


def test_history_has_a_line_whenever_a_first_place_changes(site: Path) -> None:
    leads = leads_of(site)
    assert leads[0]["date"] == "2030-01-31"
    assert (leads[0]["method"], leads[0]["bundle"]) == ("full", "2030-01-31-first")
    assert len({(lead["method"], lead["ood"]) for lead in leads}) == len(leads)
    history = (site / "history.html").read_text()
    assert all(f'<td class="number">{lead["ood"]}</td>' in history for lead in leads)


def hostile(bundles: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Bundles that are not to be believed, and what is said of them."""
    good = members(bundles / "2030-01-31-first.zip")
    rows, told = "rows/a1.parquet", "predictions/a1.parquet"

    def file(name: str) -> Path:
        return folder / f"2030-03-0{name}.zip"

    yield packed(file("1-slip"), good | {"../../evil.txt": b"x"}), "a bundle has no member"
    lies = sealed(good | {rows: changed(good[rows], "value", 0.99)})
    yield packed(file("2-lies"), lies), "0.99"
    bare = sealed({name: data for name, data in good.items() if name != told})
    yield packed(file("3-bare"), bare), "not every run has both rows and predictions"
    yield packed(file("4-changed"), good | {rows: good[rows][:-1] + b"x"}), "manifest"
    file("5-text").write_text("hello")
    yield file("5-text"), "is no zip archive"
    yield packed(folder / "latest.zip", good), "its name is not YYYY-MM-DD-NAME.zip"
    yield packed(folder / "2030-02-30-no-day.zip", good), "its name is not YYYY-MM-DD-NAME.zip"
    yield packed(folder / f"2030-01-01-{EVIL}.zip", good), "its name is not"
    (folder / "2030-03-09-link.zip").symlink_to("/etc/hostname")
    yield folder / "2030-03-09-link.zip", "it is no plain file"


def test_hostile_bundles_are_refused_in_a_line_and_the_others_are_shown(
    bundles: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(bundles, tmp_path / "bundles")
    reasons = [reason for _, reason in hostile(bundles, folder)]
    to = tmp_path / "site"
    assert main(["site", str(folder), "--to", str(to)]) == 1
    lines = capsys.readouterr().out.splitlines()
    refused = [line for line in lines if "REFUSED" in line]
    assert len(refused) == len(reasons)
    for reason in reasons:
        assert any(reason in line for line in refused)
    assert lines[-1].endswith("2 bundles without a problem")
    history = (to / "history.html").read_text()
    assert history.count("refused: ") == len(reasons) and "<img" not in history
    assert not (tmp_path / "evil.txt").exists() and not (tmp_path.parent / "evil.txt").exists()
    assert leads_of(to) == leads_of(site)


def test_rows_of_any_kind_do_not_keep_the_others_from_being_shown(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Variants that are no curve are shown; a run that builds on itself is refused."""
    folder, results = copied(bundles, tmp_path / "bundles"), tmp_path / "results"
    facts: dict[str, Any] = {"sets": SETS, "shifts": ("imagenet-r",)}
    curve = {**facts, "sets": {**SETS, "id-val": "accuracy"}}
    store_run(results, "c1", label="odd", variants=("alpha=best", "alpha=1.0"), **curve)
    export(results, ["c1"], folder / "2030-03-01-odd.zip")
    store_run(results, "d1", label="round", parents=[("round", "d1")], **facts)
    export(results, ["d1"], folder / "2030-03-02-round.zip")
    # Each of these two is fine alone.
    store_run(results, "e1", label="half", parents=[("half", "e2")], **facts)
    export(results, ["e1"], folder / "2030-03-03-half.zip")
    store_run(results, "e2", label="half", parents=[("half", "e1")], **facts)
    (results / "leaderboard" / "e1.parquet").unlink()
    export(results, ["e2"], folder / "2030-03-04-half.zip")
    assert main(["site", str(folder), "--to", str(tmp_path / "site")]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "REFUSED" in line]
    assert [line.split(":")[0] for line in lines] == ["2030-03-02-round.zip", "2030-03-04-half.zip"]
    assert all("no report can be made of its rows" in line for line in lines)
    assert "alpha=best" in (tmp_path / "site" / "report.html").read_text()


def test_no_file_is_read_that_a_row_names_as_its_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bundles"
    folder.mkdir()
    Path("private.yaml").write_text("hunter2: 1\n")
    for run_id, suite in (("a1", "../" + tmp_path.name + "/private.yaml"), ("a2", "private.yaml")):
        store_run(tmp_path / "results", run_id, suite=suite, sets=SETS, shifts=("imagenet-r",))
    export(tmp_path / "results", ["a1", "a2"], folder / "2030-03-01-nosy.zip")
    assert main(["site", str(folder), "--to", "site"]) == 0
    assert "hunter2" not in Path("site/report.html").read_text()


def test_what_is_too_large_is_refused_before_it_is_unpacked(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MOST_BYTES", 100)
    made = write_site(bundles, tmp_path / "site")
    assert all("is too large" in (each.refused or "") for each in made.submissions)
    assert "No bundle has been taken in yet." in (tmp_path / "site" / "index.html").read_text()


def test_a_later_bundle_does_not_replace_an_earlier_one(
    bundles: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(bundles, tmp_path / "bundles")
    results = tmp_path / "results"
    store_run(results, "a1", label="full", sets=SETS, shifts=("imagenet-r",), seed=1)
    export(results, ["a1"], folder / "2030-03-01-other.zip")
    assert main(["site", str(folder), "--to", str(tmp_path / "site")]) == 1
    assert "CONFLICT with an earlier bundle: a1: " in capsys.readouterr().out
    assert leads_of(tmp_path / "site") == leads_of(site)
    assert "left out, since an earlier bundle" in (tmp_path / "site" / "history.html").read_text()


def test_a_site_does_not_replace_the_folder_that_its_bundles_are_in(
    bundles: Path, tmp_path: Path
) -> None:
    inside = copied(bundles, tmp_path / "submissions")
    for to in (tmp_path, inside):
        (to / RECORD).write_text("{}")
        with pytest.raises(InputError, match="holds the bundles"):
            write_site(inside, to)
    assert len([*inside.glob("*.zip")]) == 2


def test_only_a_site_is_replaced_and_the_same_bundles_make_the_same_site(
    bundles: Path, site: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / RECORD).write_text("{}")
    (mine / "left.html").write_text("of an older version")
    write_site(bundles, mine)
    assert {path.name for path in mine.iterdir()} == FILES
    for file in FILES:
        assert (mine / file).read_bytes() == (site / file).read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is no site"):
        write_site(bundles, other)
    assert (other / "thesis.tex").read_text() == "years of work"
    with pytest.raises(InputError, match="no such folder"):
        write_site(tmp_path / "nowhere", mine)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
