"""The harness: counts by brute force, pairs by brute force, files there and back."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from crywolf.data import BadInput, check_corpus, make_corpus, read_fps
from crywolf.train.measure.evaluate import (
    Evaluation,
    compare,
    evaluate,
    false_positives,
    harness_totals,
    write_harness,
)
from crywolf.train.measure.intervals import Rate
from crywolf.train.measure.suites import Suite, suite_of

CATEGORIES = ("programming", "education", None)
THREATS = ("semantic_jailbreak", "obfuscated_command")


def corpus(n: int, label: str, prefix: str) -> pl.DataFrame:
    rows = [
        {
            "text": f"{prefix} {i}" + " and a rather long tail" * (i % 9),
            "label": label,
            "category": CATEGORIES[i % 3] if label == "BENIGN" else None,
            "threat_type": THREATS[i % 2] if label == "MALICIOUS" else None,
            "external_id": f"x-{prefix}-{i}",
            "source": f"source{i % 2}",
        }
        for i in range(n)
    ]
    return make_corpus(rows)


class Fixed:
    """A detector that remembers what it was asked."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        self.asked += texts
        return np.array([self.scores[text] for text in texts])


def suites(n: int = 30) -> tuple[Suite, ...]:
    benign = corpus(n, "BENIGN", "good")
    return (
        suite_of("benign_test", benign, l1_stopped=frozenset(benign["id"][:5])),
        suite_of("malicious_held_out", corpus(n, "MALICIOUS", "bad")),
        suite_of("benign_test_whole", pl.concat([benign, corpus(7, "BENIGN", "known")]), held_out=False),
    )


def drawn(seed: int, parts: Sequence[Suite], name: str = "detector", threshold: float = 0.6) -> Evaluation:
    rng = np.random.default_rng(seed)
    texts = pl.concat([suite.frame["text"] for suite in parts]).unique(maintain_order=True)
    detector = Fixed(dict(zip(texts, rng.random(len(texts)).tolist(), strict=True)))
    return evaluate(detector, threshold=threshold, suites=parts, name=name, threats=lambda ts: [THREATS[0]] * len(ts))


def test_every_prompt_is_scored_once_and_progress_ends_at_the_end() -> None:
    parts = suites(400)
    texts = pl.concat([suite.frame["text"] for suite in parts]).unique(maintain_order=True)
    detector, seen = Fixed(dict.fromkeys(texts, 0.3)), []
    evaluate(detector, threshold=0.5, suites=parts, progress=lambda done, total: seen.append((done, total)))
    assert sorted(detector.asked) == sorted(texts)
    assert seen[-1] == (807, 807)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("by", ["suite", "category", "threat_type", "source"])
def test_tables_are_what_counting_gives(by: str) -> None:
    found = drawn(1, suites())
    table = found.table(by)  # type: ignore[arg-type]
    expected: dict[tuple[str, str, str], list[int]] = {}
    for row in found.rows.iter_rows(named=True):
        benign = row["label"] == "BENIGN"
        if by == "threat_type" and benign:
            continue
        group = row["suite"] if by == "suite" else row[by] or "(none)"
        cell = expected.setdefault((row["suite"], group, "fp_rate" if benign else "recall"), [0, 0])
        cell[0] += row["score"] >= 0.6
        cell[1] += 1
    counted = {(row["suite"], row[by], row["measure"]): [row["k"], row["n"]] for row in table.iter_rows(named=True)}
    assert counted == expected
    for row in table.iter_rows(named=True):
        assert (row["low"], row["high"]) == pytest.approx((Rate(row["k"], row["n"]).low, Rate(row["k"], row["n"]).high))


def test_worst_groups_come_first() -> None:
    table = drawn(2, suites(200)).table("category")
    rates = table.filter((pl.col("suite") == "benign_test") & (pl.col("measure") == "fp_rate"))["value"].to_list()
    assert rates == sorted(rates, reverse=True)


def test_the_fp_rate_is_given_over_all_rows_and_over_those_that_l2_saw() -> None:
    found = drawn(3, suites())
    rows = found.rows.filter(pl.col("suite") == "benign_test")
    assert found.has_l1
    assert found.fp_rate("benign_test").n == 30
    assert found.fp_rate("benign_test", where="l2") == Rate(int((rows["score"][5:] >= 0.6).sum()), 25)
    assert found.fp_rate("malicious_held_out", where="l2") == Rate(0, 0)


