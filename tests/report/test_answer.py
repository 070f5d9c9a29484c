from __future__ import annotations

import pyarrow as pa
import pytest
from shiftbench.leaderboard.schema import done
from shiftbench.report.answer import ID_LIMIT, RULE, SAME_COST
from shiftbench.report.answer_words import reasons, without_common
from shiftbench.report.differences import difference
from shiftbench.report.html.page import render
from shiftbench.report.model import build
from shiftbench.report.scores import Estimate

from tests.leaderboard.records import info, results, run
from tests.report.of_table import markdown, printed
from tests.report.test_ranking import SETS, values, wise, zero_shot


@pytest.fixture(autouse=True)
def without_vega(monkeypatch):
    """Nobody looks at the charts."""
    monkeypatch.setattr("shiftbench.report.html.assets.vega", lambda: "")


def answer(*tables):
    (of_ranking,) = build(pa.concat_tables(tables)).rankings
    return of_ranking.answer


def three(label, *percent, **changes):
    """Three seeds with the same scores, whose interval is that of the examples."""
    return pa.concat_tables(
        [run(f"{label}{s}", values(*percent), label=label, seed=s, **changes) for s in range(3)]
    )


def test_the_best_under_shift_of_those_that_keep_the_id_score():
    found = answer(
        zero_shot(scores=values(60, 70, 80)),
        three("plain", 90, 40, 50),
        three("robust", 89.5, 60, 70),
        three("timid", 80, 65, 75),
    )
    assert found.recipe.name == "robust"
    assert found.best_id == "plain"
    assert found.id_change.value == pytest.approx(-0.005)
    assert set(found.left_out) == {"zero-shot", "timid"}
    assert found.tied == ()
    assert found.gain.value == pytest.approx(0.65 - 0.75)
    assert [(on.name, round(on.change.value, 3)) for on in found.on_shifts] == [
        ("imagenet-v2", -0.1),
        ("imagenet-r", -0.1),
    ]
    assert found.worst.name == "imagenet-v2"


def test_a_recipe_without_rivals_is_compared_with_none():
    alone = answer(zero_shot(scores=values(60, 70, 80)), three("plain", 90, 40, 50))
    assert any("plain is the only candidate that keeps" in why for why in reasons(alone))
    assert not any("ties" in why for why in reasons(alone))
    rival = answer(three("low", 90, 20, 30), three("plain", 90, 40, 50))
    assert any("plain has the best mean OOD" in why for why in reasons(rival))


def test_the_shift_that_is_worst_and_the_one_that_lost_most_may_differ():
    reference = zero_shot(scores=values(80, 40, 90))
    found = answer(reference, three("a", 90, 39, 70), three("b", 90, 30, 30))
    assert (found.worst.name, found.most_lost.name) == ("imagenet-v2", "imagenet-r")
    assert found.most_lost.change.value == pytest.approx(-0.2)


def test_a_low_id_score_within_chance_is_not_left_out():
    def recipe(*percent):
        runs = [
            run(f"n{seed}", values(score, 60, 70), label="other", seed=seed)
            for seed, score in enumerate(percent)
        ]
        return answer(three("plain", 89, 40, 50), three("worse", 80, 40, 40), *runs).recipe.name

    assert recipe(84, 89) == "other"
    assert recipe(86, 86.1) == "plain"


def test_exactly_at_the_limit_is_within_it():
    at = 90 - 100 * ID_LIMIT
    assert answer(three("plain", 90, 40, 50), three("at", at, 60, 70)).recipe.name == "at"


def test_of_those_that_tie_the_cheapest():
    def of(label, ood, cost):
        # Single seeds: intervals of the examples, a point on either side.
        return run(label, values(90, ood, ood), label=label, train_seconds=cost)

    costs = {"dear": 100.0, "middle": 10.0 * SAME_COST, "cheap": 10.0, "unlike": 1.0}
    oods = {"dear": 60.4, "middle": 60.2, "cheap": 60.0, "unlike": 50.0}
    tables = {label: of(label, oods[label], costs[label]) for label in costs}
    found = answer(*tables.values())
    assert found.recipe.name == "middle"  # its cost counts as equal to the cheapest
    assert set(found.tied) == {"dear", "cheap"}
    assert not found.tested
    without = answer(*(tables[label] for label in ("dear", "cheap", "unlike")))
    assert without.recipe.name == "cheap"
    unknown = of("cheap", 60.0, None)
    assert answer(tables["dear"], unknown, tables["unlike"]).recipe.name == "dear"


def test_what_looked_at_ood_data_or_was_not_trained_here_is_no_candidate():
    better = values(90, 80, 80)
    searched = {"search_id": "5ea5c4", "searched": {"lr": 1.0}}
    found = answer(
        three("plain", 90, 40, 50),
        three("other", 90, 45, 50),
        done(info("s", label="searched", **searched), results(better, selection="ood-val")),
        done(info("p", label="picked", **searched), results(better, selection="id-val")),
        run("i", better, label="imported", origin="imported", details={"imported": "x"}),
        run("c", better, label="checkpoint", origin="made elsewhere"),
        run("d", better, label="derived", parents=[("checkpoint", "c")]),
        run("t", better, label="looks-at-all", transductive=True),
        done(info("o", label="oracle"), results(better, selection="oracle")),
    )
    assert found.recipe.name == "other"
    # Of what builds on a run that is not here, nobody knows what that has looked at.
    orphan = run("u", better, label="orphan", parents=[("searched", "gone")])
    again = answer(three("plain", 90, 40, 50), three("other", 90, 45, 50), orphan)
    assert again.recipe.name == "other"


