"""The embedded breadth: enough of each kind, distinct, and apart from what is measured on."""

import polars as pl
import pytest

from crywolf.augment import nearest_reference
from crywolf.data import check_corpus
from crywolf.data.embedded import breadth, edge_case_suite, embedded_training, programming_suite
from crywolf.data.embedded.seeds import benign_prompts
from crywolf.data.embedded.suites import over_defense_suite


def test_both_labels_are_there_in_number() -> None:
    frame = check_corpus(breadth())
    counts = dict(frame.group_by(pl.col("label").cast(pl.String)).len().iter_rows())
    assert counts["BENIGN"] >= 9000
    assert counts["MALICIOUS"] >= 4500
    assert frame.filter(pl.col("label").cast(pl.String) == "MALICIOUS")["threat_type"].null_count() == 0
    assert frame.filter(pl.col("label").cast(pl.String) == "BENIGN")["category"].null_count() == 0


def test_neither_length_nor_language_gives_the_label_away() -> None:
    frame = breadth().with_columns(
        long=pl.col("text").str.len_chars() > 300, other=pl.col("text").str.contains(r"[^\x00-\x{24F}–-„…]")
    )
    for trait in ("long", "other"):
        shares = frame.group_by("label").agg(pl.col(trait).mean())[trait].to_list()
        assert min(shares) > 0.05


@pytest.mark.parametrize(
    "measured", [over_defense_suite, edge_case_suite, programming_suite, benign_prompts], ids=lambda f: f.__name__
)
def test_nothing_of_what_is_measured_on_is_near(measured: object) -> None:
    nearest = nearest_reference(breadth()["text"].to_list(), measured()["text"].to_list())  # type: ignore[operator]
    assert (nearest < 0).all()


def test_training_gets_every_text_once() -> None:
    frame = embedded_training()
    assert frame["id"].is_unique().all()
    assert set(frame["source"].unique()) == {"seed", "breadth"}
