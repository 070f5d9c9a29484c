"""A picture of a report: ``python -m tests.screenshot REPORT.html PICTURE.png``."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.browser import executable, launched, opened

WIDTH, HEIGHT = 1300, 1300  # pixels


def main() -> None:
    """Open the page as it opens, with all charts drawn, and take the top of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--at", help="id of the part to show; else the top")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    if executable() is None:
        raise SystemExit("there is no chromium; `make browser` installs Debian's")
    with launched() as browser:
        scheme = "dark" if arguments.dark else "light"
        page = opened(browser, arguments.report, WIDTH, HEIGHT, scheme)
        if arguments.at:
            page.evaluate(f"document.getElementById({arguments.at!r}).scrollIntoView()")
        page.screenshot(path=arguments.picture)


if __name__ == "__main__":
    main()
