"""Plain answers and texts with a sentiment."""

import json
import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from gpt.curation.answers import (
    LABELS,
    LEVELS,
    answer_jobs,
    ask_answer,
    balance_labels,
    read_instructions,
    sentiment,
    sentiment_jobs,
)
from gpt.curation.teacher import Journal, Teacher, run_jobs
from gpt.text.entries import load_entries


def entry(instruction: str, given: str = "", output: str = "") -> dict:
    return {"instruction": instruction, "input": given, "output": output}


# ---- plain ----


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '["Name a bird.", {"instruction": "Add.", "input": "1 + 2"}]'),
        ("a.jsonl", '"Name a bird."\n{"instruction": "Add.", "input": "1 + 2", "output": null}\n'),
    ],
)
def test_instructions_are_read_without_outputs(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_instructions(tmp_path / name) == [entry("Name a bird."), entry("Add.", "1 + 2")]


def test_a_text_file_has_an_instruction_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Name a bird.\n\nName a fish.\n")
    assert [e["instruction"] for e in read_instructions(tmp_path / "a.txt")] == ["Name a bird.", "Name a fish."]


def test_what_has_no_instruction_is_an_error_with_its_position(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["Name a bird.", {"question": "Why?"}]')
    with pytest.raises(ValueError, match='row 1: it has no "instruction"'):
        read_instructions(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{broken")
    with pytest.raises(ValueError, match="neither JSON nor JSON Lines"):
        read_instructions(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Add.", "input": None}, entry("Add.")),
        ({"instruction": "Add.", "input": "1 + 2", "output": None}, entry("Add.", "1 + 2")),
        ({"instruction": "Add.", "context": "1 + 2"}, entry("Add.", "1 + 2")),
        ({"instruction": "Add.", "context": "1 + 2", "response": ""}, entry("Add.", "1 + 2")),
        ({"instruction": "Add.", "context": "1 + 2", "response": "3"}, entry("Add.", "1 + 2", "3")),
        ({"instruction": "Add.", "input": "<noinput>"}, entry("Add.")),
        ({"question": "1 + 2?", "answer": "3"}, entry("1 + 2?", "", "3")),
        ({"instruction": "Add.", "kind": "arithmetic"}, entry("Add.") | {"kind": "arithmetic"}),
    ],
)
def test_instructions_are_read_as_entries_are(tmp_path: Path, row: dict, expected: dict) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row]))
    assert read_instructions(path) == [expected]
    [job] = answer_jobs([expected]) or [None]
    assert (job is None) == bool(expected["output"])
    assert job is None or expected["input"] in job.prompt
    if expected["output"]:
        assert load_entries(path) == [expected]  # every command reads the same


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"instruction": "Add.", "output": 4}', 'row 0: "output" must be text, found int 4'),
        ('{"instruction": "Add.", "input": ["1"]}', 'row 0: "input" must be text, found list'),
        ('{"instruction": " "}', 'row 0: "instruction" is empty'),
        ('{"instruction": "Add.", "score": NaN}', "NaN is no number of JSON"),
        ('{"instruction": "Half \\ud83d"}', "row 0: .*half a character"),
        ('{"messages": [{"role": "user", "content": "Why?"}]}', "row 0: no user turn of it is answered"),
        ("4", "row 0: an instruction is a text or an object, found int 4"),
    ],
)
def test_rows_that_no_other_command_could_read_are_refused(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "a.json").write_text(f"[{row}]")
    with pytest.raises(ValueError, match=message):
        read_instructions(tmp_path / "a.json")


def test_answers_are_asked_for_where_there_is_none(tmp_path: Path) -> None:
    rows = [entry("Name a bird."), entry("Name a fish.", "", "Eel."), entry("Name a bird.", "red")]
    jobs = answer_jobs(rows)
    assert [job.order for job in jobs] == [(0,), (2,)]
    assert "red" in jobs[1].prompt and "Input:" not in jobs[0].prompt
    results = run_jobs(jobs, Journal(tmp_path / "j", {}), [Teacher("t", lambda prompt: "<think>Hm.</think>\nA robin.")])
    assert [e["output"] for _, outcome in results for e in outcome.entries] == ["A robin."] * 2


