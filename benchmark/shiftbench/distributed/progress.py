"""The progress of all workers, in an actor. Imports nothing, so that the actor is small."""

JobFields = tuple[str, str, str, str]
"""A ``Job`` as its fields."""


class ProgressActor:
    """Steps done and steps in all by run, and the jobs that go on."""

    def __init__(self) -> None:
        self._changed: dict[str, tuple[int, int]] = {}
        self._signs: set[JobFields] = set()

    def sign(self, job: JobFields) -> None:
        """Note that a job goes on."""
        self._signs.add(job)

    def put(self, run_id: str, step: int, steps: int) -> None:
        """Note the steps that a run has done."""
        self._changed[run_id] = (step, steps)

    def changed(self) -> tuple[dict[str, tuple[int, int]], set[JobFields]]:
        """Steps done and in all of runs, and the jobs, that went on since the last call."""
        changed, self._changed = self._changed, {}
        signs, self._signs = self._signs, set()
        return changed, signs
