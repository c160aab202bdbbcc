import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "recipes"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """benchmarks/recipes as `python benchmarks/recipes` runs it: its modules are no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        for name in ("tables", "world"):  # benchmarks/augment has modules of these names too
            patch.delitem(sys.modules, name, raising=False)
        spec = importlib.util.spec_from_file_location("bench_recipes", FOLDER / "__main__.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        for name in ("tables", "world"):
            del sys.modules[name]


@pytest.fixture
def tables(bench: ModuleType) -> ModuleType:
    return bench.tables


def run(fold: str, benign: list[float], attacks: list[float], *, held: bool = True) -> dict[str, Any]:
    """Margins of a screened recipe as its file holds them; rates on ood_dev and the held-out sources are alike."""
    scores = {"ood_dev: a": benign, "ood_dev: b (attacks)": attacks}
    scores |= {"held: a": benign, f"held: {'b' if held else 'bipia'} (attacks)": attacks}
    suites = dict.fromkeys(("over-defense suite", "programming suite", "edge-case suite"), benign)
    return {"fold": fold, "recipe": {}, "rows": 4, "seconds": 10.0, "scores": {**scores, **suites}}


def half(fold: str, **how: bool) -> dict[str, Any]:
    return run(fold, [0.0, 2.0], [1.0, 1.0], **how)


def none(fold: str, **how: bool) -> dict[str, Any]:
    return run(fold, [0.0, 0.0], [1.0, 1.0], **how)


def lines_of(folder: Path, tables: ModuleType, runs: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """The page's cells by their first, of runs by the name of their file."""
    for name, content in runs.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    tables.write(folder, folder / "docs")
    page = (folder / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    return {cells[0]: cells[1:] for cells in rows}


def test_each_fold_has_its_columns_and_the_means_follow(tmp_path: Path, tables: ModuleType) -> None:
    runs = {"screen-2-one": half("2"), "screen-3-one": none("3"), "screen-2-two": none("2"), "screen-3-two": none("3")}
    found = lines_of(tmp_path, tables, runs)
    assert found["recipe"][1:5] == [
        "held-out sources, fold 2",
        "ood_dev, fold 2",
        "held-out sources, fold 3",
        "ood_dev, fold 3",
    ]
    assert found["one"][1:5] == ["50.0%", "50.0%", "0.0%", "0.0%"]
    assert set(found["one"][5:]) == {"25.0%"}
    assert list(found).index("two") < list(found).index("one")  # the better mean first


def test_a_recipe_that_misses_a_fold_has_no_mean_and_stands_last(tmp_path: Path, tables: ModuleType) -> None:
    runs = {"screen-2-one": half("2"), "screen-3-one": half("3"), "screen-2-two": none("2")}
    found = lines_of(tmp_path, tables, runs)
    assert found["two"][1:] == ["0.0%", "0.0%", *["-"] * 7]
    assert list(found)[-1] == "two"


def test_files_without_a_fold_in_their_name_stand_apart(tmp_path: Path, tables: ModuleType) -> None:
    found = lines_of(tmp_path, tables, {"screen-one": half("2"), "screen-2-one": none("2")})
    columns = dict(zip(found["recipe"], found["one"], strict=True))
    assert columns["ood_dev, fold 2"] == "0.0%"
    assert columns["ood_dev, fold 2 (earlier data)"] == "50.0%"
    assert columns["mean: ood_dev"] == "0.0%"


def test_a_fold_of_attacks_by_place_alone_has_no_rate_of_its_own(tmp_path: Path, tables: ModuleType) -> None:
    found = lines_of(tmp_path, tables, {"screen-5-one": half("5", held=False), "screen-2-one": half("2")})
    columns = dict(zip(found["recipe"], found["one"], strict=True))
    assert columns["held-out sources, fold 5"] == "-"
    assert columns["mean: held-out sources"] == "50.0%"


def screening(tmp_path: Path, **more: Any) -> argparse.Namespace:
    return argparse.Namespace(out=tmp_path, corpus=tmp_path, grown=tmp_path, seed=0, rows=8, only=None, **more)


def test_recipes_are_screened_on_every_fold_under_its_name(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []
    monkeypatch.setattr(bench, "measure", lambda a, name, fold, values: asked.append((name, fold, values.get("kind"))))
    bench.screen(screening(tmp_path, fold=["3", "2", "3"]))
    assert {fold for _, fold, _ in asked} == {"2", "3"}
    assert len(asked) == len(set(asked))
    assert ("screen-3-probe", "3", "probe") in asked
    assert ("screen-2-probe", "2", "probe") in asked
    asked.clear()
    bench.screen(screening(tmp_path, fold=None))
    assert {fold for _, fold, _ in asked} == {"2"}


def test_an_ensemble_is_the_mean_of_the_margins_of_the_models_screened_on_its_fold(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benign = pl.DataFrame({"text": ["a", "bb"], "label": ["BENIGN", "MALICIOUS"]})
    held = {"x": benign}
    monkeypatch.setattr(bench.world, "load", lambda *_: SimpleNamespace(suites={}))
    monkeypatch.setattr(
        bench.world, "fold", lambda *_, **__: SimpleNamespace(held=held, train=benign, validation=benign)
    )
    factor = {"one": 1.0, "two": 3.0}

    def loaded(folder: Path) -> SimpleNamespace:
        by = factor[folder.parent.name.removeprefix("screen-3-")]
        return SimpleNamespace(margins=lambda texts: np.array([len(text) * by for text in texts]))

    monkeypatch.setattr(bench.TrainedModel, "load", loaded)
    entry = {"kind": "ensemble", "of": ["one", "two"]}
    arguments = screening(tmp_path)
    (tmp_path / "models" / "screen-3-one" / "model").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"screen-3-two.*screen 'two' on fold 3 first"):
        bench.measure(arguments, "screen-3-both", "3", entry)
    (tmp_path / "models" / "screen-3-two" / "model").mkdir(parents=True)
    monkeypatch.setattr(bench, "read_corpus", lambda *_: None)
    bench.measure(arguments, "screen-3-both", "3", entry)
    kept = json.loads((tmp_path / "screen-3-both.json").read_text(encoding="utf-8"))
    assert kept["fold"] == "3"
    assert kept["scores"]["held: x"] == [2.0, 4.0]
    assert entry == {"kind": "ensemble", "of": ["one", "two"]}  # the next fold reads it again


def test_every_model_that_an_entry_names_is_an_entry_before_it(bench: ModuleType) -> None:
    recipes = bench.yaml.safe_load(bench.RECIPES.read_text(encoding="utf-8"))
    names = list(recipes)
    for place, (name, values) in enumerate(recipes.items()):
        for other in (*values.get("of", ()), *values.get("teachers", ())):
            assert other in names[:place], name
            assert recipes[other].get("kind", "fine-tune") == "fine-tune", name
