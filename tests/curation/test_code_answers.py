"""Code of a teacher: what is refused unread, what is stopped, and which assertions show something."""

import sys
import time

import pytest

from gpt.curation.code_answers import code_jobs, run_code, why_not_run, why_not_solved

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits are the system's, and Windows has none")
GOOD = "def double(n):\n    return 2 * n"
CHECKS = "assert double(2) == 4\nassert double(0) == 0\nassert double(-1) == -2"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os", "imports os"),
        ("from subprocess import run", "imports subprocess"),
        ("from . import x", "imports ."),
        ("import math, socket", "imports socket"),
        ("open('x')", "uses open"),
        ("().__class__.__bases__", "uses __bases__"),
        ("x = __builtins__", "uses __builtins__"),
        ("getattr(x, 'y')", "uses getattr"),
        ("raise SystemExit", "uses SystemExit"),
        ("try:\n    f()\nexcept:\n    pass", "catches every exception"),
        ("def f(:", "no Python: invalid syntax"),
        ("x = '\0'", "no Python: source code string cannot contain null bytes"),
    ],
)
def test_what_reaches_beyond_computing_is_refused(code: str, reason: str) -> None:
    found = why_not_run(code)
    assert found == reason or (reason == "uses __bases__" and found == "uses __class__")


def test_computing_is_allowed() -> None:
    code = "import math\nfrom collections import Counter\nclass A:\n    def __init__(self):\n        self.n = math.pi\n"
    assert why_not_run(code + "if __name__ == '__main__':\n    print(A().n)") is None


def test_code_that_ends_is_told_from_code_that_fails() -> None:
    assert run_code("x = 1") is None
    assert run_code("assert 1 == 2, 'no'") == "failed: AssertionError: no"
    assert run_code("1 / 0") == "failed: ZeroDivisionError: division by zero"


def test_time_is_limited_waiting_and_working() -> None:
    start = time.monotonic()
    assert run_code("while True:\n    pass", seconds=1) == "took more than 1 seconds"
    assert run_code("def f():\n    return 10 ** 10 ** 9\nf()", seconds=1).startswith("took more than 1 s")
    assert time.monotonic() - start < 8


def test_memory_and_output_are_limited() -> None:
    assert run_code("x = 'x' * (1 << 30)", megabytes=128) == "failed: MemoryError"
    assert "File too large" in run_code("for i in range(10 ** 4):\n    print('x' * 1000)")


def test_the_process_does_not_see_the_environment_or_our_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even of code that was not read before: the child's own environment is empty."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setattr("gpt.curation.code_answers.why_not_run", lambda code: None)
    assert (
        run_code("import os\nassert 'OPENAI_API_KEY' not in os.environ\nassert os.listdir() == ['out', 'err'][::-1]")
        is None
    )


def test_a_solution_is_kept_if_its_assertions_hold_and_could_fail() -> None:
    assert why_not_solved(GOOD, CHECKS) is None


@pytest.mark.parametrize(
    ("solution", "assertions", "reason"),
    [
        ("def double(n):\n    return 3 * n", CHECKS, "failed: AssertionError"),
        (GOOD, "assert True\nassert 2 == 2", "fewer than two assertions call the solution"),
        (GOOD, "assert double(1) == 2", "fewer than two assertions call the solution"),
        (GOOD, "def test():\n    assert double(1) == 2\n    assert double(2) == 5",
         "fewer than two assertions call the solution"),
        ("def shout(s):\n    return None", "assert not shout('a')\nassert shout('b') is None",
         "the assertions hold for a function that returns nothing"),
        ("double = 2", "assert double == 2\nassert double > 1", "the solution defines no function"),
        ("import os\n" + GOOD, CHECKS, "imports os"),
        (GOOD, "import sys\n" + CHECKS, "imports sys"),
    ],
)  # fmt: skip
def test_what_assertions_do_not_show_is_dropped(solution: str, assertions: str, reason: str) -> None:
    assert why_not_solved(solution, assertions) == reason


REPLY = """Instruction: Write a function `double(n)` that returns twice the number n.
Solution:
```python
def double(n):
    return 2 * n
```
Assertions:
```python
assert double(2) == 4
assert double(0) == 0
```
"""


def test_the_recipe_keeps_what_runs() -> None:
    [job] = code_jobs(1)
    [entry] = job.work(lambda prompt: REPLY).entries
    assert entry["instruction"] == "Write a function `double(n)` that returns twice the number n."
    assert entry["output"] == GOOD
    assert entry["assertions"].count("assert") == 2
    assert entry["kind"] == "code"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "the teacher said nothing"),
        ("Sure! double = lambda n: 2 * n", "not the form that was asked for"),
        (REPLY.replace("2 * n", "2 + n"), "failed: AssertionError"),
        (REPLY.partition("Assertions")[0], "not the form that was asked for"),
    ],
)
def test_the_recipe_drops_the_rest_with_a_reason(reply: str, reason: str) -> None:
    outcome = code_jobs(1)[0].work(lambda prompt: reply)
    assert outcome.entries == []
    assert outcome.dropped[0]["reason"] == reason


def test_jobs_of_three_levels_differ() -> None:
    jobs = code_jobs(30)
    assert len({job.key for job in jobs}) == 30
    assert sum(job.hard for job in jobs) == 10
    assert "an easy" in jobs[0].prompt and "a medium" in jobs[1].prompt
