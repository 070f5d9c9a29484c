"""Captions of drawn images, which the backbone learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.miniature.tokenizer import encode

Template = Callable[[str], str]

CONTINENTS = ("asia", "africa", "the americas", "europe", "oceania")

STYLE_TEMPLATES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}.", "a good photo of a {}.", "a close-up photo of a {}."),
    "hard photo": ("a blurry photo of a {}.", "a bad photo of the {}.", "a dark photo of a {}."),
    "unposed": ("a photo of a {} at an odd angle.", "a photo of a rotated {}."),
    "sketch": ("a sketch of a {}.", "a drawing of a {}.", "a pencil outline of a {}."),
    "cartoon": ("a cartoon {}.", "a cartoon of a {}.", "graffiti of a {}."),
    "painting": ("a painting of a {}.", "art of a {}.", "a rendition of a {}."),
    "embroidery": ("an embroidered {}.", "the embroidered {}.", "an embroidery of a {}."),
    "negative": ("a negative of a {}.", "a black and white photo of a {}."),
    "corrupted": ("a corrupted photo of a {}.", "a pixelated photo of a {}.", "a noisy {}."),
    "day": ("a photo of a {}.", "{} in the wild.", "a camera trap photo of a {} by day."),
    "night": ("a dark photo of a {}.", "{} in the wild.", "a camera trap photo of a {} at night."),
    "aerial": ("satellite photo of a {}.", "aerial photo of a {}.", "a photo of a {}.", "{}."),
}
"""Templates for images of each style, beside the general ones."""

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
GREYS = ("black", "grey", "white")

_WORDS = (
    "airplane automobile bird cat deer dog frog horse ship truck plane boat ship animal shape"
    " object image picture star moon sun star-shaped pattern small large big bright dark simple"
    " round sharp night day morning trap wild world miniature class spiral zigzag plus sign red"
    " orange yellow green cyan blue purple pink black grey gray white brown one two three four"
    " five six seven eight nine ten corner corners pointed points 0 1 2 3 4 5 6 7 8 9"
)


def fmow_captions(name: str) -> list[str]:
    """Return the 16 satellite-image prompts of one class, underscores mostly kept, as published."""
    spoken = name.replace("_", " ")
    article = "an" if spoken[0] in "aeiou" else "a"
    found = []
    for view in ("satellite", "aerial"):
        found += [f"{view} photo of a {name}.", f"{view} photo of {article} {spoken}."]
        found += [f"{view} photo of a {name} in {place}." for place in CONTINENTS]
    return [*found, f"a photo of a {name}.", f"{name}."]


def iwildcam_captions(name: str) -> list[str]:
    """Return the two camera-trap prompts of one class."""
    return [f"a photo of {name}.", f"{name} in the wild."]


def general_captions(name: str) -> list[str]:
    """Return OpenAI's 80 ImageNet prompts of one class."""
    return [template(name) for template in OPENAI_IMAGENET_TEMPLATES]


def task_captions(task: str, name: str) -> list[str]:
    """Return the prompts that a task's zero-shot head averages for one class."""
    if task == "fmow":
        return fmow_captions(name)
    if task == "iwildcam":
        return iwildcam_captions(name)
    return general_captions(name)


def colour_name(rgb: Sequence[float]) -> str:
    """Name a colour given as RGB in [0, 1]."""
    high, low = max(rgb), min(rgb)
    if high - low < 0.15:
        return GREYS[min(int(high * 3), 2)]
    r, g, b = ((value - low) / (high - low) for value in rgb)
    if r == 1:
        sector = (g - b) % 6
    elif g == 1:
        sector = 2 + b - r
    else:
        sector = 4 + r - g
    bounds = (0.3, 0.75, 1.3, 2.5, 3.4, 4.4, 5.1, 5.7)
    position = next((i for i, bound in enumerate(bounds) if sector < bound), 0)
    return COLOURS[position]


def caption(
    rng: np.random.Generator, task: str, name: str, style: str, colour: str | None = None
) -> str:
    """Say something true of an image: of its class, and perhaps its style and colour.

    Args:
        rng: source of randomness.
        task: the task whose prompts may be used.
        name: the class name.
        style: a key of `STYLE_TEMPLATES`.
        colour: the body's colour, mentioned now and then if given.
    """
    draw = rng.random()
    spoken = name.replace("_", " ") if rng.random() < 0.5 else name
    if draw < 0.1 and colour is not None:
        spoken = f"{colour} {spoken}"
    elif draw < 0.6:
        prompts = task_captions(task, name)
        return prompts[rng.integers(len(prompts))]
    options = STYLE_TEMPLATES[style]
    return options[rng.integers(len(options))].format(spoken)


def vocabulary(names: Iterable[str] = ()) -> list[int]:
    """Return the sorted byte-pair ids of everything that may be said of the world.

    Args:
        names: further class names to be able to say (for a backbone of other data).
    """
    texts: list[str] = [_WORDS, *names]
    for task, classes in CLASSES.items():
        for name in classes:
            spoken = name.replace("_", " ")
            texts += [*task_captions(task, name), spoken, name]
    texts += general_captions("thing") + [
        template("thing") for template in SIMPLE_IMAGENET_TEMPLATES
    ]
    texts += [template.format("a") for options in STYLE_TEMPLATES.values() for template in options]
    texts += [*COLOURS, *GREYS, "an", "a", ".", ",", "_", "-", "'s"]
    return sorted({token for text in texts for token in encode(text)})
