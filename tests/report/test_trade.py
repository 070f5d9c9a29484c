"""The sentence on what fine-tuning gained and lost."""

from __future__ import annotations

import pyarrow as pa
from shiftbench.report.scale import Scale
from shiftbench.report.trade import Scored, trade, trade_of

from tests.leaderboard.real_records import of_task, zero_shot
from tests.report.of_table import printed, rankings
from tests.report.test_order import values

ACCURACY = Scale(percent=True, higher_is_better=True)
ZERO_SHOT, FULL = Scored("zero-shot", 0.6, 0.5), Scored("full", 0.8, 0.4)


def test_what_kept_half_of_the_gain_and_lost_least_is_told() -> None:
    others = [Scored("wise-ft", 0.75, 0.52), Scored("linear-probe", 0.69, 0.6)]
    assert trade([ZERO_SHOT, FULL, *others], "zero-shot", ACCURACY) == (
        "Against zero-shot, full fine-tuning changed ID by +20.0 and OOD by -10.0; "
        "wise-ft changed ID by +15.0 and OOD by +2.0."
    )


def test_nothing_is_said_to_be_won_back_where_nothing_was() -> None:
    worse = Scored("l2-sp", 0.8, 0.3)
    text = trade([ZERO_SHOT, FULL, worse], "zero-shot", ACCURACY)
    assert text == "Against zero-shot, full fine-tuning changed ID by +20.0 and OOD by -10.0."
    assert trade([FULL, worse], "zero-shot", ACCURACY) is None
    assert trade([ZERO_SHOT, worse], "zero-shot", ACCURACY) is None


def test_of_a_loss_less_is_a_gain() -> None:
    loss = Scale(percent=False, higher_is_better=False)
    text = trade([Scored("zero-shot", 1.0, 2.0), Scored("full", 0.5, 2.5)], "zero-shot", loss)
    assert text == "Against zero-shot, full fine-tuning changed ID by +0.500 and OOD by -0.500."


def test_the_report_says_it() -> None:
    table = pa.concat_tables(
        [
            zero_shot({"id-test": 0.6, **values(0.5)}),
            of_task("f", {"id-test": 0.8, **values(0.4)}, method="full", label="full"),
        ]
    )
    (ranking,) = rankings(table)
    text = trade_of(ranking)
    assert text is not None and "ID by +20.0 and OOD by -10.0" in text
    assert " ".join(text.split()) in " ".join(printed(table).split())
