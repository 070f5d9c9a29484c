"""The part of ``docs/performance.md`` that ``make perf`` writes: what it keeps and what it says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.perf.__main__ import SECTIONS
from tests.perf.growth import Curve, svg
from tests.perf.measurement import Measurement, alternating
from tests.perf.report import BEGIN, END, FIGURE, write

TITLES = {"decoding": "Decoding", "passes": "Evaluation", "growth": "Growth"}
MACHINE = {"cpu": "Fast × 2", "cpus": 2, "python": "3.12", "torch": "2.11"}


def section(*rows: object, load: float = 0.1) -> dict[str, Any]:
    return {
        "rows": [asdict(row) for row in rows],  # type: ignore[call-overload]
        "took": 61.0,
        "processor": 59.0,
        "peak": 2e9,
        "load": load,
        "machine": MACHINE,
        "measured": "2026-01-02",
    }


def test_tables_are_made_anew_between_the_markers_and_prose_stays(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# By hand\n\n{BEGIN}\n\nold\n\n{END}\n\nMore by hand.\n")
    curve = Curve("time against images", "images", "s", [10, 20, 40, 80], [1, 2, 4, 8], 1)
    results = {
        "decoding": section(
            Measurement("an image", 2.0, 5.0, "Pillow", 2.5, faster=True, unit="ms"),
            Measurement("a step", 1.2, 1.0, "a loop", 1.05, note="of two layers"),
            Measurement("a start", 0.5, goal=1.5),
            load=1.5,
        ),
        "growth": section(curve),
    }
    write(results, TITLES, tmp_path, page)
    text = page.read_text()
    write(results, TITLES, tmp_path, page)
    assert page.read_text() == text
    assert text.startswith("# By hand\n") and text.endswith("\n\nMore by hand.\n")
    assert "old" not in text
    assert "| an image | 2 ms | Pillow: 5 ms | 2.50 × | ≥ 2.5: met |" in text
    assert "| a step (of two layers) | 1.2 s | a loop: 1 s | 1.20 | ≤ 1.05: **not met** |" in text
    assert "| a start | 0.5 s |  |  | ≤ 1.5 s: met |" in text
    assert "### Evaluation\n\nNot measured.\n" in text
    assert "| time against images, s | 10, 20, 40, 80 | 1, 2, 4, 8 | 1.00 | 1 |" in text
    assert "Fast × 2 processors, 2 of them used; python 3.12, torch 2.11; 2026-01-02" in text
    assert text.count("**Other work kept 1.5 processors busy.**") == 1
    assert f"]({FIGURE})" in text and (tmp_path / FIGURE).exists()


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# By hand\n")
    with pytest.raises(SystemExit, match="make perf: begin"):
        write({}, TITLES, tmp_path, page)
    assert page.read_text() == "# By hand\n"


def test_the_shipped_page_has_every_section() -> None:
    text = (Path(__file__).parents[1] / "docs" / "performance.md").read_text()
    generated = text.partition(BEGIN)[2].partition(END)[0]
    assert [line[4:] for line in generated.splitlines() if line.startswith("### ")] == [
        of.title for of in SECTIONS.values()
    ]


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_power_is_fitted_and_every_curve_drawn(power: float) -> None:
    sizes = [10, 20, 40, 80]
    curve = Curve("memory against runs", "runs", "MB", sizes, [3 * s**power for s in sizes], power)
    assert curve.power == pytest.approx(power, abs=1e-9)
    drawn = ElementTree.fromstring(svg([curve] * 5))  # noqa: S314 - our own
    charts = [group for group in drawn if group.tag.endswith("}g")]
    assert len(charts) == 5
    points = [circle for circle in charts[0] if circle.tag.endswith("}circle")]
    heights = [float(circle.attrib["cy"]) for circle in points]
    assert len(points) == 4 and all(0 < height < 150 for height in heights)
    assert heights == sorted(heights, reverse=True) and (len(set(heights)) == 1) == (power == 0)


def test_ways_take_turns_and_the_first_turn_is_not_counted() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in "ab"}
    assert set(alternating(ways, 2)) == {"a", "b"}
    assert order == ["a", "b"] * 3
