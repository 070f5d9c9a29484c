"""The progress of all workers, in an actor. Imports nothing, so that the actor is small."""

JobFields = tuple[str, str, str, str]
"""A ``Job`` as its fields."""


class ProgressActor:
    """Steps done and in all by run, the jobs that go on, what runs print, and trials under way."""

    def __init__(self) -> None:
        self._changed: dict[str, tuple[int, int]] = {}
        self._signs: set[JobFields] = set()
        self._trials: dict[JobFields, object] = {}
        self._said: list[tuple[str, str]] = []

    def sign(self, job: JobFields) -> None:
        """Note that a job goes on."""
        self._signs.add(job)

    def enter(self, trial: JobFields, home: object) -> None:
        """Note that a trial has begun, and where its process is."""
        self._trials[trial] = home

    def leave(self, trial: JobFields) -> None:
        """Note that a trial is no more."""
        self._trials.pop(trial, None)

    def put(self, run_id: str, step: int, steps: int) -> None:
        """Note the steps that a run has done."""
        self._changed[run_id] = (step, steps)

    def say(self, run_id: str, line: str) -> None:
        """Note a line that was printed at a run."""
        self._said.append((run_id, line))

    def news(
        self,
    ) -> tuple[
        dict[str, tuple[int, int]],
        set[JobFields],
        list[tuple[str, str]],
        dict[JobFields, object],
    ]:
        """What came since the last call.

        Returns:
            steps done and in all of the runs that went on, the jobs that go on, run and line of
            what was printed; and where the trials are that have not ended.
        """
        changed, self._changed = self._changed, {}
        signs, self._signs = self._signs, set()
        said, self._said = self._said, []
        return changed, signs, said, self._trials
