"""The steps before the classifier's training: what they move, which rows they show, and that they are done once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.data import BadInput, CrywolfError, check_corpus
from crywolf.train import FitResult, Recipe, fit
from crywolf.train.learn import warmup
from crywolf.train.learn.batches import TokenRows, tokenize_rows
from crywolf.train.learn.model import KNOWN_THREATS, load_tokenizer, sha256
from crywolf.train.learn.network import ThreatClassifier, freeze, pretrained_classifier
from crywolf.train.learn.warmup import Warmed, hard_negatives, is_hard, pooled_vectors, warm_up
from crywolf.train.rows.mix import Mix

MakeRows = Callable[..., pl.DataFrame]
CONTRASTIVE = {"contrastive_rows": 1500, "contrastive_learning_rate": 2e-3}
PRETRAIN = {"pretrain": "benign", "pretrain_rows": 1500, "pretrain_learning_rate": 1e-3}
BOTH = {**CONTRASTIVE, **PRETRAIN}


@dataclasses.dataclass(frozen=True)
class Scene:
    """A training table in which benign rows with hostile words are marked as hard negatives."""

    encoder: Path
    recipe: Recipe
    frame: pl.DataFrame
    validation: pl.DataFrame

    def network(self, **frozen: Any) -> ThreatClassifier:
        torch.manual_seed(0)
        network = pretrained_classifier(str(self.encoder), n_threats=len(KNOWN_THREATS), dropout=self.recipe.dropout)
        freeze(network, embeddings=frozen.get("embeddings", False), layers=frozen.get("layers", 0))
        return network

    def rows(self, **mix: Any) -> TokenRows:
        return tokenize_rows(self.frame, load_tokenizer(self.encoder, 32), KNOWN_THREATS, **mix)

    def warm(self, network: ThreatClassifier, rows: TokenRows | None = None, seed: int = 0, **recipe: Any) -> Warmed:
        found = warm_up(
            network,
            self.frame,
            self.rows() if rows is None else rows,
            recipe=dataclasses.replace(self.recipe, **recipe),
            pad_id=0,
            seed=seed,
            bf16=False,
            log=lambda _: None,
        )
        return found[-1]

    def vectors(self, network: ThreatClassifier, positions: Any) -> Any:
        return pooled_vectors(network, self.rows(), np.asarray(positions), pad_id=0)

    def fit(self, out: Path, **changes: Any) -> FitResult:
        recipe = dataclasses.replace(self.recipe, epochs=2, **changes.pop("recipe", {}))
        return fit(self.frame, self.validation, recipe=recipe, out=out, encoder=self.encoder, **changes)


@pytest.fixture(scope="session")
def scene(tiny_encoder: Path, tiny_recipe: Recipe, make_rows: MakeRows) -> Scene:
    attacks, calm, near = make_rows(60, 1, 1.0), make_rows(90, 2, 0.0), make_rows(30, 3, 1.0)
    twins = near.with_columns(
        label=pl.lit("BENIGN").cast(near.schema["label"]),
        threat_type=pl.lit(None).cast(near.schema["threat_type"]),
        category=pl.lit("hard_negative"),
    )
    frame = check_corpus(pl.concat([attacks, calm, twins])).sort("id")
    return Scene(tiny_encoder, tiny_recipe, frame, make_rows(50, 4))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The positions of the rows in each batch that is learned from."""
    batches: list[set[int]] = []
    really = warmup._Loop.vectors

    def vectors(self: Any, batch: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            batches.append(set(batch.tolist()))
        return really(self, batch)

    monkeypatch.setattr(warmup._Loop, "vectors", vectors)
    return batches


def _parts(scene: Scene) -> tuple[Any, Any, Any]:
    """Positions of attacks, of marked hard negatives, of the other benign rows."""
    labels, hard = scene.rows().labels, is_hard(scene.frame)
    return np.flatnonzero(labels == 1), np.flatnonzero(hard), np.flatnonzero((labels == 0) & ~hard)


def _within(vectors: Any) -> float:
    """Mean cosine of different rows."""
    cosines = vectors @ vectors.T
    return float(cosines[~np.eye(len(cosines), dtype=bool)].mean())


def _bytes(network: torch.nn.Module) -> list[bytes]:
    return [weight.cpu().numpy().tobytes() for weight in network.state_dict().values()]


def test_attacks_draw_together_and_apart_from_their_hard_negatives(scene: Scene) -> None:
    network = scene.network()
    attacks, hard, calm = _parts(scene)
    before = [scene.vectors(network, part) for part in (attacks, hard, calm)]
    warmed = scene.warm(network, **CONTRASTIVE)
    after = [scene.vectors(network, part) for part in (attacks, hard, calm)]
    assert warmed.losses[-5:].mean() < warmed.losses[:5].mean()
    assert warmed.rows == pytest.approx(1500, rel=0.3)  # attacks share neighbours
    benign = [np.vstack(vectors[1:]) for vectors in (before, after)]
    assert _within(after[0]) - (after[0] @ benign[1].T).mean() > _within(before[0]) - (before[0] @ benign[0].T).mean()
    assert _within(after[0]) > _within(before[0])
    assert (after[0] @ after[1].T).mean() < (before[0] @ before[1].T).mean()


def test_every_attack_meets_its_nearest_marked_and_unmarked_rows(scene: Scene, shown: list[set[int]]) -> None:
    network = scene.network()
    attacks, hard, calm = _parts(scene)
    vectors = scene.vectors(network, np.arange(scene.frame.height))
    nearest = [part[(vectors[attacks] @ vectors[part].T).argmax(axis=1)] for part in (hard, calm)]
    scene.warm(network, **CONTRASTIVE)
    places = {int(at): {int(part[n]) for part in nearest} for n, at in enumerate(attacks)}
    met = [at for batch in shown for at in batch & set(places)]
    assert set(met) == set(places)
    assert all(places[at] <= batch for batch in shown for at in batch & set(places))
    assert all(len(batch & set(places)) >= 2 for batch in shown)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 6), marked=st.lists(st.booleans(), min_size=1, max_size=9), k=st.integers(1, 5))
