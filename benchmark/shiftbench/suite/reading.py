"""One merged document from a suite file, the suites that it extends, and the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from shiftbench.core import document
from shiftbench.core.document import Node, Place
from shiftbench.core.errors import Problems
from shiftbench.core.locations import refuse_credentials
from shiftbench.core.shipped import shipped
from shiftbench.core.words import nearest
from shiftbench.suite.file import NAMED
from shiftbench.suite.finding import files_in, find, find_base
from shiftbench.suite.layers import laid_over, plain


def read(file: str | Path, overrides: Sequence[str] = (), data: str | None = None) -> Node:
    """The merged document; every value in it still knows where it was written.

    Args:
        file: the YAML file, or the name of a suite in ``suites/`` or of a shipped one.
        overrides: ``--set`` texts such as ``methods.full.lr=1e-5``, later ones win.
        data: ``--data``, wins over the file; a folder relative to the working directory.

    Raises:
        InputError: one line with file, line, key and what is accepted.
    """
    file = find(file)
    node = _read_chain(file, str(file), ())
    node = document.merge(_name_after(file), node)
    problems = Problems()
    for text in overrides:
        with problems:
            node = _assign(node, text)
    problems.check()
    if data is not None:
        refuse_credentials(f"--data {data}")
        option = Place(f"--data {data}", None, Path())
        node = document.merge(node, document.tree({"data": data}, option))
    for key in NAMED & node.children.keys():
        entries = document.named_entries(node.children[key])
        node = Node({**node.children, key: entries}, node.place)
    return node


def chain(file: Path) -> list[Path]:
    """A suite's file and those that it extends, the last of them first that extends none.

    Args:
        file: of a suite that ``read`` accepts.
    """
    extends = document.read(file, str(file)).child("extends")
    base = None if extends is None else find_base(file, str(extends.value))
    return [*([] if base is None else chain(base)), file]


def _read_chain(file: Path, shown: str, seen: tuple[Path, ...]) -> Node:
    node = document.read(file, shown)
    extends = node.child("extends")
    if extends is None:
        return plain(node)
    if not isinstance(extends.value, str):
        raise extends.error("must be the path of another suite file")
    base = find_base(file, extends.value)
    if base is None:
        known = [suite.stem for suite in files_in(shipped("suites"))]
        hint = nearest(extends.value, known)
        raise extends.error(
            f'there is no file "{extends.value}" beside this suite, and no such shipped suite{hint}'
        )
    seen = (*seen, file.resolve())
    if base.resolve() in seen:
        raise extends.error(f'"{extends.value}" extends this suite in turn')
    inherited = _read_chain(base, os.path.normpath(base), seen).without("name", "description")
    return laid_over(inherited, node.without("extends"))


def _name_after(file: Path) -> Node:
    return document.tree({"name": file.stem}, Place(str(file), 1, file.parent))


def _assign(node: Node, text: str) -> Node:
    assignment = document.assignment(text)
    (key,) = assignment.children
    if key == "extends":
        raise assignment.error("only a suite file can extend another")
    for name, entry in assignment.children[key].children.items():
        inherited = document.named_entries(node.children[key]) if key in node.children else node
        if key in NAMED and entry.value is None and inherited.child(name) is None:
            raise entry.error(f'there is no "{name}" to remove{nearest(name, inherited.children)}')
    return laid_over(node, assignment)
