"""Report pages that are made again when the rows behind them change."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shiftbench.core.errors import InputError, StorageError

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Seconds between two looks at the results folder, however many ask."""
SHARE = 5
"""A page is not made again before this many times as long as the last one took has passed: while a
suite runs, its report takes a small part of one processor."""


@dataclass(frozen=True)
class Seen:
    """What a quick look at some results shows.

    Attributes:
        version: changes whenever their rows do.
        runs: how many have ended.
    """

    version: str
    runs: int


@dataclass(frozen=True)
class Page:
    """A page that has been made.

    Attributes:
        version: of the rows that it shows.
        body: HTML, UTF-8.
    """

    version: str
    body: bytes

    @property
    def etag(self) -> str:
        """A name for these very bytes."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


class LivePage:
    """One report, made when it is first asked for and again when its rows have changed.

    While it is made again the one before is given out. Any number of threads may ask.

    Args:
        title: for people.
        look: takes a quick look at the results; raises ``InputError`` where that cannot be, and
            ``StorageError`` while their store does not answer.
        make: makes the page of what is there now, as HTML, given the version that was seen; raises
            as ``look`` does, where rows cannot be read.
        clock: seconds.
    """

    def __init__(
        self,
        title: str,
        look: Callable[[], Seen],
        make: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self._look, self._make, self._clock = look, make, clock
        self._making = threading.Lock()
        self._lock = threading.Lock()  # of all that follows
        self._page: Page | None = None
        self._seen = Seen("", 0)
        self._looked: float | None = None
        self._not_before: float | None = None
        self._unseen: str | None = None
        self._unmade: str | None = None

    def page(self) -> Page:
        """The page as it is; the first time it is made here.

        Raises:
            InputError, StorageError: the rows cannot be read, and never could.
        """
        self.refresh()
        with self._lock:
            page = self._page
        if page is None:
            with self._making:
                page = self._page or self._made(self._glance().version)
        return page

    def refresh(self) -> threading.Thread | None:
        """Begin to make the page again where its rows have changed; the thread that does."""
        version = self._glance().version
        with self._lock:
            page, wait = self._page, self._not_before
        if page is None or page.version == version or (wait and self._clock() < wait):
            return None
        if not self._making.acquire(blocking=False):
            return None
        thread = threading.Thread(target=self._again, args=(version,), daemon=True)
        thread.start()
        return thread

    def state(self) -> Mapping[str, str | int | None]:
        """The version of the page that is given out, the runs there are, and what is wrong."""
        self.refresh()
        with self._lock:
            return {
                "version": None if self._page is None else self._page.version,
                "runs": self._seen.runs,
                "problem": self._unseen or self._unmade,
            }

    def _glance(self) -> Seen:
        """What a look shows, taken every now and then."""
        with self._lock:
            now = self._clock()
            if self._looked is not None and now - self._looked < LOOK_EVERY_S:
                return self._seen
            self._looked = now
        try:
            seen, problem = self._look(), None
        except (InputError, StorageError) as error:
            seen, problem = None, str(error)
        with self._lock:
            self._seen, self._unseen = seen or self._seen, problem
            return self._seen

    def _again(self, version: str) -> None:
        try:
            self._made(version)
        except (InputError, StorageError) as error:
            _log.info("%s: the page stays as it was: %s", self.title, error)
        finally:
            self._making.release()

    def _made(self, version: str) -> Page:
        """Make the page; whoever calls holds ``_making``.

        Raises:
            InputError, StorageError: the rows cannot be read.
        """
        began = self._clock()
        page, problem = None, None
        try:
            page = Page(version, self._make(version).encode())
        except (InputError, StorageError) as error:
            problem = str(error)
            raise
        finally:
            ended = self._clock()
            with self._lock:
                self._page, self._unmade = page or self._page, problem
                self._not_before = ended + SHARE * (ended - began)
        return page
