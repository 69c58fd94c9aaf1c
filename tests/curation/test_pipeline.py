"""The funnel: every row is kept or dropped with its reason, whatever the file holds."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from gpt.curation.filters import make_filters
from gpt.curation.pipeline import (
    N_SAMPLES,
    clean_file,
    dropped_path,
    from_change,
    from_filter,
    from_memory,
    read_rows,
    reason_group,
    writing,
)
from gpt.text.entries import load_entries

GOOD = {"instruction": "Name a river.", "input": "", "output": "The Rhine."}
LINES = [
    json.dumps(GOOD),
    "",
    '{"instruction": "cut off',
    "[1, 2]",
    '"just text"',
    '{"foo": "bar"}',
    '{"instruction": "", "output": "No question."}',
    '{"instruction": "Half", "output": "an emoji \\ud83d"}',
    '{"instruction": "a", "instruction": "b", "output": "c"}',
    '{"instruction": "Two.", "instances": [{"input": "1", "output": "2"}, {"input": "3", "output": "4"}]}',
    '{"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]}',
    '{"messages": [{"role": "user", "content": "Nobody answers?"}]}',
    '{"instruction": "How much?", "output": "a", "score": NaN}',
    '{"instruction": "How much?", "output": "a", "score": -1e999}',
    '{"question": "Sky?", "answer": "Blue.", "options": ["Blue.", "Red."]}',
    "null",
]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_row_that_is_no_entry_is_dropped_with_its_text_and_the_others_go_on(tmp_path: Path) -> None:
    source, out = write(tmp_path / "raw.jsonl", "\n".join(LINES)), tmp_path / "clean.jsonl"
    reports = clean_file(source, out, {})
    kept, dropped = lines_of(out), lines_of(dropped_path(out))
    assert [row["instruction"] for row in kept] == ["Name a river.", "Two.", "Two.", "Hi?", "Sky?"]
    reasons = [row["reason"] for row in dropped]
    expected = [
        "not valid JSON",
        "not an object but a list",
        "not an object but text",
        "of no known format",
        "is empty",
        "half a character",
        "a key stands twice",
        "no answered instruction",
        "NaN is no number of JSON",
        "-1e999 is no number of JSON",
        "not an object but a NoneType",
    ]
    assert len(reasons) == len(expected) and all(a in b for a, b in zip(expected, reasons, strict=True)), reasons
    assert [row["record"] for row in dropped][:2] == [LINES[2], LINES[3]]
    assert dropped[0]["where"] == "raw.jsonl: line 3" and dropped[0]["stage"] == "read"
    assert len({row["number"] for row in dropped}) == len(dropped)
    assert reports[0].n_in == len(kept) + len(dropped) == 16 and reports[0].n_out == 5


@pytest.mark.parametrize("turns", [3, ["Hi"], [{"role": "user"}], [{"role": "user", "content": "a"}] * 2])
def test_turns_that_are_no_conversation_are_a_reason(tmp_path: Path, turns: object) -> None:
    [row] = read_rows(write(tmp_path / "a.json", json.dumps([GOOD | {"turns": turns}])))
    assert row.entry is None and "turns" in row.reason


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "a.JSONL.gz"])
def test_json_and_json_lines_are_read_gzipped_or_not(tmp_path: Path, name: str) -> None:
    rows = [GOOD, GOOD | {"output": "茶\u2028茶"}]
    text = (
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) if "l" in name.lower()[3:7] else json.dumps(rows)
    )
    data = ("\ufeff" + text).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert [row.entry for row in read_rows(tmp_path / name)] == rows


def test_a_wrapped_list_and_a_single_object_are_read(tmp_path: Path) -> None:
    for value in ({"data": [GOOD, GOOD], "version": 1}, GOOD):
        rows = list(read_rows(write(tmp_path / "a.json", json.dumps(value))))
        assert [row.entry for row in rows] == ([GOOD] if value is GOOD else [GOOD, GOOD])


@pytest.mark.parametrize(
    "name, text, complaint",
    [
        ("a.csv", "question,answer\nWhy?,So.\n", "not valid JSON, it looks like a table such as CSV"),
        ("a.json", "[{", "not valid JSON"),
        ("a.json", "PK\x03\x04", "a zip archive"),
        ("a.json", "[{'a': 1}]", "Python, not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_in_a_sentence(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(read_rows(write(tmp_path / name, text)))


TEXTS = {
    "list": json.dumps([GOOD, GOOD]),
    "list over lines": json.dumps([GOOD, GOOD], indent=1),
    "wrapped": json.dumps({"version": 1, "data": [GOOD, GOOD]}),
    "wrapped over lines": json.dumps({"data": [GOOD, GOOD]}, indent=1),
    "wrapped list over lines": '{"data": [\n' + ",\n".join([json.dumps(GOOD)] * 2) + "]}",
    "object over lines": json.dumps(GOOD, indent=1),
    "object": json.dumps(GOOD) + "\n",
    "lines": f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD)}",
    "first line blank": f"\n{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n",
    "nothing": " \n",
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_a_file_is_its_content_says_here_as_where_entries_are_trained_on(
    tmp_path: Path, name: str, text: str
) -> None:
    path = write(tmp_path / name, text)
    assert [row.entry for row in read_rows(path)] == (load_entries(path) if text.strip() else [])


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("select", [None, lambda entries: [None for _ in entries]])
@pytest.mark.parametrize(
    "data, complaint",
    [
        ("\n".join(LINES[:1] * 2).encode("utf-16"), "perhaps UTF-16"),
        (b"instruction: a\noutput: b\n", "not valid JSON"),
        (b'{"foo": 1}\n{"foo": 2}\n', "none of its 2 rows is an entry; .* of no known format"),
    ],
)
def test_a_file_of_which_no_row_can_be_read_is_an_error_and_nothing_is_written(
    tmp_path: Path, name: str, data: bytes, complaint: str, select: object
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=complaint):
        clean_file(tmp_path / name, tmp_path / "out.jsonl", {}, select)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_first_line_that_is_cut_costs_its_row_and_not_the_file(tmp_path: Path) -> None:
    for cut in ('{"instruction": "cu', "[1, 2", "{", "[1]"):
        rows = list(read_rows(write(tmp_path / "a.jsonl", f"{cut}\n{json.dumps(GOOD)}\n")))
        assert [row.entry for row in rows] == [None, GOOD] and rows[0].raw == cut


def test_a_byte_that_is_no_utf8_costs_its_row_and_not_the_file(tmp_path: Path) -> None:
    source, out = tmp_path / "raw.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(json.dumps(GOOD).encode() + b'\n{"instruction": "caf\xe9?", "output": "Yes."}\n')
    pytest.importorskip("ftfy", reason="pip install -e '.[curate]'")
    clean_file(source, out, {"filter": from_filter(make_filters(names=["encoding"])["encoding"])})
    assert len(lines_of(out)) == 1
    assert "U+FFFD" in lines_of(dropped_path(out))[0]["reason"]


@pytest.mark.parametrize("name", ["raw.json", "raw.jsonl"])
def test_half_a_character_anywhere_costs_its_row_at_most_and_not_the_run(tmp_path: Path, name: str) -> None:
    rows = [GOOD | {"instruction": "Half \ud83d?"}, GOOD | {"id": "\ud83d"}, {"\ud83d": 1}, GOOD]
    text = json.dumps(rows) if name == "raw.json" else "\n".join(map(json.dumps, rows))
    source, out = write(tmp_path / name, text), tmp_path / "out.jsonl"
    reports = clean_file(source, out, {})
    kept, dropped = lines_of(out), lines_of(dropped_path(out))
    assert len(kept) + len(dropped) == reports[0].n_in == 4 and kept[-1] == GOOD
    assert "half a character" in dropped[0]["reason"] and json.loads(dropped[0]["record"]) == rows[0]
    assert all(reason.isprintable() for reason in map(str, reports[0].reasons))
    with pytest.raises(UnicodeEncodeError):
        json.dumps(rows[0], ensure_ascii=False).encode()  # which is how it was written


def test_a_cut_gzip_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode() * 50)[:-12])
    with pytest.raises(ValueError, match="cut off or damaged"):
        list(read_rows(tmp_path / "a.jsonl.gz"))


def test_a_damaged_gzip_file_is_said(tmp_path: Path) -> None:
    packed = gzip.compress("".join(f"{json.dumps(GOOD | {'id': str(n)})}\n" for n in range(500)).encode())
    seen = set()
    for place in range(12, len(packed), 40):
        (tmp_path / "a.jsonl.gz").write_bytes(packed[:place] + b"\xff\xff\xff\xff" + packed[place + 4 :])
        with pytest.raises(ValueError, match="cut off or damaged") as error:
            clean_file(tmp_path / "a.jsonl.gz", tmp_path / "out.jsonl", {})
        seen.add(str(error.value).split(": ")[2].split(" while")[0])
    assert "Error -3" in seen, seen  # of zlib, which was a traceback


@pytest.mark.long
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
def test_a_gzip_bomb_is_said_before_it_fills_the_memory(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"[" + b" " * 2**27, 1))
    with pytest.raises(ValueError, match="over 200 times its size"):
        list(read_rows(tmp_path / name))


def many(tmp_path: Path, n: int) -> Path:
    rows = [GOOD | {"output": f"River {i}", "source": "made"} for i in range(n)]
    return write(tmp_path / "many.jsonl", "\n".join(json.dumps(row) for row in rows))


def test_stages_run_in_order_and_the_first_that_objects_has_the_row(tmp_path: Path) -> None:
    source, out = many(tmp_path, 100), tmp_path / "out.json"
    seen: list[int] = []
    stages = {
        "odd": from_memory(lambda number, entry: f"odd: {number}" if number % 2 else None),
        "loud": from_change(
            lambda entry: {**entry, "output": entry["output"].upper()} if "8" in entry["output"] else entry
        ),
        "late": from_filter(
            lambda entry: seen.append(1) or ("ends: in nine" if entry["output"].endswith("9") else None)
        ),
    }
    read, odd, loud, late = clean_file(source, out, stages)
    assert (read.n_out, odd.n_in, odd.n_out, loud.n_changed, late.n_in, late.n_out) == (100, 100, 50, 5, 50, 40)
    assert odd.reasons == {"odd": 50} and len(odd.samples) == N_SAMPLES and len(seen) == 50
    kept, dropped = load_entries(out), lines_of(dropped_path(out))
    assert len(kept) + len(dropped) == 100 and "RIVER 81" in [entry["output"] for entry in kept]
    entry = GOOD | {"output": "River 0", "source": "made"}
    assert dropped[0] == {"reason": "odd: 1", "stage": "odd", "number": 1, "entry": entry}


def test_quotas_see_all_that_is_left_and_numbers_stay_those_of_the_file(tmp_path: Path) -> None:
    source, out = many(tmp_path, 20), tmp_path / "out.jsonl"
    stages = {"half": from_memory(lambda number, entry: "half: gone" if number <= 10 else None)}

    def select(entries: object) -> list[str | None]:
        return ["full: 3 stay" if i >= 3 else None for i, _ in enumerate(entries)]

    reports = clean_file(source, out, stages, select)
    assert [report.n_out for report in reports] == [20, 10, 3]
    assert [row["output"] for row in lines_of(out)] == ["River 10", "River 11", "River 12"]
    numbers = Counter((row["stage"], row["number"]) for row in lines_of(dropped_path(out)))
    assert numbers == Counter([("half", n) for n in range(1, 11)] + [("balance", n) for n in range(14, 21)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.jsonl", "out.dropped.jsonl", "out.jsonl"]


def test_a_run_that_breaks_off_leaves_the_old_files_and_no_half_ones(tmp_path: Path) -> None:
    source, out = many(tmp_path, 5), write(tmp_path / "out.jsonl", "old\n")

    def fails(number: int, entry: dict) -> dict:
        if number == 4:
            raise KeyboardInterrupt
        return entry

    with pytest.raises(KeyboardInterrupt):
        clean_file(source, out, {"fails": fails})
    assert out.read_text(encoding="utf-8") == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.jsonl", "out.jsonl"]


def test_what_is_read_is_never_overwritten(tmp_path: Path) -> None:
    source = many(tmp_path, 1)
    before = source.read_bytes()
    for name in ("many.jsonl", "many.dropped.jsonl"):
        with pytest.raises(ValueError, match="would overwrite"):
            clean_file(source, tmp_path / name, {})
    for ending in ("dropped", "held"):  # which go beside --out
        other = source.rename(tmp_path / f"a.{ending}.jsonl")
        with pytest.raises(ValueError, match="would overwrite"):
            clean_file(other, tmp_path / "a.jsonl", {}, lambda entries: [None for _ in entries])
        source = other.rename(source)
    assert source.read_bytes() == before and list(tmp_path.iterdir()) == [source]


def test_what_was_dropped_can_be_read_again_and_taken_back(tmp_path: Path) -> None:
    source, out = write(tmp_path / "raw.jsonl", "\n".join([*LINES, json.dumps(GOOD)])), tmp_path / "out.jsonl"
    clean_file(source, out, {"all": from_filter(lambda entry: "all: too strict")})
    dropped = dropped_path(out)
    assert len(lines_of(dropped)) == 17 and lines_of(out) == []
    back = tmp_path / "back.jsonl"
    clean_file(dropped, back, {})
    assert [row["instruction"] for row in lines_of(back)] == [
        "Name a river.", "Two.", "Two.", "Hi?", "Sky?", "Name a river."
    ]  # fmt: skip
    again = lines_of(dropped_path(back))
    unread = [row for row in lines_of(dropped) if row["stage"] == "read"]
    assert [(row["reason"], row["record"]) for row in again] == [(row["reason"], row["record"]) for row in unread]
    labelled = GOOD | {"reason": "r", "stage": "s", "number": 1, "entry": "fee"}  # an entry with such fields is one
    assert [row.entry for row in read_rows(write(tmp_path / "own.json", json.dumps([labelled])))] == [labelled]


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.JSON.gz"])
def test_what_is_called_gz_is_packed_and_the_same_entries_are_the_same_bytes(tmp_path: Path, name: str) -> None:
    source, seen = many(tmp_path, 9), set()
    for folder in ("a", "b"):
        clean_file(
            source, out := tmp_path / folder / name, {"odd": from_memory(lambda n, e: "odd: n" if n % 2 else None)}
        )
        assert [row.entry for row in read_rows(out)] == load_entries(out) and len(load_entries(out)) == 4
        assert len(lines_of(tmp_path / folder / "out.dropped.jsonl")) == 5 == len(lines_of(dropped_path(out)))
        seen.add(out.read_bytes())
    assert len(seen) == 1 and seen.pop().startswith(b"\x1f\x8b")


def test_an_empty_json_list_is_valid_json(tmp_path: Path) -> None:
    with writing(tmp_path / "none.json"):
        pass
    assert json.loads((tmp_path / "none.json").read_text(encoding="utf-8")) == []


def test_reasons_are_counted_by_what_they_are() -> None:
    reasons = [
        "length: the output is empty",
        "near-duplicate of entry 7, Jaccard 0.91",
        "duplicate of test entry 2",
        "odd",
    ]
    assert [reason_group(reason) for reason in reasons] == ["length", "near-duplicate", "duplicate", "odd"]
