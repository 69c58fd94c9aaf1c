"""Mutation testing: a line of the library is broken on purpose, and its tests should notice.

    python -m tests.mutants gpt/text/dataset.py     a sample of 40 mutants of it; without a name, of all in TESTS
    python -m tests.mutants --again                 those that survived once more, after a test was written

Mutants are made from the syntax tree: another comparison or operator, a number one off, True for False, an empty
string, `and` for `or`, a condition turned round, a statement left out, None returned, two arguments exchanged.
Annotations, docstrings and the texts of errors stay as they are. One process imports PyTorch and all else that is not
ours, once, and forks a child for each mutant; the child puts the mutant in the module's place, then imports the library
and runs the tests, the quickest first, up to one that fails. One that takes too long is killed, and its mutant with it.
Each result is a line of --out at once: a run that was stopped goes on where it was. tests/README.md has the results.

The idea: DeMillo, Lipton, Sayward 1978, "Hints on Test Data Selection: Help for the Practicing Programmer".
"""

import argparse
import ast
import contextlib
import gc
import hashlib
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
from tqdm import tqdm

IN_CI = "not slow and not gpu and not network"  # the tests that may notice
TESTS = {  # what a module's mutants have to get past, the quickest and nearest first
    "gpt/text/dataset.py": ["tests/text/test_dataset.py"],
    "gpt/text/prompts.py": ["tests/text/test_prompts.py", "tests/text/test_dataset.py"],
    "gpt/training/loss.py": ["tests/training/test_loss.py"],
    "gpt/curation/dedup.py": ["tests/curation/test_dedup.py"],
    "gpt/evaluation/judge.py": ["tests/evaluation/test_judge.py"],
    "gpt/weights/tf_checkpoint.py": ["tests/weights/test_tf_checkpoint.py"],
    "gpt/weights/checkpoint.py": ["tests/weights/test_checkpoint.py", "tests/weights/test_hostile.py"],
    "gpt/model/gpt2.py": ["tests/model/test_gpt2.py", "tests/model/test_generate.py"],
    "gpt/model/generate.py": ["tests/model/test_generate.py"],
    "gpt/training/train.py": ["tests/training/test_train.py"],
}
COMPARISONS = {
    ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn], ast.NotIn: [ast.In],
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
LIBRARY = [*Path("gpt").glob("*/*.py"), *Path("tests").glob("conftest.py")]  # imported with every module
NO_CODE = {"annotation", "returns", "exc", "cause"}  # fields: annotations, and what a `raise` says
MODULE_NOT_USED = 70  # exit status of a child
MOST_BYTES = 8 * 2**30  # of memory for a child
NAP = 0.05  # seconds


class Place(NamedTuple):
    """Where a node stands in the tree: in a field of another, at an index if the field is a list."""

    parent: ast.AST
    field: str
    index: int | None
    node: ast.AST
    line: int

    def put(self, node: ast.AST) -> None:
        ast.fix_missing_locations(ast.copy_location(node, self.node))
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


class Mutant(NamedTuple):
    place: Place
    node: ast.AST  # what stands there instead


def places(parent: ast.AST, line: int = 0) -> Iterator[Place]:
    """Everything in the tree that is code."""
    for field, value in ast.iter_fields(parent):
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, ast.AST) and field not in NO_CODE and not is_docstring:
                at = getattr(node, "lineno", line)
                yield Place(parent, field, index if isinstance(value, list) else None, node, at)
                yield from places(node, at)


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """The node with one thing changed, in every way that we know."""
    match node:
        case ast.Compare(left, ops, others):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], others)
        case ast.BinOp(left, op, right):
            yield ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(str(value) | bytes(value)) if value:
            yield ast.Constant(type(value)())
        case ast.Call(func, [first, second, *rest], keywords):
            yield ast.Call(func, [second, first, *rest], keywords)
        case ast.IfExp(test, body, orelse) if can_be_negated(test):
            yield ast.IfExp(negated(test), body, orelse)
        case ast.comprehension(target, values, [test, *rest], is_async) if can_be_negated(test):
            yield ast.comprehension(target, values, [negated(test), *rest], is_async)
        case ast.stmt():
            yield from changed_statement(node)


