"""The way of every maker of entries: estimate, ask, keep, and say what became of everything.

While it runs, each outcome goes to a journal beside --out (.journal.jsonl); killed or stopped, the same command goes on
from there. What was dropped stands beside --out, too (.dropped.jsonl), each row with its reason.
"""

import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from gpt.curation.pipeline import beside, check_apart, dropped_path, is_json_lines, writing
from gpt.curation.teacher import Estimate, Job, Journal, Outcome, Teacher, estimate
from gpt.evaluation.chat_client import ChatError
from gpt.hardware.locks import alone_with
from gpt.text.entries import Entry
from scripts.curate_teachers import Args, make_teachers

ENOUGH_FAILURES = 10  # one after the other: the server is gone

Results = Iterator[tuple[Job, Outcome | ChatError]]


class Plan(NamedTuple):
    """What a command is going to do."""

    settings: dict[str, object]  # that the entries depend on
    expected: list[Job]  # for the estimate
    results: Callable[[Journal, list[Teacher], int], Results]  # journal, teachers, workers
    total: int  # of the bar: results, or entries where `by_entries`
    by_entries: bool = False
    given: Sequence[tuple[tuple[int, ...], Entry]] = ()  # entries that go along as they are, with their places
    finish: Callable[[list[Entry]], tuple[list[Entry], list[dict]]] = lambda entries: (entries, [])


@contextmanager
def stopped_by_ctrl_c(stop: threading.Event) -> Iterator[list[int]]:
    """Ctrl-C lets what is under way come to its end; a second one does not wait for that. Yields whether it came."""
    asked: list[int] = []

    def begin_to_stop(number: int, _: object) -> None:
        asked.append(number)
        stop.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    previous = signal.signal(signal.SIGINT, begin_to_stop)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, previous)


def make(args: Args, plan: Plan) -> int:
    """Estimate, ask, keep, and say what became of everything."""
    with alone_with(args.out):
        return make_alone(args, plan)


def make_alone(args: Args, plan: Plan) -> int:
    check_out(args.out, getattr(args, "source", None))
    path = journal_path(args.out)
    if not path.exists() and args.out.exists() and args.out.stat().st_size:
        raise ValueError(f"{args.out} is there, and no {path.name} to go on from: name another --out, or delete it")
    stop = threading.Event()
    teachers, clients = make_teachers(args, stop)
    about = {"teachers": [t.name for t in teachers], "temperature": args.temperature, "seed": args.seed}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = Journal(path, about | plan.settings).lines if path.exists() else {}
    missing = [job for job in plan.expected if job.key not in known]
    print(f"estimate   {(found := estimate(missing, teachers, args.workers, args.per_minute, args.speed))}")
    refuse_if_dear(found, getattr(args, "max_dollars", None))
    if getattr(args, "dry_run", False):
        return 0
    for client in clients if missing else []:
        client.check()
    journal = Journal(path, about | plan.settings)
    with stopped_by_ctrl_c(stop) as asked:
        results, failures = collect(plan, args.out, plan.results(journal, teachers, args.workers), stop)
    entries, dropped = in_order(plan, results)
    write_entries(args.out, entries)
    write_entries(dropped_path(args.out), dropped)
    report(args.out, entries, dropped, journal, teachers)
    if asked:
        print(f"stopped: all of it is kept in {path}, and the same command goes on", file=sys.stderr)
        return 130
    if failures:
        raise ChatError(f"{len(failures)} jobs were not done; the same command asks again: {failures[0]}")
    if not entries:
        why = f"{dropped_path(args.out)} says why" if dropped else "there was nothing to ask for"
        raise ValueError(f"no entry was made: {why}")
    return 0


def check_out(out: Path, source: Path | None = None) -> None:
    """Raises ValueError for an ending that says no format, or if a file that is written is the one that is read."""
    is_json_lines(out)
    for path in (out, dropped_path(out), journal_path(out)):
        check_apart(path, *filter(None, [source]))


def journal_path(out: Path) -> Path:
    return beside(out, ".journal.jsonl")


def refuse_if_dear(found: Estimate, most: float | None) -> None:
    if most is not None and (found.dollars is None or found.dollars > most):
        what = (
            "the price is not known: name it with --prices" if found.dollars is None else f"about ${found.dollars:.2f}"
        )
        raise ValueError(f"not begun: {what}; --max-dollars is {most:g}")


def collect(plan: Plan, out: Path, results: Results, stop: threading.Event) -> tuple[dict, list[str]]:
    """The outcomes by their places, and why jobs failed. They are appended to the files as they come."""
    done: dict[tuple[int, ...], Outcome] = {}
    failures, in_a_row, n_entries = [], 0, 0
    is_lines = is_json_lines(out) and out.suffix.lower() != ".gz"  # which is packed at the end, as a list is
    dropped_path(out).write_bytes(b"")
    if is_lines:
        out.write_bytes(b"")
    with tqdm(total=plan.total, unit="entry" if plan.by_entries else "job", dynamic_ncols=True) as bar:
        for job, outcome in results:
            if isinstance(outcome, ChatError):
                failures, in_a_row = [*failures, str(outcome)], in_a_row + 1
                if in_a_row == ENOUGH_FAILURES:
                    stop.set()
                continue
            in_a_row, done[job.order] = 0, outcome
            for path, rows in ((out if is_lines else None, outcome.entries), (dropped_path(out), outcome.dropped)):
                if path and rows:
                    with path.open("a", encoding="utf-8") as file:
                        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            bar.update(len(outcome.entries) if plan.by_entries else 1)
            n_entries += len(outcome.entries)
            bar.set_postfix(entries=n_entries, failed=len(failures), refresh=False)
    return done, failures


def in_order(plan: Plan, done: dict[tuple[int, ...], Outcome]) -> tuple[list[Entry], list[dict]]:
    """Entries and dropped rows by their places, whenever they were made."""
    rows = [*((place, [entry]) for place, entry in plan.given), *((place, o.entries) for place, o in done.items())]
    entries, surplus = plan.finish([entry for _, found in sorted(rows, key=lambda row: row[0]) for entry in found])
    return entries, [row for _, outcome in sorted(done.items()) for row in outcome.dropped] + surplus


def write_entries(path: Path, rows: Iterable[dict]) -> None:
    """JSON Lines or a JSON list, packed or not, by the path's ending; in one move."""
    with writing(path) as write:
        for row in rows:
            write(row)


def report(out: Path, entries: list, dropped: list[dict], journal: Journal, teachers: list[Teacher]) -> None:
    used = journal.usage()
    print(f"made       {len(entries)} entries: {out}")
    for reason, n in Counter(row["reason"].partition(":")[0] for row in dropped).most_common():
        print(f"dropped    {n:5} {reason}")
    dollars = [row_price(row, teachers) for row in journal.lines.values()]
    cost = "" if None in dollars else f", about ${sum(dollars):.2f}"
    print(f"asked      {used['requests']} requests, {used['prompt_tokens']:,} tokens of prompts and "
          f"{used['reply_tokens']:,} of replies{cost}")  # fmt: skip


def row_price(row: dict, teachers: list[Teacher]) -> float | None:
    price = {teacher.name: teacher.price for teacher in teachers}[row["teacher"]]
    return price and (row.get("prompt_tokens", 0) * price[0] + row.get("reply_tokens", 0) * price[1]) / 1e6
