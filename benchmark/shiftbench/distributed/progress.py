"""The progress of all workers, in an actor. Imports nothing, so that the actor is small."""


class ProgressActor:
    """Steps done and steps in all, by run."""

    def __init__(self) -> None:
        self._changed: dict[str, tuple[int, int]] = {}

    def put(self, run_id: str, step: int, steps: int) -> None:
        """Note the steps that a run has done."""
        self._changed[run_id] = (step, steps)

    def changed(self) -> dict[str, tuple[int, int]]:
        """Steps done and steps in all of the runs that went on since the last call."""
        changed, self._changed = self._changed, {}
        return changed
