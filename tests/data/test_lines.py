import csv
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crywolf.data import lines
from crywolf.data.lines import parse_csv, parse_json
from crywolf.data.schema import LooseRows

CHARS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARS, max_size=12)
CELL = st.one_of(TEXT, st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", " ", "a,b", '"a"', "", "é", "null"]))
VALUE = st.one_of(st.none(), TEXT, st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
ROW = st.dictionaries(
    st.sampled_from(["text", "label", "category", "id", "weight", "notes", "confidence", "zz", "threats", "extra"]),
    st.one_of(
        VALUE,
        st.lists(st.dictionaries(st.sampled_from(["rule_id", "confidence", "odd"]), VALUE), max_size=2),
        st.dictionaries(st.sampled_from(["notes", "confidence", "odd"]), VALUE),
    ),
)


@given(st.lists(ROW, min_size=1, max_size=6), st.booleans())
@example([{"text": "a"}, {"text": 1.5}], True)
@example([{"text": "a"}, {"text": [1]}], True)
@example([{"text": "\ud83d\ude00 \\ud83d", "zz": "1"}, {"zz": 1}], True)
@example([{"extra": {"notes": "a"}}, {"extra": {"notes": 5}}], True)
def test_json_at_once_and_row_by_row_agree(rows: list[dict[str, object]], ascii_only: bool) -> None:
    data = b"".join(json.dumps(row, ensure_ascii=ascii_only).encode("utf-8", "replace") + b"\n" for row in rows)
    parsed = parse_json(data)
    expected = LooseRows.collect(json.loads(line) for line in data.split(b"\n") if line)
    assert parsed.loose.drop("extra").equals(expected.frame.drop("extra"))
    assert [_plain(extra) for extra in parsed.loose["extra"]] == [_plain(extra) for extra in expected.frame["extra"]]
    assert [span.line for span in parsed.spans()] == [place + 1 for place in expected.places]
    assert [rejection.place.line for rejection in sorted(parsed.bad, key=lambda one: one.place.line)] == [
        place + 1 for place, _ in expected.bad
    ]


def _plain(extra: dict[str, object] | None) -> dict[str, object]:
    """`extra` with its JSON parsed and nothing said twice."""
    said = {name: value for name, value in (extra or {}).items() if value is not None}
    if "other" in said:
        said["other"] = json.loads(str(said["other"]))
    return said


@given(st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_csv_says_what_pythons_csv_says(rows: list[list[str]], end: str) -> None:
    # Python's writer leaves a carriage return bare if it is no part of its line end; no reader can tell it from one.
    drop = "\0" if end == "\r\n" else "\0\r"
    rows = [[cell.translate(dict.fromkeys(map(ord, drop))) for cell in row] for row in rows]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end).writerows([["text", "category", "how"], *rows])
    parsed = parse_csv(out.getvalue().encode())
    assert not parsed.bad
    found = [[cell or "" for cell in row] for row in parsed.loose.select("text", "category", "how").rows()]
    assert found == rows


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), st.integers(0, 8))
def test_a_broken_csv_record_costs_only_itself(rows: list[tuple[str, str]], place: int) -> None:
    rows = [(one.replace("\0", ""), two.replace("\0", "")) for one, two in rows]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for number, row in enumerate([("text", "how"), *rows]):
        if number == min(place, len(rows)) and number:
            out.write('stray"quote,x\n')
        writer.writerow(row)
    parsed = parse_csv(out.getvalue().encode())
    assert parsed.loose.select("text", "how").rows() == rows
    assert len(parsed.bad) == (min(place, len(rows)) > 0)
    starts = [span.line for span in parsed.spans()]
    assert starts == sorted(set(starts))


def test_lines_are_numbered_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 50)
    data = b"".join(b'{"text":"%d","label":0}\n' % i if i % 7 else b"junk\n" for i in range(100))
    parsed = parse_json(data)
    assert [rejection.place.line for rejection in parsed.bad] == [i + 1 for i in range(0, 100, 7)]
    assert parsed.loose["text"].to_list() == [str(i) for i in range(100) if i % 7]
    assert [place.raw for place in parsed.places([0, 84])] == ['{"text":"1","label":0}', '{"text":"99","label":0}']
