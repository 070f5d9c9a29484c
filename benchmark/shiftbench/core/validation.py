"""Documents checked against pydantic models; an error names file, line, key and accepted values."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from shiftbench.core.document import Key, Node, dotted, relative
from shiftbench.core.errors import InputError, one_line
from shiftbench.core.words import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Path = tuple[Key, ...]
M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], node: Node) -> M:
    """``node`` as a pydantic model, nothing coerced but whole numbers to floats.

    Validators find ``locate(key, path)`` in their context: where a path that is the value of a key
    leads, relative to the file that says so.

    Raises:
        InputError: a line for each fault, with place, key and what is accepted.
    """

    def locate(key: str, path: str) -> str:
        return relative(node.nearest((key,)).place, path)

    context = {"locate": locate}
    try:
        return model.model_validate_json(json.dumps(node.plain), strict=True, context=context)
    except ValidationError as error:
        raise InputError(*_explained(error, model, node)) from None


def _explained(error: ValidationError, model: type[BaseModel], node: Node) -> Iterator[str]:
    """Pydantic's errors, a line for each fault; unknown keys first, since they cause others."""
    faults: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        faults.setdefault(_real_path(node, detail["loc"]), []).append(detail)
    kindless = {
        path
        for path, details in faults.items()
        if any(detail["type"] == "union_tag_not_found" for detail in details)
    }
    unknown: dict[Path, list[str]] = {}
    for path, details in faults.items():
        extra = [detail for detail in details if detail["type"] == "extra_forbidden"]
        if extra and path[:-1] not in kindless:
            unknown.setdefault(path[:-1], []).append(str(path[-1]))
            yield _unknown(extra[0], model, node, path)
    for path, details in faults.items():
        below = any(len(path) < len(other) and other[: len(path)] == path for other in faults)
        left = [d for d in details if not _follows(d, unknown.get(path, ()), below=below)]
        if path[:-1] in kindless:
            continue
        others = [detail for detail in left if detail["type"] != "missing"]
        yield from (str(node.error(_message(d), path)) for d in left if d not in others)
        if others:
            yield _line(others, node, path)


def _unknown(detail: ErrorDetails, model: type[BaseModel], node: Node, path: Path) -> str:
    """The line of a key that there is not."""
    key = path[-1]
    models = _models_at(model, detail["loc"][:-1])
    fields = {name for found in models for name in found.model_fields}
    known = detail.get("ctx", {}).get("known", fields)
    parent = node.nearest(path[:-1])
    prefix = f"{dotted(parent.path)}: " if parent.path else ""
    return f'{node.nearest(path).place}: {prefix}unknown key "{key}"{nearest(str(key), known)}'


def _follows(detail: ErrorDetails, unknown: Collection[str], *, below: bool) -> bool:
    """True for an error that another one explains.

    Args:
        detail: the error.
        unknown: keys beside it that there are not: one may be a misspelt one that is missing.
        below: whether parts of the value have errors: then its type is right for something.
    """
    if detail["type"] == "extra_forbidden":
        return True
    if detail["type"] == "missing":
        missing = str(detail["loc"][-1])
        return any(difflib.get_close_matches(key, [missing]) for key in unknown)
    return below and (detail["type"].endswith("_type") or detail["type"] == "literal_error")


def _line(details: Sequence[ErrorDetails], node: Node, path: Path) -> str:
    """The line of what is wrong with one value; alternatives are joined by "or"."""
    first, *others = dict.fromkeys(map(_message, details))
    text = " or ".join([first, *(other.removeprefix("must be ") for other in others)])
    given = node.nearest(path).value
    if not isinstance(given, dict | tuple):
        text += f", got {json.dumps(given, ensure_ascii=False)}"
    return str(node.error(text, path))


def _message(detail: ErrorDetails) -> str:
    """One of pydantic's errors, in the words of a YAML file."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return f'the key "{detail["loc"][-1]}" is missing'
        case "union_tag_not_found":
            return f"the key {context['discriminator']} is missing".replace("'", '"')
        case "union_tag_invalid":
            tag, tags = context["tag"], re.findall(r"'([^']+)'", context["expected_tags"])
            return f'unknown kind "{tag}"{nearest(tag, tags)}'
        case "too_short":
            return "must not be empty"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must be a mapping"
    text = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return one_line(text[:1].lower() + text[1:])


def _real_path(node: Node, loc: tuple[Key, ...]) -> Path:
    """The parts of a pydantic location that are keys here, not names of union members."""
    path: list[Key] = []
    for key in loc:
        found = node.child(key)
        if found is not None:
            path.append(key)
            node = found
    return tuple(path)


def _models_at(model: type[BaseModel], loc: tuple[Key, ...]) -> list[type[BaseModel]]:
    """The models that could have been meant at a pydantic location."""
    models = [model]
    for key in loc:
        fields = [m.model_fields[key] for m in models if key in m.model_fields]
        if fields:
            models = [m for field in fields for m in _models_in(field.annotation)]
        else:
            models = [m for m in models if _is_member(m, key)] or models
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _is_member(model: type[BaseModel], tag: Key) -> bool:
    kind = model.model_fields.get("kind")
    return tag == model.__name__ or (kind is not None and tag in get_args(kind.annotation))
