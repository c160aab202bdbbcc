"""The three answers of the gates, as properties against scipy's intervals."""

import json
from collections.abc import Mapping

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from crywolf.data import BadInput
from crywolf.train.measure.evaluate import ROWS, Evaluation, SuiteInfo, compare
from crywolf.train.measure.gates import DEFAULT_GATES, Gate, GateReport, GateResult, check_gates
from crywolf.train.measure.intervals import net_loss

SUITES = ("benign_test", "malicious_held_out", "programming", "edge_cases")


def flags(counts: Mapping[str, list[bool]], *, name: str = "new", held_out: bool = True) -> Evaluation:
    """An evaluation in which these rows of these suites are flagged, with a score of 0.95."""
    parts, infos = [], []
    for suite, flagged in counts.items():
        bad = suite.startswith("malicious")
        infos.append(SuiteInfo(suite, "malicious" if bad else "benign", held_out, "", len(flagged)))
        frame = pl.DataFrame({"flagged": flagged}, schema={"flagged": pl.Boolean}).with_row_index("at")
        parts.append(
            frame.select(
                pl.lit(suite).alias("suite"),
                (pl.lit(f"{suite}-") + pl.col("at").cast(pl.String)).alias("id"),
                pl.lit("MALICIOUS" if bad else "BENIGN").cast(ROWS["label"]).alias("label"),
                pl.when("flagged").then(0.95).otherwise(0.05).alias("score"),
                "flagged",
            )
        )
    rows = pl.concat(parts)
    given_columns = set(rows.columns)
    rows = rows.with_columns(
        pl.lit(None, dtype=kind).alias(column) for column, kind in ROWS.items() if column not in given_columns
    )
    return Evaluation(name, 0.5, tuple(infos), rows.select(list(ROWS)))


def counts(**hits: tuple[int, int]) -> Evaluation:
    return flags({suite: [True] * k + [False] * (n - k) for suite, (k, n) in hits.items()})


def perfect() -> Evaluation:
    return counts(benign_test=(0, 5_000), malicious_held_out=(3_000, 3_000), programming=(0, 800), edge_cases=(0, 400))


def one(report: GateReport, level: str, measure: str, suite: str) -> GateResult:
    found = [r for r in report.rows if (r.gate.level, r.gate.measure, r.gate.suite) == (level, measure, suite)]
    assert len(found) == 1
    return found[0]


FP = Gate("FP rate", "must", "fp_rate", "benign_test", 0.01, "below")
RECALL = Gate("recall", "must", "recall", "malicious_held_out", 0.95, "above")
HITS = st.integers(1, 1_500).flatmap(lambda n: st.tuples(st.integers(0, min(n, 40)), st.just(n)))


@settings(max_examples=60, deadline=None)
@given(HITS, st.sampled_from([0.005, 0.01, 0.05]))
def test_an_fp_gate_answers_by_the_ends_of_scipys_interval(hits: tuple[int, int], bound: float) -> None:
    gate = Gate("FP rate", "must", "fp_rate", "benign_test", bound, "below")
    report = check_gates(counts(benign_test=hits), gates=[gate])
    ends = binomtest(*hits).proportion_ci(method="wilson")
    expected = "pass" if ends.high < bound else "fail" if ends.low >= bound else "inconclusive"
    assert report.rows[0].verdict == expected
    assert report.exit_code == (0 if expected == "pass" else 1)


@settings(max_examples=60, deadline=None)
@given(HITS)
def test_a_recall_gate_answers_by_the_ends_of_scipys_interval(misses: tuple[int, int]) -> None:
    k, n = misses
    report = check_gates(counts(malicious_held_out=(n - k, n)), gates=[RECALL])
    ends = binomtest(n - k, n).proportion_ci(method="wilson")
    expected = "pass" if ends.low > 0.95 else "fail" if ends.high <= 0.95 else "inconclusive"
    assert report.rows[0].verdict == expected


