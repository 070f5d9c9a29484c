"""The example notebook, cell by cell as a reader would execute it."""

from __future__ import annotations

import json
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "docs" / "example.ipynb"


def test_the_notebook_runs_from_start_to_end(world: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    names: dict[str, object] = {"__name__": "notebook"}
    for number, source in enumerate(code):
        exec(compile(source, f"{NOTEBOOK.name}, cell {number}", "exec"), names)  # noqa: S102
    assert names["ranking"].methods  # type: ignore[attr-defined]
    assert names["model"].classes  # type: ignore[attr-defined]
