"""Drawing the world: determinism, versions, and never half a world."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from shiftbench.data.miniature import cifar, definition, layout


def _bytes(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the families by one that writes a single file; return its calls."""
    calls: list[str] = []

    def write(root: Path) -> dict[str, int]:
        calls.append(root.name)
        (root / "file").write_text("drawn")
        return {"tiny": 1}

    monkeypatch.setattr(layout, "_FAMILIES", {"tiny": write})
    monkeypatch.setattr(layout, "available_cpus", lambda: 1)  # all in this process
    return calls


def test_the_same_bytes_twice(tmp_path: Path, world: Path) -> None:
    cifar.write(tmp_path)
    assert all((world / name).read_bytes() == data for name, data in _bytes(tmp_path).items())


def test_families_drawn_apart_are_those_drawn_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_FAMILIES", {"cifar10": cifar.write})
    apart, together = tmp_path / "apart", tmp_path / "together"
    for root in (apart, together):
        root.mkdir()
    counts = layout._draw_apart(apart)
    assert [*counts.items()] == [*layout._draw(together, ["cifar10"]).items()]
    assert _bytes(apart) == _bytes(together)


def test_a_family_that_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="NotADirectoryError"):
        layout._draw_apart(tmp_path / "file")


def test_a_complete_world_is_left_alone(tmp_path: Path, tiny: list[str]) -> None:
    said: list[str] = []
    root = tmp_path / "world"
    layout.generate(root, said.append)
    before = _bytes(root)
    layout.generate(root, said.append)
    assert (said, tiny) == (["tiny"], ["world"])
    assert _bytes(root) == before
    assert json.loads(before["miniature.json"])["counts"] == {"tiny": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_another_version_is_drawn_again(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "world"
    layout.generate(root)
    (root / "stale").touch()
    monkeypatch.setattr(layout, "VERSION", definition.VERSION + 1)
    layout.generate(root)
    assert len(tiny) == 2
    assert not (root / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_a_damaged_marker_is_drawn_again(tmp_path: Path, tiny: list[str]) -> None:
    layout.generate(tmp_path / "world")
    (tmp_path / "world/miniature.json").write_text("{")
    layout.generate(tmp_path / "world")
    assert len(tiny) == 2


def test_other_data_is_never_overwritten(tmp_path: Path, tiny: list[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/mine.jpg").touch()
    with pytest.raises(FileExistsError, match="no miniature world"):
        layout.generate(tmp_path / "photos")
    assert (tmp_path / "photos/mine.jpg").exists()


def test_a_failed_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path) -> dict[str, int]:
        (root / "half").touch()
        raise RuntimeError("disk full")

    monkeypatch.setattr(layout, "_FAMILIES", {"failing": fail})
    monkeypatch.setattr(layout, "available_cpus", lambda: 1)
    with pytest.raises(RuntimeError, match="disk full"):
        layout.generate(tmp_path / "world")
    assert not list(tmp_path.iterdir())


def test_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    def write(root: Path) -> dict[str, int]:
        (root / "file").write_text("drawn")
        together.wait(10)
        return {"tiny": 1}

    monkeypatch.setattr(layout, "_FAMILIES", {"tiny": write})
    monkeypatch.setattr(layout, "available_cpus", lambda: 1)  # all in this process
    root = tmp_path / "world"
    threads = [threading.Thread(target=layout.generate, args=(root,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(_bytes(root)) == ["file", "miniature.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_importing_is_light() -> None:
    code = "import sys, shiftbench.data.miniature; print('numpy' in sys.modules)"
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
    assert time.monotonic() - began < 5