def test_hard_negatives_are_the_nearest_of_either_kind(n: int, marked: list[bool], k: int) -> None:
    rng = np.random.default_rng(n * 100 + len(marked) * 10 + k)
    made = rng.normal(size=(n + len(marked), 4)).astype(np.float32)
    unit = made / np.linalg.norm(made, axis=1, keepdims=True)
    attacks, benign, mask = unit[:n], unit[n:], np.array(marked)
    found = hard_negatives(attacks, benign, mask, k)
    assert found.shape == (n, min(k, len(marked)))
    for attack, near in zip(attacks, found, strict=True):
        assert len(set(near)) == len(near)
        for kind in (mask, ~mask):
            order = [at for at in np.argsort(-(benign @ attack), kind="stable") if kind[at]]
            chosen = [at for at in near if kind[at]]
            assert chosen == order[: len(chosen)]
        expected = min(int(mask.sum()), max((k + 1) // 2, k - int((~mask).sum())))
        assert int(mask[near].sum()) == expected


def test_rows_say_that_they_are_hard(make_rows: MakeRows) -> None:
    frame = make_rows(3, 5, 0.0).with_columns(
        how=pl.Series(["mined:nearest 0.81", None, "typo"]), category=pl.Series([None, "hard_negative", "programming"])
    )
    assert is_hard(frame).tolist() == [True, True, False]


def test_pretraining_lowers_its_loss(scene: Scene) -> None:
    warmed = scene.warm(scene.network(), **PRETRAIN)
    assert warmed.rows == pytest.approx(1500, rel=0.1)
    assert warmed.losses[-5:].mean() < warmed.losses[:5].mean()


def test_passes_differ_by_a_dropout_of_their_own_that_is_put_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = dataclasses.replace(scene, recipe=dataclasses.replace(scene.recipe, dropout=0.0)).network()
    shares = [module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)]
    assert set(shares) == {0.0}
    really, apart = warmup.ranking_loss, []

    def loss(once: torch.Tensor, again: torch.Tensor, **options: Any) -> torch.Tensor:
        apart.append((once - again).abs().amax(dim=1).min().item())
        return really(once, again, **options)

    monkeypatch.setattr(warmup, "ranking_loss", loss)
    scene.warm(network, **PRETRAIN)
    assert min(apart) > 0.01
    assert [module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)] == shares


@pytest.mark.parametrize(("name", "expected"), [("technical", {0, 1}), ("benign", {0, 1, 2, 3})])
def test_a_slice_holds_rows_of_ones_own(
    scene: Scene, make_rows: MakeRows, shown: list[set[int]], name: str, expected: set[int]
) -> None:
    benign, attack = make_rows(7, 6, 0.0), make_rows(2, 7, 1.0)
    frame = pl.concat([benign, attack]).with_columns(
        category=pl.Series(["programming", "technical_docs", "education", None, *["programming"] * 5]),
        source=pl.Series(["mine", None, "mine", "mine", "breadth", "augmented", "mine", "mine", "mine"]),
        origin_id=pl.Series([None] * 6 + ["0123456789abcdef"] + [None] * 2, dtype=pl.String),
    )
    scene = dataclasses.replace(scene, frame=frame)
    scene.warm(scene.network(), pretrain=name)
    assert set().union(*shown) == expected


