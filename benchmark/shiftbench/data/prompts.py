"""Class names, prompt templates, and the prompts made of both.

A template is a format string. ``{}`` is the class name as it is, ``{:spaces}`` the name with
underscores as spaces, ``{:article}`` the same with "a" or "an" before it. The first and the last
occur in FMoW's templates, most of which keep the underscores: that is how wise-ft wrote them, and
how its numbers were measured.

Sources: open_clip for ImageNet; torchvision's names for CIFAR-10; ``iwildcam_labels.csv``, taken
from mlfoundations/wise-ft (MIT), column ``english``; ``wilds.datasets.fmow_dataset.categories`` for
FMoW; ``class_names.json``, for CIFAR-100 and Caltech101, has those that CLIP was evaluated with
(``data/prompts.md`` of openai/CLIP); the templates of iWildCam and FMoW follow wise-ft's.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from shiftbench.core.errors import InputError

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

FMOW_CATEGORIES = (
    "airport",
    "airport_hangar",
    "airport_terminal",
    "amusement_park",
    "aquaculture",
    "archaeological_site",
    "barn",
    "border_checkpoint",
    "burial_site",
    "car_dealership",
    "construction_site",
    "crop_field",
    "dam",
    "debris_or_rubble",
    "educational_institution",
    "electric_substation",
    "factory_or_powerplant",
    "fire_station",
    "flooded_road",
    "fountain",
    "gas_station",
    "golf_course",
    "ground_transportation_station",
    "helipad",
    "hospital",
    "impoverished_settlement",
    "interchange",
    "lake_or_pond",
    "lighthouse",
    "military_facility",
    "multi-unit_residential",
    "nuclear_powerplant",
    "office_building",
    "oil_or_gas_facility",
    "park",
    "parking_lot_or_garage",
    "place_of_worship",
    "police_station",
    "port",
    "prison",
    "race_track",
    "railway_bridge",
    "recreational_facility",
    "road_bridge",
    "runway",
    "shipyard",
    "shopping_mall",
    "single-unit_residential",
    "smokestack",
    "solar_farm",
    "space_facility",
    "stadium",
    "storage_tank",
    "surface_mine",
    "swimming_pool",
    "toll_booth",
    "tower",
    "tunnel_opening",
    "waste_disposal",
    "water_treatment_facility",
    "wind_farm",
    "zoo",
)

Prompts = tuple[tuple[str, ...], ...]
"""The texts that describe each class, in label order."""

CLASS_LISTS = ("imagenet", "cifar10", "iwildcam", "fmow", "caltech101", "cifar100")
FROM_DATA = "from-data"

SIMPLE = ("a photo of a {}.",)
SPACED = ("a photo of a {:spaces}.",)
IWILDCAM = ("a photo of {}.", "{} in the wild.")
_PLACES = ("asia", "africa", "the americas", "europe", "oceania")
FMOW = (
    "satellite photo of a {}.",
    "aerial photo of a {}.",
    "satellite photo of {:article}.",
    "aerial photo of {:article}.",
    *(
        f"{view} photo of a {{}} in {place}."
        for place in _PLACES
        for view in ("satellite", "aerial")
    ),
    "a photo of a {}.",
    "{}.",
)
TEMPLATE_SETS = ("openai-80", "simple", "iwildcam", "fmow")


class _ClassName(str):
    """A class name that a template can ask for in three forms."""

    __slots__ = ()

    def __format__(self, form: str) -> str:
        spoken = self.replace("_", " ")
        if form == "spaces":
            return spoken
        if form == "article":
            return f"{'an' if spoken[:1] in tuple('aeiou') else 'a'} {spoken}"
        return super().__format__(form)


def prompts(templates: Sequence[str], class_name: str) -> list[str]:
    """Return the text of every template for one class.

    Raises:
        InputError: a template is no format string of one class name.
    """
    name = _ClassName(class_name)
    texts = []
    for template in templates:
        try:
            texts.append(template.format(name))
        except (ValueError, IndexError, KeyError, AttributeError) as error:
            raise InputError(
                f'templates: "{template}" is not of the form "a photo of a {{}}.": {error}'
            ) from error
    return texts


def check_template(template: str) -> str:
    """Return ``template`` if it names the class.

    Raises:
        ValueError: it does not, or asks for more than one name.
    """
    try:
        (text,) = prompts([template], "\0")
    except InputError as error:
        raise ValueError(str(error)) from error
    if "\0" not in text:
        raise ValueError(f'the template "{template}" has no {{}} for the class name')
    return template


def resolve_classes(spec: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names of a named list, or those given, in label order.

    ImageNet's 1,000 names hold two pairs of equal ones, iWildCam's 182 four (lowland paca,
    jaguarundi, unknown bird, central american red brocket). They are kept, as in the papers: their
    zero-shot logits tie, and argmax takes the lower label.

    Raises:
        InputError: there is no such list.
    """
    if not isinstance(spec, str):
        return spec
    if spec == "imagenet":
        return tuple(_open_clip_texts()["IMAGENET_CLASSNAMES"])
    if spec == "iwildcam":
        return _iwildcam_names()
    known = {"cifar10": CIFAR10_CLASSES, "fmow": FMOW_CATEGORIES, **_published_names()}
    if spec not in known:
        raise InputError(
            f'classes: "{spec}" is none of {", ".join(CLASS_LISTS)}, nor a list of names'
        )
    return known[spec]


def resolve_templates(spec: str | Sequence[str]) -> tuple[str, ...]:
    """Return the templates of a named set, or those given, as format strings.

    Raises:
        InputError: there is no such set.
    """
    if not isinstance(spec, str):
        return tuple(spec)
    if spec == "openai-80":
        templates = _open_clip_texts()["OPENAI_IMAGENET_TEMPLATES"]
        return tuple(template("{}") for template in templates)
    known = {"simple": SIMPLE, "iwildcam": IWILDCAM, "fmow": FMOW}
    if spec not in known:
        raise InputError(
            f'templates: "{spec}" is none of {", ".join(TEMPLATE_SETS)}, nor a list of texts'
        )
    return known[spec]


@cache
def _open_clip_texts() -> dict[str, Any]:
    """The names in open_clip's file of class names and templates.

    The file is run alone: importing it from its package would import torch and much more.
    """
    package = importlib.util.find_spec("open_clip")
    (folder,) = (package and package.submodule_search_locations) or [""]
    spec = importlib.util.spec_from_file_location(
        "zero_shot_metadata", Path(folder, "zero_shot_metadata.py")
    )
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("open_clip has no zero_shot_metadata")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


@cache
def _published_names() -> dict[str, tuple[str, ...]]:
    """Return the lists of ``class_names.json``, in the order of the labels."""
    text = resources.files("shiftbench.data").joinpath("class_names.json").read_text()
    return {name: tuple(names) for name, names in json.loads(text).items()}


@cache
def _iwildcam_names() -> tuple[str, ...]:
    """Return the English names of the used categories in the order of y, lower-cased."""
    text = resources.files("shiftbench.data").joinpath("iwildcam_labels.csv").read_text()
    named = ((int(row["y"]), row["english"].lower()) for row in csv.DictReader(text.splitlines()))
    return tuple(name for y, name in sorted(named) if y < 99999)