def test_pooled_measures_leave_out_what_is_not_held_out() -> None:
    found = drawn(4, suites())
    assert found.metrics()["rows"] == 60
    assert found.confusion().recall == found.recall("malicious_held_out")
    assert set(found.select()["suite"]) == {"benign_test", "malicious_held_out"}
    precision = found.precision_at(0.5)
    fp, hit = found.fp_rate("benign_test").value, found.recall("malicious_held_out").value
    assert precision.value == pytest.approx(hit / (hit + fp))


def test_confident_alarms_are_counted_above_the_bound_only() -> None:
    found = drawn(5, suites())
    _, wrong, right = found.confident_precision(0.1, above=0.85)
    rows = found.rows
    assert wrong.k == rows.filter((pl.col("suite") == "benign_test") & (pl.col("score") > 0.85)).height
    assert right.k == rows.filter((pl.col("suite") == "malicious_held_out") & (pl.col("score") > 0.85)).height


@pytest.mark.parametrize("answer", [[2.0], [float("nan")], [[0.1]], []])
def test_a_detector_that_gives_no_probabilities_is_named(answer: list[float]) -> None:
    one = (suite_of("benign_test", corpus(1, "BENIGN", "good")),)
    with pytest.raises(BadInput, match="detector odd gave"):
        evaluate(lambda texts: np.array(answer), threshold=0.5, suites=one, name="odd")


def test_bad_thresholds_suites_and_threats_are_refused() -> None:
    one = suite_of("benign_test", corpus(2, "BENIGN", "good"))
    sure = lambda texts: np.ones(len(texts))  # noqa: E731
    with pytest.raises(BadInput, match="threshold"):
        evaluate(sure, threshold=1.5, suites=[one])
    with pytest.raises(BadInput, match="own name"):
        evaluate(sure, threshold=0.5, suites=[one, one])
    with pytest.raises(BadInput, match="1 threat types for 2 prompts"):
        evaluate(sure, threshold=0.5, suites=[one], threats=lambda texts: ["unknown"])


def test_an_evaluation_survives_json_without_prompts_and_with() -> None:
    found = drawn(6, suites())
    bare = json.dumps(found.to_dict(), allow_nan=False)
    assert "rather long tail" not in bare
    loaded = Evaluation.from_dict(json.loads(bare))
    assert loaded.rows.drop("text").equals(found.rows.drop("text"))
    assert loaded.suites == found.suites
    assert loaded.table("category").equals(found.table("category"))
    whole = Evaluation.from_dict(json.loads(json.dumps(found.to_dict(prompts=True))))
    assert whole.rows.equals(found.rows)
    with pytest.raises(BadInput, match="without prompts"):
        false_positives(loaded)


def test_an_evaluation_of_one_class_goes_to_json_without_nan() -> None:
    found = drawn(6, suites()[:1])
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["metrics"]["auroc"] is None
    assert data["metrics"]["recall"]["value"] is None


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 9},
        {"rows": {}},
        {"suites": [{"name": "x"}]},
        {"threshold": "high"},
        {"rows": {"id": ["x"], "language": ["en"], "length": [7, 7]}},
    ],
)
def test_a_damaged_file_is_bad_input(damage: dict[str, object]) -> None:
    data = {**drawn(6, suites()).to_dict(), **damage}
    with pytest.raises(BadInput):
        Evaluation.from_dict(data)


def test_false_positives_keep_the_contract_and_their_whole_prompts() -> None:
    found = drawn(7, suites())
    fps = check_corpus(false_positives(found))
    flagged = found.rows.filter((pl.col("suite") == "benign_test") & pl.col("flagged"))
    assert sorted(fps["text"]) == sorted(flagged["text"])
    assert fps["text"].str.len_chars().max() > 103
    assert set(fps["threat_type"]) == {THREATS[0]}
    assert fps["extra"].struct.field("confidence").to_list() == sorted(flagged["score"], reverse=True)
    totals = harness_totals(found)
    assert totals["false_positives"] == fps.height
    assert totals["true_negatives"] == 30 - fps.height
    assert sum(entry["fp"] for entry in totals["categories"].values()) == fps.height
    with pytest.raises(BadInput, match="was not evaluated"):
        false_positives(found, "nothing")


