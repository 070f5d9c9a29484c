import math

import pyarrow as pa
import pytest
from shiftbench.leaderboard.schema import done, failed
from shiftbench.report.model import build
from shiftbench.report.scores import Member

from tests.leaderboard.records import info, results, run
from tests.report.of_table import rankings

SETS = ("id-test", "imagenet-v2", "imagenet-r")


def values(*percent, sets=SETS):
    return {name: value / 100 for name, value in zip(sets, percent, strict=True)}


def zero_shot(run_id="zs", scores=None, **changes):
    spec = {"method": "zero-shot", "label": "zero-shot", "reference": True}
    spec |= {"seeded": False, "train_seconds": 0.0}
    return run(run_id, scores or values(60, 50, 70), **(spec | changes))


def wise(run_id, parent, points, selections, **changes):
    """A run with a variant for each alpha in ``points``."""
    found = []
    for alpha, scores in points.items():
        for selection in selections.get(alpha, [None]):
            found += results(scores, f"alpha={alpha}", selection)
    spec = {"method": "wise-ft", "label": "wise-ft", "seeded": False, "train_seconds": 0.0}
    return done(info(run_id, parents=[("full", parent)], **(spec | changes)), found)


def rank(*tables):
    (ranking,) = rankings(pa.concat_tables(tables))
    return ranking


def names(ranking):
    return [(line.rank, line.label, line.selection) for line in ranking.methods]


def test_methods_rank_by_their_mean_over_the_shifts():
    ranking = rank(
        run("a", values(80, 40, 60), label="a"),
        run("b", values(70, 70, 61), label="b"),
        run("c", values(90, 61, 60), label="c"),
    )
    assert names(ranking) == [(1, "b", "fixed"), (2, "c", "fixed"), (3, "a", "fixed")]
    assert ranking.methods[0].scores.mean_ood.mean == pytest.approx(0.655)
    assert ranking.shifts == SETS[1:]
    assert ranking.metrics == dict.fromkeys(SETS, "accuracy")


def test_equal_means_share_a_rank_and_are_in_the_order_of_id():
    ranking = rank(
        run("a", values(80, 50, 50), label="a"),
        run("b", values(81, 50, 50), label="b"),
        run("c", values(90, 40, 50), label="c"),
    )
    assert names(ranking) == [(1, "b", "fixed"), (1, "a", "fixed"), (3, "c", "fixed")]


def test_one_shift_of_five_is_never_the_mean_over_all():
    """Nothing was scored on the others, as after an import of predictions on one set."""
    shifts = ("v2", "r", "sketch", "a", "objectnet")
    (ranking,) = rankings(run("a", {"id-test": 0.8, "r": 0.9}, shifts=shifts))
    (line,) = ranking.methods
    assert ranking.shifts == shifts
    assert (line.rank, line.scores.mean_ood) == (None, None)
    assert line.scores.missing == ("v2", "sketch", "a", "objectnet")


def test_rows_that_do_not_say_their_shifts_are_of_those_that_others_say():
    ranking = rank(
        run("a", {"id-test": 0.8, "r": 0.9}, label="a", seed=0),
        run("b", {"id-test": 0.8, "v2": 0.7, "r": 0.9}, label="b", shifts=("v2", "r")),
    )
    assert ranking.shifts == ("v2", "r")
    assert names(ranking) == [(1, "b", "fixed"), (None, "a", "fixed")]


def test_a_line_is_the_mean_over_seeds_with_a_t_interval():
    (line,) = rank(
        *(run(f"s{seed}", values(80, 50 + seed, 60 + seed), seed=seed) for seed in range(3))
    ).methods
    assert line.seeds == (0, 1, 2)
    assert line.scores.mean_ood.mean == pytest.approx(0.56)
    assert line.scores.mean_ood.sd == pytest.approx(0.01)
    # t(0.975; 2) = 4.303
    assert line.scores.mean_ood.high - line.scores.mean_ood.mean == pytest.approx(
        4.3027 * 0.01 / math.sqrt(3), 1e-4
    )
    assert line.scores.mean_ood.mean - line.scores.mean_ood.low == pytest.approx(
        line.scores.mean_ood.high - line.scores.mean_ood.mean
    )
    equal = line.scores.by_set["id-test"]  # of which the examples' interval tells
    assert (equal.sd, equal.low, equal.high) == (0, pytest.approx(0.79), pytest.approx(0.81))
    assert equal.interval == "by hand"


