"""How all pages are rendered: what goes into a template is escaped, and nothing may be missing."""

from __future__ import annotations

import jinja2


def environment() -> jinja2.Environment:
    """The templates of pages, in ``templates``."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("shiftbench.report.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
