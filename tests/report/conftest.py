from __future__ import annotations

import pytest
from shiftbench.leaderboard.store import read
from shiftbench.report.html.charts import drawn
from shiftbench.report.model import build

from tests.report.page_records import (
    EVIL,
    nowhere,
    published,
    write_results,
)


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_results(folder)
    return folder


@pytest.fixture(scope="package")
def table(folder):
    return read(folder)


@pytest.fixture(scope="package")
def report(folder, table):
    return build(table, folder, title=f"Toy {EVIL}", published=published(), find=nowhere)


@pytest.fixture(scope="package")
def figures(report):
    return {figure.name: figure for figure in drawn.all_figures(report)}


@pytest.fixture(scope="package")
def cifar(report):
    (of_ranking,) = [of for of in report.rankings if of.ranking.task == "cifar10"]
    return of_ranking
