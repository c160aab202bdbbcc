import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crywolf.data import (
    THREAT_TYPES,
    BadInput,
    Corpus,
    check_target,
    empty_corpus,
    make_corpus,
    read_corpus,
    rejected_path,
    text_id,
    write_corpus,
    write_rejected,
)

NATIVE = ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz", "a.jsonl.zst", "a.csv.gz", "a.csv.zst"]
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CHARS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ANY = st.one_of(
    st.text(CHARS, max_size=20), st.sampled_from(["", '"', "\r\n", "null", "NaN", ",", "\\ud800", "\ufeff", "'"])
)
TEXT = st.one_of(
    st.text(CHARS, min_size=1, max_size=60), st.sampled_from(['say "hi", twice\n', "\ufeffx", "\\u0000", "{}"])
)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
MAYBE = st.one_of(st.none(), ANY)
THREAT = st.fixed_dictionaries({"rule_id": MAYBE, "severity": MAYBE, "confidence": st.none() | NUMBER, "layer": MAYBE})
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": TEXT.filter(lambda text: bool(text.strip())),
            "label": st.sampled_from(["BENIGN", "MALICIOUS"]),
            "category": st.one_of(MAYBE, st.sampled_from(THREAT_TYPES)),
            "subcategory": MAYBE,
            "threat_type": st.one_of(st.none(), st.sampled_from(THREAT_TYPES)),
            "source": st.text(CHARS, min_size=1, max_size=9),
            "origin_id": st.one_of(st.none(), st.just(text_id("x"))),
            "how": MAYBE,
            "external_id": MAYBE,
            "weight": st.floats(0, 2.0**100, width=32),
            "extra": st.one_of(
                st.none(),
                st.fixed_dictionaries(
                    {"confidence": st.none() | NUMBER, "notes": MAYBE, "family": MAYBE, "original_fp": MAYBE,
                     "threats": st.none() | st.lists(THREAT, max_size=2), "unheard": st.none() | NUMBER}
                ),
            ),
        }
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


@QUICK
@given(rows=ROWS, name=st.sampled_from(NATIVE))
def test_what_is_written_is_read_back_exactly(tmp_path: Path, rows: list[dict[str, Any]], name: str) -> None:
    frame = make_corpus(rows)
    corpus = read_corpus(write_corpus(frame, tmp_path / name, force=True))
    assert corpus.frame.to_dicts() == frame.to_dicts()
    assert corpus.frame.equals(frame)
    assert (corpus.format, corpus.rejected.height) == ("native", 0)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    frame = make_corpus([{"text": f"row {i}", "label": 0} for i in range(50)])
    for name in NATIVE:
        one = write_corpus(frame, tmp_path / "one" / name).read_bytes()
        assert one == write_corpus(frame, tmp_path / "two" / name).read_bytes()


def test_json_lines_leave_away_what_no_row_says(tmp_path: Path) -> None:
    path = write_corpus(make_corpus([{"text": "é", "label": 0, "extra": {"notes": "n"}}]), tmp_path / "a.jsonl")
    assert json.loads(path.read_text()) == {
        "id": text_id("é"),
        "text": "é",
        "label": "BENIGN",
        "threat_type": None,
        "source": "original",
        "extra": {"notes": "n"},
    }


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("a.txt", None, "native format is written to .jsonl"),
        ("a.csv", "harness", "harness format is written to .json"),
        ("a.jsonl", "master", "master format is written to .csv"),
        ("a.csv", "augmented", "augmented format is written to .jsonl"),
        ("a.parquet.gz", None, "leave .gz away"),
        ("a.csv", "excel", "not one of native, harness"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(tmp_path: Path, name: str, shape: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        write_corpus(empty_corpus(), tmp_path / name, format=shape)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_breaks_the_contract_is_not_written(tmp_path: Path) -> None:
    broken = make_corpus([{"text": "a", "label": 0}]).with_columns(pl.lit("b").alias("text"))
    with pytest.raises(BadInput, match="column id"):
        write_corpus(broken, tmp_path / "new" / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    frame = make_corpus([{"text": "a", "label": 0}])
    path = write_corpus(frame, tmp_path / "a.parquet")
    before = path.read_bytes()
    with pytest.raises(BadInput, match="--force"):
        write_corpus(empty_corpus(), path)
    assert path.read_bytes() == before
    write_corpus(frame.head(0), path, force=True)
    assert path.read_bytes() != before


def test_rejected_rows_are_written_beside_the_output(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text":"a","label":0}\n{"text":"b","label":"maybe"}\n')
    corpus = read_corpus(source, max_rejected=0.5)
    path = write_rejected(corpus.rejected, tmp_path / "out.parquet")
    assert path == tmp_path / "out.parquet.rejected.jsonl" == rejected_path(tmp_path / "out.parquet")
    assert json.loads(path.read_text()) == {
        "file": str(source),
        "line": 2,
        "column": "label",
        "reason": "'maybe' is not BENIGN or MALICIOUS (0 or 1)",
        "raw": '{"text":"b","label":"maybe"}',
    }
    with pytest.raises(BadInput, match="--force"):
        write_rejected(corpus.rejected, tmp_path / "out.parquet")


def test_no_rejected_rows_make_no_file(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text":"a","label":0}\n')
    assert write_rejected(read_corpus(source).rejected, tmp_path / "out") is None
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def two_rows(folder: Path) -> Corpus:
    source = folder / "in.jsonl"
    source.write_text('{"text":"a","label":0}\n{"text":"b","label":"maybe"}\n')
    return read_corpus(source, max_rejected=0.5)


def test_the_rejected_rows_of_a_replaced_output_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rejected_path(out).write_text("of an older run\n")
    corpus = two_rows(tmp_path)
    path = write_rejected(corpus.rejected, out, force=True)
    assert path is not None
    assert json.loads(path.read_text())["line"] == 2


def test_the_rejected_rows_of_a_replaced_output_go_if_there_are_none_now(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    corpus = two_rows(tmp_path)
    write_rejected(corpus.rejected, out)
    assert write_rejected(corpus.rejected.clear(), out, force=True) is None
    assert not rejected_path(out).exists()


@pytest.mark.parametrize("rows", [0, 1])
def test_rejected_rows_in_the_way_are_found_before_the_work_and_kept_without_force(tmp_path: Path, rows: int) -> None:
    out = tmp_path / "out.jsonl"
    rejected_path(out).write_text("corrections\n")
    with pytest.raises(BadInput, match="--force"):
        check_target(rejected_path(out))
    with pytest.raises(BadInput, match="--force"):
        write_rejected(two_rows(tmp_path).rejected.head(rows), out)
    assert rejected_path(out).read_text() == "corrections\n"
    check_target(rejected_path(out), force=True)


def test_rejected_rows_beside_a_folder_lie_in_it(tmp_path: Path) -> None:
    assert write_rejected(two_rows(tmp_path).rejected, tmp_path) == tmp_path / "run.rejected.jsonl"
