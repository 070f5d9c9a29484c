"""What a process keeps, and for how long."""

from __future__ import annotations

from shiftbench.execution.kept import Kept


def test_the_one_used_least_recently_is_computed_again() -> None:
    computed: list[str] = []

    def value(key: str) -> str:
        def compute() -> str:
            computed.append(key)
            return key.upper()

        return kept.get(key, compute)

    kept: Kept[str] = Kept(2)
    assert [value(key) for key in "aab"] == ["A", "A", "B"]
    assert computed == ["a", "b"]
    value("a")  # so that b is the one used least recently
    value("c")
    value("a")
    assert computed == ["a", "b", "c"]
    value("b")
    assert computed == ["a", "b", "c", "b"]
