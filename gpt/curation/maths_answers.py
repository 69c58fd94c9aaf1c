"""Worked maths answers whose result is known: kept is what comes to it by steps that hold.

    make_problems -> "Ana buys 4 packs of pens with 6 in each ... #### 19" -> the teacher's steps -> checked -> entry

The problems are made here, or given with their results, as GSM8K's are after "####" (Cobbe et al. 2021,
arXiv:2110.14168). Keeping only the solutions that reach the known result is rejection sampling (Yuan et al. 2023,
arXiv:2308.01825); here each equation in the steps is worked out, too.
"""

import ast
import operator
import re
from collections.abc import Sequence
from functools import partial
from random import Random

from gpt.curation.replies import why_unusable, without_thoughts
from gpt.curation.teacher import Ask, Job, Outcome, failed, key_of, made_by
from gpt.text.entries import Entry, words

SOLVE = """\
Solve the problem step by step. Write each step on a line of its own as a short sentence with its equation, such as
"The pens cost 4 * 3 = 12 dollars." Do not round. End with a line "Answer: " and the number alone.

Problem: {problem}"""
ANSWER_LINE = re.compile(
    r"^\W*(?:the )?(?:final )?answer(?: is)?\W*[:=]\W*(.*)$|^####\s*(.*)$|^\W*答案\W*[:：]\W*(.*)$", re.I | re.M
)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
TIMES = re.compile(r"(?<=[\d)%])[ \t]*[xX][ \t]*(?=[$(]*\d)")
SIDE = r"[$(-]*\d(?:[\d \t.,+\-*/×÷−–()$%]*[\d)%])?"
BEFORE = r"(?<![\w.,):$(+*/×÷−–=-])(?<![xX+*/×÷−–=-] )"  # or it is the end of something longer, such as x + 2 = 5
EQUATIONS = re.compile(rf"{BEFORE}{SIDE}(?:[ \t]*=[ \t]*{SIDE})+(?![\w%)]|[ \t]*[=*/+]|[.,]\d)")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
             ast.USub: operator.neg}  # fmt: skip


def number_in(text: str) -> float | None:
    """The last number of a text; None if there is none."""
    found = NUMBER.findall(text)
    top, _, below = found[-1].replace(",", "").partition("/") if found else ("", "", "")
    return None if not found or (below and float(below) == 0) else float(top) / float(below or 1)


def value_of(expression: str) -> float | None:
    """An expression of numbers, + - * / and brackets, worked out; None if it is anything else."""
    plain = expression.translate(str.maketrans("×÷−–", "*/--", "$,")).replace("%", "/100").strip()
    try:
        return _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp):
        return OPERATORS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("not arithmetic")


def why_wrong(solution: str, result: float) -> str | None:
    """The reason why a worked solution is not to be kept, or None: its last line is the result, and its steps hold."""
    lines = [next(group for group in found.groups() if group is not None) for found in ANSWER_LINE.finditer(solution)]
    answer_found = number_in(lines[-1]) if lines else None
    if answer_found is None:
        return "no line with the answer"
    if abs(answer_found - result) > 1e-6 * max(1.0, abs(result)):
        return f"the answer is {answer_found:g}, not {result:g}"
    plain = TIMES.sub("*", solution)
    steps = [found[0] for found in EQUATIONS.finditer(plain)]
    for step in steps:
        sides = [side.strip(" \t.,") for side in step.split("=")]
        if "%" not in sides[0]:
            sides = [side.removesuffix("%") for side in sides]  # 100 - 5 = 95% is how people write it
        values = [value for side in sides if (value := value_of(side)) is not None]
        if values and max(values) - min(values) > 0.005 * max(1.0, abs(values[-1])):
            return f"a step is wrong: {step.strip()}"
    return None if steps else "no step with an equation"


def result_of(entry: Entry) -> float | None:
    """The result that an entry's output names: after "####" or "Answer:", or the only number in it."""
    found = list(ANSWER_LINE.finditer(entry["output"]))
    if found:
        return number_in(next(group for group in found[-1].groups() if group is not None))
    return number_in(entry["output"]) if len(NUMBER.findall(entry["output"])) == 1 else None


