"""The progress of all workers, in an actor. Imports nothing, so that the actor is small."""

JobFields = tuple[str, str, str, str]
"""A ``Job`` as its fields."""


class ProgressActor:
    """Steps done and steps in all by run, the jobs that go on, and what runs print."""

    def __init__(self) -> None:
        self._changed: dict[str, tuple[int, int]] = {}
        self._signs: set[JobFields] = set()
        self._said: list[tuple[str, str]] = []

    def sign(self, job: JobFields) -> None:
        """Note that a job goes on."""
        self._signs.add(job)

    def put(self, run_id: str, step: int, steps: int) -> None:
        """Note the steps that a run has done."""
        self._changed[run_id] = (step, steps)

    def say(self, run_id: str, line: str) -> None:
        """Note a line that was printed at a run."""
        self._said.append((run_id, line))

    def news(
        self,
    ) -> tuple[dict[str, tuple[int, int]], set[JobFields], list[tuple[str, str]]]:
        """What came since the last call.

        Returns:
            steps done and in all of the runs that went on, the jobs that go on, and run and line of
            what was printed.
        """
        changed, self._changed = self._changed, {}
        signs, self._signs = self._signs, set()
        said, self._said = self._said, []
        return changed, signs, said
