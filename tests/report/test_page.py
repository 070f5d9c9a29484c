"""The page in a browser: Debian's chromium (``apt-get install chromium``), driven by playwright."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from shiftbench.leaderboard.store import read
from shiftbench.report.html.page import write_html
from shiftbench.report.model import build

from tests.browser import CHARTS, executable, launched
from tests.report.measured_records import write_measured
from tests.report.page_records import EVIL, of_methods, published, write_results

MEGABYTE = 1e6
BOARD = "section[data-task=cifar10]"


@pytest.fixture(scope="module")
def browser():
    if executable() is None:
        pytest.skip("there is no chromium; `make browser` installs Debian's")
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_results(folder)
    report = build(read(folder), folder, title=f"Toy {EVIL}", published=published())
    write_html(folder / "report.html", report)
    return folder / "report.html"


@pytest.fixture(scope="module")
def opened(browser, file):
    """The page with all charts drawn, what it asked for, and what it complained of."""
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
    page.goto(file.as_uri())
    page.wait_for_selector(CHARTS, timeout=60_000)
    yield page, requests, complaints
    page.close()


@pytest.fixture
def page(opened):
    """The page as it opens."""
    page, _, complaints = opened
    yield page
    assert complaints == []


@pytest.fixture
def changing(page):
    """The page for a test that sorts or filters it."""
    yield page
    page.reload()
    page.wait_for_selector(CHARTS, timeout=60_000)


def methods(page):
    """Shown methods of the first ranking, in their order."""
    rows = page.locator(f"{BOARD} table.ranking tbody tr")
    return [text.strip() for text in rows.locator("th.method").all_inner_texts()]


def test_it_fetches_nothing_and_complains_of_nothing(opened, file):
    _, requests, complaints = opened
    assert {request.partition(":")[0] for request in requests} <= {"file", "data"}
    assert [request for request in requests if request.startswith("file:")] == [file.as_uri()]
    assert complaints == []
    assert file.stat().st_size < 5 * MEGABYTE


def test_every_chart_is_drawn(page, file):
    charts = page.locator(".chart")
    assert charts.count() > 5
    for i in range(charts.count()):
        svg = charts.nth(i).locator("svg")
        assert svg.count() == 1
        assert svg.bounding_box()["width"] > 100
        assert charts.nth(i).locator("svg path").count() > 0
    page.screenshot(path=file.with_name("light.png"), full_page=True)
    assert file.with_name("light.png").stat().st_size > 10_000


def test_names_stay_text(page):
    assert page.title() == f"Toy {EVIL}"
    assert EVIL in methods(page)
    assert page.locator(".chart script, table script").count() == 0
    assert page.locator(f"{BOARD} .chart svg text", has_text="<script>").count() > 0


def test_headings_sort_with_the_keyboard(changing):
    before = methods(changing)
    heading = changing.locator(f"{BOARD} table.ranking thead th", has_text="ID").first
    assert heading.get_attribute("aria-sort") in (None, "none")
    heading.locator("[role=button]").first.focus()
    changing.keyboard.press("Enter")
    expect(heading).to_have_attribute("aria-sort", "descending")
    best_first = id_values(changing)
    assert best_first == sorted(best_first, reverse=True)
    assert methods(changing) != before
    changing.keyboard.press("Enter")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert id_values(changing) == sorted(best_first)
    assert sorted(methods(changing)) == sorted(before)


def id_values(page):
    cells = page.locator(f"{BOARD} table.ranking tbody tr td:nth-child(6)")
    return [float(cell.get_attribute("data-order")) for cell in cells.all()]


def test_filters_narrow_the_page(changing):
    boards = changing.locator(".board:visible")
    assert boards.count() == 2
    changing.locator("select[name=task]").select_option("cifar10")
    assert boards.count() == 1
    assert changing.locator(".filters output").inner_text() == "1 of 2 rankings"
    changing.locator("select[name=task]").select_option("all")
    changing.get_by_role("searchbox", name="method").fill("WISE")
    assert set(methods(changing)) == {"wise-ft"}
    faded = changing.locator('.chart svg path[opacity="0.08"]')
    expect(faded).not_to_have_count(0)
    changing.get_by_role("searchbox", name="method").fill("<script>")
    assert methods(changing) == [EVIL]
    changing.get_by_role("searchbox", name="method").fill("")
    assert len(methods(changing)) > 5
    expect(faded).to_have_count(0)


def test_intervals_can_be_hidden(changing):
    interval = changing.locator(f"{BOARD} .ranking td:not(.headline) .interval").first
    assert interval.bounding_box()["width"] > 20
    assert " to " in interval.inner_text()
    changing.get_by_role("checkbox", name="intervals").uncheck()
    assert interval.bounding_box()["width"] <= 1
    assert changing.locator(f"{BOARD} .ranking .headline .interval").first.is_visible()


def test_numbers_say_what_they_are_when_pointed_at(page):
    row = page.locator(f"{BOARD} table.ranking tbody tr", has_text="full").first
    told = row.locator("td").nth(4).get_attribute("title")
    assert "standard deviation over seeds 0.0" in told and "(by hand)" in told
    told = row.locator("td").nth(6).get_attribute("title")
    for part in ("95 % interval", "Student's t over seeds", "100 images", "seeds 0, 1", "git"):
        assert part in told


def test_marks_have_tooltips(page):
    symbol = page.locator(f"{BOARD} .chart[data-chart$=sets] svg .mark-symbol path").first
    symbol.scroll_into_view_if_needed()
    symbol.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.wait_for(state="visible")
    assert "method" in tooltip.inner_text()
    assert "seeds" in tooltip.inner_text()
    evil = page.locator(f'{BOARD} .chart[data-chart$=sets] path[aria-label*="alert(1)"]').first
    evil.hover(force=True)
    expect(tooltip).to_contain_text(EVIL)
    assert tooltip.locator("script").count() == 0


def test_long_tables_have_pages_and_paper_has_all_rows(page):
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    shown = page.locator("#reproduce tbody tr").count()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert shown == 14
    assert page.locator("#reproduce code").first.is_visible()


def test_dark_and_narrow(browser, file):
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.goto(file.as_uri())
    page.wait_for_selector(CHARTS, timeout=60_000)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(20, 24, 29)"
    text = page.locator(".chart svg text").first
    expect(text).to_have_attribute("fill", "#e6e9ed")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # no sideways scrolling
    page.screenshot(path=file.with_name("dark.png"), full_page=True)
    page.emulate_media(color_scheme="light")
    expect(text).to_have_attribute("fill", "#17202a")
    page.close()


def test_without_scripts_the_tables_are_there(browser, file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(f"{BOARD} table.ranking tbody tr").count() > 5
    assert page.locator("noscript").is_visible()
    context.close()


METHODS = 67


@pytest.mark.parametrize("width", [1400, 500])
def test_every_measure_fits_the_screen(browser, width, tmp_path_factory):
    """Tables may be wider than the screen, which scrolls them, but what is said of them is not."""
    folder = tmp_path_factory.mktemp("measured")
    write_measured(folder)
    write_html(folder / "report.html", build(read(folder), folder))
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((folder / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    captions = [of.bounding_box() for of in page.locator("caption > span").all()]
    assert len(captions) > 8
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in captions)
    corrupted = page.locator("table", has=page.locator("th", has_text="mCE"))
    assert corrupted.locator("tbody tr").count() == 10
    assert corrupted.locator("tr.unranked th").inner_text() == "wise-ft · oracle"
    assert corrupted.locator("td[title*=seeds]").count() > 0
    detected = page.locator("table", has=page.locator("th", has_text="AUROC"))
    assert detected.count() == 2
    page.close()


@pytest.fixture(scope="module")
def narrow(browser, tmp_path_factory):
    """A report on many methods and five shifts, on a narrow screen."""
    file = tmp_path_factory.mktemp("narrow") / "report.html"
    write_html(file, build(of_methods(METHODS)))
    page = browser.new_page(viewport={"width": 500, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_selector(".chart[data-chart$=id-ood].done", timeout=60_000)
    yield page
    page.close()


def test_accuracies_are_in_sight_on_a_narrow_screen(narrow):
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 500  # no sideways scrolling
    headings = narrow.locator("table.ranking thead th.score")
    assert headings.count() == 7
    boxes = [headings.nth(i).bounding_box() for i in range(headings.count())]
    assert min(box["x"] for box in boxes) > 0
    assert max(box["x"] + box["width"] for box in boxes) <= 500
    name = narrow.locator("table.ranking tbody th.method").first.bounding_box()
    assert 0 <= name["x"] < boxes[0]["x"]
    assert name["width"] > 60


def test_the_answer_comes_first(narrow):
    tops = [
        narrow.locator(of).first.bounding_box()["y"]
        for of in ("#answer .pick", ".chart[data-chart$=id-ood]", "table.ranking")
    ]
    assert tops == sorted(tops)
    assert "Mean OOD" in narrow.locator("#answer .tiles").inner_text()


def test_headings_and_names_of_a_long_table_stay_in_sight(narrow):
    box = narrow.locator(".scroll", has=narrow.locator("table.ranking"))
    box.evaluate("box => { box.scrollIntoView(); box.scrollTop = 900; box.scrollLeft = 60; }")
    frame = box.bounding_box()
    assert frame["height"] <= 900
    heading = narrow.locator("table.ranking thead th.method").bounding_box()
    row = narrow.locator("table.ranking tbody th.method").nth(30).bounding_box()
    assert heading["y"] == pytest.approx(frame["y"], abs=2)
    assert heading["x"] == row["x"] == pytest.approx(frame["x"], abs=2)
    box.evaluate("box => box.scrollTo(0, 0)")


def test_no_two_methods_look_alike(narrow):
    legend = narrow.locator(".legend button[data-method]").evaluate_all(
        """buttons => buttons.map(button => {
            const path = button.querySelector("path");
            return ["d", "fill", "stroke"].map(name => path.getAttribute(name)).join(" ");
        })"""
    )
    assert len(set(legend)) == len(legend) == METHODS
    # Of the marks, the position is not a part of the look; their size differs from curves' points.
    marks = narrow.locator(".chart[data-chart$=id-ood] svg .mark-symbol path").evaluate_all(
        """paths => paths.map(path => [
            path.ariaLabel.match(/method: ([^;]+)/)[1],
            ["d", "fill", "stroke"].map(name => path.getAttribute(name)).join(" "),
        ])"""
    )
    looks = {}
    for method, look in marks:
        looks.setdefault(method, set()).add(look)
    assert len(looks) == METHODS
    assert all(len(of_method) == 1 for of_method in looks.values())
    assert len(set.union(*looks.values())) == METHODS


def test_what_is_chosen_in_the_legend_stands_out(narrow):
    faded = narrow.locator('.chart[data-chart$=id-ood] .mark-symbol path[opacity="0.08"]')
    marks = narrow.locator(".chart[data-chart$=id-ood] .mark-symbol path").count()
    button = narrow.locator(".legend button[data-method]").nth(3)
    button.focus()
    narrow.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    expect(faded).to_have_count(marks - marks // METHODS)
    narrow.keyboard.press("Enter")
    expect(faded).to_have_count(0)
    family = narrow.locator(".legend .family", has_text="trained").last
    family.click()
    of_family = family.locator("xpath=..").locator("[data-method]").count()
    assert 1 < of_family < METHODS
    expect(faded).to_have_count(marks // METHODS * (METHODS - of_family))
    family.click()
    expect(faded).to_have_count(0)
