"""The prompts of a task's classes: templates filled in, or sentences written for each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from shiftbench.core.errors import InputError
from shiftbench.core.words import nearest
from shiftbench.data.prompts import Prompts, prompts, resolve_templates
from shiftbench.data.tasks.names import plain


def class_prompts(
    classes: Sequence[str], templates: str | Sequence[str] | Mapping[str, Sequence[str]]
) -> Prompts:
    """Return the prompts of every class.

    Args:
        classes: names in label order.
        templates: the name of a set, templates, or the sentences of every class.

    Raises:
        InputError: there is no such set, or sentences are not for these classes.
    """
    if not isinstance(templates, Mapping):
        texts = resolve_templates(templates)
        return tuple(tuple(prompts(texts, name)) for name in classes)
    if fault := misfit(classes, templates):
        raise InputError(f"templates: {fault}")
    said = {plain(name): tuple(sentences) for name, sentences in templates.items()}
    return tuple(said[plain(name)] for name in classes)


def misfit(classes: Sequence[str], sentences: Iterable[str]) -> str:
    """Return why sentences for the classes so called are not for ``classes``, "" if they are."""
    wanted, given = ({plain(name): name for name in names} for names in (classes, sentences))
    missing = [name for form, name in wanted.items() if form not in given]
    unknown = [name for form, name in given.items() if form not in wanted]
    if missing:
        more = f", nor for {len(missing) - 1} others" if len(missing) > 1 else ""
        return f'there are no prompts for the class "{missing[0]}"{more}'
    return (
        f'"{unknown[0]}" is none of the classes{nearest(unknown[0], classes, 8)}' if unknown else ""
    )
