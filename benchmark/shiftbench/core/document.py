"""YAML that remembers where every value was written, so that an error can name file and line.

A document is a tree of ``Node``: plain data, and the place of each part. Trees are merged
(``extends``, ``--set``) without losing the places; ``core.validation`` checks them against models.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from shiftbench.core.errors import InputError, one_line
from shiftbench.core.locations import refuse_credentials

Key = str | int
_BITS = 63
"""Of an integer without its sign: what columns and generators of random numbers take."""
PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of YAML 1.2: ``1e-5`` is a number, ``no`` is a string."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes the strings that the loader would take for something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dumped(content: Mapping[str, Any]) -> str:
    """Plain data as YAML in the order of the keys, which reads back equal."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def inline(value: Any) -> str:
    """A plain value as YAML on one line."""
    text: str = yaml.dump(
        [value],
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=True,
        width=float("inf"),
    )
    return text.strip()[1:-1]


@dataclass(frozen=True)
class Place:
    """Where something was written.

    Attributes:
        source: a file as the user named it, or a command-line option.
        line: from 1; ``None`` for an option.
        folder: what relative paths written there are relative to.
    """

    source: str
    line: int | None
    folder: Path

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Node:
    """A mapping, list or scalar with its place and its key path from the top of the document."""

    value: Any
    place: Place
    path: tuple[Key, ...] = ()

    @property
    def plain(self) -> Any:
        """The data alone."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain for node in self.value]
        return self.value

    @property
    def children(self) -> Mapping[str, Node]:
        """The entries of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    def child(self, key: Key) -> Node | None:
        """The entry or item at ``key``, if there is one."""
        if isinstance(key, str):
            return self.children.get(key)
        items = self.value if isinstance(self.value, tuple) else ()
        return items[key] if 0 <= key < len(items) else None

    def without(self, *keys: str) -> Node:
        """The same mapping less some of its entries."""
        return replace(self, value={k: n for k, n in self.children.items() if k not in keys})

    def nearest(self, path: tuple[Key, ...]) -> Node:
        """The deepest existing node on the way down ``path``."""
        node = self
        for key in path:
            found = node.child(key)
            if found is None:
                break
            node = found
        return node

    def error(self, message: str, path: tuple[Key, ...] = ()) -> InputError:
        """An error about this node, or about ``path`` below it, that names place and key."""
        place = self.nearest(path).place
        keys = (*self.path, *path)
        return InputError(f"{place}: {dotted(keys)}: {message}" if keys else f"{place}: {message}")


def dotted(path: tuple[Key, ...]) -> str:
    """``("methods", "full", "lr")`` as ``methods.full.lr``, as ``--set`` takes it."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (f'"{key}"' if "." in key else key)
    return text


def tree(data: Any, place: Place, path: tuple[Key, ...] = ()) -> Node:
    """Plain data as a document, every part of it at the same place."""
    if isinstance(data, Mapping):
        items = {str(k): tree(v, place, (*path, str(k))) for k, v in data.items()}
        return Node(items, place, path)
    if isinstance(data, list | tuple):
        return Node(tuple(tree(v, place, (*path, i)) for i, v in enumerate(data)), place, path)
    return Node(data, place, path)


def read(file: Path, shown: str | None = None) -> Node:
    """Read a YAML file whose top is a mapping.

    Args:
        file: the file.
        shown: how messages call it; by default ``file`` itself.

    Raises:
        InputError: the file cannot be read or is not such YAML, or a key stands twice in a mapping.
    """
    shown = shown or str(file)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{shown}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{shown}: cannot be read: {one_line(error)}") from error
    node = parse(text, Place(shown, 1, file.parent))
    if not isinstance(node.value, dict):
        raise InputError(f"{node.place}: a suite is a mapping of keys to values")
    return node


def assignment(text: str) -> Node:
    """``methods.full.lr=1e-5`` as the document ``{methods: {full: {lr: 1e-5}}}``.

    Keys that hold a dot are written in quotes; the value is YAML.

    Raises:
        InputError: it is not of that form, or holds credentials.
    """
    refuse_credentials(f"--set {text}")
    place = Place(f"--set {text}", None, Path())
    keys, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r'(?:"[^"]+"|[^."]+)(?:\.(?:"[^"]+"|[^."]+))*', keys):
        raise InputError(f"{place}: is not of the form key.key=value")
    path = tuple(quoted or bare for quoted, bare in re.findall(r'"([^"]+)"|([^."]+)', keys))
    node = _rebase(parse(value, place), path)
    for depth in range(len(path) - 1, -1, -1):
        node = Node({path[depth]: node}, place, path[:depth])
    return node


def merge(base: Node, over: Node, named: frozenset[str] = frozenset()) -> Node:
    """``over`` laid over ``base``: mappings are merged key by key, all else is replaced.

    A mapping whose ``kind`` differs, and a ``holdout`` in place of a kind, replaces the other too.
    In the top-level entries ``named``, which map names to settings, a null removes an inherited
    name, and a list of names picks them and keeps what was inherited for each.
    """
    names = len(over.path) == 1 and over.path[0] in named
    if names:
        base = named_entries(base)
        if isinstance(over.value, tuple):
            picked = named_entries(over).children
            return replace(over, value={k: base.children.get(k, n) for k, n in picked.items()})
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    if _other_kind(base.children, over.children):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        if key not in merged:
            merged[key] = node
        elif names and node.value is None:
            del merged[key]
        else:
            merged[key] = merge(merged[key], node, named)
    return Node(merged, over.place, over.path)


def named_entries(node: Node) -> Node:
    """A list of names as a mapping of each to nothing; anything else unchanged."""
    if not isinstance(node.value, tuple) or not all(isinstance(n.value, str) for n in node.value):
        return node
    entries: dict[str, Node] = {}
    for item in node.value:
        if item.value in entries:
            raise item.error(f'"{item.value}" stands there twice')
        entries[item.value] = Node(None, item.place, (*node.path, item.value))
    return replace(node, value=entries)


def _other_kind(base: Mapping[str, Node], over: Mapping[str, Node]) -> bool:
    if "kind" in over:
        return "kind" not in base or over["kind"].value != base["kind"].value
    return "holdout" in over and "holdout" not in base


def parse(text: str, place: Place) -> Node:
    """YAML of any kind as a document.

    Args:
        text: the YAML.
        place: of its first line; an option's has no line.

    Raises:
        InputError: it is not YAML of plain values, a key stands twice in a mapping, or a value is
            an integer of more than 64 bits or a URL that holds credentials.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return Node(None, place) if root is None else _convert(loader, root, place, (), ())
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        where = _at(place, at.line) if at else place
        reason = error.problem or error.context
        raise InputError(f"{where}: not valid YAML: {one_line(reason)}") from None
    except InputError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{place}: not valid YAML: {one_line(error)}") from None


