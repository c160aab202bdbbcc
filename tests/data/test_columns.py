"""Mapped columns: a file with names of its own reads as if it had ours, in every kind of file."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crywolf.data import BadInput, Corpus, read_corpus
from crywolf.data.columns import Columns
from crywolf.data.lines import parse_json
from crywolf.data.schema import LooseRows

KINDS = ["a.jsonl", "a.csv", "a.parquet"]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

WORDS = st.text("abc ,\"'é", min_size=1, max_size=8).map(lambda text: f"w{text}w")
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "text": WORDS,
    "label": st.sampled_from(["BENIGN", "malicious", "1", "maybe"]),
    "category": st.sampled_from(["education", "obfuscated_command"]),
    "threat_type": st.sampled_from(["unknown", "OBFUSCATED_COMMAND"]),
    "source": WORDS,
    "id": WORDS,
    "weight": st.floats(0.5, 4, width=16),
    "confidence": st.floats(0, 1, width=16),
    "severity": WORDS,
    "notes": WORDS,
    "family": WORDS,
    "why_hard": WORDS,
    "shard": WORDS,
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows under our names, and for some of these the name that a file has instead."""
    names = ["text", "label", *draw(st.lists(st.sampled_from(list(FIELDS)[2:]), unique=True))]
    row = st.fixed_dictionaries({name: FIELDS[name] for name in names})
    rows = [{**draw(row), "label": "BENIGN"}, *draw(st.lists(row, max_size=4))]
    mapped = draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    return rows, {name: f"their {name}" for name in mapped}


def write(rows: list[dict[str, Any]], path: Path) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pl.DataFrame(rows, infer_schema_length=None).write_csv(path)
    else:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    return path


def read(path: Path, columns: dict[str, str] | None = None, **more: Any) -> Corpus:
    return read_corpus(path, max_rejected=1.0, columns=columns, **more)


def other(corpus: Corpus) -> list[dict[str, Any] | None]:
    return [json.loads(text) if text else None for text in corpus.frame["extra"].struct.field("other")]


def same(one: Corpus, two: Corpus) -> None:
    assert one.frame.drop("extra").equals(two.frame.drop("extra"))
    # As dicts, for a struct that says nothing is not equal to none at all.
    assert one.frame["extra"].to_list() == two.frame["extra"].to_list()
    said = ("line", "column", "reason")
    assert one.rejected.select(said).equals(two.rejected.select(said))
    assert one.format == two.format


@pytest.mark.parametrize("name", KINDS)
@QUICK
@given(table=tables())
def test_a_file_with_names_of_its_own_reads_as_one_with_ours(
    tmp_path: Path, name: str, table: tuple[list[dict[str, Any]], dict[str, str]]
) -> None:
    rows, theirs = table
    renamed = [{theirs.get(key, key): value for key, value in row.items()} for row in rows]
    ours = read(write(rows, tmp_path / name))
    same(ours, read(write(renamed, tmp_path / name), {column: field for field, column in theirs.items()}))


@QUICK
@given(table=tables())
def test_it_does_so_where_only_a_look_at_each_row_helps(
    tmp_path: Path, table: tuple[list[dict[str, Any]], dict[str, str]]
) -> None:
    rows, theirs = table
    rows = [*rows, {"text": 7, "label": 0}, {"text": "t", "label": 1, "weight": [1]}, {"text": "u", "label": 0}]
    renamed = [{theirs.get(key, key): value for key, value in row.items()} for row in rows]
    ours = read(write(rows, tmp_path / "a.jsonl"))
    assert ours.rejected.height >= 2
    same(ours, read(write(renamed, tmp_path / "a.jsonl"), {column: field for field, column in theirs.items()}))


NAMED = ["text", "prompt", "label", "weight", "confidence", "notes", "message", "score", "meta", "shard"]
VALUE = st.one_of(st.none(), st.sampled_from(["a", "1", ""]), st.integers(0, 2), st.lists(st.just("x"), max_size=1))


