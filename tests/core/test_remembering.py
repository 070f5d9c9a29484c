"""What was found before is found at once, and found again whenever that does not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from shiftbench.core.remembering import place_of, recalled, remember


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_found_is_recalled_of_the_same_parts(cache: Path) -> None:
    place = place_of("sums", [1, {"of": "x"}])
    assert place.parent == cache / "sums"
    assert recalled(place, int) is None
    remember(place, 3)
    assert recalled(place_of("sums", [1, {"of": "x"}]), int) == 3
    assert recalled(place_of("sums", [1, {"of": "y"}]), int) is None
    assert recalled(place, lambda _: None) is None  # it does not hold any more


@pytest.mark.parametrize("content", ["", "{", "[]", '{"other": 1}', "null"])
def test_what_cannot_be_read_is_found_again(content: str) -> None:
    place = place_of("sums", [])
    remember(place, {"sum": 3})
    assert recalled(place, lambda found: int(found["sum"])) == 3
    place.write_text(content)
    assert recalled(place, lambda found: int(found["sum"])) is None


def test_a_cache_that_cannot_be_written_costs_time_only(cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    place = place_of("sums", [])
    remember(place, 3)
    assert recalled(place, int) is None
