"""Pictures of reports to look at: ``python -m tests.screenshots --to FOLDER``.

Reports on 2 and on 67 methods, one with every measure (calibration, OOD detection, corruptions,
other tasks), all its sections open, and the example's, on a wide and on a narrow screen, light and
dark, and as they are printed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shiftbench.leaderboard.store import read
from shiftbench.report.html.page import write_html
from shiftbench.report.model import build

from tests.browser import executable, launched, opened
from tests.report.measured_records import write_measured
from tests.report.page_records import of_methods

WIDTHS = (1400, 500)  # pixels
SCREEN = 1000  # pixels, its height
PAPER = 794  # pixels, the width of A4
METHODS = (2, 67)
MEASURED = "measured"
OPEN = "document.querySelectorAll('details').forEach(section => section.open = true)"
EXAMPLE = Path("results/example/report.html")


def main() -> None:
    """Take all pictures: the first screen of each page, and the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--report", type=Path, default=EXAMPLE, help="a page that is there already")
    arguments = parser.parse_args()
    if executable() is None:
        raise SystemExit("there is no chromium; `make browser` installs Debian's")
    arguments.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        for file in (arguments.report, *_made(Path(folder))):
            for width in WIDTHS:
                for scheme in ("light", "dark"):
                    stem = arguments.to / f"{file.stem}-{width}-{scheme}"
                    page = opened(browser, file, width, SCREEN, scheme)
                    page.screenshot(path=f"{stem}.png")
                    if file.stem == MEASURED:
                        page.evaluate(OPEN)
                    page.screenshot(path=f"{stem}-whole.png", full_page=True)
                    page.close()
            page = opened(browser, file, PAPER, SCREEN)
            page.pdf(path=arguments.to / f"{file.stem}.pdf", format="A4")
            page.close()
    for picture in sorted(arguments.to.iterdir()):
        print(picture)


def _made(folder: Path) -> Iterator[Path]:
    for number in METHODS:
        file = folder / f"methods-{number}.html"
        write_html(file, build(of_methods(number), title=f"{number} methods"))
        yield file
    results, file = folder / MEASURED, folder / f"{MEASURED}.html"
    write_measured(results)
    write_html(file, build(read(results), results, title="Every measure"))
    yield file


if __name__ == "__main__":
    main()
