import contextlib
import gzip
import json
import os
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crywolf.data import BadInput, CrywolfError, make_corpus, raw, read_corpus, read_fps, text_id, write_corpus
from crywolf.data.foreign import CUT

ONE = b'{"text": "hello there", "label": "BENIGN"}\n'
NO_SHRINK_FUSS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(n: int, start: int = 0) -> bytes:
    return b"".join(b'{"text": "row %d", "label": 0}\n' % i for i in range(start, start + n))


# --- what is taken ---------------------------------------------------------------------------------------------------


def test_jsonl_is_read_in_order(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, "a.jsonl", b'{"prompt":"b","label":1}\n{"prompt":"a","label":"Benign"}'))
    assert corpus.frame["text"].to_list() == ["b", "a"]
    assert corpus.frame["label"].to_list() == ["MALICIOUS", "BENIGN"]
    assert corpus.frame["id"].to_list() == [text_id("b"), text_id("a")]
    assert (corpus.format, corpus.rejected.height) == ("native", 0)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.txt", "a", "a.JSONL", "a.json"])
def test_json_lines_are_known_by_name_or_content(tmp_path: Path, name: str) -> None:
    content = ONE * 2
    if name == "a.json":
        with pytest.raises(BadInput, match=r"for rows use|not JSON"):
            read_corpus(put(tmp_path, name, content))
    else:
        assert read_corpus(put(tmp_path, name, content)).frame.height == 2


@pytest.mark.parametrize("squeeze", [gzip.compress, zstandard.ZstdCompressor().compress])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.jsonl"])
def test_compression_is_known_by_content(tmp_path: Path, squeeze: object, name: str) -> None:
    content = squeeze(ONE) + squeeze(ONE)  # type: ignore[operator]  # both compressors take and give bytes
    assert read_corpus(put(tmp_path, name, content)).frame.height == 2


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    assert read_corpus(put(tmp_path, "a.jsonl", b"\xef\xbb\xbf" + ONE)).frame.height == 1
    corpus = read_corpus(put(tmp_path, "a.csv", b"\xef\xbb\xbftext,label\nhi,0\n"))
    assert corpus.frame["text"].to_list() == ["hi"]


def test_blank_lines_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    assert read_corpus(put(tmp_path, "a.jsonl", b"\n" + ONE + b"  \r\n" + ONE.strip() + b"\r\n\n")).frame.height == 2
    corpus = read_corpus(put(tmp_path, "a.csv", b'text,label\r\n\r\n"a\r\nb",0\r\nc,1\r\n\r\n'))
    assert corpus.frame["text"].to_list() == ["a\r\nb", "c"]


