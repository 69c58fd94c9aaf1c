"""`python -m scripts.curate` as a user starts it: its cleaning commands from file to file."""

import io
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import scripts
from gpt.text.entries import load_entries, read_entries
from scripts import curate
from tests.judge_server import serving, status

EXTRA = ("ftfy", "better_profanity", "datasketch", "presidio_analyzer", "sklearn")
# importorskip would import them, in every worker, which takes seconds
pytestmark = pytest.mark.skipif(not all(map(find_spec, EXTRA)), reason="pip install -e '.[curate]'")
ROOT = Path(__file__).parents[1]
LONG = "A river carries water from the hills to the sea, and on its way it turns the wheels of many old mills."
RAW = [
    {"instruction": "What do rivers do?", "output": LONG},
    {"instruction": "What do rivers do?", "output": LONG.upper()},
    {"instruction": "What do rivers do?", "output": LONG.replace("old", "very old")},
    {"instruction": "Name a fruit.", "output": "A pear."},
    {"instruction": "Name a tree.", "output": "As an AI language model, I cannot see trees."},
    {"instruction": "Say it.", "output": "You asshole."},
    {"instruction": "Who wrote?", "output": "Write to ada@example.org."},
    {"instruction": "Where is it open?", "output": "The cafÃ© is open."},
    {"instruction": "Translate: bread", "output": ""},
    {"question": "Which is blue?", "answer": "The sky.", "options": ["The sky.", "Grass."]},
]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in RAW) + '{"cut": \n', encoding="utf-8")
    return path


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(*argv: object) -> int:
    return curate.main([str(word) for word in argv])


