"""A picture of a report: ``python -m tests.screenshot REPORT.html PICTURE.png``."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1300, "height": 1500}


def main() -> None:
    """Open the page as it opens, with all charts drawn, and take the top of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--at", help="id of the part to show; else the top")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("there is no chromium; `make browser` installs Debian's")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page(viewport=SIZE, color_scheme="dark" if arguments.dark else "light")
        page.goto(arguments.report.resolve().as_uri())
        page.wait_for_selector("html[data-charts=done]", timeout=60_000)
        if arguments.at:
            page.evaluate(f"document.getElementById({arguments.at!r}).scrollIntoView()")
        page.screenshot(path=arguments.picture)
        browser.close()


if __name__ == "__main__":
    main()