def test_a_mean_that_no_seed_changes_has_the_interval_of_its_examples():
    several = rank(*(run(f"s{seed}", values(80, 50, 60), seed=seed) for seed in range(3)))
    alone = rank(run("a", values(80, 50, 60)))
    (line,), (one,) = several.methods, alone.methods
    for name, of in line.scores.with_mean().items():
        same = one.scores.with_mean()[name]
        assert of.low < of.mean < of.high
        assert (of.low, of.high, of.interval) == (same.low, same.high, same.interval)
        assert (of.sd, of.seeds) == (0, (0, 1, 2))


def test_one_seed_has_the_interval_of_each_set_and_one_of_the_mean_that_follows():
    (line,) = rank(run("a", values(80, 50, 60))).methods
    cell = line.scores.by_set["imagenet-r"]
    assert (cell.low, cell.high, cell.sd) == (pytest.approx(0.59), pytest.approx(0.61), None)
    mean = line.scores.mean_ood
    half = math.sqrt(0.01**2 + 0.01**2) / 2
    assert (mean.low, mean.high) == (pytest.approx(0.55 - half), pytest.approx(0.55 + half))
    assert (mean.interval, mean.sd) == ("from the intervals of the sets", None)


def test_the_mean_over_a_single_shift_has_the_interval_of_the_shift():
    (line,) = rank(run("a", {"id-test": 0.8, "imagenet-r": 0.6})).methods
    assert line.scores.mean_ood == line.scores.by_set["imagenet-r"]


def test_a_missing_shift_leaves_no_mean_and_no_rank():
    ranking = rank(
        run("a", values(80, 50, 60), label="whole"),
        run("b", values(90, 99, sets=SETS[:2]), label="partial"),
    )
    assert names(ranking) == [(1, "whole", "fixed"), (None, "partial", "fixed")]
    assert ranking.methods[1].scores.mean_ood is None
    assert ranking.methods[1].scores.missing == ("imagenet-r",)


def test_a_shift_that_only_some_seeds_have_leaves_no_mean():
    ranking = rank(
        run("a", values(80, 50, 60), seed=0), run("b", values(80, 90, sets=SETS[:2]), seed=1)
    )
    (line,) = ranking.methods
    assert (line.rank, line.scores.missing, line.seeds) == (None, ("imagenet-r",), (0, 1))
    assert line.scores.by_set["imagenet-r"].seeds == (0,)


def test_incomplete_data_do_not_rank():
    rows = results(values(80, 50, 60))
    broken = results(values(80, 99, 99), incomplete_reason="7 of 9 files")
    table = pa.concat_tables([done(info("a", label="a"), rows), done(info("b", label="b"), broken)])
    (ranking,) = rankings(table)
    assert names(ranking) == [(1, "a", "fixed"), (None, "b", "fixed")]
    assert not ranking.methods[1].scores.by_set["imagenet-r"].complete
    gaps = tuple(("imagenet", name, "7 of 9 files") for name in sorted(SETS))
    assert build(table).incomplete == gaps


def test_seeds_on_different_data_are_not_a_whole_mean():
    first = done(info("a", seed=0), results(values(80, 50, 60), data_fingerprint="x"))
    second = done(info("b", seed=1), results(values(80, 50, 60), data_fingerprint="y"))
    (line,) = rank(first, second).methods
    assert line.rank is None
    assert line.scores.missing == SETS[1:]


def test_curves_and_oracles_never_rank():
    points = {0.0: values(60, 50, 70), 0.5: values(75, 60, 72), 1.0: values(80, 99, 40)}
    ranking = rank(
        run("full0", values(80, 40, 40)),
        wise("wise0", "full0", points, {0.5: ["fixed"], 1.0: ["oracle", None]}),
    )
    assert names(ranking) == [
        (1, "wise-ft", "fixed"),
        (2, "full", "fixed"),
        (None, "wise-ft", "oracle"),
    ]
    oracle = ranking.methods[-1]
    assert oracle.variants == ("alpha=1.0",)
    assert oracle.scores.mean_ood.mean == pytest.approx(0.695)