@pytest.mark.parametrize(
    ("reply", "text", "reason"),
    [
        ("Answer: A robin.", "A robin.", None),
        ("Sure, here is a bird:\nA robin.", "A robin.", None),
        ("42", "42", None),
        ("", "", "the teacher said nothing"),
        ("I'm sorry, but I can't answer that.", None, "the teacher refused"),
        ("Name a bird.", None, "the answer repeats the instruction"),
        ("Answer:", None, "the teacher said nothing"),
    ],
)
def test_an_answer_is_bared_or_its_fault_is_named(reply: str, text: str | None, reason: str | None) -> None:
    found, why = ask_answer(entry("Name a bird."), lambda prompt: reply)
    assert why == reason
    assert text is None or found == text


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Sure, here's a bird: A robin.", "A robin."),
        ("Of course! Here are two birds:\n\nA robin: small.", "A robin: small."),
        ("Certainly!\nA robin.", "A robin."),
        ("Okay, I am glad to help you with that!\n\nA robin.", "A robin."),
        ("答案：知更鸟", "知更鸟"),
    ],
)
def test_what_stands_before_an_answer_is_taken_off(reply: str, text: str) -> None:
    assert ask_answer(entry("Name a bird."), lambda prompt: reply)[0] == text


@pytest.mark.parametrize(
    "answer",
    [
        "Sure! The train leaves at 10:30.",
        "Okay, the ratio is 3:4.",
        "Of course! See https://example.org for more.",
        "Certainly not! War is wrong: it kills.",
        "Certainly, war is wrong!\nIt kills.",
        "Sure, I'd love to come!\nSee you at 8:00.",
        "Sure-footed: a goat.",
        "Answers vary: some say so.",
    ],
)
def test_an_answer_keeps_its_beginning(answer: str) -> None:
    greedy = re.compile(r"\A(?:sure|certainly|of course|okay)[^\n]{0,60}\s*[:!]\s*", re.IGNORECASE)
    assert ask_answer(entry("Answer."), lambda prompt: answer) == (answer, None)
    assert answer.startswith("Answers") or greedy.sub("", answer) != answer  # what the shorter pattern would cut


# ---- sentiment ----


def test_jobs_go_round_all_labels_and_levels() -> None:
    jobs = sentiment_jobs(18)
    cells = Counter((job.work.keywords["label"], job.work.keywords["level"]) for job in jobs)
    assert cells == dict.fromkeys(product(LABELS, LEVELS), 2)
    assert len({job.key for job in jobs}) == 18
    assert sentiment_jobs(4, start=14)[0].key == jobs[14].key


def reply_with(text: str, label: str):
    return lambda prompt: label if prompt.startswith("Is the sentiment") else text


def test_a_text_is_kept_if_its_label_is_found_again() -> None:
    [job, *_] = sentiment_jobs(1)
    [found] = job.work(reply_with('"It was wonderful."', "Positive.")).entries
    assert (found["input"], found["output"], found["level"]) == ("It was wonderful.", "positive", "plain")


@pytest.mark.parametrize(
    ("text", "label", "reason"),
    [
        ("It was grim.", "negative", "asked blindly, the teacher finds another label"),
        ("It was fine.", "positive or negative", "asked blindly, the teacher finds another label"),
        ("It was fine.", "", "asked blindly, the teacher finds another label"),
        ("A positive day.", "positive", "the text names its label"),
        ("", "positive", "the teacher said nothing"),
        ("I cannot write that.", "positive", "the teacher refused"),
    ],
)
def test_a_text_whose_label_is_in_doubt_is_dropped(text: str, label: str, reason: str) -> None:
    outcome = sentiment(reply_with(text, label), "p", "positive", "plain", "Which?")
    assert outcome.entries == []
    assert outcome.dropped[0]["reason"] == reason


def test_labels_are_balanced_and_the_rest_is_said() -> None:
    counts = {("positive", "plain"): 5, ("positive", "subtle"): 2, ("negative", "mild"): 4, ("neutral", "plain"): 3}
    rows = [entry("?", f"{cell} {i}", cell[0]) | {"level": cell[1]} for cell, n in counts.items() for i in range(n)]
    kept, dropped = balance_labels(rows)
    assert Counter(e["output"] for e in kept) == dict.fromkeys(LABELS, 3)
    assert Counter(e["level"] for e in kept if e["output"] == "positive") == {"plain": 2, "subtle": 1}
    assert len(kept) + len(dropped) == len(rows)
    none, all_of_them = balance_labels(rows[:7])  # of one label
    assert (none, len(all_of_them)) == ([], 7)
    json.dumps(dropped)
