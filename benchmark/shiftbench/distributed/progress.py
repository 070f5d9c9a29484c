"""Where workers say how far they are. Imports nothing, since an actor of its own holds it."""


class ProgressActor:
    """Steps done and steps in all, by run."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[int, int]] = {}

    def put(self, run_id: str, step: int, steps: int) -> None:
        """Say how far a run is."""
        self._steps[run_id] = (step, steps)

    def get(self) -> dict[str, tuple[int, int]]:
        """How far every run is."""
        return dict(self._steps)
