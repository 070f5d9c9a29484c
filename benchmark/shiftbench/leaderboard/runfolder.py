"""The folders of runs and searches: their files, and the records that say what is finished.

Where results are in an object store, asking for the path of a file that may be large brings it here
(``core.mirror``); small ones come with ``look``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from shiftbench.core.errors import InputError, first_line
from shiftbench.core.files import (
    file_name,
    read_json,
    remove,
    sweep_temporaries,
    written_atomically,
)
from shiftbench.core.mirror import fetched, listed, refresh, there

WEIGHTS, STATE, BEST = "weights.safetensors", "state.safetensors", "best.safetensors"
JOURNAL = "journal.log"
_DATA = "data.json"
"""The data files that a folder's content was made of."""

T = TypeVar("T")


@dataclass(frozen=True)
class Fit:
    """The record of a finished first stage: of a training, a derivation or the fit of an ensemble.

    Attributes:
        losses: mean loss over the global batch, of every step.
        terms: the same of every other term that the method's ``loss`` returned, by name; ``None``
            at steps where it was absent or not finite.
        images: examples seen, repetitions included.
        seconds: wall time of the training loop.
        waited: of those, seconds without anything to compute, because no batch was there.
        peak_memory_bytes: of the process (on a CPU) or the device (on a GPU).
        world_size: workers that shared the run.
        started: UTC, ISO 8601.
        step: the step whose weights were kept.
        distance: ‖θ - θ0‖₂ between those weights and the pretrained ones; ``None`` for an ensemble.
        details: other things that the method records of the training.
    """

    losses: list[float]
    terms: dict[str, list[float | None]]
    images: int
    seconds: float
    waited: float
    peak_memory_bytes: int
    world_size: int
    started: str
    step: int
    distance: float | None
    details: dict[str, Any]

    @property
    def share_waited(self) -> float:
        """The part of the training's time in which it waited for data."""
        return self.waited / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Found:
    """The record of a finished search.

    Attributes:
        values: of the chosen configuration.
        score: its mean score over the finalists' fresh seeds, or in its trial if there were none;
            ``None`` where nothing was tried.
        n_trials: configurations tried, those that failed included.
        steps: optimizer steps of all trials.
        images: examples trained on in all trials.
        seconds: time of all trials, training and scoring, interrupted ones not included.
        waited: of those, seconds without a batch to compute on; ``None`` in older records.
        computed: of those, seconds of training steps and of scoring; ``None`` in older records.
    """

    values: dict[str, Any]
    score: float | None
    n_trials: int
    steps: int
    images: int
    seconds: float
    waited: float | None = None
    computed: float | None = None


@dataclass(frozen=True)
class SearchFolder:
    """The files of a search, which several runs may share."""

    path: Path

    @classmethod
    def of(cls, results: Path, search_id: str) -> SearchFolder:
        """The folder of a search in a results folder."""
        return cls(results / "searches" / search_id)

    @property
    def journal(self) -> Path:
        """Every trial as it happens; an interrupted search goes on from it."""
        return fetched(self.path / JOURNAL)

    @property
    def trials(self) -> Path:
        """Every trial, as a table; there when the search has finished."""
        return fetched(self.path / "trials.parquet")

    @property
    def exported(self) -> Path:
        """The settings found, as YAML that a suite can hold or load."""
        return self.path / "found.yaml"

    @property
    def error(self) -> Path:
        """What a trial was at that hung."""
        return self.path / "error.txt"

    @property
    def finished(self) -> bool:
        """True if the search has finished."""
        return self._found.exists()

    def write_found(self, found: Found) -> None:
        """Record that the search has finished; its other files must be there already."""
        with written_atomically(self._found) as temporary:
            temporary.write_text(json.dumps(asdict(found)))

    def read_found(self) -> Found:
        """The record of the search."""
        return _read(Found, self._found)

    def look(self) -> None:
        """See what other machines have written there by now."""
        refresh(self.path)

    def claim(self, fingerprints: Mapping[str, str]) -> None:
        """Begin or go on with the search on these data files; see ``RunFolder.claim``."""
        _claim(self.path, fingerprints)

    def is_on(self, fingerprints: Mapping[str, str]) -> bool:
        """True if what is there was made of these data files."""
        return _is_on(self.path, fingerprints)

    @property
    def _found(self) -> Path:
        return self.path / "found.json"


