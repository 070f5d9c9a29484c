"""The generated part of ``docs/performance.md``: tables and the figure of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.perf.growth import Curve, svg
from tests.perf.measurement import Measurement

BEGIN, END = "<!-- make perf: begin -->", "<!-- make perf: end -->"
FIGURE = "performance-growth.svg"
NOT_MEASURED = "Not measured."


def write(results: Mapping[str, Any], titles: Mapping[str, str], folder: Path, page: Path) -> None:
    """Write the page, with all between the markers made anew, and the figure.

    Args:
        results: by section.
        titles: of all sections, in their order.
        folder: where both go.
        page: with the prose and the markers.
    """
    before, _, rest = page.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{page}: lacks {BEGIN} or {END}")
    if growth := results.get("growth"):
        (folder / FIGURE).write_text(svg([Curve(**row) for row in growth["rows"]]))
    text = "\n\n".join(sections(results, titles))
    (folder / page.name).write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def sections(results: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[str]:
    """The text of every section."""
    for name, title in titles.items():
        yield f"### {title}"
        if name not in results:
            yield NOT_MEASURED
            continue
        of_section = results[name]
        rows = of_section["rows"]
        yield curves(rows) if name == "growth" else table([Measurement(**row) for row in rows])
        yield remark(of_section)


def table(measurements: list[Measurement]) -> str:
    """A table of measurements."""
    lines = ["| what | here | against | ratio | goal |", "|---|---|---|---|---|"]
    for m in measurements:
        reference = "" if m.reference is None else f"{m.against}: {number(m.reference)} {m.unit}"
        ratio = "" if m.reference is None else f"{m.ratio:.2f}" + " ×" * m.faster
        goal = ""
        if m.goal is not None:
            sign = "≥" if m.faster else "≤"
            unit = "" if m.reference is not None else f" {m.unit}"
            goal = f"{sign} {m.goal:g}{unit}: {'met' if m.met else '**not met**'}"
        what = f"{m.what} ({m.note})" if m.note else m.what
        lines.append(f"| {what} | {number(m.ours)} {m.unit} | {reference} | {ratio} | {goal} |")
    return "\n".join(lines)


def curves(rows: list[Mapping[str, Any]]) -> str:
    """The figure, and a table of its powers."""
    lines = [f"![Cost against size, with the fitted power]({FIGURE})", ""]
    lines += ["| cost | sizes | costs | power | right is |", "|---|---|---|---|---|"]
    for row in rows:
        curve = Curve(**row)
        sizes = ", ".join(f"{size:,.0f}" for size in curve.sizes)
        costs = ", ".join(number(cost) for cost in curve.costs)
        right = "" if curve.expected is None else f"{curve.expected:g}"
        lines.append(
            f"| {curve.name}, {curve.cost} | {sizes} | {costs} | {curve.power:.2f} | {right} |"
        )
    return "\n".join(lines)


def remark(section: Mapping[str, Any]) -> str:
    """Where and when a section was measured, and what that took."""
    machine = section["machine"]
    versions = ", ".join(
        f"{name} {machine[name]}"
        for name in ("python", "torch", "numpy", "pillow")
        if name in machine
    )
    if "simplejpeg" in machine:
        versions += f", simplejpeg {machine['simplejpeg']}"
    busy = section["load"] or 0.0  # it was not looked at before every measurement
    warning = (
        f" **Other work kept {busy:.1f} processors busy.**" if busy > machine["cpus"] / 4 else ""
    )
    return (
        f"{machine['cpu']} processors, {machine['cpus']} of them used; {versions}; "
        f"{section['measured']}. Measuring took {section['took']:.0f} s of wall time and "
        f"{section['processor']:.0f} s of processor time, and up to {section['peak'] / 1e9:.1f} GB."
        f"{warning}"
    )


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
