"""Documents checked against pydantic models; an error names file, line, key and accepted values."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from shiftbench.core.document import Key, Node, dotted, one_line, relative
from shiftbench.core.errors import InputError
from shiftbench.core.words import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], node: Node) -> M:
    """``node`` as a pydantic model, nothing coerced but whole numbers to floats.

    Validators find ``locate(key, path)`` in their context: where a path that is the value of a key
    leads, relative to the file that says so.

    Raises:
        InputError: with place, key and what is accepted, of the first error.
    """

    def locate(key: str, path: str) -> str:
        return relative(node.nearest((key,)).place, path)

    context = {"locate": locate}
    try:
        return model.model_validate_json(json.dumps(node.plain), strict=True, context=context)
    except ValidationError as error:
        raise _explain(error, model, node) from None


def _explain(error: ValidationError, model: type[BaseModel], node: Node) -> InputError:
    """The first of pydantic's errors as one line; unknown keys first, since they cause others."""
    details = error.errors(include_url=False)
    kindless = [_real_path(node, d["loc"]) for d in details if d["type"] == "union_tag_not_found"]
    for detail in details:
        *path, key = _real_path(node, detail["loc"]) or [""]
        if detail["type"] == "extra_forbidden" and path not in kindless:
            models = _models_at(model, detail["loc"][:-1])
            fields = {name for found in models for name in found.model_fields}
            known = detail.get("ctx", {}).get("known", fields)
            parent = node.nearest(tuple(path))
            prefix = f"{dotted(parent.path)}: " if parent.path else ""
            place = node.nearest((*path, key)).place
            return InputError(f'{place}: {prefix}unknown key "{key}"{nearest(str(key), known)}')
    path = _real_path(node, details[0]["loc"])
    same = [d for d in details if _real_path(node, d["loc"]) == path]
    first, *others = dict.fromkeys(_message(detail) for detail in same)
    text = " or ".join([first, *(other.removeprefix("must be ") for other in others)])
    given = node.nearest(tuple(path)).value
    if not isinstance(given, dict | tuple):
        text += f", got {json.dumps(given, ensure_ascii=False)}"
    return node.error(text, tuple(path))


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


def _real_path(node: Node, loc: tuple[Key, ...]) -> list[Key]:
    """The parts of a pydantic location that are keys here, not names of union members."""
    path = []
    for key in loc:
        found = node.child(key)
        if found is not None:
            path.append(key)
            node = found
    return path


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
