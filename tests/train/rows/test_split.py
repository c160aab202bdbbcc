"""Splits: disjoint, exhaustive, clusters whole, fractions kept, the same again from files."""

import json
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.augment.dedup import near_duplicate_clusters
from crywolf.data import BadInput, CorruptPackage, make_corpus
from crywolf.train.rows.split import FOLDS, Split, split_originals

WORDS = [
    *("amber", "basalt", "cedar", "delta", "ember", "fjord", "granite", "harbor", "indigo", "juniper", "krypton"),
    *("lagoon", "meadow", "nectar", "obsidian", "pepper", "quartz", "raven", "saffron", "timber", "umber", "velvet"),
]


def _text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, size=12))


def _corpus(n: int, *, seed: int = 0, twins: float = 0.3, malicious: float = 0.25) -> pl.DataFrame:
    """Rows of which a share are near-duplicates of the row before them."""
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    for _ in range(n):
        if texts and rng.random() < twins:
            texts.append(texts[-1] + rng.choice([".", "!", " ok", "?", " "]))
        else:
            texts.append(_text(rng))
    rows = [
        {
            "text": text,
            "label": "MALICIOUS" if index % 100 < malicious * 100 else "BENIGN",
            "category": ("programming", "education", None)[index % 3],
            "source": ("one", "two", "three")[index % 7 % 3],
        }
        for index, text in enumerate(texts)
    ]
    return make_corpus(rows).unique("id", keep="first", maintain_order=True)


def _ids(frame: pl.DataFrame) -> set[str]:
    return set(frame["id"])


def _cut_clusters(split: Split, threshold: float = 0.8) -> int:
    """How many near-duplicate clusters have rows in more than one fold."""
    tagged = pl.concat([frame.select("text", fold=pl.lit(name)) for name, frame in split.frames.items()])
    clusters = near_duplicate_clusters(tagged["text"].to_list(), threshold=threshold)
    folds = tagged.with_columns(cluster=pl.Series(clusters)).group_by("cluster").agg(pl.col("fold").n_unique())
    return folds.filter(pl.col("fold") > 1).height


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 150),
    seed=st.integers(0, 1000),
    twins=st.sampled_from([0.0, 0.3, 0.9]),
    fractions=st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.9, 0.1, 0.0), (1.0, 0.0, 0.0)]),
)
def test_folds_are_disjoint_exhaustive_and_cut_no_cluster(
    n: int, seed: int, twins: float, fractions: tuple[float, float, float]
) -> None:
    frame = _corpus(n, seed=seed, twins=twins)
    split = split_originals(frame, fractions=fractions, rng=np.random.default_rng(seed))
    ids = [row for fold in split.frames.values() for row in fold["id"]]
    assert sorted(ids) == sorted(frame["id"])
    assert len(set(ids)) == len(ids)
    assert _cut_clusters(split) == 0
    for fraction, fold in zip(fractions, (split.train, split.validation, split.test), strict=True):
        assert fraction > 0 or not fold.height


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25)])
def test_fractions_hold_overall_by_label_and_by_category(fractions: tuple[float, float, float]) -> None:
    frame = _corpus(1500, seed=3)
    split = split_originals(frame, fractions=fractions, rng=np.random.default_rng(0))
    folds = (split.train, split.validation, split.test)
    for fraction, fold in zip(fractions, folds, strict=True):
        assert fold.height / frame.height == pytest.approx(fraction, abs=0.005)
        for label in ("BENIGN", "MALICIOUS"):
            mine = pl.col("label").cast(pl.String) == label
            assert fold.filter(mine).height / frame.filter(mine).height == pytest.approx(fraction, abs=0.01)
            for category in ("programming", "education"):
                mine_too = mine & (pl.col("category") == category)
                share = fold.filter(mine_too).height / frame.filter(mine_too).height
                assert share == pytest.approx(fraction, abs=0.06)


def test_many_tiny_strata_still_make_the_fractions() -> None:
    rng = np.random.default_rng(0)
    rows = [{"text": _text(rng), "label": "BENIGN", "category": f"c{index // 3}"} for index in range(600)]
    split = split_originals(make_corpus(rows), rng=np.random.default_rng(0))
    assert split.validation.height == pytest.approx(60, abs=3)
    assert split.test.height == pytest.approx(60, abs=3)