def changed_statement(node: ast.stmt) -> Iterator[ast.stmt]:
    match node:
        case ast.If(test, body, orelse) | ast.While(test, body, orelse) if can_be_negated(test):
            yield type(node)(negated(test), body, orelse)
        case ast.Return(value) if value and not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.AugAssign(target, op, value):
            yield from (ast.AugAssign(target, OPERATORS[type(op)](), value), ast.Pass())
        case ast.Assign([ast.Attribute() | ast.Subscript()]):  # without a plain name, all would break
            yield ast.Pass()
        case ast.Expr() | ast.Raise() | ast.Delete() | ast.Continue() | ast.Break():
            yield ast.Pass()


def can_be_negated(test: ast.expr) -> bool:
    """Not what `changed` turns round anyway."""
    return not isinstance(test, ast.Compare | ast.UnaryOp)


def negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def mutants_of(tree: ast.Module) -> list[Mutant]:
    return [Mutant(place, node) for place in places(tree) for node in changed(place.node)]


def shown(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.While):
        return f"if {ast.unparse(node.test)}"
    return " ".join(ast.unparse(node).split())


# ---- a child for each mutant ----


class Replaced(SourceFileLoader):
    """Finds and loads one module, with the code of a syntax tree."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self.tree, self.is_used = tree, False

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name: str) -> object:
        self.is_used = True
        return compile(self.tree, self.path, "exec", dont_inherit=True)


class QuickestFirst:
    """For pytest: how long each test takes is kept in a file, and decides their order where that is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.seconds[report.nodeid] = report.duration

    def pytest_sessionfinish(self) -> None:
        if not self.path.exists():
            self.path.write_text(json.dumps(self.seconds))


