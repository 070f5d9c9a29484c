"""Leases: one holder at a time, whoever else wants it, dies, freezes or comes back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest
from shiftbench.core import mirror
from shiftbench.core.errors import InputError
from shiftbench.core.remote import Remote
from shiftbench.leaderboard import housekeeping, lease_storage
from shiftbench.leaderboard.lease_storage import FOLDER, Folder
from shiftbench.leaderboard.leases import Lease, Leases, held_now, holds, seen


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Still(Leases):
    """Leases that are touched by nobody, as by a process that is frozen."""

    def _beat(self) -> None:
        pass


def of(results: Path, clock: Callable[[], float] = time.monotonic) -> Leases:
    return Still(Folder(results / FOLDER), 60, clock)


def says(results: Path, number: int, key: str = "r") -> Lease:
    return Lease.of((results / FOLDER / f"{key}.{number}.json").read_text())


def test_one_of_many_has_it_and_the_others_know_who(tmp_path: Path) -> None:
    drivers = [of(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda leases: leases.take("r"), drivers))
    (winner,) = (leases for leases, answer in zip(drivers, answers, strict=True) if answer is None)
    assert [leases.held("r") for leases in drivers].count(True) == 1
    others = [answer for answer in answers if answer is not None]
    assert len(others) == 7
    assert {answer.token for answer in others} <= {winner.token, ""}  # "": not whole yet
    assert winner.take("r") is None  # again
    assert holds(tmp_path, "r", winner.token)
    assert not holds(tmp_path, "r", drivers[0].token + "x")


def test_one_of_many_takes_over_from_whoever_shows_no_sign(tmp_path: Path) -> None:
    frozen = of(tmp_path)
    assert frozen.take("r") is None
    clock = Clock()
    drivers = [of(tmp_path, clock) for _ in range(8)]
    assert all(leases.take("r") is not None for leases in drivers)
    clock.now = 59.9
    assert all(leases.take("r") is not None for leases in drivers)
    clock.now = 60.0
    assert frozen.held("r")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda leases: leases.take("r"), drivers))
    assert answers.count(None) == 1
    assert not frozen.held("r") and not holds(tmp_path, "r", frozen.token)
    frozen.end("r", "done")
    assert says(tmp_path, 1).ended == "taken"
    assert says(tmp_path, 2).ended is None


def test_how_long_a_holder_may_be_silent_is_the_holders_word(tmp_path: Path) -> None:
    holder, clock = Still(Folder(tmp_path / FOLDER), 600), Clock()
    assert holder.take("r") is None
    other = of(tmp_path, clock)
    assert other.take("r") is not None
    clock.now = 599.0
    assert other.take("r") is not None and holder.held("r")
    clock.now = 600.0
    assert other.take("r") is None and not holder.held("r")


def test_who_was_frozen_together_with_a_holder_takes_nothing_from_it(tmp_path: Path) -> None:
    holder, clock = of(tmp_path), Clock()
    assert holder.take("r") is None
    other = of(tmp_path, clock)
    assert other.take("r") is not None
    clock.now = 3600.0  # the machine was suspended, and the holder has yet to show a sign
    assert other.take("r") is not None and holder.held("r")
    clock.now += 60
    assert other.take("r") is None


class Full(Folder):
    """On a disk without space."""

    def write(self, name: str, text: str) -> None:
        raise OSError("no space left on device")


def test_what_ended_the_work_is_told_and_not_that_a_lease_cannot_be_given_back(
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyError, match="bug"), Still(Full(tmp_path / FOLDER)) as leases:
        leases.take("a")
        leases.take("b")
        raise KeyError("bug")


def test_a_sign_renews_it_whatever_the_clocks_of_the_machines_say(tmp_path: Path) -> None:
    holder, clock = of(tmp_path), Clock()
    assert holder.take("r") is None
    other = of(tmp_path, clock)
    for day in (3, 1, 2):  # years ago, and back
        os.utime(tmp_path / FOLDER / "r.1.json", (day * 86400.0, day * 86400.0))
        assert other.take("r") is not None
        clock.now += 59
        assert other.take("r") is not None
    clock.now += 1
    assert other.take("r") is None


def test_a_holder_shows_signs_by_itself_and_is_quiet_afterwards(tmp_path: Path) -> None:
    file = tmp_path / FOLDER / "r.1.json"
    with Leases(Folder(tmp_path / FOLDER), lease_s=0.06) as holder:
        holder.take("r")
        os.utime(file, (0, 0))
        deadline = time.monotonic() + 20
        while file.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        thread = holder._beating
    assert thread is not None and not thread.is_alive()
    assert says(tmp_path, 1).ended == "released"


class Slow(Folder):
    """A storage whose renewals wait for what a test says."""

    def wait(self, name: str) -> None:
        raise NotImplementedError

    def touch(self, name: str, text: str) -> None:
        self.wait(name)
        self.write(name, text)  # as in an object store


def test_several_leases_are_renewed_at_once(tmp_path: Path) -> None:
    together, renewed, known = Barrier(8, timeout=20), Event(), set[str]()

    class Meeting(Slow):
        def wait(self, name: str) -> None:
            if name not in known:
                known.add(name)
                together.wait()
                renewed.set()

    with Leases(Meeting(tmp_path / FOLDER), lease_s=0.06) as holder:
        for i in range(8):
            holder.take(f"r{i}")
        assert renewed.wait(20)


def test_a_lease_that_cannot_be_renewed_holds_up_no_other(tmp_path: Path) -> None:
    stuck, answered, again, counts = Event(), Event(), Event(), []

    class Silent(Slow):
        def wait(self, name: str) -> None:
            if name == "a.1.json":
                stuck.set()
                assert answered.wait(20)
            elif stuck.is_set():
                counts.append(name)
                if len(counts) > 3:
                    again.set()

    with Leases(Silent(tmp_path / FOLDER), lease_s=0.06) as holder:
        try:
            for key in ("a", "b"):
                holder.take(key)
            assert again.wait(20)
            holder.end("b", "done")  # nor its end
            assert says(tmp_path, 1, "b").ended == "done" and not answered.is_set()
        finally:
            answered.set()


def test_a_renewal_that_takes_long_does_not_undo_the_end(tmp_path: Path) -> None:
    begun, answered, renewed = Event(), Event(), Event()

    class Late(Slow):
        def wait(self, name: str) -> None:
            begun.set()
            assert answered.wait(20)

        def touch(self, name: str, text: str) -> None:
            super().touch(name, text)
            renewed.set()

    with Leases(Late(tmp_path / FOLDER), lease_s=0.06) as holder:
        try:
            holder.take("r")
            assert begun.wait(20)
            ending = Thread(target=holder.end, args=("r", "done"))
            ending.start()
            ending.join(0.05)
        finally:
            answered.set()
        ending.join(20)
        assert renewed.wait(20) and says(tmp_path, 1).ended == "done"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results in a folder that stands for an object store."""
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "cache"))
    return mirror.opened(f"file://{tmp_path / 'store'}")