@settings(deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(NAMED), VALUE), min_size=1, max_size=5),
    targets=st.permutations(["weight", "confidence", "notes", "fresh", "shard"]),
)
def test_json_at_once_and_row_by_row_map_alike(rows: list[dict[str, Any]], targets: list[str]) -> None:
    columns = Columns.of({"message": "text", **dict(zip(["score", "meta"], targets, strict=False))})
    parsed = parse_json(b"".join(json.dumps(row).encode() + b"\n" for row in rows), columns)
    expected = LooseRows.collect(rows, columns.row, columns.aside)
    assert parsed.loose.drop("extra").equals(expected.frame.drop("extra"))
    assert [_plain(extra) for extra in parsed.loose["extra"]] == [_plain(extra) for extra in expected.frame["extra"]]
    assert [rejection.place.line for rejection in parsed.bad] == [place + 1 for place, _ in expected.bad]


def _plain(extra: dict[str, Any] | None) -> dict[str, Any]:
    said = {name: value for name, value in (extra or {}).items() if value is not None}
    return {**said, "other": json.loads(said["other"])} if "other" in said else said


# --- what a mapped column is from there on ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_numbers_stay_numbers_and_the_old_name_goes(tmp_path: Path, name: str) -> None:
    path = write([{"message": "a", "verdict": 1, "score": 0.25, "boost": 2.5}], tmp_path / name)
    corpus = read(path, {"message": "prompt", "verdict": "label", "score": "confidence", "boost": "weight"})
    row = corpus.frame.row(0, named=True)
    assert (row["text"], row["label"], row["weight"], row["extra"]["confidence"]) == ("a", "MALICIOUS", 2.5, 0.25)
    assert other(corpus) == [None]


@pytest.mark.parametrize("name", KINDS)
def test_a_name_that_the_contract_knows_can_be_mapped_from(tmp_path: Path, name: str) -> None:
    path = write([{"text": "a", "label": 0, "notes": "n", "id": "7"}], tmp_path / name)
    row = read(path, {"notes": "why_hard", "id": "source"}).frame.row(0, named=True)
    assert (row["source"], row["external_id"]) == ("7", None)
    assert (row["extra"]["why_hard"], row["extra"]["notes"]) == ("n", None)


@pytest.mark.parametrize("name", KINDS)
def test_two_columns_may_change_places(tmp_path: Path, name: str) -> None:
    path = write([{"text": "c", "category": "t", "label": 0}], tmp_path / name)
    corpus = read(path, {"text": "category", "category": "text"})
    assert corpus.frame.select("text", "category").rows() == [("t", "c")]
    assert other(corpus) == [None]


@pytest.mark.parametrize("name", KINDS)
def test_threat_types_come_from_the_mapped_category_and_label(tmp_path: Path, name: str) -> None:
    path = write([{"text": "a", "verdict": "1", "topic": "OBFUSCATED_COMMAND"}], tmp_path / name)
    assert read(path, {"verdict": "label", "topic": "category"}).frame["threat_type"][0] == "obfuscated_command"


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_the_shape_is_told_by_the_mapped_names(tmp_path: Path, name: str) -> None:
    path = write([{"text": "a", "label": 1, "kin": "semantic_jailbreak", "notes": "n"}], tmp_path / name)
    corpus = read(path, {"kin": "family"})
    assert corpus.format == "master"
    assert corpus.frame["threat_type"][0] == "semantic_jailbreak"


@pytest.mark.parametrize("name", KINDS)
def test_a_target_beyond_the_contract_is_kept_under_its_name(tmp_path: Path, name: str) -> None:
    path = write([{"text": "a", "label": 0, "blocked": True, "notes": "n"}], tmp_path / name)
    corpus = read(path, {"blocked": "flagged", "notes": "remark"})
    yes = "true" if name == "a.csv" else True
    assert other(corpus) == [{"flagged": yes, "remark": "n"}]
    assert corpus.frame["extra"][0]["notes"] is None


