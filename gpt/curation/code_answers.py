"""Python tasks whose solutions are run: kept is what its assertions show to work.

The teacher's code is read before it is run: what imports more than a few modules of pure computation, opens files, or
reaches through these modules for others is refused. What is left runs in a new process with an empty folder, an empty
environment, limits on time, processor time, memory and what it writes, and Python's audit hook (PEP 578), which stops
what would write a file, start a program or open a connection. This keeps clumsy code from harm. It is not a prison for
hostile code: run what strangers wrote inside a container or a virtual machine.
"""

import ast
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType

from gpt.curation.replies import labelled_parts, why_unusable, without_fence
from gpt.curation.teacher import Ask, Job, Outcome, failed, key_of, made_by

MODULES = set(
    "math cmath re string random statistics datetime calendar collections itertools functools operator heapq bisect "
    "json typing dataclasses enum abc fractions decimal numbers textwrap copy unicodedata collections.abc".split()
)
FORBIDDEN = set(
    "open exec eval compile input breakpoint globals locals vars getattr setattr delattr exit quit help memoryview "
    "SystemExit KeyboardInterrupt BaseException".split()
)
WAYS_OUT = set(  # attributes that lead to any other attribute, run text as code, or hold a running frame
    "attrgetter methodcaller Formatter get_type_hints ForwardRef gi_frame cr_frame ag_frame tb_frame f_back f_builtins "
    "f_globals f_locals".split()
)
PUBLIC = {"_replace", "_asdict", "_fields", "_make", "__init__", "__name__"}  # in spite of their names
MEGABYTE = 1 << 20

# The child limits itself before it reads the code: a limit set between fork and exec is not safe beside other threads.
CHILD = """
import os
import sys
try:
    import resource
    limits = dict(CPU={seconds}, AS={memory}, FSIZE=1 << 20, NPROC=0, CORE=0)
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
except ImportError:  # Windows: only the clock limits it
    pass
text = sys.stdin.read()
def guard(event, args, reads=("os.listdir", "os.scandir"), writes=os.O_WRONLY | os.O_RDWR | os.O_CREAT):
    is_out = event.startswith(("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.")) and event not in reads
    if is_out or (event == "open" and (args[2] or 0) & writes):
        raise PermissionError(event + " is not for answers")
sys.addaudithook(guard)
exec(compile(text, "<teacher>", "exec"), {{"__name__": "__main__"}})
sys.stdout.flush()
sys.stdout.write("\\n{token}")
"""


def why_not_run(code: str) -> str | None:
    """The reason why this code is not run at all, or None."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"no Python: {getattr(error, 'msg', None) or error}"
    nodes = list(ast.walk(tree))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    aliases = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    pairs = [(alias.asname or alias.name.partition(".")[0], alias.name) for alias in aliases]
    modules = {ours: name for ours, name in pairs if name in MODULES}  # the others must not be imported here either
    return next(filter(None, (_why_refused(node, modules, own) for node in nodes)), None)


def _why_refused(node: ast.AST, modules: dict[str, str], own: set[str]) -> str | None:
    """The reason why a node is refused; `own` are the names that the code defines itself, which may begin with _."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        wanted = [node.module or "."] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        if bad := [name for name in wanted if name not in MODULES]:
            return f"imports {bad[0]}"
        taken = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        bad = [name for name in taken if _leads_out(name, set()) or _is_module(wanted[0], name)]
    elif isinstance(node, ast.Attribute):
        module = modules.get(node.value.id) if isinstance(node.value, ast.Name) else None
        bad = [node.attr] if _leads_out(node.attr, set() if module else own) else []
        bad += [node.attr] if module and _is_module(module, node.attr) else []
    elif isinstance(node, ast.MatchClass):
        bad = [name for name in node.kwd_attrs if _leads_out(name, own)]
    elif isinstance(node, ast.Name):
        bad = [node.id] if node.id in FORBIDDEN or (node.id.startswith("__") and node.id != "__name__") else []
    else:
        return "catches every exception" if isinstance(node, ast.ExceptHandler) and node.type is None else None
    return f"uses {bad[0]}" if bad else None


def _leads_out(attribute: str, own: set[str]) -> bool:
    is_own = attribute in own and not attribute.endswith("__")
    return attribute in WAYS_OUT or (attribute.startswith("_") and attribute not in PUBLIC and not is_own)


def _is_module(module: str, attribute: str) -> bool:
    """Whether it is a module that could not be imported itself, such as `statistics.sys`."""
    value = getattr(importlib.import_module(module), attribute, None)
    return isinstance(value, ModuleType) and value.__name__ not in MODULES


