"""A suite as YAML in which every key is explained, by the descriptions of the models themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from shiftbench.core.document import inline

WIDTH = 96
INDENT = "  "


@dataclass(frozen=True)
class Section:
    """A mapping of a suite, with the model that says what its keys are.

    Attributes:
        model: describes the keys; those without a value are shown as comments, with their default.
        values: by key: plain values, sections, or mappings of names to either.
        without: keys of the model that a suite does not say there.
        named: true for an entry that is there also where all in it are defaults.
    """

    model: type[BaseModel]
    values: Mapping[str, Any] = field(default_factory=dict)
    without: Collection[str] = ()
    named: bool = False


def explained(section: Section) -> str:
    """The YAML of a section and all in it; each key is explained where it comes first."""
    return "\n".join([*_lines(section, "", set(), active=True)]).strip("\n") + "\n"


def _lines(
    section: Section, indent: str, seen: set[tuple[str, str]], *, active: bool
) -> Iterator[str]:
    """The lines of a section.

    Args:
        section: the keys.
        indent: of its lines.
        seen: keys, with their descriptions, that are explained above.
        active: false where the section itself is a comment.
    """
    beside = [name for name in section.values if name not in section.model.model_fields]
    for name in beside:
        yield from _entry(name, section.values[name], indent, seen, active=active)
    for name, info in section.model.model_fields.items():
        if name in section.without:
            continue
        told = (name, info.description or "")
        if told not in seen:
            seen.add(told)
            yield from [""] if not indent else []
            yield from _comment(told[1], indent)
        elif name not in section.values:
            continue
        if name in section.values:
            yield from _entry(name, section.values[name], indent, seen, active=active)
        else:
            yield f"{indent}#{name}: {inline(_default(info))}"


def _entry(
    name: str, value: Any, indent: str, seen: set[tuple[str, str]], *, active: bool
) -> Iterator[str]:
    key = inline(name)
    if isinstance(value, Section):
        active = active and _says(value)
        yield f"{indent}{'' if active else '#'}{key}:"
        yield from _lines(value, indent + INDENT, seen, active=active)
    elif isinstance(value, Mapping) and any(
        isinstance(v, Section | Mapping) for v in value.values()
    ):
        yield f"{indent}{key}:"
        for inner, item in value.items():
            yield from _entry(inner, item, indent + INDENT, seen, active=active)
    else:
        yield f"{indent}{'' if active else '#'}{key}: {inline(value)}"


def _says(value: Any) -> bool:
    """True unless all in a section are defaults, and it is not there for its name."""
    if not isinstance(value, Section) or value.named:
        return True
    return any(map(_says, value.values.values()))


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _default(info: FieldInfo) -> Any:
    value = info.get_default(call_default_factory=True)
    return TypeAdapter(Any).dump_python(value, mode="json", exclude_defaults=True)
