"""Pages of the reference that follow from the code; mkdocs-gen-files runs this at every build."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import mkdocs_gen_files
import typer
from click import Argument, Command, Context, Group
from pydantic import BaseModel
from shiftbench.cli import VERBS, app
from shiftbench.data import tasks
from shiftbench.data.registry import SOURCES
from shiftbench.evaluation.metrics.registry import METRICS
from shiftbench.leaderboard import schema
from shiftbench.methods.registry import METHODS
from shiftbench.suite.suite import Budget, Resources, SuiteFile


def main() -> None:
    """Write every generated page."""
    write("commands", "Commands", commands())
    write("suites", "Suites", suites())
    write("methods", "Methods", methods())
    write("metrics", "Metrics", metrics())
    write("columns", "Columns of the leaderboard", [schema.columns_markdown()])


def write(name: str, title: str, parts: Iterable[str]) -> None:
    """One page of the reference."""
    with mkdocs_gen_files.open(f"reference/{name}.md", "w") as page:
        page.write("\n\n".join([f"# {title}", *parts]) + "\n")


def commands() -> Iterator[str]:
    """Every verb with its arguments, options and examples."""
    yield "Exit codes: 0 done, 1 some runs failed or differ, 2 bad input, 130 interrupted."
    group = typer.main.get_command(app)
    assert isinstance(group, Group)  # noqa: S101 - narrows a type
    for verb in VERBS:
        command = group.get_command(Context(group), verb)
        if command is not None:
            yield from _command(f"shiftbench {verb}", command)


def _command(name: str, command: Command) -> Iterator[str]:
    yield f"## {name}"
    yield textwrap.dedent(command.help or "")
    if isinstance(command, Group):
        for sub_name, sub in command.commands.items():
            yield from (part.replace("## ", "### ", 1) for part in _command(f"{name} {sub_name}", sub))
    rows = []
    for parameter in command.params:
        record = parameter.to_info_dict()
        if record.get("hidden") or parameter.name in ("help", "install_completion"):
            continue
        positional = isinstance(parameter, Argument)
        called = parameter.make_metavar(Context(command)) if positional else ", ".join(parameter.opts)
        default = record.get("default")
        shown = "" if default in (None, False, ()) else f"`{default}`"
        rows.append((f"`{called}`", shown, getattr(parameter, "help", None) or ""))
    if rows:
        yield table(("option", "default", "meaning"), rows)
    if command.epilog:
        yield _epilog(command.epilog)


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
        "--resolved` prints everything that a suite means, defaults included. Editors complete and "
        "check with the JSON schema `suites/suite.schema.json`."
    )
    for title, model in (
        ("The file", SuiteFile),
        ("`budget`", Budget),
        ("`resources`", Resources),
        ("A task", tasks.Task),
        ("An evaluation set: `id_test`, `ood_val`, `shifts.<name>`", tasks.EvaluationSet),
    ):
        yield f"## {title}"
        yield keys(model)
    yield "## Sources"
    yield "Everything that says `source`, and `train` and `id_val`, names a kind of source."
    for name in SOURCES.entries():
        source = SOURCES.load(name)
        yield f"### `kind: {name}`"
        yield first_paragraph(source)
        yield keys(source, without={"kind"})


def methods() -> Iterator[str]:
    """Every built-in method with its settings."""
    yield (
        "A method is named by its label in `methods:`, or by `method:` where the label is one of "
        "your own. Defaults are the papers'; what each shipped suite changes stands in it."
    )
    for name, entry in METHODS.entries().items():
        if entry.builtin:
            method = METHODS.load(name)
            yield f"## `{name}`"
            yield first_paragraph(method)
            yield keys(method.Config)


def metrics() -> Iterator[str]:
    """Every built-in metric."""
    yield "What `metric:` of an evaluation set accepts; text after a colon is an argument."
    for name, entry in METRICS.entries().items():
        if entry.builtin:
            yield f"## `{name}`"
            yield first_paragraph(METRICS.load(name))


def keys(model: type[BaseModel], without: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    """A table of a model's fields."""
    fields = model.model_json_schema()["properties"]
    rows = [
        (f"`{name}`", _type(field), _default(field), field.get("description", ""))
        for name, field in fields.items()
        if name not in without
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