def _convert(
    loader: _Loader,
    node: yaml.Node,
    place: Place,
    path: tuple[Key, ...],
    parents: tuple[yaml.Node, ...],
) -> Node:
    if node in parents:
        raise InputError(f"{place}: {dotted(path)}: an alias must not contain itself")
    parents = (*parents, node)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in PLAIN_TAGS:
        raise InputError(f"{place}: {dotted(path)}: {node.tag} is not a plain list or mapping")
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node, place, path)
        loader.flatten_mapping(node)  # puts merged keys first
        # An alias leads here again, and must not see a key beside the one that replaced it.
        node.value = list({key.value: (key, value) for key, value in node.value}.values())
        entries = {}
        for key, value in node.value:
            name, where = str(key.value), _at(place, key.start_mark.line)
            entries[name] = _convert(loader, value, where, (*path, name), parents)
        return Node(entries, place, path)
    if isinstance(node, yaml.SequenceNode):
        items = (
            _convert(loader, item, _at(place, item.start_mark.line), (*path, i), parents)
            for i, item in enumerate(node.value)
        )
        return Node(tuple(items), place, path)
    value = loader.construct_object(node)
    if not isinstance(value, str | int | float | bool | None):
        raise Node(None, place, path).error(f"{node.tag} is not a plain value")
    found = Node(value, place, path)
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise found.error(f"must fit into 64 bits, got {value}")
    if isinstance(value, str):
        try:
            refuse_credentials(value)
        except InputError as error:
            raise found.error(str(error)) from None
    return found


def _refuse_duplicates(node: yaml.MappingNode, place: Place, path: tuple[Key, ...]) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        where = _at(place, key.start_mark.line)
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{where}: a key must be a plain word")
        if key.value in lines and key.value != "<<":
            first = "" if where.line is None else f", first on line {lines[key.value] + 1}"
            full = dotted((*path, key.value))
            raise InputError(f'{where}: the key "{full}" stands there twice{first}')
        lines[key.value] = key.start_mark.line


def _at(place: Place, line: int) -> Place:
    return place if place.line is None else replace(place, line=line + 1)


def _rebase(node: Node, path: tuple[Key, ...]) -> Node:
    value = node.value
    if isinstance(value, dict):
        value = {k: _rebase(n, path) for k, n in value.items()}
    elif isinstance(value, tuple):
        value = tuple(_rebase(n, path) for n in value)
    return Node(value, node.place, (*path, *node.path))


def relative(place: Place, path: str) -> str:
    """A path written at ``place`` as seen from the working directory."""
    return os.path.normpath(place.folder / Path(path).expanduser())