def test_same_generator_same_split_whatever_the_order_of_rows() -> None:
    frame = _corpus(300)
    one = split_originals(frame, rng=np.random.default_rng(7))
    two = split_originals(frame.sample(fraction=1, shuffle=True, seed=5), rng=np.random.default_rng(7))
    other = split_originals(frame, rng=np.random.default_rng(8))
    for name in FOLDS:
        assert one.frames[name].equals(two.frames[name])
    assert _ids(one.test) != _ids(other.test)


def test_a_few_attacks_reach_every_fold() -> None:
    frame = _corpus(60, twins=0, malicious=0.05)  # five malicious rows
    split = split_originals(frame, rng=np.random.default_rng(0))
    attacks = [
        (fold["label"].cast(pl.String) == "MALICIOUS").sum() for fold in (split.train, split.validation, split.test)
    ]
    assert attacks == [3, 1, 1]


def test_rows_of_one_origin_and_grown_rows_stay_in_training() -> None:
    frame = _corpus(200, twins=0)
    rng = np.random.default_rng(1)
    grown = make_corpus(
        [{"text": _text(rng), "label": "BENIGN", "source": "augmented", "origin_id": "f" * 16} for _ in range(40)]
    )
    split = split_originals(pl.concat([frame, grown]), rng=np.random.default_rng(0))
    assert _ids(grown) <= _ids(split.train)
    assert split.test.height > 0


def test_held_out_sources_go_whole_with_their_near_duplicates() -> None:
    frame = _corpus(300, twins=0.5)
    split = split_originals(frame, holdout_sources=["two"], rng=np.random.default_rng(0))
    others = pl.concat([split.train, split.validation, split.test])
    assert "two" not in others["source"].to_list()
    assert _ids(frame.filter(pl.col("source") == "two")) <= _ids(split.held_out)
    assert split.held_out.filter(pl.col("source") != "two").height  # near-duplicates from elsewhere
    assert _cut_clusters(split) == 0
    assert sum(fold.height for fold in split.frames.values()) == frame.height


def test_unknown_source_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"no rows of source 'four' to hold out; there are one, three, two"):
        split_originals(_corpus(20), holdout_sources=["four"], rng=np.random.default_rng(0))


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (0.0, 0.5, 0.5), (1.1, -0.1, 0.0)])
def test_bad_fractions_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(BadInput, match="fractions"):
        split_originals(_corpus(20), fractions=fractions, rng=np.random.default_rng(0))


def test_no_rows_are_refused() -> None:
    with pytest.raises(BadInput, match="no rows"):
        split_originals(_corpus(5).clear(), rng=np.random.default_rng(0))


def _saved(path: object, holdouts: Sequence[str] = ()) -> Split:
    split = split_originals(_corpus(100), holdout_sources=holdouts, rng=np.random.default_rng(0))
    split.save(str(path))
    return split


def test_saved_and_loaded_is_the_same(tmp_path: object) -> None:
    split = _saved(tmp_path, ["two"])
    again = Split.load(str(tmp_path))
    for name in FOLDS:
        assert again.frames[name].equals(split.frames[name])
        assert again.frames[name].schema == split.frames[name].schema
    assert again.info == split.info
    assert again.table.equals(split.table)


def test_a_second_split_does_not_replace_the_first(tmp_path: object) -> None:
    split = _saved(tmp_path)
    with pytest.raises(BadInput, match="holds a split already"):
        split.save(str(tmp_path))
    split.save(str(tmp_path), force=True)


def test_changed_or_missing_folds_are_noticed(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    _saved(folder)
    Split.load(folder).test.head(1).write_parquet(folder / "train.parquet")
    with pytest.raises(CorruptPackage, match=r"train\.parquet"):
        Split.load(folder)
    (folder / "split.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(CorruptPackage, match="not readable"):
        Split.load(folder)
    with pytest.raises(BadInput, match="holds no split"):
        Split.load(folder / "nowhere")


def test_table_counts_every_row() -> None:
    split = split_originals(_corpus(200), rng=np.random.default_rng(0))
    assert split.table["rows"].sum() == sum(fold.height for fold in split.frames.values())
    assert split.table["fold"].unique(maintain_order=True).to_list() == ["train", "validation", "test"]
