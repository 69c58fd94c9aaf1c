"""The mutants themselves: each kind is made, an obvious one is killed, one that changes nothing lives."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import TESTS, mutants_of, shown

ROOT = Path(__file__).parents[1]
TOY = '''"""A toy."""


def clipped(x: int) -> int:
    if x > 10:
        raise ValueError("more than 10")
    return max(x, 0)
'''
TOY_TEST = """
import pytest
from toy import clipped

def test_clipped():
    assert [clipped(x) for x in (-1, 5, 10)] == [0, 5, 10]
    with pytest.raises(ValueError):
        clipped(11)
"""


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.mutants", "toy.py", "--tests", "test_toy.py", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(TOY_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    return tmp_path


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("a is not None", ["a is None"]),
        ("a + b * c", ["a - b * c", "b // c"]),
        ("a and b", ["a or b"]),
        ("not a", ["a"]),
        ("f(True, 'x')", ["f('x', True)", "False", "''"]),
        ("7", ["8", "6"]),
        ("a if b else c", ["a if not b else c"]),
        ("[a for a in b if c]", ["for a in b if not c"]),
    ],
)
def test_an_expression_is_changed_in_these_ways(code: str, expected: list[str]) -> None:
    found = [shown(mutant.node).strip() for mutant in mutants_of(ast.parse(f"x = {code}"))]
    assert found == expected


def test_statements_are_left_out_and_texts_stay_as_they_are() -> None:
    found = [(shown(place.node), shown(node)) for place, node in mutants_of(ast.parse(TOY))]
    assert ("raise ValueError('more than 10')", "pass") in found
    assert ("return max(x, 0)", "return None") in found
    assert not [before for before, _ in found if before in ("'A toy.'", "'more than 10'")]


@pytest.mark.long
def test_the_obvious_mutants_are_killed_and_one_that_changes_nothing_lives(folder: Path) -> None:
    done = run(folder, "--out", "found.jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "found.jsonl").read_text().splitlines()]
    assert len(rows) == len(mutants_of(ast.parse(TOY)))
    by_change = {(row["before"], row["after"]): row["status"] for row in rows}
    assert by_change["x > 10", "x >= 10"] == 1  # a test fails
    assert by_change["max(x, 0)", "max(0, x)"] == 0
    assert "toy.py:7: max(x, 0)  ->  max(0, x)" in done.stdout
    lines = (folder / "found.jsonl").read_text().splitlines()
    (folder / "found.jsonl").write_text("\n".join(lines[3:]) + "\n" + lines[0][:30] + "\n")  # one is half a line
    assert run(folder, "--out", "found.jsonl").stdout == done.stdout  # only the three that are missing are tried
    assert len((folder / "found.jsonl").read_text().splitlines()) == len(lines) + 1


@pytest.mark.slow
def test_a_mutant_that_hangs_is_killed(folder: Path) -> None:
    (folder / "toy.py").write_text("def count(n: int) -> int:\n    while n > 0:\n        n -= 1\n    return n\n")
    (folder / "test_toy.py").write_text("import toy\n\ndef test_count():\n    assert toy.count(3) == 0\n")
    assert run(folder, "--out", "found.jsonl").returncode == 0
    rows = [json.loads(line) for line in (folder / "found.jsonl").read_text().splitlines()]
    assert {(row["before"], row["after"]) for row in rows if row["status"] < 0} == {
        ("n -= 1", "pass"), ("n -= 1", "n += 1"), ("1", "0"),
    }  # fmt: skip


@pytest.mark.long
def test_tests_that_fail_anyway_or_never_import_the_module_can_kill_nothing(folder: Path) -> None:
    (folder / "test_toy.py").write_text("def test_nothing():\n    assert True\n")
    done = run(folder)
    assert done.returncode == 2
    assert "never import it" in done.stderr
    (folder / "test_toy.py").write_text("import toy\n\ndef test_something():\n    assert toy.clipped(1) == 2\n")
    done = run(folder)
    assert done.returncode == 2
    assert "fail as it is" in done.stderr


def test_every_module_of_the_list_and_its_tests_are_there() -> None:
    for module, tests in TESTS.items():
        assert all((ROOT / path).is_file() for path in (module, *tests)), module
