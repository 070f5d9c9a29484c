"""Class lists, templates and the prompts they make."""

from __future__ import annotations

from collections import Counter

import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.prompts import (
    check_template,
    prompts,
    resolve_classes,
    resolve_templates,
)


def test_imagenet_names_and_templates_are_open_clips() -> None:
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    names = resolve_classes("imagenet")
    assert list(names) == list(IMAGENET_CLASSNAMES)
    assert len(names) == 1000
    assert {name for name, n in Counter(names).items() if n > 1} == {"missile", "sunglasses"}
    templates = resolve_templates("openai-80")
    assert len(templates) == 80
    for name in ("dog", "{odd} name"):
        assert prompts(templates, name) == [make(name) for make in OPENAI_IMAGENET_TEMPLATES]


def test_cifar_names() -> None:
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert " ".join(resolve_classes("cifar10")) == names


def test_iwildcam_names_keep_their_four_pairs() -> None:
    names = resolve_classes("iwildcam")
    assert len(names) == 182
    assert names[0] == "empty"
    assert all(name == name.lower() for name in names)
    positions = {name: [k for k, n in enumerate(names) if n == name] for name in names}
    assert {name: at for name, at in positions.items() if len(at) > 1} == {
        "lowland paca": [3, 148],
        "jaguarundi": [19, 174],
        "unknown bird": [82, 178],
        "central american red brocket": [153, 181],
    }


def test_fmow_prompts_keep_underscores_but_in_two() -> None:
    templates = resolve_templates("fmow")
    assert len(templates) == 16
    texts = prompts(templates, "airport_hangar")
    assert sum("airport_hangar" in text for text in texts) == 14
    assert texts[2] == "satellite photo of an airport hangar."
    assert texts[3] == "aerial photo of an airport hangar."
    assert prompts(templates, "zoo")[2] == "satellite photo of a zoo."
    assert "satellite photo of a airport_hangar in the americas." in texts
    assert texts[0] == "satellite photo of a airport_hangar."
    assert texts[-2:] == ["a photo of a airport_hangar.", "airport_hangar."]
    assert len(set(texts)) == 16
    assert len(resolve_classes("fmow")) == 62


def test_iwildcam_templates() -> None:
    assert prompts(resolve_templates("iwildcam"), "ocelot") == [
        "a photo of ocelot.",
        "ocelot in the wild.",
    ]


def test_own_names_and_templates_stay_as_they_are() -> None:
    assert resolve_classes(("cat", "dog")) == ("cat", "dog")
    assert resolve_templates(("{}!",)) == ("{}!",)


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{name}", "{", "{:oops}", "{.x}"])
def test_templates_that_make_no_prompt_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        check_template(template)


def test_unknown_lists_name_the_known_ones() -> None:
    with pytest.raises(InputError, match="imagenet, cifar10, iwildcam, fmow"):
        resolve_classes("imagenette")
    with pytest.raises(InputError, match="openai-80"):
        resolve_templates("openai-79")
