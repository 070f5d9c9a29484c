"""What the report says of trainings and searches, beside the ranking."""

from __future__ import annotations

import pyarrow as pa
import pytest
from shiftbench.report.model import build
from shiftbench.report.movements import layer_of

from tests.leaderboard.records import info, results, run
from tests.report.of_table import markdown, rankings

SEARCH = {
    "search_id": "5ea5c4",
    "search_trials": 20,
    "search_steps": 111,
    "search_images": 5328,
    "search_seconds": 90.0,
    "searched": {"lr": 3.25e-4},
}
VALUES = {"id-val": 0.9, "id-test": 0.8, "imagenet-v2": 0.6}


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("visual.transformer.resblocks.3.attn.in_proj_weight", "visual block 3"),
        ("visual.trunk.blocks.11.mlp.fc1.weight", "visual block 11"),
        ("text.transformer.resblocks.0.ln_1.bias", "text block 0"),
        ("visual.layer2.0.conv1.weight", "visual block 2"),
        ("visual.conv1.weight", "visual conv1"),
        ("text.token_embedding.weight", "text token_embedding"),
        ("head.weight", "head weight"),
    ],
)
def test_layers(tensor: str, layer: str) -> None:
    assert layer_of(tensor) == layer


def test_distance_and_mask_are_means_over_seeds() -> None:
    def saft(seed: int, distance: float, conv: int) -> pa.Table:
        details = {
            "selected": 10,
            "candidates": 1000,
            "share": {"visual.conv1.weight": [conv, 500], "text.ln_final.bias": [10 - conv, 500]},
        }
        changes = {"label": "saft", "seed": seed, "distance": distance, "details": details}
        return run(f"f{seed}", VALUES, **changes)

    table = pa.concat_tables([saft(0, 1.0, 10), saft(1, 3.0, 6), run("b", VALUES, distance=0.5)])
    full, found = build(table).movements
    assert (full.label, full.distance, full.selected, full.layers) == ("full", 0.5, None, ())
    assert (found.distance, found.selected, found.candidates) == (2.0, 10, 1000)
    assert dict(found.layers) == pytest.approx({"visual conv1": 0.8, "text ln_final": 0.2})
    text = markdown(table)
    assert "| imagenet | miniature | all | saft | 2 | 10 of 1,000 |" in text
    assert "visual conv1 80 %" in text


@pytest.mark.parametrize(
    "details",
    [
        {"selected": "all", "candidates": 3},
        {"selected": 1, "candidates": 3, "share": "most"},
        {"selected": 1, "candidates": 3, "share": {"a": 1}},
        {"selected": 0, "candidates": 3, "share": {"a": [0, 3]}},
    ],
)
def test_details_of_another_shape_are_no_mask(details: dict[str, object]) -> None:
    (line,) = build(run("a", VALUES, distance=1.0, details=details)).movements
    assert (line.selected, line.candidates, line.layers) == (None, None, ())


def test_distances_of_one_label_with_other_settings_are_not_averaged() -> None:
    tables = [
        run(f"f{i}", VALUES, seed=i, distance=1.0 + i, config={"lr": 10.0 ** -(i // 2)})
        for i in range(4)
    ]
    found = build(pa.concat_tables(tables)).movements
    assert [line.distance for line in found] == [1.5, 3.5]


def test_a_search_that_runs_share_is_one_line_and_charged_to_each() -> None:
    tables = [run(f"f{seed}", VALUES, label="autoft", seed=seed, **SEARCH) for seed in (0, 1)]
    table = pa.concat_tables(tables)
    (line,) = build(table).searches
    assert (line.n_trials, line.steps, line.seconds) == (20, 111, 90.0)
    assert "lr 0.000325" in markdown(table)
    (ranking,) = rankings(table)
    assert {found.cost_seconds for found in ranking.methods} == {60.0 + 90.0}


def test_a_derived_run_is_charged_its_parents_search_once() -> None:
    parent = run("aa", VALUES, label="autoft", **SEARCH)
    child = run(
        "bb", VALUES, label="wise-ft", method="wise-ft", seeded=False, train_seconds=0.0,
        parents=[("autoft", "aa")],
    )  # fmt: skip
    (ranking,) = rankings(pa.concat_tables([parent, child]))
    costs = {line.label: line.cost_seconds for line in ranking.methods}
    assert costs == {"autoft": 150.0, "wise-ft": 150.0}


def test_leaks_are_shown_once() -> None:
    text = "imagenet-v2 has 2 images of train: a, b"
    table = pa.concat_tables([run(i, VALUES, leakage=text) for i in ("aa", "bb")])
    assert build(table).leaks == (("imagenet", text),)
    assert text in markdown(table)


def test_a_plain_leaderboard_has_none_of_it() -> None:
    from shiftbench.leaderboard.schema import done

    text = markdown(done(info(distance=None), results(VALUES)))
    assert "##" in text
    assert not any(word in text for word in ("Searches", "How far", "Base to new"))
