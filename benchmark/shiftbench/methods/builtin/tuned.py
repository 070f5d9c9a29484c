"""Any method that trains or derives weights, with settings found on OOD validation data.

The control for AutoFT (arXiv 2401.10220): what the same search gives a plain objective. Of a method
that derives weights a trial is a merge and its score, and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, cast

from pydantic import Field, ValidationInfo, field_validator

from shiftbench.core import document
from shiftbench.core.document import dumped
from shiftbench.core.validation import validate
from shiftbench.core.words import nearest
from shiftbench.methods.base import Architecture, DerivedMethod, Method, Parent, TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.registry import METHODS
from shiftbench.methods.search import (
    Choice,
    Domain,
    Integer,
    LogUniform,
    Search,
    SearchConfig,
    Uniform,
    searched_settings,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Batch, Derivation, Weights
    from shiftbench.methods.search import Values
    from shiftbench.models.classifier import ImageClassifier

M = TypeVar("M", bound=Method[Any])

SEED = "seed"
"""In a space, the seed of a trial's data order; no setting of a method."""
MERGES = 50
"""Trials of a search of a method that derives weights, where nothing else is said."""


class TunedConfig(MethodConfig):
    """The method, its settings, and the space in which a search looks for some of them.

    After validation ``settings`` holds all of the method's settings and ``space`` what is searched,
    written out, so that both are part of a run's identity.
    """

    of: Annotated[str, Field(description="registered name of the method")] = "full"
    settings: Annotated[
        dict[str, Any], Field(default_factory=dict, description="its settings; none: its defaults")
    ]
    space: Annotated[
        dict[str, Domain] | None,
        Field(
            description="settings that are searched; null: those whose annotations say where, and "
            "of a method that trains lr from a hundredth to a hundred times that of the settings, "
            "on a log scale, and weight_decay from 0 to 1"
        ),
    ] = None
    search: Annotated[
        SearchConfig,
        Field(
            description="how it is searched, on OOD validation data; of a method that derives "
            "weights a trial has no steps, so that n_trials (50 there) and the sampler decide"
        ),
    ] = SearchConfig()

    @field_validator("of")
    @classmethod
    def _has_weights(cls, value: str) -> str:
        kind = METHODS.load(value)
        if kind.reference or kind.elsewhere or not issubclass(kind, TrainedMethod | DerivedMethod):
            raise ValueError("must be a method that trains or derives weights")
        return value

    @field_validator("settings")
    @classmethod
    def _fill_settings(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "of" not in info.data:
            return value
        method = create(info.data["of"], value)
        if method.search() is not None:
            raise ValueError(f"{method.name} searches for its settings itself")
        return method.config.model_dump(mode="json")

    @field_validator("space")
    @classmethod
    def _check_space(
        cls, value: dict[str, Domain] | None, info: ValidationInfo
    ) -> dict[str, Domain] | None:
        if "settings" not in info.data or "of" not in info.data:
            return value
        of, settings = info.data["of"], info.data["settings"]
        method = create(of, settings)
        if value is None:
            value = default_space(method)
            if not value:
                raise ValueError(f"{of} does not say where to search; name some of its settings")
        if not value:
            raise ValueError("must not be empty")
        for key, domain in value.items():
            if key == SEED:
                if not isinstance(method, TrainedMethod):
                    raise ValueError(f"seed: {of} trains nothing, so there is no order of data")
                if not isinstance(domain, Integer) or domain.low < 0:
                    raise ValueError("seed: must be of kind integer, from 0 or above")
                continue
            if key not in settings:
                raise ValueError(f'{of} has no setting "{key}"{nearest(key, settings)}')
            for bound in _bounds(domain):
                candidate = create(of, method.Config.of_trial(settings, {key: bound}))
                if getattr(candidate.config, key) != bound:
                    raise ValueError(f"{key}: {of} does not keep what it is set to")
                if candidate.parents() != method.parents():
                    raise ValueError(f"{key}: which runs {of} builds on cannot be searched")
        return value

    @field_validator("search")
    @classmethod
    def _without_steps(cls, value: SearchConfig, info: ValidationInfo) -> SearchConfig:
        """A merge is scored once, and is the same every time: no rungs, no finalists."""
        if "of" not in info.data or issubclass(METHODS.load(info.data["of"]), TrainedMethod):
            return value
        given = {"n_trials": MERGES} | value.model_dump(exclude_unset=True)
        return SearchConfig(**{**given, "inner_steps": 1, "scheduler": "none", "finalists": 0})


class _OfMethod(Generic[M]):
    """What the tuned form of a method has of the method itself."""

    _method: M

    def parents(self) -> tuple[Parent, ...]:
        """Those of the method."""
        return self._method.parents()

    def architecture(self) -> Architecture:
        """That of the method."""
        return self._method.architecture()

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """As the method does."""
        self._method.check(tower)


class Tuned(_OfMethod[TrainedMethod[TrainingConfig]], TrainedMethod[TunedConfig]):
    """A method whose settings a search finds; a run is of the ``candidate`` that was chosen.

    It is of the kind of the method: of one that derives weights, a ``TunedMerge``.
    """

    name: ClassVar[str] = "tuned"
    Config: ClassVar[type[MethodConfig]] = TunedConfig

    def __new__(cls, config: TunedConfig) -> Tuned | TunedMerge:  # type: ignore[misc]
        """The method, or a ``TunedMerge``."""
        if issubclass(METHODS.load(config.of), DerivedMethod):
            return TunedMerge(config)
        return super().__new__(cls)

    def __init__(self, config: TunedConfig) -> None:
        super().__init__(config)
        self._method = _trained(create(config.of, config.settings))
        self.inputs = self._method.inputs
        self.captions = self._method.captions
        self.whole_batch = self._method.whole_batch
        self.shardable = self._method.shardable
        self.seeded = self._method.seeded
        self.wraps = (config.of,)
        self.revision = self._method.revision

    def search(self) -> Search[TrainedMethod[TrainingConfig]]:
        """The configured one."""
        return _search(self.config, _trained)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Refused: what trains is a candidate."""
        raise TypeError("tuned trains the candidate that its search found")

    @property
    def training(self) -> TrainingConfig:
        """The settings of the training loop before the search."""
        return self._method.training


class TunedMerge(_OfMethod[DerivedMethod[MethodConfig]], DerivedMethod[TunedConfig]):
    """A method that derives weights, with settings that a search finds: those weights are kept."""

    name: ClassVar[str] = "tuned"
    Config: ClassVar[type[MethodConfig]] = TunedConfig
    kept: bool = True

    def __init__(self, config: TunedConfig) -> None:
        super().__init__(config)
        self._method = _derived(create(config.of, config.settings))
        self.seeded = self._method.seeded
        self.wraps = (config.of,)
        self.revision = self._method.revision

    def selects(self) -> bool:
        """True if the method looks at ID validation images with any of the settings searched."""
        space = self.config.space or {}
        tried = [{key: bound} for key, domain in space.items() for bound in _bounds(domain)]
        return any(candidate(self.config, values).selects() for values in ({}, *tried))

    def search(self) -> Search[DerivedMethod[MethodConfig]]:
        """The configured one."""
        return _search(self.config, _derived)

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """Refused: what derives weights is a candidate."""
        raise TypeError("tuned derives the weights of the candidate that its search found")


def _search(config: TunedConfig, kind: Callable[[Method[MethodConfig]], M]) -> Search[M]:
    """The configured search, among candidates of a kind."""
    return Search(
        config.search,
        config.space or {},
        lambda values: kind(candidate(config, values)),
        lambda values: export(config, values),
    )


def candidate(config: TunedConfig, values: Values) -> Method[MethodConfig]:
    """The method with the settings of a trial."""
    found = {key: value for key, value in values.items() if key != SEED}
    kind = METHODS.load(config.of)
    return create(config.of, kind.Config.of_trial(config.settings, found))


def export(config: TunedConfig, values: Values) -> str:
    """The method with the settings of a trial, as a suite can hold it."""
    settings = candidate(config, values).config.model_dump(mode="json")
    return dumped({"method": config.of, **settings})


def create(name: str, settings: Mapping[str, Any]) -> Method[MethodConfig]:
    """A method with settings as a suite file says them.

    Raises:
        InputError: one line with name, key and what is accepted.
    """
    kind = METHODS.load(name)
    place = document.Place(name, None, Path())
    return kind(validate(kind.Config, document.tree(settings, place)))


def default_space(method: Method[MethodConfig]) -> dict[str, Domain]:
    """What a method's settings say, and the optimizer's part of AutoFT's space.

    The latter is for methods that train (arXiv 2401.10220, sec. 4).
    """
    said = searched_settings(type(method.config))
    if not isinstance(method, TrainedMethod):
        return said
    lr = method.training.lr
    optimizer: dict[str, Domain] = {
        "lr": LogUniform(low=lr / 100, high=lr * 100),
        "weight_decay": Uniform(low=0, high=1),
    }
    return optimizer | said


def _trained(method: Method[MethodConfig]) -> TrainedMethod[TrainingConfig]:
    return cast("TrainedMethod[TrainingConfig]", method)


def _derived(method: Method[MethodConfig]) -> DerivedMethod[MethodConfig]:
    return cast("DerivedMethod[MethodConfig]", method)


def _bounds(domain: Domain) -> tuple[str | float | int | bool, ...]:
    """The values of a domain that decide whether all of them are valid settings."""
    if isinstance(domain, Choice):
        return domain.values
    if isinstance(domain, Integer):
        return domain.low, domain.high
    # What lies between is no whole number, so this refuses settings that must be one.
    return domain.low, domain.high, domain.low + (domain.high - domain.low) / 3**0.5
