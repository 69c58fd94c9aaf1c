"""Files that are no entries, as people bring them: one line that says which file, where, what and what to do."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest
import torch

from gpt.text.entries import EntryError, read_entries
from scripts import finetune
from scripts.new_run import new_run

GOOD = json.dumps({"instruction": "Name a fruit.", "input": "", "output": "Apple."})
DEEP = "[" * 10_000 + "]" * 10_000
MANY = 2_000_000  # characters of a line that never ends; 200 MB behave alike and take 1.5 s


def lines(bad: str) -> bytes:
    """A good row, the bad one as line 2, a good row."""
    return f"{GOOD}\n{bad}\n{GOOD}\n".encode("utf-8", "surrogatepass")


def fields(more: str) -> bytes:
    return lines('{"instruction": "a", "output": "b", ' + more + "}")


ROWS = {  # line 2 of a JSON Lines file -> what the message says
    "a character of control": (lines('{"instruction": "a\0b", "output": "c"}'), "Invalid control character"),
    "nested 10,000 deep": (fields(f'"extra": {DEEP}'), "recursion"),
    "nested 900 deep": (fields(f'"extra": {"[" * 900}{"]" * 900}'), "900 brackets stand in each other"),
    "a key twice": (fields('"output": "c"'), "the key 'output' stands twice"),
    "a number": (lines('{"instruction": 5, "output": "b"}'), '"instruction" must be text, found int 5'),
    "null": (lines('{"instruction": "a", "output": null}'), '"output" must be text, found NoneType null'),
    "a list": (lines('{"instruction": "a", "output": ["b"]}'), '"output" must be text, found list'),
    "a truth value": (fields('"input": true'), '"input" must be text, found bool true'),
    "half an emoji": (lines('{"instruction": "a", "output": "\\ud83d"}'), '"output" has half a character'),
    "NaN": (fields('"score": NaN'), "NaN is no number of JSON: write null"),
    "a number that is infinite": (fields('"score": 1e999'), "1e999 is no number of JSON: write null"),
    "a number of 5,000 digits": (fields(f'"n": {"9" * 5000}'), "5000 digits"),
    "unknown fields": (lines('{"question_text": "a", "reply": "b"}'), "of no known format; known are alpaca"),
    "a field missing": (lines('{"instruction": "a"}'), "its fields ['instruction'] are of no known format"),
    "fields in capitals": (lines('{"Instruction": "a", "Output": "b"}'), "['Instruction', 'Output'] are of no known"),
    "nothing": (lines("{}"), "its fields [] are of no known format"),
    "an empty instruction": (lines('{"instruction": " ", "output": "b"}'), "is empty: say what is to be done"),
    "a kind that is a number": (fields('"kind": 3'), '"kind" must be text, found int 3'),
    "a source that is a list": (fields('"source": [1]'), '"source" must be text, found list'),
    "an unknown role": (lines('{"messages": [{"role": "wizard", "content": "a"}]}'), "'wizard' is not known"),
    "messages of text": (lines('{"messages": ["a"]}'), '"messages" must be a list of objects'),
    "two objects": (lines(f"{GOOD} {GOOD}"), "not valid JSON: Extra data"),
    "plain text": (lines("hello"), "not valid JSON"),
    "a string": (lines('"hello"'), "expected an object, found str"),
    "a cut object": (lines(GOOD[:30]), "not valid JSON"),
}
FILES = {  # what is no file of entries at all
    "empty": (b"", "no entries: it needs a JSON list or one JSON object a line"),
    "white space": (b" \n\t\n", "no entries"),
    "a byte order mark alone": (b"\xef\xbb\xbf", "no entries"),
    "zeros": (bytes(100), "perhaps UTF-16: save the file as UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "perhaps UTF-16: save the file as UTF-8"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "perhaps UTF-16: save the file as UTF-8"),
    "UTF-32": (GOOD.encode("utf-32"), "save the file as UTF-8"),
    "Latin-1": (GOOD.replace("Apple", "P\u00eache").encode("latin-1"), "is not UTF-8: save the file as UTF-8"),
    "a surrogate in UTF-8": (lines('{"instruction": "\ud800"}'), "is not UTF-8"),
    "a line without an end": (b'{"instruction": "' + b"x" * MANY, "Unterminated string"),
    "only brackets": (DEEP.encode(), "recursion"),
    "CSV": (b"instruction,input,output\nName a fruit.,,Apple.\n", "looks like a table such as CSV"),
    "CSV in quotes": (b'"instruction","output"\n"a","b"\n', "looks like a table such as CSV"),
    "tabs": (b"instruction\toutput\na\tb\n", "looks like a table such as CSV"),
    "YAML": (b"- instruction: a\n  output: b\n", "looks like YAML"),
    "Python": (b"[{'instruction': 'a', 'output': 'b'}]", "write it with json.dump"),
    "a web page": (b"<!DOCTYPE html><html><body>404</body></html>", "looks like a web page"),
    "Parquet": (b"PAR1\x15\x04\x15\xf0" + bytes(range(256)), "looks like a Parquet file"),
    "zip": (b"PK\x03\x04" + bytes(100), "looks like a zip archive"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\nsize 5\n", "git lfs pull"),
    "a pickle": (b"\x80\x04\x95" + bytes(50), "looks like a pickle"),
    "a list cut off": (f"[{GOOD}, {GOOD[:30]}".encode(), "not valid JSON"),
    "gzip cut off": (gzip.compress(lines(GOOD) * 50)[:-30], "the gzip file is cut off or damaged"),
    "gzip of noise": (b"\x1f\x8b" + bytes(60), "the gzip file is cut off or damaged"),
    "gzip in gzip": (gzip.compress(gzip.compress(lines(GOOD))), "looks like gzip in gzip"),
    "a comma too many": (f"[{GOOD},]".encode(), "not valid JSON"),
    "two lists": (f'{{"train": [{GOOD}], "test": [{GOOD}]}}'.encode(), "put each into a file of its own"),
    "a number": (b"42", "entry 0: expected an object, found int 42"),
    "a list of text": (b'["a", "b"]', "entry 0: expected an object, found str"),
    "an empty list": (b"[]", "no entries"),
}


def fails_in_one_line(capsys: pytest.CaptureFixture, path: Path, *flags: str) -> str:
    capsys.readouterr()
    assert finetune.main(["--data", str(path), "--out", str(path.parent / "run"), "--device", "cpu", *flags]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {path}: ") and err.count("\n") == 1 and "Traceback" not in err
    assert out == "" and not (path.parent / "run").exists()  # nothing was begun
    return err


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_file_of_entries_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture, kind: str
) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(FILES[kind][0])
    assert FILES[kind][1] in fails_in_one_line(capsys, path)


@pytest.mark.parametrize("kind", ROWS)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture, kind: str) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(ROWS[kind][0])
    message = fails_in_one_line(capsys, path)
    assert f"{path}: line 2: " in message and ROWS[kind][1] in message


@pytest.mark.parametrize("kind", ROWS)
def test_a_bad_row_can_be_left_out_and_is_kept_with_its_reason(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(ROWS[kind][0])
    rejected = []
    entries, counts = read_entries(path, rejected)
    assert [entry["output"] for entry in entries] == ["Apple."] * 2 and counts["alpaca"] == 2
    [row] = rejected
    assert row["where"] == f"{path}: line 2" and ROWS[kind][1] in row["reason"]
    assert row["record"] == ROWS[kind][0].decode().split("\n")[1]


@pytest.mark.long
def test_a_small_file_cannot_unpack_to_any_size(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "some.json.gz"
    path.write_bytes(gzip.compress(bytes(100 * 2**20), 1))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    assert "unpacks to over 200 times its size" in fails_in_one_line(capsys, path)
    assert tracemalloc.get_traced_memory()[1] < 200 * path.stat().st_size + 2 * 2**26
    tracemalloc.stop()
    path.write_bytes(gzip.compress("\n".join([GOOD] * 20_000).encode()))  # real text, and much the same
    assert len(read_entries(path)[0]) >= 20_000


def test_bad_objects_of_a_list_are_left_out_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(f'[{GOOD}, 5, {{"instruction": "a"}}, {GOOD}]', encoding="utf-8")
    rejected = []
    assert len(read_entries(path, rejected)[0]) == 2
    assert [(row["where"], row["record"]) for row in rejected] == [
        (f"{path}: entry 1", 5), (f"{path}: entry 2", {"instruction": "a"})
    ]  # fmt: skip


def test_a_file_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text('[{"instruction": "a"}, 5]', encoding="utf-8")
    with pytest.raises(EntryError, match="no entries: all 2 were rejected"):
        read_entries(path, [])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Forty good rows of which every tenth is followed by a bad one."""
    path = tmp_path / "mixed.jsonl"
    rows = [json.dumps({"instruction": f"Say {n} in words.", "output": f"number {n}"}) for n in range(40)]
    path.write_text("\n".join(r + ("\n{oops" if n % 10 == 0 else "") for n, r in enumerate(rows)), encoding="utf-8")
    return path