def test_no_false_positive_is_an_empty_contract_frame() -> None:
    parts = suites()
    none = evaluate(lambda texts: np.zeros(len(texts)), threshold=0.5, suites=parts)
    assert check_corpus(false_positives(none)).height == 0


def test_the_harness_file_is_read_back_whole(tmp_path: Path) -> None:
    found = drawn(8, suites())
    path = write_harness(found, tmp_path / "benign_test_results.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["total"] == 30
    assert {name: entry["fp"] for name, entry in data["categories"].items()} == {
        name: entry["fp"] for name, entry in harness_totals(found)["categories"].items()
    }
    back = read_fps(path)
    expected = false_positives(found)
    assert back.frame.sort("id")["text"].to_list() == expected.sort("id")["text"].to_list()
    assert back.frame.sort("id")["external_id"].to_list() == expected.sort("id")["external_id"].to_list()
    assert set(back.frame["threat_type"]) == {THREATS[0]}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0.2, 0.8), st.floats(0.2, 0.8))
def test_paired_counts_are_what_counting_gives(one: int, two: int, old_at: float, new_at: float) -> None:
    parts = suites(18)
    before, after = drawn(one, parts, "old", old_at), drawn(two, parts, "new", new_at)
    found = compare(before, after)
    old = {(row["suite"], row["id"]): row["score"] >= old_at for row in before.rows.iter_rows(named=True)}
    new = {(row["suite"], row["id"]): row["score"] >= new_at for row in after.rows.iter_rows(named=True)}
    attacks = {key for key in old if key[0] == "malicious_held_out"}
    benign = {key for key in old if key[0] == "benign_test"}
    assert set(found.lost()["id"]) == {id for name, id in attacks if old[name, id] and not new[name, id]}
    assert set(found.gained()["id"]) == {id for name, id in attacks if new[name, id] and not old[name, id]}
    assert set(found.fixed_fps()["id"]) == {id for name, id in benign if old[name, id] and not new[name, id]}
    assert set(found.new_fps()["id"]) == {id for name, id in benign if new[name, id] and not old[name, id]}
    caught = sum(old[key] for key in attacks)
    assert found.caught_before("malicious_held_out") == caught
    if caught:
        expected = (found.lost().height - found.gained().height) / caught
        assert found.net_loss("malicious_held_out").value == pytest.approx(expected)
    for name, group in (("fp_rate", benign), ("recall", attacks)):
        change = found.change(name, next(iter(group))[0])  # type: ignore[arg-type]
        assert change.value == pytest.approx(sum(new[key] - old[key] for key in group) / len(group))


def test_the_paired_table_agrees_with_both_evaluations() -> None:
    parts = suites(60)
    before, after = drawn(1, parts, "old"), drawn(2, parts, "new")
    table = compare(before, after).table("category")
    for side, alone in (("before", before), ("after", after)):
        keys = ["suite", "category", "measure"]
        left = table.select(*keys, "n", pl.col(f"k_{side}").alias("k"), pl.col(f"high_{side}").alias("high")).sort(keys)
        right = alone.table("category").select(*keys, "n", "k", "high").sort(keys)
        assert left.equals(right)
    net = (table["added"] - table["dropped"]).to_list()
    assert net == (table["k_after"] - table["k_before"]).to_list()


@pytest.mark.parametrize("measure", ["fp_rate", "recall"])
def test_each_suite_is_tested_by_its_discordant_rows(measure: str) -> None:
    parts = suites(120)
    found = compare(drawn(1, parts, "old", 0.5), drawn(2, parts, "new", 0.7))
    suite = "benign_test" if measure == "fp_rate" else "malicious_held_out"
    changed = (found.fixed_fps, found.new_fps) if measure == "fp_rate" else (found.lost, found.gained)
    dropped, added = (side(suite).height for side in changed)
    expected = binomtest(dropped, dropped + added).pvalue
    test = found.mcnemar(measure, suite)  # type: ignore[arg-type]
    assert (test.dropped, test.added) == (dropped, added)
    assert test.p_value == pytest.approx(expected)
    row = found.table().filter((pl.col("suite") == suite) & (pl.col("measure") == measure)).row(0, named=True)
    assert row["p_value"] == pytest.approx(expected)
    assert found.to_dict()["mcnemar"][suite] == {measure: test.to_dict()}


