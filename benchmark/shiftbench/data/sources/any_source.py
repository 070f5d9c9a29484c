"""The type of a field that holds a source of any registered kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, PydanticKnownError
from pydantic_core import core_schema as schemas

from shiftbench.core.errors import InputError
from shiftbench.data.sources.base import Source
from shiftbench.data.sources.registry import SOURCES


class _ByKind:
    """Validates by the class that is registered for ``kind``, which is imported only then.

    Dumps are those of the class itself, with all of its own fields. The JSON schema holds the
    settings of the built-in kinds, and lets those of other packages have any.
    """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        del source, handler
        return schemas.with_info_plain_validator_function(_validated)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        del schema
        builtin = sorted(name for name, entry in SOURCES.entries().items() if entry.builtin)
        known = [handler(SOURCES.load(name).__pydantic_core_schema__) for name in builtin]
        other = {
            "description": "a source of another package",
            "type": "object",
            "properties": {"kind": {"type": "string", "not": {"enum": builtin}}},
            "required": ["kind"],
        }
        return {"oneOf": [*known, other]}


AnySource = Annotated[Source, _ByKind()]
"""A source of any kind: a mapping with a registered ``kind``, or a ``Source`` itself."""


def _validated(value: object, info: ValidationInfo) -> Source:
    if isinstance(value, Source):
        _load(value.kind)
        return value
    if not isinstance(value, Mapping):
        raise PydanticKnownError("dict_type")
    if "kind" not in value:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
    kind = _load(str(value["kind"]))
    _refuse_unknown(value, kind)
    if info.mode == "json":  # of a file, where nothing is coerced
        return kind.model_validate_json(json.dumps(value), strict=True, context=info.context)
    return kind.model_validate(value, context=info.context)


def _load(kind: str) -> type[Source]:
    try:
        return SOURCES.load(kind)
    except InputError as error:
        raise PydanticCustomError("source_kind", "{reason}", {"reason": str(error)}) from error


def _refuse_unknown(value: Mapping[str, object], kind: type[Source]) -> None:
    """Refuse keys that the kind has not, and tell the error's reader which it has."""
    known = sorted(kind.model_fields)
    context = {"known": known}
    errors = [
        InitErrorDetails(
            type=PydanticCustomError("extra_forbidden", "Extra inputs are not permitted", context),
            loc=(key,),
            input=given,
        )
        for key, given in value.items()
        if key not in known
    ]
    if errors:
        raise ValidationError.from_exception_data(kind.__name__, errors)
