"""Recipes: the handoff's numbers, checks of values and types, configuration sections with helpful errors."""

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data import BadInput
from crywolf.train.learn.recipes import BROAD, FULL, QUICK, RECIPES, Recipe, find_recipe


def test_full_is_the_handoffs_recipe_with_the_weight_on_benign() -> None:
    assert (FULL.epochs, FULL.batch_size, FULL.learning_rate, FULL.weight_decay) == (10, 32, 2e-5, 0.01)
    assert (FULL.warmup_steps, FULL.patience) == (1000, 3)
    assert FULL.class_weights == (1.5, 1.0)
    assert 0.1 <= FULL.dropout <= 0.2


def test_quick_is_smaller_and_differs_only_in_cost() -> None:
    assert QUICK.epochs < FULL.epochs
    assert QUICK.freeze_layers > 0
    assert QUICK.class_weights == FULL.class_weights
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {
        name: name for name in ("full", "quick", "broad", "incremental")
    }


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"unknown recipe 'quik'; did you mean 'quick'"):
        find_recipe("quik")


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"unknown key 'learning_rat'; did you mean 'learning_rate'"):
        Recipe.from_mapping({"learning_rat": 1e-5})


def test_unknown_class_names_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"'bening'; did you mean 'BENIGN'"):
        Recipe.from_mapping({"class_weights": {"bening": 2.0}})


def test_mapping_starts_from_the_named_recipe() -> None:
    recipe = Recipe.from_mapping({"base": "quick", "epochs": 5, "class_weights": {"BENIGN": 3, "malicious": 0.5}})
    assert recipe == dataclasses.replace(QUICK, epochs=5, benign_weight=3, malicious_weight=0.5)


def test_yaml_numbers_that_yaml_takes_for_strings_are_numbers() -> None:
    section = yaml.safe_load("learning_rate: 2e-5\nfp_target: 5e-3")
    assert isinstance(section["learning_rate"], str)
    recipe = Recipe.from_mapping(section)
    assert (recipe.learning_rate, recipe.fp_target) == (2e-5, 5e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dropout", 0.51),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", True),
        ("batch_size", "32"),
        ("benign_weight", 0.0),
        ("focal_gamma", -1.0),
        ("learning_rate", "fast"),
        ("precision", "fp16"),
        ("threshold_bound", "lower"),
        ("freeze_embeddings", 1),
        ("min_recall", 1.5),
        ("crop", 1.5),
        ("pack", -0.1),
        ("distill", 1.1),
        ("distill_temperature", 0.0),
        ("pretrain", "all"),
        ("pretrain", True),
        ("pretrain_rows", -1),
        ("contrastive_rows", 0.5),
        ("contrastive_negatives", 0),
        ("contrastive_temperature", 0.0),
    ],
)
def test_bad_values_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadInput, match=field):
        Recipe.from_mapping({field: value})


def test_rows_to_pretrain_on_need_a_slice_to_come_from() -> None:
    with pytest.raises(BadInput, match="pretrain_rows is 500, but pretrain names no slice"):
        Recipe(pretrain_rows=500)
    assert Recipe.from_mapping({"pretrain_rows": 500, "pretrain": "technical"}).pretrain == "technical"
    assert Recipe.from_mapping({"pretrain": None}) == FULL


def test_mapping_round_trip() -> None:
    assert Recipe.from_mapping(QUICK.to_mapping()) == QUICK


def test_a_recipe_of_an_earlier_version_is_read_with_the_options_that_it_lacks_off() -> None:
    mapping = BROAD.to_mapping()
    for name in ("crop", "pack"):
        assert mapping.pop(name) == 0
    assert mapping["mix"].pop("language_power") == 1
    assert Recipe.from_mapping(mapping) == BROAD


@pytest.mark.parametrize("off", [0, 0.0])
def test_a_recipe_of_an_earlier_version_is_read_without_the_options_that_are_gone(off: float) -> None:
    assert Recipe.from_mapping({**QUICK.to_mapping(), "cue_dropout": off, "r_drop": off}) == QUICK


@pytest.mark.parametrize("name", ["cue_dropout", "r_drop"])
@pytest.mark.parametrize("value", [0.2, 1, True, False, None, "0.2", float("nan")])
def test_an_option_that_is_gone_is_refused_where_it_was_in_use(name: str, value: object) -> None:
    with pytest.raises(BadInput, match=rf"recipe: {name} is {value!r}, but there is no such option any more"):
        Recipe.from_mapping({name: value})


def test_warmup_is_capped_and_says_so() -> None:
    assert FULL.warmup(20_000) == (1000, None)
    steps, note = FULL.warmup(500)
    assert steps == 50
    assert note is not None
    assert "1,000" in note
    assert "50" in note


@given(total=st.integers(1, 10**6), warmup=st.integers(0, 10**5), cap=st.floats(0, 1))
def test_warmup_never_exceeds_its_share(total: int, warmup: int, cap: float) -> None:
    steps, note = Recipe(warmup_steps=warmup, warmup_cap=cap).warmup(total)
    assert 0 <= steps <= warmup
    assert steps <= total * cap
    assert (note is None) == (steps == warmup)
