"""What a group of workers is given to train, in an actor. Imports little, so that it is small."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shiftbench.core.errors import RunFailedError
    from shiftbench.distributed.place import Home


class Feed:
    """The runs of a group in an actor: the driver puts them in, and all workers get each.

    A group that was started again goes on with the run that it was at.
    """

    def __init__(self) -> None:
        self._runs: list[str] = []
        self._outcomes: list[RunFailedError | None] = []
        self._closed = False
        self._homes: dict[int, Home] = {}
        self._changed = asyncio.Condition()

    async def join(self, rank: int, where: Home) -> None:
        """A worker has come."""
        self._homes[rank] = where

    async def homes(self) -> list[Home]:
        """Where the workers are."""
        return list(self._homes.values())

    async def put(self, run_id: str) -> RunFailedError | None:
        """Have a run trained, and wait for it; what went wrong, if anything."""
        async with self._changed:
            index = len(self._runs)
            self._runs.append(run_id)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: len(self._outcomes) > index)
            return self._outcomes[index]

    async def first(self) -> int:
        """Index of the first run that has not ended."""
        return len(self._outcomes)

    async def get(self, index: int) -> str | None:
        """The run at an index, once there is one; ``None`` if there will be none."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._runs) > index or self._closed)
            return self._runs[index] if len(self._runs) > index else None

    async def ended(self, index: int, error: RunFailedError | None) -> None:
        """The run at an index has ended."""
        async with self._changed:
            if index == len(self._outcomes):
                self._outcomes.append(error)
                self._changed.notify_all()

    async def close(self) -> None:
        """There will be no more runs."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