def test_tables_by_language_and_length_count_every_row_once() -> None:
    found = drawn(11, suites())
    for by in ("language", "length"):
        table = found.table(by)  # type: ignore[arg-type]
        assert table.group_by("suite").agg(pl.col("n").sum()).sort("suite")["n"].to_list() == [30, 37, 30]
        assert found.select(by=by)[by].null_count() == 0  # type: ignore[arg-type]
    texts = found.rows["text"].str.len_chars()
    short = found.table("length").filter(pl.col("length") == "to 50")
    assert short["n"].sum() == (texts <= 50).sum()
    pair = compare(found, drawn(12, suites()))
    assert pair.table("length")["n"].sum() == found.rows.height
    assert set(pair.select(by="language")["language"]) == set(found.select(by="language")["language"])


def test_language_and_length_survive_json_without_prompts() -> None:
    found = drawn(6, suites())
    loaded = Evaluation.from_dict(json.loads(json.dumps(found.to_dict())))
    for by in ("language", "length"):
        assert loaded.table(by).equals(found.table(by))  # type: ignore[arg-type]
    again = Evaluation.from_dict(json.loads(json.dumps(loaded.to_dict())))
    assert again.table("length").equals(found.table("length"))


def test_an_evaluation_saved_before_there_were_such_slices_still_reads() -> None:
    found = drawn(6, suites())
    data = json.loads(json.dumps(found.to_dict()))
    for by in ("language", "length"):
        del data["rows"][by], data["tables"][by]
    old = Evaluation.from_dict(data)
    assert old.table("category").equals(found.table("category"))
    assert set(old.table("length")["length"]) == {"(not saved)"}
    assert Evaluation.from_dict(json.loads(json.dumps(old.to_dict()))).table("suite").equals(found.table("suite"))
    pair = compare(old, found)
    assert "(not saved)" not in set(pair.table("length")["length"])


def test_rows_that_only_one_of_them_scored_are_left_out_and_counted() -> None:
    benign = corpus(20, "BENIGN", "good")
    before = drawn(1, [suite_of("benign_test", benign[:15])])
    after = drawn(2, [suite_of("benign_test", benign[5:])])
    found = compare(before, after)
    assert found.rows.height == 10
    assert found.left_out == {"benign_test": 10}
    other = drawn(3, [suite_of("else", corpus(3, "BENIGN", "other"))])
    with pytest.raises(BadInput, match="no common row"):
        compare(before, other)


def test_a_comparison_goes_to_json_without_prompts() -> None:
    parts = suites()
    found = compare(drawn(1, parts, "old"), drawn(2, parts, "new"))
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert "rather long tail" not in text
    data = json.loads(text)
    assert {row["id"] for row in data["lost"]} == set(found.lost()["id"])
    assert "rather long tail" in json.dumps(found.to_dict(prompts=True))


def test_the_hardest_are_the_highest_scored_false_positives() -> None:
    found = drawn(9, suites())
    worst = found.hardest(3)
    assert worst["score"].to_list() == sorted(worst["score"], reverse=True)
    assert worst["score"][0] == found.select().filter(pl.col("label") == "BENIGN")["score"].max()
    assert set(worst["suite"]) == {"benign_test"}


def test_at_equal_recall_neither_threshold_plays_a_part() -> None:
    benign = make_corpus([{"text": f"benign prompt {i}"} for i in range(4)], label="BENIGN")
    attacks = make_corpus([{"text": f"attack number {i}"} for i in range(4)], label="MALICIOUS")
    suites = [suite_of("benign_test", benign), suite_of("malicious_held_out", attacks)]
    texts = [*benign["text"], *attacks["text"]]
    old = dict(zip(texts, [0.1, 0.6, 0.7, 0.8, 0.5, 0.6, 0.7, 0.9], strict=True))
    # The new one orders them better, at half the height.
    new = dict(zip(texts, [0.05, 0.06, 0.07, 0.3, 0.25, 0.3, 0.35, 0.4], strict=True))
    before, after = (
        evaluate(lambda asked, of=of: np.array([of[text] for text in asked]), threshold=threshold, suites=suites)
        for of, threshold in ((old, 0.5), (new, 0.9))
    )
    found = compare(before, after).at_equal_recall((0.5, 1.0))
    assert found == [("benign_test", 0.5, Rate(2, 4), Rate(0, 4)), ("benign_test", 1.0, Rate(3, 4), Rate(1, 4))]
    assert after.fp_rate_at_recall(1.0, "benign_test") == Rate(1, 4)
