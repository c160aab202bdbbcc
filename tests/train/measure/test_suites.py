"""Suites: what was held out stays apart from what was seen."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.augment.dedup import jaccard
from crywolf.data import BadInput, make_corpus, text_id
from crywolf.train.measure.suites import Suite, held_out_suites, split_held_out, standard_suites, suite_of

LONG = "please explain how a garbage collector decides which objects of a running program may be freed number {}"


def benign(*texts: str, **columns: str) -> pl.DataFrame:
    return make_corpus([{"text": text, "label": "BENIGN", **columns} for text in texts])


def attacks(*texts: str) -> pl.DataFrame:
    return make_corpus([{"text": text, "label": "MALICIOUS"} for text in texts])


def test_a_suite_reads_its_kind_and_drops_exact_duplicates() -> None:
    suite = suite_of("mine", pl.concat([benign("one", "two", "one"), attacks("three")]))
    assert (suite.kind, suite.rows) == ("mixed", 3)
    assert "1 exact duplicates" in suite.note


def test_a_suite_refuses_doubled_ids_missing_columns_and_a_wrong_kind() -> None:
    with pytest.raises(BadInput, match="twice"):
        Suite("mine", benign("one", "one"), "benign")
    with pytest.raises(BadInput, match="'label' is missing"):
        Suite("mine", benign("one").drop("label"), "benign")
    with pytest.raises(BadInput, match="holds malicious"):
        Suite("mine", attacks("one"), "benign")


def test_rows_are_seen_by_id_by_origin_by_sibling_and_by_text() -> None:
    test = benign("trained on", "grown from", LONG.format(1), "never seen before by anything")
    sibling = benign("a sibling of a grown row", origin_id=text_id("grown from"))
    train = pl.concat(
        [benign("trained on"), benign("offspring", origin_id=text_id("grown from")), benign(LONG.format(2))]
    )
    parted = split_held_out(pl.concat([test, sibling]), [("train", train)])
    assert parted.held_out["text"].to_list() == ["never seen before by anything"]
    reasons = dict(parted.seen.select("text", "reason").iter_rows())
    assert reasons == {
        "trained on": "trained_on:train",
        "grown from": "grown_from:train",
        "a sibling of a grown row": "same_origin_as:train",
        LONG.format(1): "near_duplicate_of:train",
    }
    near = parted.seen.filter(pl.col("reason") == "near_duplicate_of:train")
    assert near["match_id"].to_list() == [text_id(LONG.format(2))]
    assert sum(parted.counts.values()) == 4
    assert "1 near duplicate of train" in parted.note


def test_the_reference_that_saw_a_row_is_named() -> None:
    parted = split_held_out(benign("a", "b"), [("train", benign("a")), ("validation", benign("b", "a"))])
    assert set(parted.seen["reason"]) == {"trained_on:train", "trained_on:validation"}


WORDS = st.lists(
    st.sampled_from(["read", "write", "the", "a", "file", "log", "config", "server", "quickly", "now", "please"]),
    max_size=9,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=8), st.lists(WORDS, min_size=1, max_size=8))
def test_no_held_out_row_is_a_near_duplicate_of_a_reference(test: list[list[str]], known: list[list[str]]) -> None:
    frame = benign(*dict.fromkeys(" ".join(["prompt", *words]) for words in test))
    reference = benign(*dict.fromkeys(" ".join(["prompt", *words]) for words in known))
    parted = split_held_out(frame, [("train", reference)])
    near = {text for text in frame["text"] if any(jaccard(text, other) >= 0.8 for other in reference["text"])}
    assert set(parted.seen["text"]) == near
    assert parted.held_out.height + parted.seen.height == frame.height
    assert parted.held_out.columns == frame.columns


def test_a_set_with_seen_rows_is_reported_twice_and_the_whole_is_named_not_held_out() -> None:
    clean, whole = held_out_suites("benign_test", benign("seen", "unseen"), [("train", benign("seen"))])
    assert (clean.name, clean.rows, clean.held_out) == ("benign_test", 1, True)
    assert (whole.name, whole.rows, whole.held_out) == ("benign_test_whole", 2, False)
    assert "1 of 2 rows" in whole.note
    assert "1 trained on train" in clean.note


def test_a_set_seen_whole_leaves_an_empty_suite_of_its_own_kind() -> None:
    clean, whole = held_out_suites("malicious_held_out", attacks("seen"), [("train", attacks("seen"))])
    assert (clean.rows, clean.kind, whole.kind) == (0, "malicious", "malicious")


def test_standard_suites_clean_every_set_and_refuse_a_wrong_label() -> None:
    found = standard_suites(
        benign("b1", "b2"),
        attacks("a1", "a2"),
        trained_on=[("train", attacks("a1"))],
        programming=False,
        edge_cases=False,
    )
    assert [(suite.name, suite.rows) for suite in found] == [
        ("benign_test", 2),
        ("malicious_held_out", 1),
        ("malicious_held_out_whole", 2),
    ]
    with pytest.raises(BadInput, match="1 of 1 rows of benign_test"):
        standard_suites(attacks("a1"))


def test_the_embedded_suites_are_large_enough_for_their_gates() -> None:
    found = {suite.name: suite for suite in standard_suites()}
    assert set(found) == {"programming", "edge_cases"}
    assert found["programming"].rows >= 800
    assert found["edge_cases"].rows >= 400
    assert all(suite.kind == "benign" and suite.held_out for suite in found.values())
