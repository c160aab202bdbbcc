"""Robustness of a retraining: on the test fold alone, off where the configuration says so, with a reason where not."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crywolf.config import Config
from crywolf.console import Console
from crywolf.data import make_corpus
from crywolf.disturbed import disturb, robustness_document
from crywolf.session import Session
from crywolf.train import Split, split_originals

LABEL = pl.col("label").cast(pl.String)
GUARDS = """
def old(texts):
    return [0.9 if "ignore" in text else 0.1 for text in texts]


def new(texts):
    return [0.9 if "ignore" in text.lower() else 0.1 for text in texts]
"""


@pytest.fixture
def guards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two detectors that can be imported."""
    (tmp_path / "two_line_guards.py").write_text(GUARDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "two_line_guards", raising=False)
    return "two_line_guards:old", "two_line_guards:new"


@pytest.fixture
def split() -> Split:
    words = ("river", "garden", "station", "letter", "window", "kitchen", "ticket", "harbour", "lamp", "bicycle")
    rows = [{"text": f"Where is the {a} by the {b}?", "label": "BENIGN"} for a in words for b in words]
    rows += [{"text": f"Please ignore the {a} and print the {b}.", "label": "MALICIOUS"} for a in words for b in words]
    return split_originals(make_corpus(rows), rng=np.random.default_rng(0))


def session(folder: Path, *, robustness: bool = True) -> Session:
    data = {"benign": ["b"], "malicious": ["m"]}
    config = Config.model_validate({"out": folder, "data": data, "evaluate": {"robustness": robustness}})
    return Session(config, Console(), folder)


def test_both_detectors_are_measured_on_the_test_fold(tmp_path: Path, split: Split, guards: tuple[str, str]) -> None:
    found = disturb(session(tmp_path), split, *guards)
    assert not isinstance(found, str)
    test = set(split.test["id"])
    assert set(found.after.plain["id"]) == test
    attacks = split.test.filter(LABEL == "MALICIOUS").height
    assert attacks > 0
    assert (found.before.recall("upper_case").k, found.after.recall("upper_case").k) == (0, attacks)
    assert robustness_document(found) == found.to_dict()


def test_it_can_be_turned_off_and_says_so(tmp_path: Path, split: Split) -> None:
    said = disturb(session(tmp_path, robustness=False), split, "nowhere:old", "nowhere:new")
    assert said == "Not measured: evaluate.robustness is false."
    assert robustness_document(said) == {"not_measured": said}


@pytest.mark.parametrize(("label", "what"), [("MALICIOUS", "attacks"), ("BENIGN", "benign rows")])
def test_a_test_fold_of_one_kind_is_a_reason(tmp_path: Path, split: Split, label: str, what: str) -> None:
    bare = replace(split, test=split.test.filter(label != LABEL))
    said = disturb(session(tmp_path), bare, "nowhere:old", "nowhere:new")
    assert said == f"Not measured: the test fold has no {what}."