def test_rows_that_training_never_draws_are_not_shown(scene: Scene, shown: list[set[int]]) -> None:
    silent = np.arange(scene.frame.height) % 3 == 0
    weights = pl.Series(np.where(silent, 0.0, 1.0).astype(np.float32))
    weighted = dataclasses.replace(scene, frame=scene.frame.with_columns(weight=weights))
    weighted.warm(scene.network(), **BOTH)
    assert shown
    assert not set().union(*shown) & set(np.flatnonzero(silent).tolist())
    shown.clear()
    scene.warm(scene.network(), scene.rows(mix=Mix(hard=0.0)), **CONTRASTIVE)
    assert not set().union(*shown) & set(_parts(scene)[1].tolist())


def test_pools_are_no_larger_than_asked_for(scene: Scene, shown: list[set[int]]) -> None:
    scene.warm(scene.network(), **CONTRASTIVE, contrastive_pool=20)
    attacks, hard, calm = (set(part.tolist()) for part in _parts(scene))
    seen = set().union(*shown)
    assert len(seen & attacks) == 20
    assert len(seen & hard) <= 10
    assert len(seen & calm) <= 10


@pytest.mark.parametrize("step", [PRETRAIN, CONTRASTIVE])
def test_heads_and_frozen_layers_stay_and_the_rest_learns(scene: Scene, step: dict[str, Any]) -> None:
    network = scene.network(embeddings=True, layers=1)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    scene.warm(network, **step)
    moved = {name for name, weight in network.named_parameters() if not torch.equal(weight.cpu(), before[name])}
    assert any("layer.1." in name for name in moved)
    assert all("layer.1." in name for name in moved)
    assert all(weight.grad is None for weight in network.parameters())


def test_the_seed_decides_and_the_callers_randomness_is_left_alone(scene: Scene) -> None:
    networks = [scene.network() for _ in range(3)]
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    scene.warm(networks[0], **BOTH)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(12)
    scene.warm(networks[1], **BOTH)
    scene.warm(networks[2], **BOTH, seed=1)
    first, again, other = map(_bytes, networks)
    assert first == again
    assert first != other


def test_what_cannot_be_done_is_said(scene: Scene) -> None:
    with pytest.raises(BadInput, match=r"pretrain 'technical' finds 0 benign rows.*there are: hard_negative"):
        scene.warm(scene.network(), pretrain="technical")
    with pytest.raises(BadInput, match="whole encoder is frozen"):
        scene.warm(scene.network(embeddings=True, layers=2), **CONTRASTIVE)
    with pytest.raises(BadInput, match="finds no MALICIOUS rows"):
        scene.warm(scene.network(), scene.rows(mix=Mix(original_malicious=0.0)), **CONTRASTIVE)
    network = scene.network()
    next(reversed(list(network.encoder.parameters()))).data.fill_(float("nan"))
    with pytest.raises(CrywolfError, match="warm-up diverged: the loss is nan at step 1"):
        scene.warm(network, **PRETRAIN)


@pytest.fixture(scope="session")
def whole(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A fit with both steps that nothing interrupted."""
    return scene.fit(tmp_path_factory.mktemp("warmed") / "run", recipe=BOTH)


class StoppedError(Exception):
    """Raised from a callback to end a training in the middle."""


@pytest.mark.parametrize(("at", "read_back"), [(1, 1), (20, 1), (30, 0)])
def test_a_resumed_fit_does_not_warm_up_again(
    scene: Scene, whole: FitResult, tmp_path: Path, at: int, read_back: int
) -> None:
    def stop(step: int, _: int) -> None:
        if step == at:
            raise StoppedError

    first: list[str] = []
    with pytest.raises(StoppedError):
        scene.fit(tmp_path / "run", recipe=BOTH, progress=stop, log=first.append)
    done = [line.partition(":")[0] for line in first if " steps, loss " in line]
    assert done == ["pretraining on benign text", "contrastive warm-up"]
    lines: list[str] = []
    result = scene.fit(tmp_path / "run", recipe=BOTH, log=lines.append)
    assert not [line for line in lines if " steps, loss " in line]
    assert lines.count("warm-up: done before, read back") == read_back
    assert sha256(result.model_dir / "model.safetensors") == sha256(whole.model_dir / "model.safetensors")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_interrupted_while_warming_up_it_ends_the_same(scene: Scene, whole: FitResult, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if line.startswith("contrastive warm-up"):
            raise StoppedError

    with pytest.raises(StoppedError):
        scene.fit(tmp_path / "run", recipe=BOTH, log=stop)
    result = scene.fit(tmp_path / "run", recipe=BOTH)
    assert sha256(result.model_dir / "model.safetensors") == sha256(whole.model_dir / "model.safetensors")


def test_a_recipe_that_does_not_ask_gets_none(
    scene: Scene, whole: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warmup, "warm_up", lambda *_, **__: pytest.fail("warmed up"))
    result = scene.fit(tmp_path / "run")
    assert sha256(result.model_dir / "model.safetensors") != sha256(whole.model_dir / "model.safetensors")