def test_line_separators_inside_a_prompt_do_not_end_a_line(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\x0bfour"
    content = json.dumps({"text": text, "label": 0}, ensure_ascii=False)
    assert read_corpus(put(tmp_path, "a.jsonl", content)).frame["text"].to_list() == [text]
    assert read_corpus(put(tmp_path, "a.csv", f"text,label\n{text},0")).frame["text"].to_list() == [text]


def test_a_label_for_all_rows_fills_only_gaps(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", b'{"text":"a"}\n{"text":"b","label":"MALICIOUS"}\n')
    assert read_corpus(path, label="benign").frame["label"].to_list() == ["BENIGN", "MALICIOUS"]


def test_a_source_for_all_rows_fills_only_gaps(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", b"text,label,source\na,0,\nb,0,wild\n")
    assert read_corpus(path, source="mine").frame["source"].to_list() == ["mine", "wild"]


def test_the_category_of_attacks_may_be_their_threat_type(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", b"text,label,category\na,1,OBFUSCATED_COMMAND\nb,1,rare\nc,0,education\n")
    frame = read_corpus(path).frame
    assert frame["threat_type"].to_list() == ["obfuscated_command", None, None]
    assert frame["category"].to_list() == ["OBFUSCATED_COMMAND", "rare", "education"]


def test_duplicates_are_not_the_readers_business(tmp_path: Path) -> None:
    assert read_corpus(put(tmp_path, "a.jsonl", ONE * 3)).frame["id"].n_unique() == 1


def test_unknown_columns_are_kept(tmp_path: Path) -> None:
    one = read_corpus(put(tmp_path, "a.jsonl", b'{"text":"a","label":0,"shard":3,"deep":{"x":[1,null]}}\n'))
    two = read_corpus(put(tmp_path, "a.csv", b"text,label,shard\na,0,3\n"))
    assert json.loads(one.frame["extra"][0]["other"]) == {"shard": 3, "deep": {"x": [1, None]}}
    assert json.loads(two.frame["extra"][0]["other"]) == {"shard": "3"}


# --- what is refused: a clear message each ---------------------------------------------------------------------------

HARNESS_LIST = b'[{"fp_details": []}]'
BROKEN: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b"", "the file is empty"),
    ("a.jsonl", b"\n \n", "the file is empty"),
    ("a.jsonl", b"\xef\xbb\xbf", "the file is empty"),
    ("a.jsonl.gz", gzip.compress(b""), "holds nothing once unpacked"),
    ("a.jsonl.gz", gzip.compress(lines(500))[:-9], "gzip data is truncated"),
    ("a.jsonl.gz", gzip.compress(lines(500))[:200], "gzip data is truncated"),
    ("a.jsonl.gz", gzip.compress(lines(500))[:-8] + b"12345678", "damaged gzip"),
    ("a.jsonl.gz", gzip.compress(ONE) + b"tail", "damaged gzip"),
    ("a.jsonl.gz", ONE, "named .gz but holds no gzip data"),
    ("a.jsonl.zst", zstandard.ZstdCompressor().compress(lines(500))[:-9], "Zstandard data is truncated"),
    ("a.jsonl.zst", b"\x28\xb5\x2f\xfd" + b"\xff" * 40, "damaged Zstandard"),
    ("a.jsonl", '{"text":"a","label":0}'.encode("utf-16"), "UTF-16"),
    ("a.csv", b"text,label\nhello,maybe\n", "line 2, column label: 'maybe' is not BENIGN or MALICIOUS"),
    ("a.jsonl", b'{"text":"a","label":"maybe"}\n', "line 1, column label: 'maybe' is not BENIGN or MALICIOUS"),
    ("a.csv", b'text,label\nsay "hi",0\n', "line 2, column text: a quote inside an unquoted field"),
    ("a.csv", b'text,label\n"say" hi,0\n', "line 2, column text: text after a closing quote"),
    ("a.csv", b'text,label\nok,0\n"say hi,0\nbye,1\n', "line 3, column text: a quote that is never closed"),
    ("a.csv", b"text,label\nhello,0,1\n", "line 2: 3 fields, the header has 2"),
    ("a.csv", b"text,label\nhello\n", "line 2: 1 fields, the header has 2"),
    ("a.csv", b'text,"label\nhello,0\n', "line 1, the header: a quote that is never closed"),
    ("a.csv", b"text,text,label\na,b,0\n", "column 'text' is there 2 times"),
    ("a.csv", b"text,label\n", "no rows"),
    ("a.csv", b"text;label\nhello;0\n", "no column text or prompt; its columns are: text;label; the fields must be"),
    ("a.csv", b"question,label\nhello,0\n", "no column text or prompt; its columns are: question, label"),
    ("a.csv", b"text,kind\nhello,0\n", "no column label, and no label was given for all rows; its columns are: text"),
    ("a.jsonl", b'{"question":"a","label":0}\n', "no column text or prompt; its columns are: question, label"),
    ("a.jsonl", b'{"text":"a"}\n', "no column label"),
    ("a.jsonl", b'{"text":"a","label":null}\n', "no column label"),
    ("a.jsonl", b'{"text":"a","label":0', "line 1: not JSON"),
    ("a.jsonl", b'{"text":"a\x00b","label":0}\n', "line 1: a NUL byte at byte 11"),
    ("a.jsonl", b'{"text":"a\\u0000b","label":0}\n', "line 1, column text: the text holds a NUL"),
    ("a.csv", b"text,label\na\x00b,0\n", "line 2: a NUL byte at byte 2"),
    ("a.csv", bytes(range(256)) * 20, "line 1, the header"),
    ("a.jsonl", b'{"text":"a\xff","label":0}\n', "line 1: not UTF-8 at byte 11"),
    ("a.csv", b"text,label\na\xff,0\n", "line 2: not UTF-8 at byte 2"),
    ("a.jsonl", b'{"text":"\\ud800","label":0}\n', "line 1, column text: holds half of a surrogate pair"),
    ("a.jsonl", b'{"text":"a","label":0,"n":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 1: nested too deeply"),
    ("a.jsonl", b'{"text":"a","label":0,"n":' + b"9" * 5000 + b"}\n", "line 1: a number with too many digits"),
    ("a.jsonl", b'{"text":"a","label":0,"weight":1e999}\n', "line 1, column weight"),
    ("a.jsonl", b'{"text":"a","label":0,"weight":NaN}\n', "line 1, column weight"),
    ("a.jsonl", b'{"text":7,"label":0}\n', "line 1, column text: must be text, found a number"),
    ("a.jsonl", b'{"text":"a","label":true}\n', "line 1, column label: must be text, found true or false"),
    ("a.jsonl", b'{"text":"  ","label":0}\n', "line 1, column text: the text is empty"),
    ("a.jsonl", b'"just a string"\n', "line 1: a JSON object is expected"),
    ("a.jsonl", ONE + b'["hello", 0]\n', "line 2: a JSON object is expected"),
    (
        "a.jsonl",
        b'{"text":"' + b"a" * 2_097_133 + b'","label":0}\n',
        "line 1: a line of 2,097,154 bytes, the limit is 1,048,576",
    ),
    (
        "a.csv",
        b"text,label\n" + b"a" * 2_097_150 + b",0\n",
        "line 2: a line of 2,097,152 bytes, the limit is 1,048,576",
    ),
    ("a.csv", b'text,label\n"' + b"a\n" * 1_048_570 + b'",0\n', "line 2: a line of 2,097,144 bytes, the limit"),
    ("a.json", b'{"results": []}', "an object with fp_details"),
    ("a.json", HARNESS_LIST, "an object with fp_details"),
    ("a.json", b'{"fp_details": 5}', "fp_details must be a list"),
    ("a.json", b'{"fp_details": [5]}', "an object is expected for each false positive"),
    ("a.json", b'{"fp_details": [{"id": "b-1"}]}', "column prompt: no text"),
    ("a.json", b'{"fp_details": [{"prompt": "a", "threats": 1}]}', "column threats"),
    ("a.json", b'{\n "fp_details": [\n', "line 3, character 1: not JSON"),
    ("a.json", b'{"fp_details": ' + b"[" * 100_000, "nested too deeply"),
    ("a.parquet", b"PAR1" + b"\x00" * 50, "damaged or truncated Parquet"),
    ("a.parquet", ONE, "holds no Parquet data"),
    ("a.bin", b"\x7fELF", "cannot tell what it holds"),
]


@pytest.mark.parametrize(("name", "content", "words"), BROKEN, ids=[f"{n}-{w[:40]}" for n, _, w in BROKEN])
def test_broken_input_has_a_clear_message(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = put(tmp_path, name, content)
    with pytest.raises(BadInput, match=words) as caught:
        read_corpus(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.exit_code == 2
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write_corpus(make_corpus([{"text": "a", "label": 0}]), tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match="damaged or truncated Parquet"):
        read_corpus(path)


def test_a_parquet_column_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"text": [1], "label": [0]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="column text must hold text, not Int64"):
        read_corpus(tmp_path / "a.parquet")


def test_a_folder_a_missing_file_and_an_impossible_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder, a file is expected"):
        read_corpus(tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        read_corpus(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="not the name of a file"):
        read_corpus("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", ONE)
    path.chmod(0)
    with pytest.raises(BadInput, match="cannot be read"):
        read_corpus(path)


@pytest.mark.parametrize("squeeze", [gzip.compress, zstandard.ZstdCompressor().compress, bytes])
def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squeeze: object) -> None:
    monkeypatch.setattr(raw, "MAX_BYTES", 5_000_000)
    path = put(tmp_path, "a.jsonl", squeeze(b"\n" * 20_000_000))  # type: ignore[operator]  # bytes in, bytes out
    with pytest.raises(BadInput, match="more than 5,000,000 bytes of content"):
        read_corpus(path)


# --- rejected rows ---------------------------------------------------------------------------------------------------


def test_a_few_bad_rows_are_collected_with_their_lines(tmp_path: Path) -> None:
    content = lines(200) + b'{"text": \n' + lines(100, 200) + b'\n{"text":"x","label":"maybe"}\n' + lines(100, 300)
    corpus = read_corpus(put(tmp_path, "a.jsonl", content))
    assert corpus.frame.height == 400
    assert corpus.rejected.select("line", "column").rows() == [(201, None), (303, "label")]
    assert corpus.rejected["raw"].to_list() == ['{"text": ', '{"text":"x","label":"maybe"}']
    assert set(corpus.rejected["file"]) == {str(tmp_path / "a.jsonl")}
    assert corpus.rejected_share == pytest.approx(2 / 402)


def test_bad_csv_rows_are_collected_with_their_lines(tmp_path: Path) -> None:
    rows = [f"row {i},0" for i in range(300)]
    rows[10:10] = ['"two\nlines",1', 'stray "quote",0', "x,maybe"]
    rows[200] = '"never closed,0'
    corpus = read_corpus(put(tmp_path, "a.csv", "text,label\n" + "\n".join(rows)), max_rejected=0.02)
    assert corpus.rejected["line"].to_list() == [14, 15, 203]
    assert corpus.rejected["column"].to_list() == ["text", "label", "text"]
    assert corpus.frame.height == 300
    assert "two\nlines" in corpus.frame["text"].to_list()


def test_a_stray_quote_swallows_no_other_row(tmp_path: Path) -> None:
    body = "".join(f'"row, {i}",0\n' for i in range(200))
    corpus = read_corpus(put(tmp_path, "a.csv", 'text,label\n"open,0\n' + body), max_rejected=0.01)
    assert corpus.frame.height == 200
    assert corpus.rejected["line"].to_list() == [2]


def test_too_many_bad_rows_are_refused_with_the_first_of_them(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", lines(90) + b"junk\n" * 10)
    with pytest.raises(BadInput) as caught:
        read_corpus(path)
    message = str(caught.value)
    assert "10 of 100 rows cannot be used (10.0%, --max-rejected allows 0.01)" in message
    assert "line 91: not JSON" in message
    assert "and 5 more" in message
    assert read_corpus(path, max_rejected=0.1).rejected.height == 10


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", lines(99) + b"junk\n")
    assert read_corpus(path, max_rejected=0.01).rejected.height == 1


def test_no_usable_row_is_refused_whatever_the_limit(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none is left"):
        read_corpus(put(tmp_path, "a.jsonl", b"junk\n"), max_rejected=1.0)


def test_bad_parquet_rows_are_named_by_number(tmp_path: Path) -> None:
    rows = {"text": [f"row {i}" for i in range(99)] + [" "], "label": ["BENIGN"] * 100}
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    assert read_corpus(tmp_path / "a.parquet").rejected["line"].to_list() == [100]


def test_messages_do_not_quote_prompts(tmp_path: Path) -> None:
    content = b'{"text":"secret words","label":"maybe"}\n{"text":"secret words"\n'
    with pytest.raises(BadInput) as caught:
        read_corpus(put(tmp_path, "a.jsonl", content))
    assert "secret" not in str(caught.value)


# --- any bytes at all ------------------------------------------------------------------------------------------------

NAMES = ["a.jsonl", "a.csv", "a.json", "a.jsonl.gz", "a.csv.zst", "a"]
PIECES = st.lists(
    st.sampled_from(
        [b'{"text":"a","label":0}', b"text,label\n", b"a,1", b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"\0", b"\xff",
         b"\xef\xbb\xbf", b'{"fp_details":[{"prompt":"p"}]}', b"\\ud800", b"{", b"[", b"}", b"null", b":", b"1e999",
         b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR", gzip.compress(b"text,label\na,0")]
    )
).map(b"".join)  # fmt: skip


@NO_SHRINK_FUSS
@given(content=st.one_of(st.binary(max_size=200), PIECES), name=st.sampled_from(NAMES))
def test_any_bytes_give_rows_or_bad_input(tmp_path: Path, content: bytes, name: str) -> None:
    path = put(tmp_path, name, content)
    for read in (lambda: read_corpus(path, label="BENIGN", max_rejected=1.0), lambda: read_fps(path)):
        try:
            result = read()
        except CrywolfError as error:
            message = str(error)
        else:
            message = str(path)
            assert result.frame["text"].null_count() == 0
        assert str(path) in message


@NO_SHRINK_FUSS
@given(cut=st.integers(0, 400), at=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_parquet_file_gives_rows_or_bad_input(tmp_path: Path, cut: int, at: int, byte: int) -> None:
    path = write_corpus(make_corpus([{"text": "abc", "label": 0}]), tmp_path / "a.parquet", force=True)
    content = bytearray(path.read_bytes())
    content[-1 - at % len(content)] = byte
    path.write_bytes(bytes(content[: len(content) - cut // 4]))
    with contextlib.suppress(CrywolfError):
        read_corpus(path)


# --- false positives -------------------------------------------------------------------------------------------------

LONG = "Show every file below the home folder that has changed since yesterday and whose name ends in a number, please."
CUT_LONG = LONG[:100] + "..."


def harness(tmp_path: Path, *details: dict[str, object]) -> Path:
    return put(tmp_path, "results.json", json.dumps({"total": 50, "fp_details": list(details)}))


def test_a_cut_prompt_is_joined_back_by_id(tmp_path: Path) -> None:
    fps = harness(tmp_path, {"id": "b-1", "prompt": CUT_LONG, "category": "technical_docs", "threats": []})
    prompts = put(tmp_path, "p.jsonl", json.dumps({"id": "b-1", "prompt": LONG, "category": "x"}))
    found = read_fps(fps, prompts=prompts)
    assert found.frame.select("id", "text", "category", "external_id", "how").rows() == [
        (text_id(LONG), LONG, "technical_docs", "b-1", None)
    ]
    assert (found.cut_joined, found.cut_left_out) == (1, 0)


def test_a_cut_prompt_that_cannot_be_joined_is_left_out_and_counted(tmp_path: Path) -> None:
    whole = {"id": "b-0", "prompt": "short"}
    cut = [{"id": f"b-{i}", "prompt": CUT_LONG} for i in (1, 2, 3)]
    other = [{"id": "b-1", "prompt": "X" + LONG}, {"id": "b-3", "prompt": LONG}, {"id": "b-3", "prompt": LONG + "!"}]
    prompts = put(tmp_path, "p.jsonl", "\n".join(json.dumps(row) for row in other))
    # b-1 begins otherwise, b-2 is unknown, b-3 has two texts that fit.
    for given_prompts in (prompts, None):
        found = read_fps(harness(tmp_path, whole, *cut), prompts=given_prompts)
        assert found.frame["text"].to_list() == ["short"]
        assert (found.cut_joined, found.cut_left_out) == (0, 3)


def test_rejected_rows_of_the_prompts_file_are_told_beside_those_of_the_false_positives(tmp_path: Path) -> None:
    fps = harness(
        tmp_path, {"id": "b-1", "prompt": CUT_LONG}, *({"id": f"c-{i}", "prompt": "x"} for i in range(99)), {}
    )
    prompts = put(
        tmp_path, "p.jsonl", json.dumps({"id": "b-1", "prompt": LONG}).encode() + b"\n" + lines(99) + b"junk\n"
    )
    found = read_fps(fps, prompts=prompts)
    assert found.cut_joined == 1
    assert found.rejected.select("file", "line").rows() == [(str(fps), 101), (str(prompts), 101)]


def test_a_prompt_that_merely_ends_in_dots_is_whole(tmp_path: Path) -> None:
    texts = ["and so on...", LONG[:99] + "...", LONG[:101] + "...", LONG[:103]]
    found = read_fps(harness(tmp_path, *({"id": str(i), "prompt": text} for i, text in enumerate(texts))))
    assert found.frame["text"].to_list() == texts
    assert found.cut_left_out == 0


def test_cut_is_counted_in_characters_and_not_bytes(tmp_path: Path) -> None:
    text = "é" * 150
    fps = harness(tmp_path, {"id": "b-1", "prompt": text[:100] + "..."})
    prompts = put(tmp_path, "p.jsonl", json.dumps({"id": "b-1", "prompt": text}))
    assert read_fps(fps, prompts=prompts).frame["text"].to_list() == [text]


def test_nothing_but_cut_prompts_asks_for_the_prompts_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--prompts"):
        read_fps(harness(tmp_path, {"id": "b-1", "prompt": CUT_LONG}))


def test_read_corpus_marks_cut_rows_and_a_native_copy_of_them_is_still_known_as_cut(tmp_path: Path) -> None:
    corpus = read_corpus(harness(tmp_path, {"id": "b-1", "prompt": CUT_LONG}, {"id": "b-2", "prompt": "whole"}))
    assert corpus.cut == 1
    assert corpus.frame["how"].to_list() == [CUT, None]
    copy = write_corpus(corpus.frame, tmp_path / "copy.parquet")
    assert read_fps(copy).frame["text"].to_list() == ["whole"]


def test_a_false_positive_is_what_l2_took_it_for(tmp_path: Path) -> None:
    threats = [
        {"rule_id": "obfuscated_command", "severity": "HIGH", "confidence": 0.99, "layer": "L1"},
        {"rule_id": "data_exfil_pattern", "severity": "ML_DETECTED", "confidence": 0.6, "layer": "L2"},
        {"rule_id": "SEMANTIC_JAILBREAK", "severity": "ML_DETECTED", "confidence": 0.8, "layer": "L2"},
    ]
    details = [
        {"id": "1", "prompt": "a", "threats": threats},
        {"id": "2", "prompt": "b", "threats": threats[:1]},
        {"id": "3", "prompt": "c", "threats": [{"rule_id": "PI-007", "layer": "L1"}]},
        {"id": "4", "prompt": "d", "threats": []},
    ]
    frame = read_fps(harness(tmp_path, *details)).frame
    assert frame["threat_type"].to_list() == ["semantic_jailbreak", "obfuscated_command", "unknown", None]
    assert frame["label"].unique().to_list() == ["BENIGN"]
    assert frame["extra"][0]["confidence"] == 0.8
    assert frame["extra"][0]["threats"] == threats


def test_false_positives_may_come_in_any_shape_and_need_no_label(tmp_path: Path) -> None:
    assert read_fps(put(tmp_path, "a.csv", b"prompt\nhello\n")).frame["label"].to_list() == ["BENIGN"]


def test_an_attack_among_the_false_positives_is_rejected(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", lines(150) + b'{"text":"evil","label":"MALICIOUS"}\n')
    found = read_fps(path)
    assert found.frame.height == 150
    assert "a false positive is BENIGN" in found.rejected["reason"][0]
    with pytest.raises(BadInput, match="a false positive is BENIGN"):
        read_fps(put(tmp_path, "b.jsonl", lines(5) + b'{"text":"evil","label":"MALICIOUS"}\n'))


def test_a_harness_without_false_positives_gives_none(tmp_path: Path) -> None:
    found = read_fps(harness(tmp_path))
    assert found.frame.height == 0
    assert found.summary == {"total": 50}
