"""A public leaderboard: a static site made of nothing but a folder of bundles.

No number that somebody hands in is believed. Every bundle is taken into an empty results folder in
the order of the dates in their names, with all checks of ``bundles.take``: hashes, sizes, and that
every value follows from the predictions. Rankings are made of what passed. A bundle that does not
pass is left out and named with the reason; one that disagrees with an earlier bundle about a run
does not replace it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from shiftbench.core.errors import InputError, last_line
from shiftbench.core.files import replaced_folder
from shiftbench.core.words import shortened, some
from shiftbench.leaderboard import store
from shiftbench.leaderboard.bundles.archive import opened
from shiftbench.leaderboard.bundles.contents import Contents
from shiftbench.leaderboard.bundles.take import take
from shiftbench.leaderboard.merging import Folders
from shiftbench.leaderboard.published.schema import PUBLISHED_SCHEMA
from shiftbench.leaderboard.schema import rows
from shiftbench.report.html.assets import static
from shiftbench.report.html.page import render
from shiftbench.report.html.templating import environment
from shiftbench.report.model import build
from shiftbench.report.ranking import rank
from shiftbench.report.scale import NONE
from shiftbench.report.scores import MEAN
from shiftbench.report.tables import to_csv
from shiftbench.report.words import title_of

if TYPE_CHECKING:
    from shiftbench.leaderboard.bundles.labels import DataLabels
    from shiftbench.report.ranking import Ranking
    from shiftbench.report.reproduce import Find

NAME = re.compile(r"(\d{4}-\d{2}-\d{2})-([A-Za-z0-9][A-Za-z0-9._-]{0,79})\.zip")
RECORD = "site.json"
"""The file that says that a folder is a site, of which bundles, and who led when."""
PAGES = ("index", "history")


@dataclass
class Submission:
    """A bundle of the folder.

    Attributes:
        file: its name.
        date: in its name; empty where it has none.
        sha256: of the file; empty where it was not read.
        new: runs that it brought.
        known: runs that were there with the same values.
        conflicts: runs of which it has other values than an earlier bundle, which stay out.
        unchecked: evaluation sets whose labels nothing was held against, with their tasks.
        refused: why nothing of it was taken; ``None`` where it was.
    """

    file: str
    date: str = ""
    sha256: str = ""
    new: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    refused: str | None = None

    @property
    def name(self) -> str:
        """What its lines in rankings say."""
        return self.file.removesuffix(".zip")


@dataclass(frozen=True)
class Lead:
    """The first of a ranking from a date on.

    Attributes:
        date: of the bundle that changed it.
        bundle: its name.
        ranking: what it is a ranking of.
        method: the first.
        ood: its mean over shifts, for people.
    """

    date: str
    bundle: str
    ranking: str
    method: str
    ood: str


@dataclass(frozen=True)
class Site:
    """A site that was made.

    Attributes:
        submissions: all bundles of the folder, by date.
        leads: every change of a first place, by date.
    """

    submissions: tuple[Submission, ...]
    leads: tuple[Lead, ...]


def write_site(
    bundles: Path,
    to: Path,
    *,
    title: str = "Leaderboard",
    labels: DataLabels | None = None,
    find: Find | None = None,
) -> Site:
    """Make the site of all bundles of a folder, in place of an earlier one.

    Args:
        bundles: folder of ``YYYY-MM-DD-NAME.zip``; other folders in it are not looked at.
        to: folder to write: ``index.html``, ``report.html``, ``history.html``, ``report.csv`` and
            ``site.json``.
        title: of the pages.
        labels: of the data, to check those of the bundles by.
        find: the file of a suite by its name, for commands that do runs again.

    Raises:
        InputError: there is no such folder, or ``to`` holds something else than a site, or the
            bundles.
    """
    if not bundles.is_dir():
        raise InputError(f"{bundles}: there is no such folder")
    if to.exists() and not (to.is_dir() and (not any(to.iterdir()) or (to / RECORD).is_file())):
        raise InputError(f"{to}: is there already, and is no site; name another folder")
    if bundles.resolve().is_relative_to(to.resolve()):
        raise InputError(f"{to}: holds the bundles, and would be replaced; name another folder")
    with TemporaryDirectory(prefix="shiftbench-site-") as folder:
        results = Path(folder) / "results"
        results.mkdir()
        submissions, leads = _taken(bundles, results, labels)
        origins: dict[str, list[str]] = {}
        for submission in submissions:
            for run_id in (*submission.new, *submission.known):
                origins.setdefault(run_id, []).append(submission.name)
        folders = Folders((results,), origins={k: tuple(v) for k, v in origins.items()})
        report = build(store.read(results), folders, title=title, find=find)
        files = {"report.html": render(report), "report.csv": to_csv(report)}
    shown = {
        "title": title,
        "updated": report.updated,
        "rankings": [_line(of.ranking) for of in report.rankings],
        "submissions": submissions[::-1],
        "leads": leads[::-1],
        "runs": len(report.runs),
        "taken": sum(submission.refused is None for submission in submissions),
    }
    files |= {f"{name}.html": _page(name, shown) for name in PAGES}
    record = {
        "bundles": [asdict(submission) for submission in submissions],
        "leads": [asdict(lead) for lead in leads],
    }
    files[RECORD] = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    with replaced_folder(to) as new:
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
    return Site(tuple(submissions), tuple(leads))


def _taken(
    bundles: Path, results: Path, labels: DataLabels | None
) -> tuple[list[Submission], list[Lead]]:
    """Take in every bundle that passes, and see what each changes."""
    submissions: list[Submission] = []
    leads: list[Lead] = []
    last: dict[tuple[str, str], tuple[str, str]] = {}
    for file in _files(bundles):
        submission = _submission(file, results, labels)
        submissions.append(submission)
        if submission.new:
            leads += _new_leads(results, submission, last)
    return submissions, leads


def _files(bundles: Path) -> Iterator[Path]:
    """What looks like a bundle, by date and name."""
    yield from sorted(path for path in bundles.iterdir() if path.name.lower().endswith(".zip"))


def _submission(file: Path, results: Path, labels: DataLabels | None) -> Submission:
    """Take one bundle in, or say why not."""
    matched = NAME.fullmatch(file.name)
    if matched is None or not _is_date(matched[1]):
        shown = shortened(repr(file.name), 100)
        return Submission(shown, refused="its name is not YYYY-MM-DD-NAME.zip")
    submission = Submission(file.name, matched[1])
    if file.is_symlink() or not file.is_file():
        submission.refused = "it is no plain file"
        return submission
    try:
        with file.open("rb") as content:
            submission.sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        submission.refused = _unfit(file, results)
        if submission.refused is not None:
            return submission
        taken = take(file, results, data=labels)
    except OSError as error:
        submission.refused = f"it cannot be read ({error.strerror})"
    except InputError as error:
        submission.refused = shortened(str(error).removeprefix(f"{file}: "), 300)
    else:
        submission.new, submission.known = [*taken.new], [*taken.known]
        submission.conflicts = [
            f"{conflict.run_id}: {some(conflict.differences)}" for conflict in taken.conflicts
        ]
        submission.unchecked = _unchecked(results, taken.unchecked)
    return submission


def _unfit(file: Path, results: Path) -> str | None:
    """Why no report can be made of a bundle's rows beside those that are there.

    Whatever a bundle may say of its runs, it does not keep the others from being shown.

    Raises:
        InputError: it is no bundle, or its rows contradict themselves.
    """
    there = store.read(results)
    known = {*there["run_id"].to_pylist()}
    with opened(file) as archive:
        contents = Contents.of(file, archive)
        told = [contents.rows(run_id) for run_id in contents.run_ids if run_id not in known]
    together = pa.concat_tables([there, *told], promote_options="default")
    try:
        build(together, published=pa.Table.from_batches([], PUBLISHED_SCHEMA))
    # Rows name parents, settings and details of any kind: a circle or another type is no report.
    except Exception as error:
        reason = shortened(last_line(error), 200)
        return f"no report can be made of its rows ({reason})"
    return None


def _unchecked(results: Path, by_run: Mapping[str, Sequence[str]]) -> list[str]:
    """Task and set of the labels that nothing was held against."""
    tasks = {row.run_id: row.task for row in rows(store.read(results, by_run))}
    found = {f"{tasks[run_id]} · {name}" for run_id, sets in by_run.items() for name in sets}
    return sorted(found)


def _new_leads(
    results: Path, submission: Submission, last: dict[tuple[str, str], tuple[str, str]]
) -> list[Lead]:
    """The first places that a bundle has changed.

    Args:
        results: with all bundles up to this one.
        submission: the bundle.
        last: method and score of each ranking's first place, which is brought up to date.
    """
    found = []
    for ranking in rank(row for row in rows(store.read(results)) if row.primary):
        line = _line(ranking)
        key, first = (ranking.task_digest, line["title"]), (line["method"], line["ood"])
        if line["method"] == NONE or last.get(key) == first:
            continue
        last[key] = first
        found.append(
            Lead(
                submission.date,
                submission.name,
                line["title"],
                line["method"],
                line["ood"],
            )
        )
    return found


def _line(ranking: Ranking) -> dict[str, Any]:
    """A ranking in one line: its first place."""
    first = next((method for method in ranking.methods if method.rank == 1), None)
    name = MEAN if ranking.shifts else ranking.by[0]
    estimate = None if first is None else first.scores.get(name)
    scale = ranking.scale_on(name)
    return {
        "title": title_of(ranking),
        "method": NONE if first is None else first.name,
        "ood": NONE if estimate is None else scale.text(estimate.mean),
        "interval": "" if estimate is None else scale.interval(estimate.low, estimate.high),
        "methods": len(ranking.methods),
        "results": () if first is None else first.results,
    }


def _page(name: str, shown: Mapping[str, Any]) -> str:
    template = environment().get_template(f"site_{name}.html.jinja")
    return template.render(css=static("page.css"), **shown)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