def import_what_is_not_ours(paths: Sequence[Path]) -> None:
    """Run the imports of these files but those of what lies here; what is not installed is not needed either."""
    ours = {path.stem for path in Path().iterdir()}
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # who has threads should not fork
    sys.path.insert(0, os.getcwd())
    for node in (node for path in paths for node in ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            if name.split(".")[0] not in ours:
                with contextlib.suppress(ImportError):
                    exec(compile(ast.Module([node], []), "imports", "exec"), {})
    gc.freeze()  # no child looks through all of it for garbage


def run_tests(loader: Replaced, tests: Sequence[str], folder: Path) -> int:
    """In a child: 0 if all tests pass."""
    sys.meta_path.insert(0, loader)
    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
    hypothesis.settings.load_profile("mutants")
    options = [
        "-m",
        IN_CI,
        *"-x -q -n0 -p no:cacheprovider --assert=plain --tb=no".split(),
        f"--basetemp={folder}/pytest",
    ]
    code = int(pytest.main([*options, *tests], plugins=[QuickestFirst(folder / "seconds.json")]))
    return code if code or loader.is_used else MODULE_NOT_USED


def try_out(loader: Replaced, tests: Sequence[str], folder: Path, seconds: float, mutant: Mutant | None = None) -> int:
    """Run the tests in a child, with the mutant if there is one. Returns its exit status; less than 0 if it was killed:
    after so many seconds of processor time, or waiting five times as long."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            for stream in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), stream)
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds)))
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
            if mutant:
                mutant.place.put(mutant.node)
            status = run_tests(loader, tests, folder)
        finally:
            os._exit(status)
    try:
        return wait_for(child, 5 * seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # on Ctrl-C, and what it may have started


def wait_for(child: int, seconds: float) -> int:
    """Its exit status, -9 if it was killed. Naps are counted, not the clock: while all is stopped, no time passes."""
    for _ in range(int(seconds / NAP)):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(NAP)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ---- a sample of a module's mutants, and what became of them ----


def rows_of(out: Path) -> list[dict]:
    """Without a line that was cut short when the process was killed: its mutant is tried anew."""
    rows = []
    for line in out.read_text(encoding="utf-8").splitlines() if out.exists() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def try_module(path: str, tests: Sequence[str], folder: Path, args: argparse.Namespace) -> list[dict]:
    """A row for each mutant of the sample; those that --out holds are not tried anew, but for survivors if --again."""
    source = Path(path).read_text(encoding="utf-8")
    tree, digest = ast.parse(source), hashlib.sha256(source.encode()).hexdigest()[:16]
    mutants = mutants_of(tree)
    rng = random.Random(f"{args.seed} {path}")
    sample = rng.sample(range(len(mutants)), min(args.n, len(mutants)))  # unsorted: the first ones are a sample too
    known = {row["mutant"]: row for row in rows_of(args.out) if row["source"] == digest}
    todo = [i for i in sample if i not in known or (args.again and known[i]["status"] == 0)]
    loader = Replaced(".".join(Path(path).with_suffix("").parts), path, tree)
    seconds = seconds_of_all_tests(loader, tests, folder) if todo else 0.0
    for i in (bar := tqdm(todo, desc=path, unit="mutant")):
        place, node = mutants[i]
        start = time.perf_counter()
        status = try_out(loader, tests, folder, 5 + 5 * seconds, mutants[i])
        row = {"module": path, "source": digest, "mutant": i, "status": status, "line": place.line}
        row |= {"before": shown(place.node), "after": shown(node), "text": source.splitlines()[place.line - 1].strip()}
        known[i] = row | {"seconds": round(time.perf_counter() - start, 1)}
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(known[i], ensure_ascii=False) + "\n")
        bar.set_postfix(survivors=sum(known[i]["status"] == 0 for i in sample if i in known))
    return [known[i] for i in sample]


def seconds_of_all_tests(loader: Replaced, tests: Sequence[str], folder: Path) -> float:
    """Processor time of the tests with the module as it is. Raises ValueError if they fail, or never import it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status = try_out(loader, tests, folder, 600)
    if status:
        why = "never import it" if status == MODULE_NOT_USED else f"fail as it is (exit status {status})"
        raise ValueError(f"{loader.path}: the tests {' '.join(tests)} {why}: there is nothing to compare with")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(rows: Sequence[dict]) -> str:
    lines = ["| module | mutants | killed | of them by time | killed, % |", "| --- | --: | --: | --: | --: |"]
    for module in dict.fromkeys(row["module"] for row in rows):
        statuses = [row["status"] for row in rows if row["module"] == module]
        n_killed, n_slow = sum(s != 0 for s in statuses), sum(s < 0 for s in statuses)
        lines.append(f"| {module} | {len(statuses)} | {n_killed} | {n_slow} | {100 * n_killed / len(statuses):.0f} |")
    return "\n".join(lines)


def survivor(row: dict) -> str:
    return f"{row['module']}:{row['line']}: {row['before']}  ->  {row['after']}\n    {row['text']}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE", help="such as gpt/text/dataset.py")
    parser.add_argument("--tests", nargs="+", help="test files, for a module that the table in this file does not have")
    parser.add_argument("--n", type=int, default=40, help="mutants of each module (default: 40)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("runs/mutants.jsonl"), help="results (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="try those that survived once more")
    args = parser.parse_args(argv)
    tests = {module: args.tests or TESTS.get(module) for module in args.modules}
    if unknown := [module for module, files in tests.items() if not files or not Path(module).exists()]:
        parser.error(f"{unknown[0]}: say which --tests it has, and give a path from here; known: {', '.join(TESTS)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    import_what_is_not_ours(
        [*map(Path, tests), *(Path(file.partition("::")[0]) for files in tests.values() for file in files), *LIBRARY]
    )
    rows: list[dict] = []
    try:
        for module, files in tests.items():
            with tempfile.TemporaryDirectory() as folder:
                rows += try_module(module, files, Path(folder), args)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("stopped; the same command goes on")
    print("\n".join(survivor(row) for row in rows if row["status"] == 0))
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