def test_a_recipe_that_has_seen_test_images_says_so():
    leaky = {"leakage": "2 images of imagenet-r"}
    parent = run("p", values(90, 40, 40), label="parent", **leaky)
    child = run("c", values(90, 60, 60), label="child", parents=[("parent", "p")])
    found = answer(zero_shot(scores=values(90, 30, 30)), parent, child)
    assert found.recipe.name == "child"
    assert "It has seen test images: 2 images of imagenet-r." in reasons(found)
    best = answer(
        zero_shot(scores=values(90, 70, 70), **leaky), run("q", values(90, 40, 40), label="q")
    )
    assert best.recipe.reference
    assert not any("test images" in reason for reason in reasons(best))


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ([run("a", values(90, 40, 50), label="a")], "a is the only method"),
        ([run("a", {"id-test": 0.9}), run("b", {"id-test": 0.8}, label="b")], "no shift"),
        ([run("a", {"id-test": 0.9, "v2": 0.5}, label="a", shifts=("v2", "r"))], "is no method"),
    ],
)
def test_no_recommendation_says_why_in_every_printer(tables, reason):
    table = pa.concat_tables(tables)
    model = build(table)
    assert model.rankings[0].answer.recipe is None
    for text in (printed(table, width=400), markdown(table), render(model)):
        assert reason in text
        assert "No recommendation" in text


def with_validation(id_val, *percent):
    return values(*percent) | {"id-val": id_val / 100}


def test_regret_is_of_choosing_on_id_validation_among_all_variants():
    points = {0.0: with_validation(60, 60, 50, 70), 0.5: with_validation(92, 89, 58, 66)}
    points[1.0] = with_validation(95, 90, 40, 50)
    found = answer(run("f", points[1.0]), wise("w", "f", points, {0.5: ["fixed"], 1.0: ["id-val"]}))
    assert found.regret.chosen in ("full", "wise-ft alpha=1.0")
    assert found.regret.best == "wise-ft alpha=0.5"
    assert found.regret.loss.value == pytest.approx(0.62 - 0.45)
    assert found.recipe.name == "wise-ft"
    assert found.recipe.variants == ("alpha=0.5",)
    assert "17.0 points" in reasons(found)[-1]
    assert answer(run("a", values(9, 9, 9), label="a"), run("b", values(9, 9, 8))).regret is None


def test_over_tasks():
    """A method that is searched in one task is no candidate over tasks."""
    tables = []
    for task, id_val in (("imagenet", 0.9), ("cifar10", 0.4)):
        tables += [
            run(f"{task}z", values(60, 70, 80), label="z", task=task, reference=True),
            run(f"{task}a", values(90, 50, 50) | {"id-val": 0.5}, label="a", task=task),
            run(f"{task}b", values(90, 60, 60) | {"id-val": id_val}, label="b", task=task),
        ]
        search = {"search_id": "5ea5c4"} if task == "cifar10" else {}
        tables.append(run(f"{task}s", values(90, 70, 70), label="s", task=task, **search))
    model = build(pa.concat_tables(tables))
    (across,) = model.overall
    assert across.answer.recipe.name == "b"
    assert across.answer.gain.value == pytest.approx(0.6 - 0.75)
    assert across.answer.recipe.cost_seconds == 120
    assert across.answer.regret.loss.value == pytest.approx((0.0 + 0.1) / 2)
    assert "5.0 points" in reasons(across.answer)[-1]
    assert across.answer.recipe.shifts.keys() == {
        f"{task} {shift}" for task in ("imagenet", "cifar10") for shift in SETS[1:]
    }


def test_every_printer_starts_with_the_answer():
    table = pa.concat_tables(
        [zero_shot(), three("plain", 90, 40, 50), three("robust", 89.5, 60, 70)]
    )
    text = markdown(table)
    assert text.index("## Which recipe") < text.index("## imagenet")
    assert RULE in text
    assert "| imagenet · miniature · all training data | robust | 89.5 (88.5 to 90.5) |" in text
    assert "Recommended robust: ID 89.5, OOD 65.0" in printed(table)
    page = render(build(table))
    assert page.index("<strong>robust</strong>") < page.index('<table class="ranking"')
    assert "Worst change" in page


def test_differences_have_an_interval_where_both_scores_have():
    sure = Estimate(0.8, None, 0.7, 0.95, (0,))
    other = Estimate(0.5, None, 0.3, 0.6, (0,))
    found = difference(sure, other)
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - (0.1**2 + 0.1**2) ** 0.5)
    assert found.high == pytest.approx(0.3 + (0.15**2 + 0.2**2) ** 0.5)
    assert difference(sure, Estimate(0.5, None, None, None, (0,))).low is None
    assert (difference(sure, sure).low, difference(sure, sure).high) == (0, 0)


def test_titles_lose_what_all_of_them_share():
    titles = ["a · x · all", "b · x · all", "mean over 2 tasks · x · all"]
    assert without_common(titles) == ["a", "b", "mean over 2 tasks"]
    assert without_common(["a · x"]) == ["a · x"]
    assert without_common(["a · x", "a · x"]) == ["a · x", "a · x"]
    assert without_common([]) == []