def test_what_a_renewal_asks_of_an_object_store(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    with monkeypatch.context() as patch, Leases.of(store, 600) as holder:
        holder.take("r")
        before = holder._storage.read("r.1.json")
        for name in ("read", "write"):
            real = getattr(Remote, name)

            def counted(self: Remote, *arguments: object, real=real, name=name) -> object:
                asked.append(name)
                return real(self, *arguments)

            patch.setattr(Remote, name, counted)
        holder._renew("r", holder._held["r"])
        assert asked == ["read", "read", "write"]
        after = holder._storage.read("r.1.json")
        assert before is not None and after is not None
        assert before[0] == after[0] and before[1] != after[1]


def test_leases_in_a_store_are_listed_once_and_named_as_they_can_be_deleted(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    real = Remote.all

    def counted(self: Remote, name: str = "") -> object:
        listed.append(name)
        return real(self, name)

    with Leases.of(store, 600) as holder:
        for key in ("a", "b", "c"):
            holder.take(key)
        with monkeypatch.context() as patch:
            patch.setattr(Remote, "all", counted)
            assert [*housekeeping._leases(seen(store))] == [] and listed == [FOLDER]
        with pytest.raises(InputError, match=r"delete file://.*/store/leases/b\.1\.json$"):
            housekeeping.removal(store, {"b"})


def test_old_leases_go_from_a_store_too(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    month_ago = time.time_ns() - 30 * 24 * 3600 * 10**9
    with Leases.of(store, 600) as holder:
        for key in ("old", "held", "new"):
            holder.take(key)
        holder.end("new", "done")
        with monkeypatch.context() as patch:
            patch.setattr(lease_storage.time, "time_ns", lambda: month_ago)
            holder.end("old", "done")
            holder._storage.touch("held.1.json", holder._me.text())
        items = [*housekeeping._leases(seen(store))]
        assert [item.path.name for item in items] == ["old.1.json"] and items[0].size > 100
        housekeeping.delete(items)
        assert seen(store).keys() == {"held", "new"}


def test_leases_of_this_machine_are_of_all_its_processes_and_go_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path))
    results = mirror.local("hf://buckets/ann/robust/results") / ".rerun-1"
    of_worker = mirror.local(mirror.address(results))
    with Leases.of(results) as holder:
        holder.take("r")
        assert holds(of_worker, "r", holder.token)
        with pytest.raises(InputError) as refused:
            housekeeping.removal(results, {"r"})
        assert Path(str(refused.value).rpartition("delete ")[2]).is_file()
    items = housekeeping.removal(results, {"r"})
    assert [item.path.name for item in items] == ["r.1.json"]
    housekeeping.delete(items)
    assert not seen(results) and not seen(of_worker)


def test_whoever_is_gone_from_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    clock = Clock()
    holder = of(tmp_path)
    assert holder.take("r") is None
    folder = Folder(tmp_path / FOLDER)
    now = says(tmp_path, 1)
    folder.write("r.1.json", replace(now, machine="elsewhere", started="1").text())
    assert of(tmp_path, clock).take("r") is not None
    folder.write("r.1.json", replace(now, started="1").text())
    assert of(tmp_path, clock).take("r") is None


def test_the_next_one_learns_how_it_ended(tmp_path: Path) -> None:
    first, second = of(tmp_path), of(tmp_path)
    assert second.look("r") is None
    first.take("r")
    found = second.look("r")
    assert found is not None and found.ended is None and found.pid == os.getpid()
    first.end("r", "failed", "no luck")
    found = second.look("r")
    assert found is not None and (found.ended, found.reason) == ("failed", "no luck")
    assert second.take("r") is None
    assert not first.held("r")
    assert first.take("r") is not None


def test_it_is_had_for_a_block_and_not_given_back_if_it_was_held_before(tmp_path: Path) -> None:
    first, second = of(tmp_path), of(tmp_path)
    with first.taken("r") as ours, second.taken("r") as theirs:
        assert ours and not theirs
    assert not first.held("r")
    second.take("r")
    with second.taken("r") as ours:
        assert ours
    assert second.held("r")


def test_a_file_that_is_being_written_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "r.1.json").touch()
    clock = Clock()
    leases = of(tmp_path, clock)
    assert leases.take("r") == Lease()
    clock.now = 60
    assert leases.take("r") is None