def run_code(code: str, seconds: float = 5, megabytes: int = 256) -> str | None:
    """Run it to its end; None if it got there, or the reason why not. `seconds` are of the clock."""
    if reason := why_not_run(code):
        return reason
    token = uuid.uuid4().hex  # only who comes to the end of the program writes it
    child = CHILD.format(seconds=max(1, round(seconds)), memory=megabytes * MEGABYTE, token=token)
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))  # files: their size is limited, a pipe's is not
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", child], cwd=folder, env={}, start_new_session=True,
                stdin=subprocess.PIPE, stdout=out_file, stderr=err_file,
            )  # fmt: skip
            try:
                process.communicate(code.encode("utf-8", "replace"), timeout=seconds)
            except subprocess.TimeoutExpired:
                _end(process)
                return f"took more than {seconds:g} seconds"
        if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"took more than {seconds:g} seconds"
        if out.read_bytes().endswith(f"\n{token}".encode()):
            return None
        last = err.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
    return f"failed: {last or 'it ended before its end'}"[:300]


def _end(process: subprocess.Popen) -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)  # its own group, as it began a session
    else:
        process.kill()
    process.communicate()


# ---- solutions with assertions ----


def why_not_solved(solution: str, assertions: str, seconds: float = 5, megabytes: int = 256) -> str | None:
    """The reason why the assertions do not show that the solution works, or None if they do.

    They have to call a function of the solution, hold for it, and fail for functions that return nothing: what a stub
    passes shows nothing. Only those that stand by themselves count, as one inside a function may never be reached.
    """
    for code in (solution, assertions):
        if reason := why_not_run(code):
            return reason
    tree = ast.parse(solution)
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    checks = [node for node in ast.parse(assertions).body if isinstance(node, ast.Assert)]
    if not names:
        return "the solution defines no function"
    used = [{leaf.id for leaf in ast.walk(check) if isinstance(leaf, ast.Name)} & names for check in checks]
    if len([1 for calls in used if calls]) < 2:
        return "fewer than two assertions call the solution"
    if reason := run_code(f"{solution}\n\n{assertions}\n", seconds, megabytes):
        return reason
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Return(ast.Constant(None))]
    stub = ast.unparse(ast.fix_missing_locations(tree))
    each = [ast.unparse(check) for check, calls in zip(checks, used, strict=True) if calls]
    if run_code(f"{stub}\n\n" + "\n".join(each), seconds, megabytes) is None:
        return "the assertions hold for a function that returns nothing"
    return None


# ---- the recipe ----

CODE_TOPICS = (
    "strings|lists of numbers|dictionaries|dates|sorting|counting|matrices|prime numbers|text formatting|sets|grids|"
    "intervals|recursion|binary search|stacks|words in a sentence|roman numerals|money amounts|parentheses|caching|"
    "linked nodes|averages|palindromes|bit operations|schedules|simple games|temperature series|merging of records"
).split("|")
CODE_LEVELS = ("easy", "medium", "harder")
WRITE_CODE = """\
Invent {level} programming task about {topic} that one pure Python function solves, and solve it. (Variant {number})
Reply in this form, with nothing else:

Instruction: what the function does, its name, its arguments and what it returns
Solution:
```python
the function, with the standard library alone, without input, files or printing
```
Assertions:
```python
four or more assert statements with concrete values, edge cases among them
```"""


def code_jobs(n: int, seed: int = 123, start: int = 0, **limits: float) -> list[Job]:
    """n jobs for tasks of three levels; `seconds` and `megabytes` limit each run."""
    jobs = []
    for i in range(start, start + n):
        level, topic = CODE_LEVELS[i % 3], Random(f"{seed} {i}").choice(CODE_TOPICS)
        article = f"an {level}" if level[0] in "ae" else f"a {level}"
        prompt = WRITE_CODE.format(level=article, topic=topic, number=i)
        work = partial(code, prompt=prompt, level=level, limits=limits)
        jobs.append(Job(key_of("code", prompt), (i,), prompt, work, reply_tokens=350, hard=level == "harder"))
    return jobs


def code(ask: Ask, prompt: str, level: str, limits: dict[str, float]) -> Outcome:
    reply = ask(prompt)
    if reason := why_unusable(reply):
        return failed(reason, reply=reply)
    parts = next(iter(labelled_parts(reply, ("instruction", "solution", "assertions"))), {})
    instruction = parts.get("instruction", "")
    solution, assertions = (without_fence(parts.get(name, "")) for name in ("solution", "assertions"))
    if not (instruction and solution and assertions):
        return failed("not the form that was asked for", reply=reply)
    if reason := why_not_solved(solution, assertions, **limits):
        return failed(reason, instruction=instruction, output=solution, assertions=assertions)
    entry = {"instruction": instruction, "input": "", "output": solution, "kind": "code", "source": "code"}
    return Outcome([entry | {"level": level, "assertions": assertions, "made": made_by("answers:code")}])
