"""Debian's chromium (``apt-get install chromium``, or ``make browser``), driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHARTS = "html[data-charts=done]"
"""The page's charts are all drawn."""


def executable() -> str | None:
    """The path of chromium; ``None`` where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without a window."""
    # Chromium has no sandbox for root, as whom containers run; the pages are our own.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=options)
        yield browser
        browser.close()


def opened(browser: Browser, file: Path, width: int, height: int, scheme: str = "light") -> Page:
    """A page with all charts drawn."""
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page.goto(file.resolve().as_uri())
    page.wait_for_selector(CHARTS, timeout=60_000)
    return page
