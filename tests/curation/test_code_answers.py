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
        ("import random\nrandom._os.system('x')", "uses _os"),
        ("from random import _os", "uses _os"),
        ("import statistics as s\ns.sys.modules['os'].remove('x')", "uses sys"),
        ("from dataclasses import builtins", "uses builtins"),
        ("import json.tool", "imports json.tool"),
        ("import operator\noperator.attrgetter('__globals__')(f)", "uses attrgetter"),
        ("from operator import methodcaller", "uses methodcaller"),
        ("import string\nstring.Formatter().get_field('0.__globals__', (f,), {})", "uses Formatter"),
        ("import typing\ntyping.get_type_hints(f)", "uses get_type_hints"),
        ("(n for n in [1]).gi_frame.f_builtins['open']('x')", "uses f_builtins"),
        ("match f:\n    case object(__globals__=found):\n        pass", "uses __globals__"),
        ("import random\nclass A:\n    _os = 1\nrandom._os.remove('x')", "uses _os"),
        ("class A:\n    def __class__(self):\n        return self.__class__", "uses __class__"),
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


@pytest.mark.parametrize(
    "code",
    [
        "import re\nP = re.compile(r'[0-9]+')\nassert P.match('12')",
        "import collections.abc\nassert isinstance([], collections.abc.Sequence)",
        "from datetime import datetime as d\nassert d(2020, 1, 1).year == 2020",
        "class A:\n    def __init__(self):\n        self._n, self.__m, self.open, self.help = 1, 2, True, 'x'\n"
        "    def __eq__(self, other):\n        return self._n == other._n and self.__m == other.__m\n"
        "class B(A):\n    def __init__(self):\n        super().__init__()\nassert B() == A() and A().help and A().open",
        "from collections import namedtuple as n\nP = n('P', 'x y')\nassert P(1, 2)._replace(x=3)._asdict()['x'] == 3",
        "def f():\n    return type(1).__name__\nassert f() == 'int'",
    ],
)
def test_everyday_code_is_run(code: str) -> None:
    assert why_not_run(code) is None
    assert run_code(code) is None


@pytest.mark.parametrize(
    "line", ["os.system('touch x')", "os.remove('out')", "open('x', 'w')", "os.fork()", "os.mkdir('x')",
             "__import__('subprocess').run('ls')", "__import__('socket').create_server(('127.0.0.1', 0))"],
)  # fmt: skip
def test_what_slips_through_the_reading_does_no_harm(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt.curation.code_answers.why_not_run", lambda code: None)
    assert "is not for answers" in run_code(f"import os\n{line}")
    assert run_code("import os, random\nopen(random.__file__).close()\nos.listdir()") is None


def test_reading_imports_nothing_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    assert why_not_run("this.s\ndef f():\n    def g():\n        import this") == "imports this"
    assert "this" not in sys.modules


def test_code_that_ends_is_told_from_code_that_fails() -> None:
    assert run_code("x = 1") is None
    assert run_code("assert 1 == 2, 'no'") == "failed: AssertionError: no"
    assert run_code("1 / 0") == "failed: ZeroDivisionError: division by zero"


@pytest.mark.long
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