def test_an_oracle_chooses_for_each_seed():
    low, high = values(60, 50, 50), values(70, 60, 60)
    ranking = rank(
        wise("w0", "f0", {0.0: low, 1.0: high}, {0.0: ["fixed"]}, seed=0, seeded=True),
        wise("w1", "f0", {0.0: high, 1.0: low}, {0.0: ["fixed"]}, seed=1, seeded=True),
    )
    fixed, oracle = ranking.methods
    assert fixed.scores.mean_ood.mean == pytest.approx(0.55)
    assert oracle.scores.mean_ood.mean == pytest.approx(0.6)
    assert oracle.variants == ("alpha=1.0", "alpha=0.0")
    assert oracle.members == (Member("w0", "alpha=1.0", 0), Member("w1", "alpha=0.0", 1))


def test_each_way_to_select_is_a_line_of_its_own():
    points = {0.0: values(60, 50, 70), 0.5: values(75, 60, 72)}
    ranking = rank(wise("w", "gone", points, {0.5: ["fixed", "id-val"], 0.0: ["ood-val"]}))
    assert {(line.selection, line.variants) for line in ranking.methods} == {
        ("fixed", ("alpha=0.5",)),
        ("id-val", ("alpha=0.5",)),
        ("ood-val", ("alpha=0.0",)),
        ("oracle", ("alpha=0.5",)),
    }


def test_parents_are_charged_once():
    probe = run("lp", values(70, 50, 50), label="probe", train_seconds=10.0)
    tuned = run("ft", values(80, 50, 50), label="lp-ft", parents=[("probe", "lp")], world_size=2)
    soup = run(
        "soup",
        values(81, 50, 50),
        label="soup",
        parents=[("probe", "lp"), ("lp-ft", "ft")],
        train_seconds=0.0,
    )
    costs = {line.label: line.cost_seconds for line in rank(probe, tuned, soup).methods}
    assert costs == {"probe": 10.0, "lp-ft": 10.0 + 2 * 60.0, "soup": 130.0}


def test_the_cost_with_an_unknown_parent_is_unknown():
    (line,) = rank(run("ft", values(80, 50, 50), parents=[("probe", "gone")])).methods
    assert line.cost_seconds is None


def test_zero_shot_is_one_run_for_all_seeds_and_shots():
    found = rankings(
        pa.concat_tables(
            [
                zero_shot(),
                *(
                    run(f"{shots}-{seed}", values(80, 50, 50), shots=shots, seed=seed)
                    for shots in (None, 4)
                    for seed in (0, 1)
                ),
            ]
        )
    )
    assert [ranking.shots for ranking in found] == [4, None]
    for ranking in found:
        assert [(line.label, line.seeds) for line in ranking.methods] == [
            ("zero-shot", (0,)),
            ("full", (0, 1)),
        ]


def test_what_derives_from_seeded_runs_varies_with_the_seed():
    point = {0.5: values(75, 60, 72), 1.0: values(80, 40, 40)}
    tables = [zero_shot()]
    for seed in (0, 1):
        tables.append(run(f"full{seed}", values(80, 40, 40), seed=seed, shots=2))
        tables.append(
            wise(f"wise{seed}", f"full{seed}", point, {0.5: ["fixed"]}, seed=seed, shots=2)
        )
    ranking = rank(*tables)
    assert ranking.shots == 2
    assert {line.label: line.seeds for line in ranking.methods} == {
        "zero-shot": (0,),
        "full": (0, 1),
        "wise-ft": (0, 1),
    }


def test_zero_shot_alone_ranks():
    assert names(rank(zero_shot())) == [(1, "zero-shot", "fixed")]


