"""What workers of a group are told to do, without Ray: trainings together, other jobs alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from shiftbench.core.errors import RunFailedError
from shiftbench.distributed.feed import Feed, Outcome
from shiftbench.distributed.place import Home

PREDICT = ("predict", "a", "", "id-test")
FIT = ("fit", "a", "", "")
MOMENT_S = 0.05


def home(node: str) -> Home:
    return Home(node, None)  # type: ignore[arg-type]


async def feed_of(size: int) -> Feed:
    feed = Feed()
    for rank in range(size):
        await feed.join(rank, home(f"node-{rank}"))
    return feed


async def soon(answer: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(answer, 10)


async def waits(task: asyncio.Task[Any]) -> bool:
    """Whether there is still no answer after a moment."""
    return not (await asyncio.wait([task], timeout=MOMENT_S))[0]


def test_a_training_waits_until_lent_workers_are_back_and_then_goes_to_all() -> None:
    async def check() -> None:
        feed = await feed_of(2)
        asks = [asyncio.create_task(feed.get(rank, 0)) for rank in range(2)]
        lent = asyncio.create_task(feed.lend(1, PREDICT))
        assert await soon(asks[1]) == PREDICT
        trained = asyncio.create_task(feed.put("a"))
        assert await waits(asks[0])
        await feed.returned(1, None)
        assert await soon(lent) == Outcome()
        assert [await soon(asks[0]), await soon(feed.get(1, 0))] == [FIT, FIT]
        await feed.ended(0, None)
        assert await soon(trained) is None

    asyncio.run(check())


def test_a_training_that_comes_later_is_told_to_those_who_wait() -> None:
    async def check() -> None:
        feed = await feed_of(1)
        for index, run in enumerate("ab"):
            asked = asyncio.create_task(feed.get(0, index))
            assert await waits(asked)
            trained = asyncio.create_task(feed.put(run))
            assert await soon(asked) == ("fit", run, "", "")
            await feed.ended(index, None)
            await soon(trained)

    asyncio.run(check())


def test_what_a_lent_worker_raised_is_the_jobs_own() -> None:
    async def check() -> None:
        feed = await feed_of(2)
        lent = [asyncio.create_task(feed.lend(rank, PREDICT)) for rank in range(2)]
        for rank in range(2):
            assert await soon(feed.get(rank, 0)) == PREDICT
        error = RunFailedError("no such image")
        await feed.returned(0, error)
        await feed.returned(1, None)
        assert [await soon(one) for one in lent] == [Outcome(error), Outcome()]

    asyncio.run(check())


@pytest.mark.parametrize("begun", [True, False])
def test_a_worker_that_comes_again_has_lost_the_job_that_it_was_at(begun: bool) -> None:
    async def check() -> None:
        feed = await feed_of(1)
        lent = asyncio.create_task(feed.lend(0, PREDICT))
        await asyncio.sleep(0)
        if begun:
            assert await soon(feed.get(0, 0)) == PREDICT
        await feed.join(0, home("another"))
        if begun:
            assert await soon(lent) == Outcome(lost_at="node-0")
        else:  # it does what nobody had begun
            assert await soon(feed.get(0, 0)) == PREDICT

    asyncio.run(check())


def test_one_that_is_gone_takes_no_job() -> None:
    async def check() -> None:
        feed = await feed_of(1)
        of_the_gone = asyncio.create_task(feed.get(0, 0))
        assert await waits(of_the_gone)
        await feed.join(0, home("another"))
        assert await soon(of_the_gone) is None
        asyncio.create_task(feed.lend(0, PREDICT))  # noqa: RUF006 - it ends with the loop
        assert await soon(feed.get(0, 0)) == PREDICT

    asyncio.run(check())


def test_workers_leave_when_all_that_they_were_given_is_done() -> None:
    async def check() -> None:
        feed = await feed_of(2)
        asyncio.create_task(feed.lend(0, PREDICT))  # noqa: RUF006 - it ends with the loop
        await asyncio.sleep(0)
        asyncio.create_task(feed.put("a"))  # noqa: RUF006 - it ends with the loop
        await feed.close()
        assert await soon(feed.get(0, 0)) == PREDICT
        waiting = asyncio.create_task(feed.get(1, 0))
        assert await waits(waiting)
        await feed.returned(0, None)
        assert await soon(waiting) == FIT
        assert await soon(feed.get(0, 0)) == FIT
        assert [await soon(feed.get(rank, 1)) for rank in range(2)] == [None, None]

    asyncio.run(check())


def test_a_recalled_group_gets_no_other_training() -> None:
    async def check() -> None:
        feed = await feed_of(1)
        trained = asyncio.create_task(feed.put("a"))
        assert await soon(feed.get(0, 0)) == FIT
        assert not await feed.recalled()
        await feed.recall()
        assert await feed.recalled()
        await feed.ended(0, None)  # it was over before it heard of it
        assert await soon(trained) is None
        assert await soon(feed.get(0, 1)) is None

    asyncio.run(check())