@pytest.mark.long
def test_skip_bad_trains_on_the_rest_and_keeps_the_rejected(
    tmp_path: Path, mixed: Path, capsys: pytest.CaptureFixture
) -> None:
    message = fails_in_one_line(capsys, mixed)
    assert "line 2: not valid JSON" in message
    run = tmp_path / "run"
    flags = ["--skip-bad", "--epochs", "1", "--split", "ordered", "--template", "short", "--device", "cpu"]
    assert finetune.main(["--data", str(mixed), "--out", str(run), *flags, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "4 records cannot be read and are left out; the first: " in shown and "nothing was written" in shown
    assert not run.exists()
    assert finetune.main(["--data", str(mixed), "--out", str(run), *flags]) == 0
    assert f"4 records cannot be read and are left out, all in {run / 'rejected.jsonl'}" in capsys.readouterr().out
    rejected = [json.loads(line) for line in (run / "rejected.jsonl").read_text("utf-8").splitlines()]
    assert [row["where"] for row in rejected] == [f"{mixed}: line {n}" for n in (2, 13, 24, 35)]
    assert {row["record"] for row in rejected} == {"{oops"}
    facts = json.loads((run / "training.json").read_text("utf-8"))
    assert facts["skip_bad"] is True and sum(facts["facts"]["entries"].values()) == 40


def test_all_processes_of_a_run_with_bad_rows_come_to_one_folder(
    tmp_path: Path, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun's processes look for a free folder one after the other: whatever the first writes, the second finds."""
    monkeypatch.chdir(tmp_path)
    args = finetune.parse(["--data", str(mixed), "--skip-bad", "--model", "gpt2-tiny", "--device", "cpu"])
    (first, _, facts), (second, _, _) = (new_run(args, torch.device("cpu")) for _ in range(2))
    assert first == second == Path("runs/gpt2-tiny")
    assert len(facts["rejected"]) == 4
    assert list(tmp_path.iterdir()) == [mixed]