@settings(max_examples=40, deadline=None)
@given(HITS)
def test_the_rows_that_an_inconclusive_gate_asks_for_make_it_pass_at_the_same_rate(hits: tuple[int, int]) -> None:
    k, n = hits
    row = check_gates(counts(benign_test=hits), gates=[FP]).rows[0]
    if row.verdict != "inconclusive":
        assert row.needed is None
        assert row.advice == ""
        return
    assert row.needed_without_error == 381
    assert "381" in row.advice
    if row.needed is None:
        assert k / n >= 0.01
        return
    assert f"{row.needed:,}" in row.advice
    # With whole prompts the rate can be met only nearly: never above it, and with one row in k to spare.
    scaled = -(-row.needed // n) * n
    if scaled <= 200_000:
        assert binomtest(k * scaled // n, scaled).proportion_ci(method="wilson").high < 0.01


@pytest.mark.parametrize(
    ("suite", "bound", "rows"), [("benign_test", 0.01, 381), ("programming", 0.005, 765), ("edge_cases", 0.05, 73)]
)
def test_the_designs_row_counts_turn_inconclusive_into_pass(suite: str, bound: float, rows: int) -> None:
    gate = Gate("FP rate", "must", "fp_rate", suite, bound, "below")
    assert check_gates(counts(**{suite: (0, rows)}), gates=[gate]).rows[0].verdict == "pass"
    short = check_gates(counts(**{suite: (0, rows - 1)}), gates=[gate]).rows[0]
    assert short.verdict == "inconclusive"
    assert short.needed_without_error == short.needed == rows


def test_a_perfect_model_passes_every_gate() -> None:
    found = perfect()
    report = check_gates(found, compare(found, found))
    assert [row.verdict for row in report.rows] == ["pass"] * len(DEFAULT_GATES)
    assert report.passed
    assert report.exit_code == 0
    assert report.not_asked == ()
    assert {row.answer for row in report.rows} == {"pass", "clear"}


def test_without_an_old_model_regression_is_not_asked_and_said_so() -> None:
    report = check_gates(perfect())
    assert report.passed
    assert [(gate.name, "--baseline" in why) for gate, why in report.not_asked] == [("no regression", True)]
    assert report.table()[1][-1][2] == "not asked"


def test_a_suite_that_was_not_scored_is_inconclusive_or_left_out_as_asked() -> None:
    alone = counts(programming=(0, 800))
    strict = check_gates(alone)
    assert strict.exit_code == 1
    missing = one(strict, "must", "fp_rate", "benign_test")
    assert (missing.verdict, missing.n) == ("inconclusive", 0)
    assert "benign_test was not scored" in missing.advice
    assert "381" in missing.advice
    loose = check_gates(alone, missing="leave_out")
    assert {row.gate.suite for row in loose.rows} == {"programming"}
    assert loose.exit_code == 0


def test_rows_that_were_not_held_out_prove_nothing() -> None:
    seen = flags({"benign_test": [False] * 5_000}, held_out=False)
    row = check_gates(seen, gates=[FP]).rows[0]
    assert row.verdict == "inconclusive"
    assert "not held out" in row.advice


def test_an_empty_suite_is_inconclusive() -> None:
    assert check_gates(flags({"benign_test": []}), gates=[FP]).rows[0].verdict == "inconclusive"


def test_a_red_flag_is_raised_only_when_the_interval_excludes_the_good_side() -> None:
    flag = Gate("FP rate", "red_flag", "fp_rate", "benign_test", 0.02, "below")
    over = check_gates(counts(benign_test=(60, 1_000)), gates=[flag])
    assert over.red_flags
    assert over.exit_code == 1
    assert over.rows[0].answer == "RAISED"
    unlucky = check_gates(counts(benign_test=(2, 50)), gates=[flag])
    assert unlucky.rows[0].value > 0.02
    assert unlucky.rows[0].answer == "inconclusive"
    assert not unlucky.red_flags
    clear = check_gates(counts(benign_test=(2, 1_000)), gates=[flag])
    assert clear.rows[0].answer == "clear"
    assert flag.claim == "FP rate > 2%"


def test_a_raised_red_flag_names_its_remedies_with_options_and_configuration() -> None:
    report = check_gates(counts(benign_test=(300, 1_000), malicious_held_out=(50, 200)))
    raised = {row.gate.measure: row for row in report.red_flags}
    assert set(raised) == {"fp_rate", "recall"}
    for row in raised.values():
        options = {remedy.option for remedy in row.remedies}
        assert options == {"--grown-weight", "--per-anchor", "--benign-weight", "--fp-target", "--encoder"}
        keys = {remedy.config for remedy in row.remedies}
        assert keys >= {"train.grown_weight", "mining.per_anchor", "train.benign_weight", "train.fp_target"}
    assert raised["fp_rate"].remedies != raised["recall"].remedies
    assert not one(report, "must", "fp_rate", "benign_test").remedies


def test_any_must_gate_that_does_not_pass_gives_exit_code_one_and_stretch_never() -> None:
    sloppy = counts(
        benign_test=(35, 5_000), malicious_held_out=(3_000, 3_000), programming=(0, 800), edge_cases=(0, 400)
    )
    report = check_gates(sloppy)
    assert one(report, "stretch", "fp_rate", "benign_test").verdict != "pass"
    assert one(report, "must", "fp_rate", "benign_test").verdict == "pass"
    assert report.exit_code == 0
    short = counts(benign_test=(0, 5_000), malicious_held_out=(3_000, 3_000), programming=(0, 700), edge_cases=(0, 400))
    assert one(check_gates(short), "must", "fp_rate", "programming").verdict == "inconclusive"
    assert check_gates(short).exit_code == 1
    assert "1 inconclusive" in check_gates(short).summary


def test_precision_is_gated_at_a_stated_prevalence_and_says_how_many_rows_it_lacks() -> None:
    gate = next(gate for gate in DEFAULT_GATES if gate.measure == "precision")
    assert "at 10% attacks" in gate.claim
    good = check_gates(counts(benign_test=(20, 5_000), malicious_held_out=(980, 1_000)), gates=[gate]).rows[0]
    assert good.verdict == "pass"
    assert "20/5,000 benign" in good.observed
    short = check_gates(counts(benign_test=(1, 250), malicious_held_out=(980, 1_000)), gates=[gate]).rows[0]
    assert short.verdict == "inconclusive"
    assert short.needed is not None
    rows = -(-short.needed // 250) * 250
    more = counts(benign_test=(rows // 250, rows), malicious_held_out=(980, 1_000))
    assert check_gates(more, gates=[gate]).rows[0].verdict == "pass"
    bad = check_gates(counts(benign_test=(500, 5_000), malicious_held_out=(980, 1_000)), gates=[gate]).rows[0]
    assert bad.verdict == "fail"


def test_a_detector_that_never_speaks_up_has_no_precision() -> None:
    gate = next(gate for gate in DEFAULT_GATES if gate.measure == "precision")
    row = check_gates(counts(benign_test=(0, 500), malicious_held_out=(0, 500)), gates=[gate]).rows[0]
    assert row.verdict != "pass"


NO_LOSS = next(gate for gate in DEFAULT_GATES if gate.measure == "net_loss")


def regression(caught: int, missed: int, lost: int, gained: int) -> GateResult:
    old = [True] * caught + [False] * missed
    new = [False] * lost + [True] * (caught - lost) + [True] * gained + [False] * (missed - gained)
    before, after = (flags({"malicious_held_out": found}) for found in (old, new))
    return check_gates(after, compare(before, after), gates=[NO_LOSS]).rows[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 800), st.integers(0, 80), st.integers(0, 30), st.integers(0, 30))
def test_regression_answers_by_the_upper_bound_of_the_net_loss(
    caught: int, missed: int, lost: int, gained: int
) -> None:
    lost, gained = min(lost, caught), min(gained, missed)
    row = regression(caught, missed, lost, gained)
    ends = net_loss(caught, missed, lost, gained)
    expected = "pass" if ends.high <= 0.02 else "fail" if ends.low > 0.02 else "inconclusive"
    assert row.verdict == expected
    assert row.n == caught
    if row.needed is not None:
        scale = row.needed / caught
        assert net_loss(row.needed, missed * scale, min(lost * scale, row.needed), gained * scale).high <= 0.02


def test_regression_counts_what_is_lost_against_what_the_old_model_caught() -> None:
    assert regression(1_000, 0, 0, 0).verdict == "pass"
    assert regression(1_000, 0, 60, 0).verdict == "fail"
    assert regression(100, 0, 0, 0).verdict == "inconclusive"
    # Three in a hundred of what was caught is too much, however few of all attacks that is.
    assert regression(4_000, 6_000, 160, 0).verdict == "fail"
    assert "160 lost, 0 gained of 4,000" in regression(4_000, 6_000, 160, 0).observed
    assert regression(0, 50, 0, 10).verdict == "pass"


def test_a_report_goes_to_json_and_to_a_table() -> None:
    report = check_gates(counts(benign_test=(30, 300), malicious_held_out=(10, 20)))
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["exit_code"] == 1
    assert not data["passed"]
    assert len(data["gates"]) + len(data["not_asked"]) == len(DEFAULT_GATES)
    assert any(gate["raised"] and gate["remedies"] for gate in data["gates"])
    columns, rows = report.table()
    assert {len(row) for row in rows} == {len(columns)}


def test_a_bound_is_a_share() -> None:
    with pytest.raises(BadInput):
        Gate("FP rate", "must", "fp_rate", "benign_test", 1.0, "below")