def test_a_task_without_shifts_ranks_by_id():
    ranking = rank(run("a", {"id-test": 0.5}, label="a"), run("b", {"id-test": 0.6}, label="b"))
    assert names(ranking) == [(1, "b", "fixed"), (2, "a", "fixed")]


def test_runs_with_different_settings_are_never_averaged():
    ranking = rank(
        run("a", values(80, 50, 50), config={"lr": 0.1, "max_grad_norm": 1}, seed=0),
        run("b", values(80, 51, 51), config={"lr": 0.2, "max_grad_norm": 1}, seed=1),
    )
    assert [line.label for line in ranking.methods] == ["full (lr=0.2)", "full (lr=0.1)"]
    assert [line.seeds for line in ranking.methods] == [(1,), (0,)]


def test_budgets_are_told_apart():
    ranking = rank(
        run("a", values(80, 50, 50), seed=0),
        run("b", values(80, 51, 51), seed=1, budget={"steps": 5}),
    )
    assert [line.label for line in ranking.methods] == ["full (steps=5)", "full (steps=null)"]


def test_what_the_settings_do_not_tell_apart_gets_a_mark():
    ranking = rank(
        run("a", values(80, 50, 50), seed=0),
        run("b", values(80, 51, 51), seed=1, origin="mine 2"),
    )
    labels = [line.label for line in ranking.methods]
    assert len(set(labels)) == 2
    assert all(label.startswith("full (#") for label in labels)


def test_what_looks_at_all_test_images_is_marked_in_every_table():
    tables = (run("a", values(80, 50, 50)), run("b", values(80, 40, 40), label="dawin"))
    marked = run("c", values(80, 30, 30), label="dawin-all", transductive=True)
    labels = [line.label for line in rank(*tables, marked).methods]
    assert labels == ["full", "dawin", "dawin-all (transductive)"]


def test_children_of_different_parents_are_never_averaged():
    tables = []
    for seed, lr in ((0, 0.1), (1, 0.2)):
        tables.append(run(f"full{seed}", values(80, 40, 40), seed=seed, config={"lr": lr}))
        point = {0.5: values(75, 60, 72)}
        tables.append(wise(f"w{seed}", f"full{seed}", point, {0.5: ["fixed"]}, seed=seed))
    wise_lines = [line for line in rank(*tables).methods if line.method == "wise-ft"]
    assert sorted(line.seeds for line in wise_lines) == [(0,), (1,)]


def test_labels_of_parents_are_names_only():
    """Two suites may call the same parent differently."""
    tables = []
    for seed, label in enumerate(["full", "e2e"]):
        tables.append(run(f"full{seed}", values(80, 40, 40), seed=seed, label=label))
        tables.append(
            wise(
                f"w{seed}",
                f"full{seed}",
                {0.5: values(75, 60, 72)},
                {0.5: ["fixed"]},
                seed=seed,
                config={"parent": label, "alpha": 0.5},
            )
        )
    lines = {line.label: line.seeds for line in rank(*tables).methods}
    assert lines == {"wise-ft": (0, 1), "full": (0,), "e2e": (1,)}


@pytest.mark.parametrize(
    "changes",
    [
        {"task_digest": "1"},
        {"data_kind": "miniature/1"},
        {"backbone": "openai/ViT-B-16"},
        {"budget": {"evaluation_images": 100}},
    ],
)
def test_other_tasks_worlds_and_backbones_are_ranked_apart(changes):
    found = rankings(
        pa.concat_tables(
            [run("a", values(80, 50, 50)), run("b", values(80, 50, 50), seed=1, **changes)]
        )
    )
    assert len(found) == 2
    assert all(len(line.seeds) == 1 for ranking in found for line in ranking.methods)


@pytest.mark.parametrize("newer", ["z", "a"])
def test_no_clock_chooses_between_two_runs_of_a_seed(newer):
    """The same settings and seed under two identities: both are shown, each with its id."""
    later = info().finished.replace(year=2031)
    clock = {run_id: {"finished": later} if run_id == newer else {} for run_id in "za"}
    ranking = rank(
        run("z", values(80, 90, 90), **clock["z"]), run("a", values(80, 50, 50), **clock["a"])
    )
    lines = [(line.label, line.members, line.scores.mean_ood.mean) for line in ranking.methods]
    assert lines == [
        ("full (#z)", (Member("z", "", 0),), 0.9),
        ("full (#a)", (Member("a", "", 0),), 0.5),
    ]


