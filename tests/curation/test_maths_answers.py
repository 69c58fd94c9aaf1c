"""Worked maths answers: results known, steps worked out again."""

import json
import re
from pathlib import Path

import pytest

from gpt.curation.maths_answers import make_problems, maths_jobs, number_in, result_of, value_of, why_wrong

GSM8K = Path(__file__).parents[1] / "fixtures" / "formats" / "gsm8k.jsonl"
GOOD = "The pens cost 4 * 3 = 12 dollars.\nThat leaves 20 - 12 = 8 dollars.\nAnswer: 8"


@pytest.mark.parametrize(
    ("solution", "result"),
    [
        (GOOD, 8),
        ("4 × 3 = 12\n**Answer:** 12 dollars", 12),
        ("$20.50 - $12.00 = $8.50.\nAnswer: $8.50", 8.5),
        ("2 * 3 + 4 = 6 + 4 = 10.\n#### 10", 10),
        ("25% * 80 = 20, so\nThe answer: 20", 20),
        ("1,200 / 4 = 300\nFinal answer: 300.", 300),
        ("一共有 3 * 4 = 12 个。\n答案：12", 12),
        ("x + 2 = 5 means 5 - 2 = 3.\nAnswer: 3", 3),
        ("10 / 4 = 5/2\nAnswer: 5/2", 2.5),
    ],
)
def test_a_right_solution_is_kept(solution: str, result: float) -> None:
    assert why_wrong(solution, result) is None


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        (GOOD.replace("Answer: 8", "Answer: 9"), "the answer is 9, not 8"),
        (GOOD.replace("= 12", "= 13"), "a step is wrong: 4 * 3 = 13"),
        ("2 * 2 = 5 = 8\nAnswer: 8", "a step is wrong: 2 * 2 = 5 = 8"),
        ("It is easy to see.\nAnswer: 8", "no step with an equation"),
        ("4 + 4 = 8", "no line with the answer"),
        ("4 + 4 = 8\nAnswer: eight", "no line with the answer"),
    ],
)
def test_a_wrong_solution_is_dropped_with_its_reason(solution: str, reason: str) -> None:
    assert why_wrong(solution, 8) == reason


def test_expressions_are_worked_out_and_nothing_else_is() -> None:
    assert value_of("2 + 3 * (4 - 1)") == 11
    assert value_of("-$1,000 / 8") == -125
    for text in ("x", "__import__('os')", "1 / 0", "9 ** 9 ** 9", "(" * 500, "'a' * 3", "1_0 if 1 else 2"):
        assert value_of(text) is None


def test_numbers_are_read() -> None:
    assert number_in("from 3 to 1,234.5 dollars") == 1234.5
    assert number_in("3/4") == 0.75
    assert number_in("3/0") is None is number_in("none")


def test_the_results_of_gsm8k_are_read_and_its_own_solutions_pass() -> None:
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        result = result_of({"output": row["answer"]})
        assert result == float(row["answer"].rpartition("#### ")[2].replace(",", ""))
        assert why_wrong(row["answer"], result) in (None, "no step with an equation")
    assert sum(why_wrong(row["answer"], result_of({"output": row["answer"]})) is None for row in rows) == len(rows)


def test_made_problems_differ_and_have_results_that_fit() -> None:
    problems = make_problems(200)
    assert len({p["instruction"] for p in problems}) == 200
    assert make_problems(200) == problems != make_problems(200, seed=1)
    for problem in problems:
        result = result_of(problem)
        assert result == int(result) >= 0, problem
    first = make_problems(1)[0]
    a, b, c = (int(n) for n in re.findall(r"\d+", first["instruction"]))
    assert result_of(first) == a * b - c


@pytest.mark.long
def test_more_problems_than_there_are_is_an_error() -> None:
    assert len({p["instruction"] for p in make_problems(13_600)}) == 13_600
    with pytest.raises(ValueError, match="only 13603 different problems"):
        make_problems(13_700)


def test_the_recipe_checks_the_teachers_steps() -> None:
    problem = {"instruction": "What is 20 minus 4 times 3?", "input": "", "output": "#### 8"}
    [job] = maths_jobs([problem])
    [entry] = job.work(lambda prompt: GOOD).entries
    assert (entry["output"], entry["result"]) == (GOOD, 8)
    assert job.work(lambda prompt: "I cannot answer that.").dropped[0]["reason"] == "the teacher refused"
    assert job.work(lambda prompt: "Answer: 5").dropped[0]["reason"] == "the answer is 5, not 8"


def test_a_problem_without_a_result_is_an_error() -> None:
    with pytest.raises(ValueError, match="problem 0 has no result"):
        maths_jobs([{"instruction": "Add 1 and 2.", "input": "", "output": "Three."}])
