"""Pages of the reference that follow from the code; mkdocs-gen-files runs this at every build."""

from __future__ import annotations

import importlib
import json
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import mkdocs_gen_files
import typer
from pydantic import BaseModel
from shiftbench.cli import VERBS, app
from shiftbench.data.sources.registry import SOURCES
from shiftbench.data.tasks.definition import EvaluationSet, Holdout, Task
from shiftbench.data.tasks.registry import NINE, TASKS, collections
from shiftbench.data.tasks.summary import summary
from shiftbench.evaluation.metrics.registry import METRICS
from shiftbench.leaderboard.schema import COLUMNS
from shiftbench.methods.registry import METHODS
from shiftbench.suite.file import OF_TASKS, Budget, Limits, Resources, SuiteFile, TrainingResources


def main() -> None:
    """Write every generated page."""
    write("commands", "Commands", commands())
    write("suites", "Suites", suites())
    write("data", "Data sets", data_sets())
    write("methods", "Methods", methods())
    write("metrics", "Metrics", metrics())
    write("columns", "Columns of the leaderboard", columns())


def write(name: str, title: str, parts: Iterable[str]) -> None:
    """One page of the reference."""
    with mkdocs_gen_files.open(f"reference/{name}.md", "w") as page:
        page.write("\n\n".join([f"# {title}", *parts]) + "\n")


def commands() -> Iterator[str]:
    """Every verb with its arguments, options and examples."""
    yield (
        "Exit codes: 0 done, 1 some runs failed or differ, 2 bad input, 130 interrupted, 143 "
        "stopped by SIGTERM."
    )
    group = typer.main.get_command(app)
    context = group.make_context("shiftbench", [], resilient_parsing=True)
    for verb in VERBS:
        yield from _command(f"shiftbench {verb}", group.get_command(context, verb), "##")


def _command(name: str, command: Any, level: str) -> Iterator[str]:
    yield f"{level} {name}"
    yield textwrap.dedent(command.help or "")
    rows = []
    for parameter in command.params:
        if parameter.name in ("help", "install_completion", "show_completion"):
            continue
        called = parameter.metavar or parameter.name.upper()
        if parameter.param_type_name != "argument":
            called = ", ".join(parameter.opts)
        default = parameter.default
        shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
        rows.append((f"`{called}`", shown, getattr(parameter, "help", None) or ""))
    if rows:
        yield table(("option", "default", "meaning"), rows)
    if command.epilog:
        yield _epilog(command.epilog)
    for verb, sub in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {verb}", sub, f"{level}#")


def _epilog(text: str) -> str:
    """The examples of a help text: what is indented is a command."""
    plain = text.replace("[bold]", "**").replace("[/bold]", "**")
    paragraphs = [part.strip("\n") for part in plain.split("\n\n")]
    return "\n\n".join(
        f"```bash\n{textwrap.dedent(part)}\n```" if part.startswith("  ") else part
        for part in paragraphs
    )


def suites() -> Iterator[str]:
    """Every key of a suite file."""
    yield (
        "A suite is a YAML file: tasks × backbones × methods × shots × seeds. Keys are closed: a "
        "misspelt one is named with its file, line and nearest valid key. `shiftbench plan SUITE "
        "--resolved` prints everything that a suite means, defaults included; `shiftbench init` "
        "writes a suite with its keys explained. Editors complete and check with the JSON schema "
        "`suites/suite.schema.json`."
    )
    for title, model in (
        ("The file", SuiteFile),
        ("`budget`", Budget),
        ("`resources`", Resources),
        ("`methods.<label>.resources`", TrainingResources),
        ("`resources.limits`", Limits),
        ("A task", Task),
        ("An evaluation set: `id_test`, `ood_val`, `shifts.<name>`", EvaluationSet),
        ("A part held out: `id_val`", Holdout),
    ):
        yield f"## {title}"
        yield keys(model, without={"name"} if model is Task else ())
        if model is Task:
            yield "Beside these, a task in a suite has"
            yield table(("key", "meaning"), [(f"`{key}`", said) for key, said in OF_TASKS.items()])
    yield "## Sources"
    yield "Everything that says `source`, and `train` and `id_val`, names a kind of source."
    for name in SOURCES.entries():
        source = SOURCES.load(name)
        yield f"### `kind: {name}`"
        yield first_paragraph(source)
        yield keys(source, without={"kind"})


