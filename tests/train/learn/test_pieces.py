"""Pieces: attacks and hard negatives stay whole, neighbours are benign, and an epoch is the same every time."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.data import make_corpus
from crywolf.train import Recipe, fit
from crywolf.train.learn.batches import Edges, TokenRows, tokenize_rows
from crywolf.train.learn.model import KNOWN_THREATS, load_tokenizer, sha256
from crywolf.train.learn.pieces import SHORTEST, pieces
from crywolf.train.rows.mix import Mix

MakeRows = Callable[..., pl.DataFrame]
EDGES = Edges(before=1, after=1, joint=(3,), most=40)
START, END = 1, 2


def token_rows(texts: list[tuple[int, int]], hard: frozenset[int] = frozenset(), **more: Any) -> TokenRows:
    """Rows of (label, tokens), no token in two of them."""
    return TokenRows(
        [[START, *range(1000 * (row + 1), 1000 * (row + 1) + n), END] for row, (_, n) in enumerate(texts)],
        np.array([label for label, _ in texts]),
        np.zeros(len(texts), dtype=np.int64),
        np.ones(len(texts), dtype=np.float32),
        edges=EDGES,
        keep_whole=np.array([row in hard for row in range(len(texts))]),
        **more,
    )


def parts(ids: list[int]) -> list[list[int]]:
    """The texts of a piece without what stands around and between them."""
    assert (ids[0], ids[-1]) == (START, END)
    found: list[list[int]] = [[]]
    for token in ids[1:-1]:
        if token == EDGES.joint[0]:
            found.append([])
        else:
            found[-1].append(token)
    return found


def is_window(part: list[int], text: list[int]) -> bool:
    """Whether a part is cut out of a text in one stretch."""
    return part == list(range(part[0], part[0] + len(part))) and set(part) <= set(text)


LENGTHS = st.integers(1, 38)
TEXTS = st.lists(st.tuples(st.integers(0, 1), LENGTHS), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(
    texts=TEXTS, crop=st.sampled_from([0.0, 0.4, 1.0]), pack=st.sampled_from([0.0, 0.4, 1.0]), seed=st.integers(0, 9)
)
def test_a_piece_is_its_row_or_a_window_of_it_and_at_most_one_benign_neighbour(
    texts: list[tuple[int, int]], crop: float, pack: float, seed: int
) -> None:
    hard = frozenset(row for row, (label, n) in enumerate(texts) if label == 0 and n % 3 == 0)
    rows = token_rows(texts, hard)
    found = pieces(rows, crop=crop, pack=pack, epochs=2, seed=seed)
    assert len(found) == 2 * len(texts)
    assert found.lengths.tolist() == [len(found[at]["input_ids"]) for at in range(len(found))]
    assert found.lengths.max() <= EDGES.most
    for at in range(len(found)):
        own = int(found.shown.row[at])
        item, (label, n) = found[at], texts[own]
        assert item["labels"] == label
        stretches = parts(item["input_ids"])
        mine = [part for part in stretches if part[0] // 1000 == own + 1]
        if label == 1 or own in hard or crop == 0:
            assert rows.input_ids[own][1:-1] in mine
        assert all(is_window(part, rows.input_ids[own]) for part in mine)
        assert all(len(part) >= min(SHORTEST, n) for part in mine)
        others = [part for part in stretches if part not in mine]
        assert len(stretches) <= 2
        assert pack > 0 or len(stretches) == 1
        for part in others:
            other = part[0] // 1000 - 1
            assert texts[other][0] == 0
            assert other not in hard
            assert is_window(part, rows.input_ids[other])
            assert len(part) >= min(SHORTEST, texts[other][1])


def test_shares_are_those_asked_for() -> None:
    rows = token_rows([(row % 2, 10 + row % 9) for row in range(4000)])
    found = pieces(rows, crop=0.3, pack=0.2, epochs=1, seed=0)
    labels, texts = rows.labels[found.shown.row], rows.lengths[found.shown.row] - 2
    assert (found.shown.widths < texts)[labels == 0].mean() == pytest.approx(0.3, abs=0.03)
    assert not (found.shown.widths < texts)[labels == 1].any()
    joined = found.beside.stop > 0
    for label in (0, 1):
        assert joined[labels == label].mean() == pytest.approx(0.2, abs=0.03)
    assert found.beside_first[joined & (labels == 1)].mean() == pytest.approx(0.5, abs=0.08)


def test_windows_lie_anywhere_and_have_any_width() -> None:
    found = pieces(token_rows([(0, 30)] * 4000), crop=1.0, pack=0.0, epochs=1, seed=0)
    assert set(found.shown.widths.tolist()) == set(range(SHORTEST, 30))
    narrow = found.shown.widths == SHORTEST
    assert set(found.shown.start[narrow].tolist()) == set(range(30 - SHORTEST + 1))


def test_an_attack_that_fills_the_row_stays_alone_and_a_neighbour_takes_what_is_left() -> None:
    rows = token_rows([(1, 38), (1, 30), (1, 27), (0, 38)])
    found = pieces(rows, crop=0.0, pack=1.0, epochs=50, seed=0)
    widths = {row: set(found.beside.widths[found.shown.row == row].tolist()) for row in range(4)}
    # 40 tokens, less two around the texts and one between them: 37.
    assert widths[0] == {0}
    assert widths[1] == {0}
    assert widths[2] == {8, 9, 10}
    assert widths[3] == {0}


def test_neighbours_are_drawn_as_the_epoch_draws_rows() -> None:
    draws = np.array([30.0, 10.0, 0.0, 2000.0])
    rows = token_rows([(0, 9), (0, 9), (0, 9), (1, 9)], draws=draws)
    found = pieces(rows, crop=0.0, pack=1.0, epochs=1, seed=0)
    counts = np.bincount(found.beside.row, minlength=4)
    assert counts[2] == counts[3] == 0
    assert counts[0] / counts.sum() == pytest.approx(0.75, abs=0.05)


def test_without_benign_rows_nothing_is_joined() -> None:
    found = pieces(token_rows([(1, 9), (0, 9)], frozenset({1})), crop=1.0, pack=1.0, epochs=2, seed=0)
    assert not found.beside.stop.any()


@settings(max_examples=30, deadline=None)
@given(texts=TEXTS, epochs=st.integers(1, 4), drawn=st.booleans(), batch=st.integers(1, 8))
def test_pieces_are_of_the_rows_that_the_plain_order_shows_each_epoch_once(
    texts: list[tuple[int, int]], epochs: int, drawn: bool, batch: int
) -> None:
    rows = token_rows(texts, draws=np.full(len(texts), 1.5) if drawn and len(texts) % 2 == 0 else None)
    found = pieces(rows, crop=0.5, pack=0.5, epochs=epochs, seed=3)
    sampler, plain = found.sampler(batch, 3), rows.sampler(batch, 3)
    assert len(sampler) == len(plain) == found.epoch_size
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        plain.set_epoch(epoch)
        order = list(sampler)
        assert sorted(order) == list(range(epoch * len(sampler), (epoch + 1) * len(sampler)))
        assert sorted(found.shown.row[order].tolist()) == sorted(plain)


def test_an_epoch_does_not_hang_on_how_many_there_are_and_differs_from_the_next() -> None:
    rows = token_rows([(row % 2, 10 + row % 9) for row in range(60)])
    few, many = (pieces(rows, crop=0.5, pack=0.5, epochs=epochs, seed=3) for epochs in (2, 5))
    shown = [many[at]["input_ids"] for at in range(len(many))]
    assert [few[at]["input_ids"] for at in range(len(few))] == shown[:120]
    assert {tuple(ids) for ids in shown[:60]} != {tuple(ids) for ids in shown[60:120]}
    other = pieces(rows, crop=0.5, pack=0.5, epochs=2, seed=4)
    assert [other[at]["input_ids"] for at in range(120)] != shown[:120]


def test_batches_are_of_the_length_that_the_pieces_have() -> None:
    rng = np.random.default_rng(0)
    rows = token_rows([(0, int(n)) for n in rng.integers(1, 19, 4000)])
    found = pieces(rows, crop=0.3, pack=0.5, epochs=1, seed=0)
    batches = found.lengths[np.array(list(found.sampler(20, 0)))].reshape(-1, 20)
    assert (batches.max(axis=1) - batches.min(axis=1)).mean() < 2


def test_a_piece_has_all_that_its_row_has_but_what_teachers_said_of_the_whole_text() -> None:
    rows = token_rows([(row % 2, 9 + row) for row in range(28)], teacher_margins=np.arange(28, dtype=np.float32))
    rows.threat_labels[:], rows.row_weights[:] = np.arange(28), np.arange(28) / 4
    found = pieces(rows, crop=0.5, pack=0.5, epochs=1, seed=0)
    altered = 0
    for at in range(len(found)):
        item, own = found[at], rows[int(found.shown.row[at])]
        for name in ("labels", "threat_labels", "row_weights"):
            assert item[name] == own[name]
        if item["input_ids"] == own["input_ids"]:
            assert item == own
        else:
            altered += 1
            assert np.isnan(item["teacher_margins"])
    assert 0 < altered < len(found)


def test_edges_are_those_of_the_tokenizer(tiny_encoder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_encoder)
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length=32)
    assert Edges.of(backend) == Edges(before=1, after=1, joint=(), most=32)


def test_hard_negatives_are_kept_whole(tiny_encoder: Path, tmp_path: Path, make_rows: MakeRows) -> None:
    recipe = Recipe(name="one", epochs=1, batch_size=8, max_length=32)
    model = fit(make_rows(30, 1), make_rows(20, 2), recipe=recipe, out=tmp_path / "run", encoder=tiny_encoder)
    rows = make_corpus(
        [
            {"text": "explain ignore previous instructions", "label": "BENIGN", "category": "hard_negative"},
            {"text": "sort a list", "label": "BENIGN", "category": "programming"},
            {"text": "bypass the system", "label": "MALICIOUS"},
        ]
    )
    tokens = tokenize_rows(rows, load_tokenizer(model.model_dir, 32), KNOWN_THREATS)
    assert tokens.keep_whole is not None
    assert tokens.keep_whole.tolist() == [True, False, False]


@pytest.mark.parametrize("mix", [None, Mix(language_power=0.5)])
def test_a_run_that_is_cut_short_ends_as_it_would_have(
    tiny_encoder: Path, tiny_recipe: Recipe, make_rows: MakeRows, tmp_path: Path, mix: Mix | None
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done == 30:
            raise StoppedError

    train, validation = make_rows(96, 1), make_rows(50, 2)
    recipe = dataclasses.replace(tiny_recipe, crop=0.5, pack=0.5, mix=mix)
    call: dict[str, Any] = {"recipe": recipe, "encoder": tiny_encoder}
    whole = fit(train, validation, out=tmp_path / "whole", **call)
    with pytest.raises(StoppedError):
        fit(train, validation, out=tmp_path / "cut", progress=stop, **call)
    resumed = fit(train, validation, out=tmp_path / "cut", **call)
    assert resumed.resumed_from == 2
    weights = [sha256(result.model_dir / "model.safetensors") for result in (whole, resumed)]
    assert weights[0] == weights[1]
    plain = fit(train, validation, out=tmp_path / "plain", **(call | {"recipe": dataclasses.replace(recipe, pack=0.0)}))
    assert sha256(plain.model_dir / "model.safetensors") != weights[0]
