"""The libraries and files that the page carries with it."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from shiftbench.core.files import written_atomically
from shiftbench.core.locations import cache_dir

_EXPORTS = re.compile(r"export\s*\{([^{}]*)\}\s*;?")


def static(name: str) -> str:
    """A file of this package."""
    return (files("shiftbench.report.html") / "static" / name).read_text(encoding="utf-8")


def vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets ``window.vegaEmbed``.

    Bundling takes seconds, so the script is kept in the cache directory.
    """
    import vl_convert

    file = cache_dir() / f"vega-{version('vl-convert-python')}.js"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    text = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    try:
        with written_atomically(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError:  # nothing is lost without a cache but time
        return text
    return text


def datatables() -> str:
    """DataTables, as itables ships it, as one module that sets ``window.jQuery``.

    itables itself is not imported: it would import pandas.
    """
    found = importlib.util.find_spec("itables")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("itables is not installed")
    file = Path(found.submodule_search_locations[0]) / "html" / "dt_bundle.js"
    return as_global(file.read_text(encoding="utf-8"), "jQuery")


def as_global(module: str, name: str) -> str:
    """A module that sets a global name instead of exporting it.

    Raises:
        ValueError: the module does not export that name, in one statement at its end.
    """
    exports = _EXPORTS.findall(module)
    if len(exports) != 1:
        raise ValueError("the module does not export all its names in one statement")
    pairs = [part.strip().split(" as ") for part in exports[0].split(",")]
    local = {names[-1]: names[0] for names in pairs}
    if name not in local:
        raise ValueError(f"the module does not export {name}")
    return _EXPORTS.sub("", module) + f"\n;globalThis.{name} = {local[name]};\n"
