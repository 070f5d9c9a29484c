"""Errors of a group's workers, which the driver records."""

from __future__ import annotations

import pickle

from shiftbench.core.errors import sendable, whole_text


def test_an_error_keeps_its_traceback_on_the_way_to_another_process() -> None:
    try:
        [].pop()
    except IndexError as error:
        sent = pickle.loads(pickle.dumps(sendable(error)))
    assert str(sent) == "IndexError: pop from empty list"
    assert "[].pop()" in whole_text(sent)