def data_sets() -> Iterator[str]:
    """Every built-in task, collection by collection, with where its data are from."""
    yield (
        "The tasks that a suite names as they are, or begins from with `from:`; every other data "
        "set is a task of [your own](../tutorial/own-data.md). `shiftbench data verify --task NAME "
        "--data FOLDER` says whether the files are there, and as many as they should be; where "
        "each is expected stands in its [source](suites.md#sources). Numbers of images are the "
        "documented ones. Licences are short notes on what the authors state: read their pages."
    )
    for title, names in collections().items():
        yield f"## {title}"
        if title != NINE:  # whose tasks have a module each
            yield doc_of(TASKS.entries()[names[0]].target)
        rows = []
        for name in names:
            told = summary(TASKS.load(name))
            rows.append((f"`{name}`", told.sets, told.images, told.metrics, "; ".join(told.terms)))
        yield table(("task", "trained on → shifts", "images", "metric", "from (licence)"), rows)


def doc_of(target: str) -> str:
    """What the module of a registered object says of itself, after its first line."""
    module = importlib.import_module(target.partition(":")[0])
    said = (module.__doc__ or "").strip().partition("\n\n")[2]
    return said.replace("``", "`")


def methods() -> Iterator[str]:
    """Every built-in method with its settings."""
    yield (
        "A method is named by its label in `methods:`, or by `method:` where the label is one of "
        "your own. Defaults are the papers'; what each shipped suite changes stands in it. Beside "
        "its settings a method may have `resources` for its trainings (see Suites)."
    )
    for name, entry in METHODS.entries().items():
        if entry.builtin:
            method = METHODS.load(name)
            yield f"## `{name}`"
            yield first_paragraph(method)
            yield keys(method.Config)
            yield from _nested(method.Config)


def _nested(model: type[BaseModel]) -> Iterator[str]:
    """The keys of the mappings that are settings of a method, such as its search."""
    for name, definition in model.model_json_schema().get("$defs", {}).items():
        if "properties" in definition:
            yield f"**{name}**: {' '.join(definition.get('description', '').split())}"
            yield _table(definition["properties"])


def metrics() -> Iterator[str]:
    """Every built-in metric."""
    yield "What `metric:` of an evaluation set accepts; text after a colon is an argument."
    for name, entry in METRICS.entries().items():
        if entry.builtin:
            yield f"## `{name}`"
            yield first_paragraph(METRICS.load(name))


def columns() -> Iterator[str]:
    """Every column of the leaderboard's Parquet files."""
    yield (
        "A row for every run × variant × selection × evaluation set × metric; a run that failed is "
        "one row, null where there is no result. The files carry description and unit of every "
        "field in their metadata."
    )
    yield COLUMNS.page()


def keys(model: type[BaseModel], without: Collection[str] = ()) -> str:
    """A table of a model's fields."""
    fields = model.model_json_schema()["properties"]
    return _table({name: field for name, field in fields.items() if name not in without})


def _table(fields: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (f"`{name}`", _type(field), _default(field), field.get("description", ""))
        for name, field in fields.items()
    ]
    return table(("key", "type", "default", "meaning"), rows) if rows else "It has no settings."


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    for several in ("anyOf", "oneOf"):
        if several in field:
            return " or ".join(dict.fromkeys(map(_type, field[several])))
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}" if "items" in field else "list"
    return str(field.get("type", "any"))


def _default(field: Mapping[str, Any]) -> str:
    return f"`{json.dumps(field['default'], ensure_ascii=False)}`" if "default" in field else ""


def first_paragraph(documented: object) -> str:
    """The start of a docstring, as Markdown."""
    text = textwrap.dedent(f"    {documented.__doc__ or ''}").strip().split("\n\n")[0]
    return text.replace("``", "`")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [[*header]]
    lines += [["---"] * len(lines[0])]
    lines += [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


main()
