"""Judging: questions, replies read by a ladder, verdicts on disk, and the report; judges are plain functions here."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt.evaluation import judge as module
from gpt.evaluation.chat_client import ChatError
from gpt.evaluation.judge import (
    ASPECTS,
    Question,
    Verdict,
    ask_question,
    calibration_questions,
    collect_verdicts,
    judge,
    match_rows,
    pair_questions,
    parse_choice,
    parse_score,
    read_verdicts,
    run_questions,
    score_question,
    verdicts_by_sample,
)
from gpt.evaluation.metrics import copied_input
from gpt.studies.judge_report import comparison_words, headline, judge_page, judge_summary, trust
from gpt.text.entries import load_entries
from tests.judge_server import longest_wins, oracle, part

BUNDLED = Path(__file__).parents[2] / "data" / "instructions.json"
ENTRY = {"instruction": "Name the colour.", "input": "The sky is blue.", "output": "Blue."}

# ---- replies ----


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("85", 85), (" 85.\n", 85), ("**85**", 85), ('"85"', 85), ("85/100", 85), ("85 out of 100", 85), ("85%", 85),
        ("0", 0), ("100", 100), ("85.0", 85), ("85分", 85), ("85 points", 85),
        ("Score: 85", 85), ("**Score:** 85", 85), ("Score: **85/100**", 85), ("Score = 85", 85), ("score - 85", 85),
        ("Rating: 85", 85), ("Score (0-100): 85", 85), ("评分：85", 85), ("Overall, I would score this 85.", 85),
        ("Score: 85\n\nIt has 3 mistakes and 2 gaps.", 85), ("A good answer. I would give it 85/100.", 85),
        ("I would give it a score of 85 out of 100.", 85), ("On a scale from 0 to 100 I would score this 85.", 85),
        ('{"score": 85}', 85), ('{"Score": "85"}', 85), ('```json\n{"score": 85, "why": "3 errors"}\n```', 85),
        ('{"why": {"score": 85}}', 85), ('{"score": 85, "why": "it says {x}"}', 85),
        ("<think>Perhaps 40, or 50?</think>\n85", 85),
        ("Score: 70 at first, but it is wrong.</think>\n\n85", 85),  # the opening tag was the prompt's end
        ("<think>40</think> <think>No.</think>85", 85), ("I would give it a score of 85.", 85),
    ],
)  # fmt: skip
def test_a_score_is_read_from_many_forms(reply: str, score: int) -> None:
    assert parse_score(reply) == score


@pytest.mark.parametrize(
    "reply",
    [
        "", " ", "I think this is a good response.", "I count 3 mistakes.", "Eighty-five", "850", "-5", "101", "85.5",
        "Score: 850", "Score: -5", "Score: 85.5", '{"score": 850}', '{"score": -5}', '{"score": true}',
        '{"score": null}', '{"score": 80, "score": 90}', '{"score": 80} {"score": 90}', "80 90", "80-90", "80 to 90",
        "Between 80 and 90", "Score: 80-90", "Score: 80, 90", "Score: 80\nScore: 90", "Score: 8/10", "8/10",
        "85/1000", "1,000", "A perfect score of 100 would need more.",
        "The score of 100 is the best score.", "The best score is 100.", "Score 100 is the best.", "The answer is 10.",
        "<think>85", "²", "9" * 5000, '{"score": 1e400}',
        "score " * 1000, "{" * 5000, "Score: " + " " * 5000,
    ],
)  # fmt: skip
def test_what_is_ambiguous_is_no_score(reply: str) -> None:
    assert parse_score(reply) is None


def test_a_plain_search_for_a_number_would_guess() -> None:
    """The wrong variant: the first number of the reply."""
    wrong = [int(re.search(r"\d+", reply)[0]) for reply in ("I count 3 mistakes.", "Score: 8/10", "80 to 90", "-5")]
    assert wrong == [3, 8, 80, 5]


@pytest.mark.parametrize(
    ("reply", "grade"),
    [("4", 4), ("Grade: 4", 4), ("4/5", 4), ("4 out of 5", 4), ('{"rating": 4}', 4),
     ('{"grade": 4, "why": "not score: 3"}', 4), ("0", None), ("6", None),
     ("80", None), ("4/100", None), ("3-4", None), ("Grade: 4%", None)],
)  # fmt: skip
def test_the_rubric_has_grades_from_1_to_5(reply: str, grade: int | None) -> None:
    assert parse_score(reply, "1-5") == grade


@pytest.mark.parametrize(
    ("reply", "choice"),
    [("A", "A"), ("B.", "B"), ("tie", "tie"), ("Tie", "tie"), ("**A**", "A"), ("Response B", "B"), ("[[A]]", "A"),
     ("Winner: B", "B"), ('{"winner": "tie"}', "tie"), ("A is better than B.", "A"), ("The better response is B.", "B"),
     ("A and B", None), ("A is better. No, B is better.", None), ("A good answer", None), ("", None), ("C", None),
     ("Both are good", None), ("<think>A</think>B", "B"), ("Winner: A</think>\n\nB", "B")],
)  # fmt: skip
def test_a_choice_is_read_or_not(reply: str, choice: str | None) -> None:
    assert parse_choice(reply) == choice


# ---- one question ----


def test_the_judge_sees_instruction_input_reference_and_response() -> None:
    prompt = score_question(ENTRY, "It is green.").prompt
    assert [part(prompt, name) for name in ("instruction", "input", "reference", "response")] == [
        "Name the colour.", "The sky is blue.", "Blue.", "It is green.",
    ]  # fmt: skip
    assert "from 0 to 100" in prompt
    assert prompt.endswith("integer number only.")
    assert "<input>" not in score_question(ENTRY | {"input": " "}, "x").prompt
    assert score_question(ENTRY, "{braces} and {aspect}").prompt.count("{braces} and {aspect}") == 1
    assert (
        len({score_question(ENTRY, "x", scale, aspect).digest for scale in module.SCALES for aspect in ASPECTS}) == 10
    )


def test_a_question_asked_in_an_earlier_version_is_still_the_same_question() -> None:
    """Its verdict would not be found again otherwise."""
    assert Question(0, "response", "overall", "0-100", "Why?").digest == "5d8a995a6fa7cf7c577cc9d49ca9e00d"
    assert {question.row for question in (score_question(ENTRY, "x"), *pair_questions(ENTRY, "x", "y"))} == {0}


def test_an_unreadable_reply_is_asked_for_once_more_with_a_reminder() -> None:
    asked, replies = [], ["It is fine.", "80"]

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return replies[len(asked) - 1]

    assert judge(ENTRY, "Blue", ask) == Verdict(80, ["It is fine.", "80"])
    assert asked[1] == asked[0] + "\n\nReply with the number only."
    assert judge(ENTRY, "Blue", lambda prompt: "85") == Verdict(85, ["85"])
    assert judge(ENTRY, "Blue", lambda prompt: "Fine.") == Verdict(None, ["Fine.", "Fine."])


def test_a_pair_is_asked_in_both_orders_and_equal_responses_not_at_all() -> None:
    first, second = pair_questions(ENTRY, "Blue.", "Green.", row=7)
    assert [part(first.prompt, "response A"), part(second.prompt, "response A")] == ["Blue.", "Green."]
    assert [ask_question(question, oracle).score for question in (first, second)] == ["A", "B"]
    assert pair_questions(ENTRY, "Blue.", "Blue.") == []


def test_calibration_rows_are_answers_whose_worth_is_known() -> None:
    entries = load_entries(BUNDLED)[::20]
    questions = calibration_questions(entries, 15)
    assert questions == calibration_questions(entries, 15)
    by_sample = {name: [q for q in questions if q.sample == name] for name in {q.sample for q in questions}}
    assert {name: len(members) for name, members in by_sample.items()} == {
        "reference": 15, "empty": 15, "copied input": 15, "shuffled reference": 15,
    }  # fmt: skip
    outputs = {entry["output"] for entry in entries}
    for q in questions:
        text, entry = part(q.prompt, "response"), entries[q.row]
        assert part(q.prompt, "reference") == entry["output"]
        if q.sample == "shuffled reference":
            assert text != entry["output"]
            assert text in outputs
        else:
            expected = {"reference": entry["output"], "empty": "", "copied input": copied_input(entry)}[q.sample]
            assert text == expected
    assert calibration_questions([ENTRY], 5) == []  # no other entry to take an answer from
    assert calibration_questions(entries, 0) == []


def test_runs_are_matched_by_entry_and_not_by_place() -> None:
    rows = [ENTRY | {"output": str(i)} for i in range(3)]
    theirs = [row | {"model_response": f"to {row['output']}"} for row in reversed(rows[1:])]
    assert match_rows(rows, theirs, "model_response") == {1: "to 1", 2: "to 2"}
    assert match_rows([ENTRY, ENTRY], [ENTRY | {"x": "a"}, ENTRY | {"x": "b"}], "x") == {0: "a", 1: "b"}


# ---- verdicts on disk ----


def questions(n: int) -> list[Question]:
    return [score_question(ENTRY, f"answer {i}", row=i) for i in range(n)]


def test_verdicts_are_in_the_file_when_they_are_yielded_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    for n, (question, verdict) in enumerate(collect_verdicts(questions(5), lambda p: "Score: 7", path, "me", 1), 1):
        assert read_verdicts(path)["me", question.digest] == verdict == Verdict(7, ["Score: 7"])
        assert path.read_bytes().count(b"\n") >= n
    row = json.loads(path.read_text().split("\n")[0])
    assert {name: row[name] for name in ("judge", "row", "sample", "aspect", "score", "replies")} == {
        "judge": "me", "row": 0, "sample": "response", "aspect": "overall", "score": 7, "replies": ["Score: 7"],
    }  # fmt: skip


def test_half_a_line_of_a_killed_run_is_no_verdict_and_spoils_none(tmp_path: Path) -> None:
    path, four = tmp_path / "verdicts.jsonl", questions(4)
    list(collect_verdicts(four[:1], lambda p: "7", path, "me", 1))
    list(collect_verdicts(four[1:2], lambda p: "评分：7", path, "me", 1))
    assert [json.loads(line)["score"] for line in path.read_text().splitlines()] == [7, 7]  # no empty line
    assert "评分：7" in path.read_text(encoding="utf-8")  # to be read by people too
    path.write_bytes(path.read_bytes()[:-20])
    assert set(read_verdicts(path)) == {("me", four[0].digest)}
    list(collect_verdicts(four[1:], lambda p: "8", path, "me", 1))
    found = verdicts_by_sample(four, read_verdicts(path), "me")["response", "overall"]
    assert [found[i].score for i in range(4)] == [7, 8, 8, 8]


def test_the_same_question_is_asked_once_and_a_failed_one_is_no_verdict(tmp_path: Path) -> None:
    asked = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        if "answer 1\n" in prompt:
            raise ChatError("the server is gone")
        return "7"

    path = tmp_path / "verdicts.jsonl"
    found = dict(collect_verdicts(questions(3) + questions(3), ask, path, "me", 2))
    assert len(asked) == 3
    assert [isinstance(verdict, ChatError) for verdict in found.values()].count(True) == 1
    assert len(read_verdicts(path)) == 2


def test_a_reply_with_half_a_character_is_kept_and_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    [(question, verdict)] = collect_verdicts(questions(1), lambda p: "Score: 7 \ud83d", path, "me", 1)
    assert read_verdicts(path)["me", question.digest] == verdict == Verdict(7, ["Score: 7 \ud83d"])
    assert path.read_bytes().endswith(b"}\n")


# ---- the report ----


def rows_of(n: int = 24) -> list[dict]:
    """Real entries; every third response is the reference, the others are the copied input or of no use."""
    entries = [entry for entry in load_entries(BUNDLED) if copied_input(entry) != entry["output"]][:: 1000 // n][:n]
    responses = [(e["output"], copied_input(e), "I do not know.")[i % 3] for i, e in enumerate(entries)]
    return [e | {"model_response": r, "base_response": "Well."} for e, r in zip(entries, responses, strict=True)]


def report(
    tmp_path: Path, rows: list[dict], ask: Callable[[str], str], against: bool = False, n_calibration: int = 20
) -> tuple[dict, str]:
    tmp_path.mkdir(exist_ok=True)
    others = {i: row["base_response"] for i, row in enumerate(rows)} if against else {}
    asked, path = run_questions(rows, others, "0-100", ["overall"], n_calibration), tmp_path / "verdicts.jsonl"
    list(collect_verdicts(asked, ask, path, "me", 1))
    found = verdicts_by_sample(asked, read_verdicts(path), "me")
    names = {"judge": "me", "scale": "0-100", "failed": 0, "other": "base"}
    summary = names | judge_summary(rows, others, found, {})
    return summary, judge_page(summary, rows, found)


def test_calibration_rows_are_no_part_of_the_mean(tmp_path: Path) -> None:
    rows = rows_of()
    alone, _ = report(tmp_path / "alone", rows, oracle, n_calibration=0)
    summary, page = report(tmp_path, rows, oracle)
    for name in ("n", "scored", "unreadable", "mean", "low", "high", "mean_unreadable_as_zero"):
        assert summary[name] == alone[name]
    assert summary["n"] == len(rows) == 24
    assert alone["calibration"] is None
    assert "not calibrated" in trust(alone)
    assert summary["calibration"]["fit"] is True
    assert "The judge is fit" in page
    assert summary["agreement"]["ROUGE-L"]["spearman"] == pytest.approx(1, abs=0.01)  # it is ROUGE-L, rounded


def judges() -> dict[str, Callable[[str], str]]:
    rng = random.Random(0)
    return {
        "constant": lambda prompt: "70",
        "random": lambda prompt: str(rng.randint(0, 100)),
        "longest": longest_wins,
        "prose": lambda prompt: "This is a very good response.",
    }


@pytest.mark.long
@pytest.mark.parametrize("name", ["constant", "random", "longest", "prose"])
def test_bad_judges_are_called_unfit_in_the_report_and_the_oracle_is_not(tmp_path: Path, name: str) -> None:
    summary, page = report(tmp_path, rows_of(), judges()[name], against=True)
    assert summary["calibration"]["fit"] is False
    assert "The judge is unfit" in page
    assert "worth little" in comparison_words(summary)
    (tmp_path / "verdicts.jsonl").unlink()
    assert report(tmp_path, rows_of(), oracle)[0]["calibration"]["fit"] is True


def test_unreadable_replies_are_counted_listed_and_given_as_zero(tmp_path: Path) -> None:
    """Dropped in silence, they would leave a mean of 60 that looks like one of all rows."""
    rows = [ENTRY | {"model_response": f"answer {i}"} for i in range(4)]
    summary, page = report(tmp_path, rows, lambda p: "Hmm, `hard`." if "answer 2" in p else "60", n_calibration=0)
    assert (summary["n"], summary["scored"], summary["unreadable"]) == (4, 3, 1)
    assert (summary["mean"], summary["mean_unreadable_as_zero"]) == (60.0, 45.0)
    assert summary["unreadable_rows"] == [2]
    assert "mean of 45.0" in headline(summary)
    assert page.count("Hmm, `hard`.") == 2
    nothing, page = report(tmp_path / "alone", rows, lambda p: "Hmm.", n_calibration=0)
    assert nothing["mean"] is None
    assert nothing["mean_unreadable_as_zero"] == 0.0
    assert "None of 4 replies" in page


def test_the_report_alone_says_whether_one_run_beats_the_other(tmp_path: Path) -> None:
    rows = rows_of()
    summary, page = report(tmp_path, rows, oracle, against=True)
    words = comparison_words(summary)
    assert words in page
    assert "By the scores this run is better" in words
    assert "Side by side this run is better" in words
    turned = [row | {"model_response": row["base_response"], "base_response": row["model_response"]} for row in rows]
    (tmp_path / "verdicts.jsonl").unlink()
    turned_summary, _ = report(tmp_path, turned, oracle, against=True)
    assert "By the scores base is better" in comparison_words(turned_summary)
    ours, theirs = summary["against"], turned_summary["against"]
    assert ours["scores"]["value"] == -theirs["scores"]["value"]
    assert (ours["pairs"]["wins"], ours["pairs"]["losses"]) == (theirs["pairs"]["losses"], theirs["pairs"]["wins"])
    same = [row | {"base_response": row["model_response"]} for row in rows]
    equal, _ = report(tmp_path, same, oracle, against=True)
    assert comparison_words(equal).count("no difference is shown") == 2
    assert equal["against"]["pairs"]["equal"] == len(rows)


def test_a_judge_that_likes_length_shows_it_beside_the_scores(tmp_path: Path) -> None:
    rows = [ENTRY | {"model_response": "blue " * n} for n in range(1, 10)]
    summary, page = report(tmp_path, rows, longest_wins, n_calibration=0)
    assert summary["length"]["spearman_with_score"] == pytest.approx(1.0)
    assert summary["length"]["mean_words"] == 5.0
    assert "length and its score: 1.00" in page


def test_two_judges_are_compared_on_the_same_rows(tmp_path: Path) -> None:
    rows = rows_of()
    asked, path = run_questions(rows, {}, "0-100", ["overall"], 0), tmp_path / "verdicts.jsonl"
    for name, ask in {"me": oracle, "same": oracle, "opposite": lambda p: str(100 - int(oracle(p)))}.items():
        list(collect_verdicts(asked, ask, path, name, 1))
    known = read_verdicts(path)
    found = {name: verdicts_by_sample(asked, known, name) for name in ("me", "same", "opposite")}
    summary = judge_summary(rows, {}, found.pop("me"), found)
    assert summary["agreement"]["same"]["kendall"] == pytest.approx(1.0)
    assert summary["agreement"]["opposite"]["pearson"] == pytest.approx(-1.0)


@pytest.mark.parametrize("score", ["B", 50.0, True, -1, 101, [50], {"a": 1}, "fifty"])
def test_a_score_that_no_judge_can_have_given_is_no_verdict(tmp_path: Path, score: object) -> None:
    """A file of verdicts may come from anywhere."""
    question = score_question({"instruction": "a", "input": "", "output": "b"}, "c")
    row = {"judge": "j", "question": question.digest, "score": score, "replies": ["x"]}
    others = [row | {"score": 50, "replies": ["50", None]}, row | {"score": 50, "judge": 3}, row | {"replies": 5}]
    path = tmp_path / "verdicts.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [row, *others]) + "[" * 100_000, encoding="utf-8")
    assert verdicts_by_sample([question], read_verdicts(path), "j") == {("response", "overall"): {}}
    path.write_text(json.dumps(row | {"score": 50}), encoding="utf-8")
    assert verdicts_by_sample([question], read_verdicts(path), "j")["response", "overall"][0].score == 50