def maths_jobs(problems: Sequence[Entry]) -> list[Job]:
    """A job for each problem whose output names its result. Raises ValueError where one does not."""
    jobs = []
    for i, entry in enumerate(problems):
        result = result_of(entry)
        if result is None:
            raise ValueError(
                f"problem {i} has no result to check against: its output should end with #### and a number"
            )
        problem = "\n".join(filter(None, (entry["instruction"], entry["input"])))
        prompt = SOLVE.format(problem=problem)
        work = partial(maths, prompt=prompt, entry=entry, result=result)
        jobs.append(Job(key_of("maths", problem), (i,), prompt, work, reply_tokens=150, hard=len(words(problem)) > 40))
    return jobs


def maths(ask: Ask, prompt: str, entry: Entry, result: float) -> Outcome:
    solution = without_thoughts(ask(prompt))
    about = {"instruction": entry["instruction"], "input": entry["input"], "output": solution}
    if reason := why_unusable(solution) or why_wrong(solution, result):
        return failed(reason, **about)
    return Outcome([about | {"kind": "arithmetic", "source": entry.get("source", "maths"), "result": result}
                    | {"made": made_by("answers:maths")}])  # fmt: skip


STORIES = (  # a problem in words, and its result: a to f are drawn
    ("{who} buys {a} packs of {thing} with {b} in each and gives {c} away. How many {thing} are left?", "a * b - c"),
    ("A shelf has {a} rows of {b} {thing}. {who} adds {c} more rows. How many {thing} are there now?", "(a + c) * b"),
    ("{who} saves {a} dollars a week for {b} weeks and spends {c} dollars. How much is left?", "a * b - c"),
    ("{a} children share {d} {thing} equally. How many does each child get?", "d / a"),
    ("A ticket costs {a} dollars for adults and {c} for children. What do {b} adults and {e} children pay together?",
     "a * b + c * e"),
    ("{who} reads {a} pages on Monday, twice as many on Tuesday and {c} on Wednesday. How many pages is that in all?",
     "a + 2 * a + c"),
    ("A tank holds {f} liters. {a} buckets of {b} liters are taken out. How many liters are left?", "f - a * b"),
    ("{who} works {a} hours a day at {b} dollars an hour for {e} days. How much does {who} earn?", "a * b * e"),
)  # fmt: skip
WHO = "Ana Ben Carla David Emre Fatima George Hana Ivan Julia Kofi Lena Mei Noah Olga Priya".split()
MOST_KNOWN = 20_000  # draws one after the other: of the 1,700 problems of a story the last one is drawn by then
THINGS = "pencils apples stamps marbles buttons cookies shells stickers beads candles".split()


def make_problems(n: int, seed: int = 123) -> list[Entry]:
    """n different problems in words whose results are worked out here: what maths_jobs needs, without any file.

    Raises ValueError if there are not so many.
    """
    rng, problems, seen, n_known = Random(seed), [], set(), 0
    while len(problems) < n:
        if n_known > MOST_KNOWN:
            raise ValueError(f"there are only {len(problems)} different problems: ask for fewer")
        text, formula = STORIES[len(problems) % len(STORIES)]
        a, b, e = rng.randint(3, 12), rng.randint(4, 15), rng.randint(2, 9)
        numbers = {"a": a, "b": b, "c": rng.randint(2, a * 4 - 4), "d": a * rng.randint(4, 20), "e": e,
                   "f": a * b + rng.randint(5, 60)}  # fmt: skip
        problem = text.format(who=rng.choice(WHO), thing=rng.choice(THINGS), **numbers)
        n_known = n_known + 1 if problem in seen else 0
        if not n_known:
            seen.add(problem)
            result = value_of("".join(str(numbers.get(letter, letter)) for letter in formula))
            problems.append({"instruction": problem, "input": "", "output": f"#### {result:g}", "source": "maths"})
    return problems