def test_the_pipeline_keeps_what_is_sound_and_explains_every_other_row(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "clean.json"
    assert run("pipeline", "--in", raw, "--out", out) == 0
    outputs = [entry["output"] for entry in load_entries(out)]
    assert outputs == [LONG, "A pear.", "Write to <EMAIL_ADDRESS>.", "The café is open.", "The sky."]
    dropped = [
        (row["number"], row["stage"], row["reason"].split(":")[0]) for row in lines_of(tmp_path / "clean.dropped.jsonl")
    ]
    assert dropped == [
        (2, "dedup", "duplicate of entry 1"),
        (3, "dedup", "near-duplicate of entry 1, Jaccard 0.93"),
        (5, "filter", "refusal"),
        (6, "toxicity", "toxic word"),
        (9, "filter", "length"),
        (11, "read", "not valid JSON"),
    ]
    told = capsys.readouterr().out
    assert "| all           |" in told and "5 entries in" in told
    html = (tmp_path / "clean.card" / "card.html").read_text(encoding="utf-8")
    assert html.count("data:image/png") >= 3 and "near-duplicate" in html


@pytest.mark.long
@pytest.mark.parametrize(
    "rows",
    [[], [{"instruction": "Name a tree.", "output": ""}], [RAW[3], {**RAW[3], "id": "\ud83d"}, {"\ud83d": "| \ud83d"}]],
)
def test_a_card_is_drawn_whatever_is_left(tmp_path: Path, rows: list[dict]) -> None:
    source, out = tmp_path / "raw.json", tmp_path / "clean.jsonl"
    source.write_text(json.dumps(rows), encoding="utf-8")
    assert run("pipeline", "--in", source, "--out", out) == 0
    assert len(lines_of(out)) + len(lines_of(tmp_path / "clean.dropped.jsonl")) == len(rows)
    assert (tmp_path / "clean.card" / "funnel.png").stat().st_size > 1000
    assert "data:image/png" in (tmp_path / "clean.card" / "card.html").read_text(encoding="utf-8")


def test_the_same_command_gives_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run("pipeline", "--in", raw, "--out", tmp_path / f"{name}.jsonl", "--no-card") == 0
    for ending in ("jsonl", "dropped.jsonl"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_convert_gives_entries_and_keeps_the_rest_apart(raw: Path, tmp_path: Path) -> None:
    assert run("convert", "--in", raw, "--out", tmp_path / "entries.json") == 0
    assert load_entries(tmp_path / "entries.json")[-1]["input"] == "The sky.\nGrass."
    assert [row["stage"] for row in lines_of(tmp_path / "entries.dropped.jsonl")] == ["read"]


def test_convert_says_what_reading_left_out_as_finetune_does(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, out = ROOT / "tests" / "fixtures" / "formats" / "oasst_tree.jsonl", tmp_path / "out.jsonl"
    assert run("convert", "--in", source, "--out", out) == 0
    [note] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    _, counts = read_entries(source)
    assert {"other_messages", "later_turns"} <= {name for name, n in counts.items() if n}
    for name, n in counts.items():
        assert f"{name.replace('_', ' ')} {n}" in note
    assert run("convert", "--in", out, "--out", tmp_path / "again.json") == 0
    assert "note" not in capsys.readouterr().out  # nothing is left out of what is ours already


def test_filters_can_be_chosen_and_their_limits_are_flags(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    flags = ["--only", "length", "--min-output", "3", "--toxicity", "none", "--personal", "none"]
    assert run("filter", "--in", raw, "--out", out, *flags) == 0
    assert len(lines_of(out)) == 6  # "A pear.", "You asshole.", "The sky." have two words
    assert run("filter", "--in", raw, "--out", out, "--skip", "refusal,encoding", "--personal", "drop") == 0
    reasons = {row["reason"].split(":")[0] for row in lines_of(tmp_path / "out.dropped.jsonl")}
    assert reasons == {"length", "toxic word", "personal data", "not valid JSON"}


def test_an_entry_that_repair_empties_is_dropped_and_not_written_without_an_instruction(tmp_path: Path) -> None:
    source, out = tmp_path / "raw.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps([RAW[3] | {"instruction": "\x01"}, RAW[3]]), encoding="utf-8")
    assert run("pipeline", "--in", source, "--out", out, "--skip", "length", "--by", "kind", "--no-card") == 0
    assert [row["instruction"] for row in lines_of(out)] == ["Name a fruit."]
    [gone] = lines_of(tmp_path / "out.dropped.jsonl")
    assert (gone["stage"], gone["reason"]) == ("repair", "nothing is left of the instruction")
    assert gone["entry"]["instruction"] == "\x01"


def test_dedup_against_a_test_set_and_in_another_order(raw: Path, tmp_path: Path) -> None:
    held_out, out = tmp_path / "test.json", tmp_path / "train.jsonl"
    held_out.write_text(json.dumps([RAW[3]]), encoding="utf-8")
    assert run("dedup", "--in", raw, "--out", out, "--against", held_out, "--order", "longest") == 0
    assert lines_of(out)[0]["output"] == RAW[2]["output"]
    reasons = {row["reason"] for row in lines_of(tmp_path / "train.dropped.jsonl")}
    assert "duplicate of test entry 1" in reasons and "near-duplicate of entry 3, Jaccard 0.93" in reasons


def test_a_test_set_is_not_overwritten_by_what_is_kept_apart_from_it(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("test.jsonl", "test.dropped.jsonl"):
        held_out = tmp_path / name
        held_out.write_text(json.dumps(RAW[3]), encoding="utf-8")
        assert run("dedup", "--in", raw, "--out", tmp_path / "test.jsonl", "--against", held_out) == 2
        assert "would overwrite" in capsys.readouterr().err and json.loads(held_out.read_text(encoding="utf-8"))
        held_out.unlink()


@pytest.mark.long
def test_balance_meets_the_mix_and_says_so_of_each_row_that_goes(tmp_path: Path) -> None:
    source, out = ROOT / "data" / "instructions.json", tmp_path / "mixed.jsonl"
    assert run("balance", "--in", source, "--out", out, "--by", "kind", "--size", 300) == 0
    kinds = [row["kind"] for row in lines_of(out)]
    assert len(kinds) == 300
    counts = sorted(map(kinds.count, set(kinds)))
    assert counts[-1] - counts[0] <= 1 or counts[-1] <= 300 // len(counts) * 2  # level, as far as there are enough
    dropped = lines_of(tmp_path / "mixed.dropped.jsonl")
    assert len(dropped) == len(load_entries(source)) - 300 and all("stay" in row["reason"] for row in dropped)


def test_kinds_are_asked_for_side_by_side_kept_and_what_rules_had_to_tell_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    entries = load_entries(ROOT / "data" / "instructions.json")[:40]
    source, out = tmp_path / "some.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps(entries), encoding="utf-8")

    def reply(prompt: str) -> str:
        time.sleep(0.05)
        return "" if entries[20]["instruction"] in prompt else "<think>code, or translation?</think>Generation."

    with serving(reply, ["m"]) as server:
        argv = ["balance", "--in", source, "--out", out, "--by", "kind", "--size", 30, "--base-url", server.url]
        argv += ["--model", "m", "--cache", tmp_path / "cache"]
        server.faults = [status(400)]
        assert run(*argv) == 0
        n_asked, n_most = len(server.asked), server.n_most
        told = capsys.readouterr().out
        assert n_asked == 40 and n_most > 1 and "note       2 of 40 kinds are told by rules" in told, told
        assert all(row["reason"].startswith("generation: ") for row in lines_of(tmp_path / "out.dropped.jsonl"))
        assert run(*argv) == 0 and len(server.asked) == n_asked + 1  # the one that failed
        server.faults = [status(400)] * 40
        assert run(*argv[:-1], tmp_path / "other") == 2
        assert len(server.asked) < n_asked + 1 + 40 and "400" in capsys.readouterr().err


@pytest.mark.long
def test_balance_by_cluster_levels_what_entries_are_about(tmp_path: Path) -> None:
    source, out = ROOT / "data" / "instructions.json", tmp_path / "spread.jsonl"
    assert run("balance", "--in", source, "--out", out, "--by", "cluster", "--clusters", 8, "--size", 200) == 0
    assert len(lines_of(out)) == 200


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["filter", "--skip", "spelling"], "filter 'spelling' is not known"),
        (["filter", "--toxicity", "much"], "--toxicity much is not known: use words, detoxify, none"),
        (["dedup", "--threshold", "2"], "threshold 2.0 is no similarity"),
        (["dedup", "--n-gram", "0"], "runs of 0 characters tell no texts apart"),
        (["balance", "--size", "-1"], "--size -1 is no number of anything: give 1 or more"),
        (["balance", "--by", "cluster", "--clusters", "0"], "--clusters 0 is no number"),
        (["review", "--size", "0"], "--size 0 is no number"),
        (["filter", "--languages", "english"], "language 'english' is not known: use some of en,zh,ja"),
        (["filter", "--languages", "en,zh-CN"], "did you mean zh?"),
        (["filter", "--languages", ""], "language '' is not known"),
        (["balance", "--mix", "3:5"], "--mix 3:5 is no mix"),
        (["balance", "--by", "taste"], "--by taste is not known"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture, flags: list[str], complaint: str
) -> None:
    assert run(*flags, "--in", raw, "--out", tmp_path / "out.jsonl") == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_library_is_one_line(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    assert run("dedup", "--in", raw, "--out", tmp_path / "out.jsonl") == 2
    assert "no module datasketch: pip install -c constraints.txt -e '.[curate]'" in capsys.readouterr().err


def test_a_folder_of_text_needs_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "texts").mkdir()
    assert run("pipeline", "--in", tmp_path / "texts", "--out", tmp_path / "out.jsonl") == 2
    assert "is a folder of text: name its teacher with --base-url and --model" in capsys.readouterr().err


def test_review_keeps_verdicts_as_they_come_and_goes_on_where_it_stopped(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "verdicts.jsonl"
    monkeypatch.setattr(sys, "stdin", io.StringIO("g\nwhat\nb wrong year\nq\n"))
    assert run("review", "--in", raw, "--out", out, "--size", 4) == 0
    assert [(row["verdict"], row["note"]) for row in lines_of(out)] == [("good", ""), ("bad", "wrong year")]
    assert "2 of 10 entries seen: 1 good, 1 bad; good are 50%" in capsys.readouterr().out
    with out.open("a", encoding="utf-8") as file:
        file.write('{"digest": "cut')  # killed while it was written
    monkeypatch.setattr(sys, "stdin", io.StringIO("u\n"))
    assert run("review", "--in", raw, "--out", out, "--size", 4) == 0
    told = capsys.readouterr().out
    assert "--- 3 of 4 ---" in told and "3 of 10 entries seen" in told
    monkeypatch.setattr(sys, "stdin", io.StringIO("g\n"))
    assert run("review", "--in", raw, "--out", out, "--size", 4) == 0
    assert "4 of 10 entries seen" in capsys.readouterr().out


def test_a_verdict_on_an_entry_with_any_sign_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    source, out = tmp_path / "raw.json", tmp_path / "verdicts.jsonl"
    source.write_text(json.dumps([RAW[3] | {"output": "A\u2028pear.\x85"}]), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("g\n"))
    assert run("review", "--in", source, "--out", out) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run("review", "--in", source, "--out", out) == 0
    told = capsys.readouterr().out
    assert told.count("1 of 1 entries seen: 1 good") == 2 and told.count("g good, b bad") == 1
    assert len(out.read_text(encoding="utf-8").splitlines()) > 1  # which is how it was read


def test_cleaning_does_without_the_makers(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scripts.curate_make", None)  # importing it raises ImportError
    monkeypatch.delattr(scripts, "curate_make", raising=False)
    assert run("convert", "--in", raw, "--out", tmp_path / "out.jsonl") == 0
    with pytest.raises(ImportError):
        run("evolve")