def test_one_look_tells_who_is_at_work(tmp_path: Path) -> None:
    assert seen(tmp_path) == {}
    leases = of(tmp_path)
    for key in ("a", "search-b"):
        leases.take(key)
    leases.end("a", "done")
    (tmp_path / FOLDER / "notes.json").touch()  # not ours
    assert seen(tmp_path).keys() == {"a", "search-b"}
    assert held_now(tmp_path).keys() == {"search-b"}
    leases.take("a")
    assert [file.name for file in seen(tmp_path)["a"].files] == ["a.2.json", "a.1.json"]
    assert held_now(tmp_path).keys() == {"a", "search-b"}
    folder, yesterday = Folder(tmp_path / FOLDER), time.time() - 25 * 3600
    folder.write("a.2.json", replace(says(tmp_path, 2, "a"), machine="elsewhere").text())
    assert held_now(tmp_path).keys() == {"a", "search-b"}
    os.utime(tmp_path / FOLDER / "a.2.json", (yesterday, yesterday))
    assert held_now(tmp_path).keys() == {"search-b"}  # its machine is gone


def test_a_node_elsewhere_believes_its_driver_where_leases_are_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "here"))
    url = "hf://buckets/ann/robust/results"
    with Leases.of(mirror.local(url)) as driver:
        driver.take("r")
        assert holds(mirror.local(url), "r", driver.token)
        monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "there"))
        node = mirror.local(url)
        assert holds(node, "r", driver.token)
        with Leases.of(node) as other:
            other.take("r")
            assert not holds(node, "r", driver.token)  # somebody on that machine is at it
        assert holds(node, "r", driver.token)
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "here"))
    assert not holds(mirror.local(url), "r", driver.token)  # it was given back


@pytest.mark.parametrize("text", ["", "[]", '{"token": "x", "more": 1}', '{"token"'])
def test_a_broken_file_says_that_somebody_is_at_it(text: str) -> None:
    assert Lease.of(text) == Lease()
