"""The order of stages, and what a failure takes with it."""

from __future__ import annotations

from dataclasses import dataclass

from shiftbench.execution.jobs import Agenda, Job, job_graph


@dataclass(frozen=True)
class FakeSearch:
    id: str


@dataclass(frozen=True)
class FakeRun:
    id: str
    parents: tuple[tuple[str, str], ...] = ()
    trains: bool = True
    search: FakeSearch | None = None


def graph(
    runs: list[FakeRun], todo: set[str], fitted: set[str], found: set[str] = frozenset()
) -> dict[Job, set[Job]]:
    return job_graph(
        {run.id: run for run in runs},  # type: ignore[misc]
        todo,
        fitted=lambda run_id: run_id in fitted,
        found=lambda search_id: search_id in found,
        kept=lambda run: run.trains,  # type: ignore[attr-defined]
        variants=lambda run: ("a", "b") if run.id == "wise" else ("",),
        evaluation_sets=lambda run: ("id-test", "shift"),
    )


FULL = FakeRun("full")
WISE = FakeRun("wise", (("full", "full"),), trains=False)
WISER = FakeRun("wiser", (("wise", "wise"),), trains=False)


def work(agenda: Agenda, broken: frozenset[str] = frozenset()) -> list[Job]:
    """Do the jobs in the order they become ready; the ones done."""
    done = []
    while ready := agenda.ready():
        for job in ready:
            if job.run_id in agenda.failed:
                continue
            if job.run_id in broken:
                agenda.fail(job.run_id, "broken")
            else:
                agenda.done(job)
                done.append(job)
    return done


def test_every_stage_comes_after_what_it_needs() -> None:
    jobs = graph([FULL, WISE, WISER], {"full", "wise", "wiser"}, fitted=set())
    done = work(Agenda(jobs))
    assert len(done) == len(set(done)) == len(jobs) == 1 + 2 + 1 + 4 + 1 + 2 + 1
    for job, above in jobs.items():
        assert all(done.index(before) < done.index(job) for before in above)
    assert jobs[Job("predict", "wiser", "", "shift")] == {Job("fit", "full")}


def test_a_finished_parent_is_not_trained_again() -> None:
    jobs = graph([FULL, WISE], {"wise"}, fitted={"full"})
    assert {job.stage for job in jobs} == {"predict", "score"}
    assert {job.run_id for job in jobs} == {"wise"}


def test_a_parent_whose_weights_are_gone_is_only_fitted_again() -> None:
    jobs = graph([FULL, WISE], {"wise"}, fitted=set())
    assert [job for job in jobs if job.run_id == "full"] == [Job("fit", "full")]


def test_a_failure_takes_what_builds_on_it_and_nothing_else() -> None:
    other = FakeRun("other")
    agenda = Agenda(graph([FULL, WISE, WISER, other], {"full", "wise", "wiser", "other"}, set()))
    done = work(agenda, broken=frozenset({"full"}))
    assert agenda.failed == {
        "full": "broken",
        "wise": "it builds on run full, which failed",
        "wiser": "it builds on run full, which failed",
    }
    assert {job.run_id for job in done} == {"other"}
    assert Job("score", "other") in done


def test_failing_twice_is_reported_once() -> None:
    agenda = Agenda(graph([FULL, WISE], {"full", "wise"}, set()))
    assert agenda.fail("full", "first") == ["full", "wise"]
    assert agenda.fail("full", "second") == []
    assert agenda.failed["full"] == "first"


SEARCHED = [
    FakeRun(name, (("full", "full"),), search=FakeSearch("search")) for name in ("one", "two")
]


def test_runs_that_share_a_search_wait_for_one() -> None:
    jobs = graph([FULL, *SEARCHED], {"full", "one", "two"}, fitted=set())
    assert [job for job in jobs if job.stage == "search"] == [Job("search", "one")]
    assert jobs[Job("search", "one")] == {Job("fit", "full")}
    for name in ("one", "two"):
        assert jobs[Job("fit", name)] == {Job("fit", "full"), Job("search", "one")}


def test_a_finished_search_is_not_done_again() -> None:
    jobs = graph([FULL, *SEARCHED], {"two"}, fitted={"full"}, found={"search"})
    assert {job.stage for job in jobs} == {"fit", "predict", "score"}


def test_a_failed_search_fails_all_that_wait_for_it() -> None:
    agenda = Agenda(graph([FULL, *SEARCHED], {"full", "one", "two"}, fitted=set()))
    agenda.fail("one", "no trial got to its end")
    assert set(agenda.failed) == {"one", "two"}


def test_jobs_become_ready_variant_by_variant() -> None:
    ready = Agenda(graph([FULL, WISE], {"wise"}, fitted={"full"})).ready()
    assert [(job.variant, job.evaluation_set) for job in ready] == [
        (variant, name) for variant in ("a", "b") for name in ("id-test", "shift")
    ]


def test_a_failure_spares_runs_that_have_what_they_waited_for() -> None:
    """WiSE-FT needs the weights of its parent, which are there: not the parent's own scores."""
    jobs = graph([FULL, WISE], {"full", "wise"}, fitted=set())
    agenda = Agenda(jobs)
    (fit,) = agenda.ready()
    agenda.done(fit)
    assert agenda.fail("full", "a disk broke") == ["full"]
    ready = agenda.ready()
    assert all(Job("predict", "wise", variant, "shift") in ready for variant in ("a", "b"))


def test_a_failed_run_does_not_take_those_that_share_its_finished_search() -> None:
    runs = [FakeRun(f"seed-{i}", search=FakeSearch("s")) for i in range(2)]
    agenda = Agenda(graph(runs, {"seed-0", "seed-1"}, fitted=set()))
    (search,) = agenda.ready()
    agenda.done(search)
    assert agenda.fail("seed-0", "its loss is not finite") == ["seed-0"]
