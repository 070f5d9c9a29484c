"""The JSON schema of suite files, for editors: ``suites/suite.schema.json``.

``python -m shiftbench.suite.json_schema`` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, TypeAdapter

from shiftbench.core.files import written_atomically
from shiftbench.core.shipped import shipped
from shiftbench.data.sources.any_source import AnySource
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.registry import TASKS
from shiftbench.methods.registry import METHODS
from shiftbench.suite.file import OF_METHODS, OF_TASKS, REPLACE, SuiteFile, TrainingResources

SCHEMA_FILE = shipped("suites") / "suite.schema.json"


def json_schema() -> dict[str, Any]:
    """The JSON schema of a suite file, with the settings of every built-in method and task."""
    schema = SuiteFile.model_json_schema()
    definitions = schema["$defs"]

    def define(model: type[BaseModel]) -> dict[str, Any]:
        own: dict[str, Any] = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(own.pop("$defs", {}))
        return own

    definitions["TrainingResources"] = define(TrainingResources)
    builtin = [name for name, entry in METHODS.entries().items() if entry.builtin]
    for name in builtin:
        settings = define(METHODS.load(name).Config)
        settings["properties"]["method"] = {
            "type": "string",
            "description": OF_METHODS["method"],
        }
        settings["properties"]["resources"] = {
            "$ref": "#/$defs/TrainingResources",
            "description": OF_METHODS["resources"],
        }
        definitions[f"method {name}"] = settings
    definitions["methods"] = _methods_schema(builtin)
    task = define(Task)
    task["required"] = []
    task["properties"].pop("name")
    # A patch of a registered task may give some keys of a set only, and null removes a shift.
    definitions["EvaluationSet"] = _set_schema(definitions["EvaluationSet"])
    patch = {"$ref": "#/$defs/EvaluationSet"}
    task["properties"]["classes"]["anyOf"].append(_by_label())
    task["properties"]["shifts"]["additionalProperties"] = {"anyOf": [patch, {"type": "null"}]}
    task["properties"]["also"]["additionalProperties"] = patch
    task["properties"]["methods"] = {
        "$ref": "#/$defs/methods",
        "description": OF_TASKS["methods"],
    }
    task["properties"]["from"] = {
        "type": "string",
        "description": OF_TASKS["from"],
    }
    definitions["task"] = task
    sources = TypeAdapter(AnySource).json_schema(ref_template="#/$defs/{model}")["oneOf"]
    for name in ("task", "EvaluationSet"):
        definitions[name] = _referring(definitions[name], sources, "#/$defs/source")
    definitions["source"] = {"oneOf": sources}
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
    entry = {"anyOf": [{"$ref": "#/$defs/task"}, {"type": "null"}]}
    properties = schema["properties"]
    properties["tasks"] = {
        "description": properties["tasks"]["description"],
        "anyOf": [
            {**names, "description": "names: picks these, with all that is inherited for them"},
            {
                "type": "object",
                "properties": {
                    **{n: entry for n, e in TASKS.entries().items() if e.builtin},
                    REPLACE: _mark("tasks"),
                },
                "additionalProperties": entry,
            },
        ],
    }
    properties["methods"] = {
        "description": properties["methods"]["description"],
        "anyOf": [
            {
                **names,
                "description": "names: picks these of the suite that is extended, with what they "
                "build on",
            },
            {"properties": {REPLACE: _mark("methods")}, **definitions["methods"]},
        ],
    }
    schema["required"] = []  # an extended suite may say the rest
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "ShiftBench suite",
        "description": "A grid of runs: tasks × backbones × methods × shots × seeds.",
    }


def _set_schema(model: dict[str, Any]) -> dict[str, Any]:
    """Some keys of an evaluation set, or a source that stands for ``source`` beside them."""
    properties = {**model["properties"]}
    properties["classes"]["anyOf"].append(_by_label())
    beside = {key: value for key, value in properties.items() if key != "source"}
    direct = {
        "description": "a source alone: the kind and its settings beside the set's own keys",
        "type": "object",
        "properties": {"kind": {"type": "string"}, **beside},
        "required": ["kind"],
    }
    return {"anyOf": [{**model, "properties": properties, "required": []}, direct]}


def _by_label() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "the class of each label, by its number or its name; null leaves one out",
        "additionalProperties": {"type": ["string", "null"]},
    }


def _mark(what: str) -> dict[str, Any]:
    return {"type": "boolean", "description": f"true: no {what} are inherited but those named here"}


def _referring(schema: Any, alternatives: list[Any], reference: str) -> Any:
    """Return a schema with a reference in place of every list of the same alternatives."""
    if isinstance(schema, list):
        return [_referring(item, alternatives, reference) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("oneOf") == alternatives:
        return {**{k: v for k, v in schema.items() if k != "oneOf"}, "$ref": reference}
    return {key: _referring(value, alternatives, reference) for key, value in schema.items()}


def _methods_schema(names: Iterable[str]) -> dict[str, Any]:
    """Labels to settings: one branch for every method, and nothing said of a plugin's settings."""
    return {
        "type": "object",
        "additionalProperties": {"type": ["object", "null"]},
        "allOf": [_branch(name) for name in names],
    }


def _branch(name: str) -> dict[str, Any]:
    """Settings of one method: under its own name, unless ``method`` says another, or any label."""
    settings = {"$ref": f"#/$defs/method {name}"}
    chosen = {"type": "object", "properties": {"method": {"const": name}}}
    return {
        "properties": {name: {"if": chosen, "then": settings}},
        "additionalProperties": {"if": {**chosen, "required": ["method"]}, "then": settings},
    }


def schema_text() -> str:
    """The JSON schema as the text of ``suites/suite.schema.json``."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def write() -> None:
    """Write ``suites/suite.schema.json``."""
    with written_atomically(SCHEMA_FILE) as temporary:
        temporary.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    write()