# --- a file that has the target's name too ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_the_mapped_column_wins_and_the_other_is_kept(tmp_path: Path, name: str) -> None:
    rows = [
        {"message": "a", "text": "old", "prompt": "older", "label": 0, "notes": "n", "remark": "r", "weight": "x"},
        {"message": "b", "text": None, "prompt": None, "label": 0, "notes": None, "remark": None, "weight": None},
    ]
    corpus = read(write([{**row, "boost": 2} for row in rows], tmp_path / name),
                  {"message": "text", "remark": "notes", "boost": "weight"})  # fmt: skip
    assert corpus.frame["text"].to_list() == ["a", "b"]
    assert corpus.frame["weight"].to_list() == [2, 2]
    assert corpus.frame["extra"].struct.field("notes").to_list() == ["r", None]
    assert other(corpus) == [{"text": "old", "prompt": "older", "notes": "n", "weight": "x"}, None]


@pytest.mark.parametrize("name", KINDS)
def test_an_empty_mapped_value_is_not_filled_from_the_other_column(tmp_path: Path, name: str) -> None:
    rows = [{"message": "a", "text": "old", "label": 0}, {"message": None, "text": "old", "label": 0}]
    corpus = read(write(rows, tmp_path / name), {"message": "text"})
    assert corpus.frame["text"].to_list() == ["a"]
    assert corpus.rejected.select("column", "reason").rows() == [("text", "no text")]


@pytest.mark.parametrize("name", KINDS)
def test_where_both_would_stand_in_one_place_the_mapped_one_does(tmp_path: Path, name: str) -> None:
    rows = [{"text": t, "label": 0, "blocked": b, "flagged": "old"} for t, b in (("a", "new"), ("b", None))]
    assert other(read(write(rows, tmp_path / name), {"blocked": "flagged"})) == [{"flagged": "new"}, None]


def test_what_gives_way_may_be_nested_and_join_what_was_kept_before(tmp_path: Path) -> None:
    row = {"text": "a", "label": 0, "extra": {"other": '{"x": 1}'}, "threats": {"odd": [1, None]}, "hits": []}
    corpus = read(write([row], tmp_path / "a.jsonl"), {"hits": "threats"})
    assert other(corpus) == [{"x": 1, "threats": {"odd": [1, None]}}]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("two", [{"a": "text", "b": "text"}, {"a": "text", "b": "prompt"}, {"a": "zz", "b": "zz"}])
def test_two_columns_for_one_are_refused_before_the_file_is_opened(tmp_path: Path, two: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="columns a and b are both mapped to"):
        read_corpus(tmp_path / "none.jsonl", columns=two)


@pytest.mark.parametrize("name", KINDS)
def test_a_mapped_column_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    path = write([{"text": "a", "label": 0}], tmp_path / name)
    with pytest.raises(BadInput, match="no column message; its columns are: text, label") as caught:
        read(path, {"message": "text"})
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("name", KINDS)
def test_mapping_the_text_away_leaves_no_text(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="no column text or prompt"):
        read(write([{"text": "a", "label": 0}], tmp_path / name), {"text": "notes"})


@pytest.mark.parametrize("name", KINDS)
def test_a_mapped_value_is_judged_as_any_other(tmp_path: Path, name: str) -> None:
    rows = [{"text": "a", "label": 0, "boost": "2"}, {"text": "b", "label": 0, "boost": "-1"}]
    corpus = read(write(rows, tmp_path / name), {"boost": "weight"})
    assert corpus.frame["weight"].to_list() == [2]
    assert corpus.rejected.select("column").rows() == [("weight",)]


def test_a_harness_result_cannot_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"fp_details": [{"prompt": "p"}]}')
    with pytest.raises(BadInput, match="fixed names, question cannot be mapped"):
        read(path, {"question": "prompt"})


def test_rows_that_say_prompt_and_rows_that_say_text_mix_in_one_file(tmp_path: Path) -> None:
    lines = [
        {"text": "one", "label": 0},
        {"prompt": "two", "label": 0},
        {"text": "three", "prompt": "other", "label": 0},
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = read_corpus(path)
    assert found.frame["text"].to_list() == ["one", "two", "three"]
    assert found.rejected.is_empty()
    others = found.frame["extra"].struct.field("other").to_list()
    assert [None if other is None else json.loads(other) for other in others] == [None, None, {"prompt": "other"}]