def test_seeds_that_an_older_version_computed_are_a_line_of_their_own():
    old = {"shiftbench_version": "0.9.0", "git_sha": "0" * 40, "git_dirty": False}
    new = {"shiftbench_version": "1.0.0", "git_sha": "1" * 40, "git_dirty": False}
    ranking = rank(
        run("a", values(80, 50, 50), seed=0, **old),
        run("b", values(80, 60, 60), seed=1, **old),
        run("c", values(80, 70, 70), seed=0, **new),
        run("d", values(80, 80, 80), seed=1, **new),
    )
    lines = {line.label: (line.seeds, line.scores.mean_ood.mean) for line in ranking.methods}
    assert lines == {
        "full (shiftbench 1.0.0, git 1111111)": ((0, 1), 0.75),
        "full (shiftbench 0.9.0, git 0000000)": ((0, 1), 0.55),
    }


def test_seeds_of_different_versions_are_one_line():
    ranking = rank(
        run("a", values(80, 50, 50), seed=0, shiftbench_version="0.9.0"),
        run("b", values(80, 60, 60), seed=1, shiftbench_version="1.0.0"),
    )
    (line,) = ranking.methods
    assert (line.label, line.seeds) == ("full", (0, 1))


def test_failed_runs_are_listed_and_not_ranked():
    table = pa.concat_tables(
        [run("a", values(80, 50, 50)), failed(info("b", seed=1, shots=4), "loss is NaN")]
    )
    (ranking,) = rankings(table)
    assert [line.seeds for line in ranking.methods] == [(0,)]
    (failure,) = build(table).failures
    assert (failure.run_id, failure.seed, failure.shots, failure.error) == (
        "b",
        1,
        4,
        "loss is NaN",
    )


def test_only_headline_metrics_rank():
    import dataclasses

    rows = results(values(80, 50, 60))
    also = [
        dataclasses.replace(
            row,
            metric="macro-f1",
            primary=False,
            score=dataclasses.replace(row.score, value=0.0, low=0.0),
        )
        for row in rows
    ]
    (line,) = rank(done(info(), also + rows)).methods
    assert line.scores.mean_ood.mean == pytest.approx(0.55)


def test_the_order_of_the_rows_does_not_matter():
    tables = [
        zero_shot(),
        run("a", values(80, 50, 60), label="a"),
        run("b", values(80, 55, 61), label="b", seed=1),
    ]
    forward, backward = rank(*tables), rank(*tables[::-1])
    assert names(forward) == names(backward)


def test_an_empty_leaderboard_has_no_rankings():
    empty = run("a", values(80, 50, 60)).slice(0, 0)
    assert rankings(empty) == []
    assert build(empty).failures == build(empty).incomplete == ()


def test_every_variant_is_scored_in_the_same_pass():
    """Points that nobody chose, in the order of the ranking; selected ones have the same scores."""
    points = {0.0: values(60, 50, 70), 0.5: values(75, 60, 72), 1.0: values(80, 99, 40)}
    ranking = rank(run("full0", values(80, 40, 40)), wise("w", "full0", points, {0.5: ["fixed"]}))
    assert [(v.label, v.variant, v.parents) for v in ranking.variants] == [
        ("wise-ft", "alpha=1.0", ("full",)),
        ("wise-ft", "alpha=0.5", ("full",)),
        ("wise-ft", "alpha=0.0", ("full",)),
        ("full", "", ()),
    ]
    selected = {line.selection: line.scores for line in ranking.methods if line.label == "wise-ft"}
    assert selected["fixed"] == ranking.variants[1].scores
    assert selected["oracle"] == ranking.variants[0].scores


def test_a_method_whose_parent_is_not_in_the_table_says_so():
    (line,) = rank(run("ft", values(80, 50, 50), parents=[("probe", "gone")])).methods
    assert line.parents == ("?",)
