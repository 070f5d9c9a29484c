"""What the workers of a group are to do, in an actor, which is small since it imports little."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from shiftbench.core.errors import RunFailedError
    from shiftbench.distributed.place import Home
    from shiftbench.distributed.progress import JobFields


class Outcome(NamedTuple):
    """How a job of one worker has ended.

    Attributes:
        error: what it raised.
        lost_at: id of the node that its worker was on, if that has gone and nobody knows more.
    """

    error: RunFailedError | None = None
    lost_at: str | None = None


class Feed:
    """Trainings and jobs of single workers: the driver puts them in, and workers ask for them.

    All workers get each training, one after the other, and none before the jobs that single ones
    have been given are done. A group that was started again goes on with the training that it was
    at; jobs that single workers were at are lost.
    """

    def __init__(self) -> None:
        self._runs: list[str] = []
        self._outcomes: list[RunFailedError | None] = []
        self._own: dict[int, asyncio.Future[Outcome]] = {}
        self._not_begun: dict[int, JobFields] = {}  # of those jobs, by the worker's rank
        self._closed = self._recalled = False
        self._homes: dict[int, Home] = {}
        self._changed = asyncio.Condition()

    async def join(self, rank: int, where: Home) -> None:
        """A worker has come, perhaps in place of one that has gone."""
        before = self._homes.get(rank)
        self._homes[rank] = where
        if before is not None and rank in self._own and rank not in self._not_begun:
            self._own.pop(rank).set_result(Outcome(lost_at=before.node))
        await self._tell()

    async def homes(self) -> dict[int, Home]:
        """Where the workers are, by rank."""
        return self._homes

    async def put(self, run_id: str) -> RunFailedError | None:
        """Have a run trained, and wait for it; what went wrong, if anything."""
        index = len(self._runs)
        self._runs.append(run_id)
        await self._tell()
        await self._until(lambda: len(self._outcomes) > index)
        return self._outcomes[index]

    async def lend(self, rank: int, job: JobFields) -> Outcome:
        """Have a job done by one worker, which has none, and wait for it."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._own[rank] = done
        self._not_begun[rank] = job
        await self._tell()
        return await done

    async def first(self) -> int:
        """Index of the first training that has not ended."""
        return len(self._outcomes)

    async def get(self, rank: int, index: int) -> JobFields | None:
        """What a worker is to do, once there is something; ``None`` if there will be nothing.

        Args:
            rank: of the worker.
            index: of the training that comes next for it.
        """
        asks = self._homes[rank]

        def known() -> bool:
            if rank in self._not_begun or self._homes[rank] is not asks:
                return True
            return self._closed if len(self._runs) == index else not self._own

        await self._until(known)
        if self._homes[rank] is not asks:  # it has gone, and another has come in its place
            return None
        if rank in self._not_begun:
            return self._not_begun.pop(rank)
        return ("fit", self._runs[index], "", "") if len(self._runs) > index else None

    async def ended(self, index: int, error: RunFailedError | None) -> None:
        """The training at an index has ended."""
        if index == len(self._outcomes):
            self._outcomes.append(error)
            await self._tell()

    async def returned(self, rank: int, error: RunFailedError | None) -> None:
        """A worker has done the job that it alone had."""
        self._own.pop(rank).set_result(Outcome(error))
        await self._tell()

    async def close(self) -> None:
        """There will be nothing more."""
        self._closed = True
        await self._tell()

    async def recall(self) -> None:
        """There will be nothing more, and the training that is under way is for others."""
        self._recalled = True
        await self.close()

    async def recalled(self) -> bool:
        """Whether the training that is under way is for others."""
        return self._recalled

    async def _until(self, true: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(true)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