@dataclass(frozen=True)
class RunFolder:
    """A run's files. What stands under its final name is whole, so a finished stage can be seen."""

    path: Path

    @classmethod
    def of(cls, results: Path, run_id: str) -> RunFolder:
        """The folder of a run in a results folder."""
        return cls(results / "runs" / run_id)

    @property
    def record(self) -> Path:
        """The run that was asked for: task, backbone, method with all settings, seed, parents."""
        return self.path / "run.json"

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return fetched(self.path / WEIGHTS)

    @property
    def ensemble(self) -> Path:
        """Arrays that an ensemble fitted before its evaluation, such as temperatures."""
        return fetched(self.path / "ensemble.safetensors")

    @property
    def best(self) -> Path:
        """While training, the weights that did best on ID validation so far."""
        return fetched(self.path / BEST)

    @property
    def state(self) -> Path:
        """The state from which an interrupted training goes on."""
        return fetched(self.path / STATE)

    @property
    def saved(self) -> bool:
        """True if there is such a state."""
        return there(self.path / STATE)

    @property
    def progress(self) -> Path:
        """While training, how far it is."""
        return self.path / "progress.json"

    @property
    def metrics(self) -> Path:
        """The curve of the training: every step up to the last saved state, or to its failure."""
        return fetched(self.path / "metrics.parquet")

    @property
    def predictions(self) -> Path:
        """The predictions of all variants on all sets; there when the run has been scored."""
        return fetched(self.path / "predictions.parquet")

    @property
    def error(self) -> Path:
        """The whole message of the run's failure, with tracebacks; there while it has failed."""
        return self.path / "error.txt"

    @property
    def lock(self) -> Path:
        """Held by whoever writes the run's rows."""
        return self.path / "rows.lock"

    @property
    def fit(self) -> Path:
        """The record of the first stage, there once it is done."""
        return self.path / "fit.json"

    @property
    def fitted(self) -> bool:
        """True if training has finished."""
        return self.fit.exists()

    def part(self, variant: str, evaluation_set: str) -> Path:
        """The predictions of one variant on one set, until the run is scored."""
        folder = self.path / "parts" / file_name(variant or "weights")
        return folder / file_name(evaluation_set, ".arrow")

    def parts(self) -> list[Path]:
        """All parts that are there, here or in the store."""
        return listed(self.path / "parts", "*/*.arrow")

    def look(self) -> None:
        """See what other machines have written there by now."""
        refresh(self.path)

    def forget_fit(self) -> None:
        """Have the first stage done again."""
        remove(self.fit)

    def drop_parts(self) -> None:
        """Forget the parts, once ``predictions`` holds them all."""
        remove(self.path / "parts")

    def claim(self, fingerprints: Mapping[str, str]) -> None:
        """Begin or go on with work on these data files; what was begun on others is forgotten.

        Temporary files of processes that were killed go, too.

        Args:
            fingerprints: of the training set and of every evaluation set, by name.
        """
        _claim(self.path, fingerprints)

    def is_on(self, fingerprints: Mapping[str, str]) -> bool:
        """True if what is there was made of these data files."""
        return _is_on(self.path, fingerprints)

    def delete(self) -> None:
        """Forget everything about the run."""
        remove(self.path)

    def write_fit(self, fit: Fit) -> None:
        """Record that training has finished; the weights must be there already."""
        with written_atomically(self.fit) as temporary:
            temporary.write_text(json.dumps(asdict(fit)))
        for name in (STATE, BEST, "progress.json"):
            remove(self.path / name)

    def read_fit(self) -> Fit:
        """The record of the training."""
        return _read(Fit, self.fit)


def _read(kind: type[T], file: Path) -> T:
    """The record in a file.

    Raises:
        InputError: it cannot be read, or is none.
    """
    content = read_json(file)
    try:
        return kind(**content)
    except TypeError as error:
        raise InputError(f"{file}: is damaged: {first_line(error)}") from error


def _claim(folder: Path, fingerprints: Mapping[str, str]) -> None:
    if _is_on(folder, fingerprints):
        sweep_temporaries(folder)
        return
    remove(folder)
    with written_atomically(folder / _DATA) as temporary:
        temporary.write_text(_text_of(fingerprints))


def _is_on(folder: Path, fingerprints: Mapping[str, str]) -> bool:
    try:
        return (folder / _DATA).read_text() == _text_of(fingerprints)
    except FileNotFoundError:
        return False


def _text_of(fingerprints: Mapping[str, str]) -> str:
    return json.dumps(dict(fingerprints), sort_keys=True)
