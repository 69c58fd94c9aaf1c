"""What all makers share: jobs for a teacher, done side by side, kept as they end, and counted before they begin.

A job is one thing to make, such as an answer. It asks its teacher as often as it needs to and ends in an Outcome: the
entries made, and what was dropped with the reason for each. `run_jobs` writes the outcome to a journal, a line a job,
before it hands it on: of a run that is killed nothing is lost, and the next one asks only for what is missing.
"""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gpt.evaluation.chat_client import ChatError, in_parallel
from gpt.text.entries import Entry, words
from gpt.text.tokenizer import load_tokenizer

Ask = Callable[[str], str]

# US dollars per million tokens of prompt and of reply that OpenAI has asked for. Prices change: give your own.
PRICES = {
    "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60),
    "gpt-4.1-nano": (0.10, 0.40),
    "gpt-4o": (2.50, 10.00),
    "gpt-4o-mini": (0.15, 0.60),
}


class Teacher(NamedTuple):
    name: str
    ask: Ask
    price: tuple[float, float] | None = (0.0, 0.0)  # US dollars per million tokens of prompt and reply; None: unknown


class Outcome(NamedTuple):
    """What a job came to. Each dropped row has a "reason", and what was seen."""

    entries: list[dict] = []  # noqa: RUF012 - never changed in place
    dropped: list[dict] = []  # noqa: RUF012
    kept: list[dict] = []  # noqa: RUF012 - what later jobs go on from, such as instructions without an answer


class Job(NamedTuple):
    key: str  # by which the journal knows it
    order: tuple[int, ...]  # its place among the results, whenever it ends
    prompt: str  # what it asks first: for the estimate
    work: Callable[[Ask], Outcome]
    n_asks: float = 1.0  # requests, about
    reply_tokens: int = 120  # of each reply, about
    hard: bool = False  # for the strong teacher, where there are two


def key_of(*parts: str) -> str:
    """A name for a job that only changes with what it is about."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def entry_id(entry: Entry) -> str:
    """Twelve characters that stand for an entry wherever it is named as a parent."""
    return key_of(entry["instruction"], entry.get("input", ""), entry.get("output", ""))[:12]


def drop(reason: str, **seen: object) -> dict:
    return {"reason": reason, **seen}


def failed(reason: str, **seen: object) -> Outcome:
    return Outcome(dropped=[drop(reason, **seen)])


def made_by(method: str, parent: object = None, round: int | None = None, **others: object) -> dict:
    """The field "made" of an entry: how it came about. run_jobs adds the teacher."""
    fields = {"method": method, "parent": parent, "round": round, **others}
    return {name: value for name, value in fields.items() if value is not None}


# ---- doing jobs ----


class Journal:
    """The outcomes so far, in a file of JSON Lines; its first line holds the settings they were made with."""

    def __init__(self, path: Path, settings: dict[str, object]) -> None:
        self.path, self.lines, self.lock = path, {}, threading.Lock()
        data = path.read_bytes() if path.exists() else b""
        rows: list[dict] = []
        for line in data.split(b"\n"):
            with suppress(ValueError):  # of a killed run the last line may be half
                rows.append(dict(json.loads(line)))
        settings = json.loads(json.dumps(settings))
        if rows and rows[0].get("settings") != settings:
            old = rows[0].get("settings") or {}
            changed = sorted(name for name in {*old, *settings} if old.get(name) != settings.get(name))
            raise ValueError(f"{path} was begun with other settings ({', '.join(changed) or 'none are there'}): "
                             "use them again, or another --out, or delete it")  # fmt: skip
        self.lines = {row["job"]: row for row in rows if "job" in row}
        self._write(b"\n" if data[-1:] not in (b"", b"\n") else b"", {} if rows else {"settings": settings})

    def add(self, job: Job, teacher: str, outcome: Outcome, usage: Counter) -> Outcome:
        """The outcome as it was written: half a character, which no file can hold, is a question mark."""
        self._write(b"", {"job": job.key, "teacher": teacher, **outcome._asdict(), **usage})
        return self.get(job.key)

    def get(self, key: str) -> Outcome | None:
        row = self.lines.get(key)
        return row and Outcome(row["entries"], row["dropped"], row["kept"])

    def _write(self, before: bytes, row: dict) -> None:
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace") if row else b""
        with self.lock, self.path.open("ab") as file:
            file.write(before + line)
            if "job" in row:
                self.lines[row["job"]] = json.loads(line)

    def usage(self) -> Counter:
        """Requests, tokens of prompts and of replies (by GPT-2's encoding), of all jobs that ended."""
        names = ("requests", "prompt_tokens", "reply_tokens")
        return Counter({name: sum(row.get(name, 0) for row in self.lines.values()) for name in names})


def run_jobs(
    jobs: Sequence[Job], journal: Journal, teachers: Sequence[Teacher], n_workers: int = 4
) -> Iterator[tuple[Job, Outcome | ChatError]]:
    """Each job with its outcome: those of the journal first, the others as they end, `n_workers` at a time.

    `teachers` are one, or a cheap and a strong one, which gets the jobs that are hard. A job whose request failed for
    good comes with its ChatError; it is not in the journal, so that the next run asks again.
    """
    todo, seen = [], set()
    for job in jobs:
        if job.key in seen:
            yield job, failed("the same as an earlier row")
        elif outcome := journal.get(job.key):
            yield job, outcome
        else:
            todo.append(job)
        seen.add(job.key)

    def work(job: Job) -> Outcome:
        teacher, usage = teachers[-1] if job.hard else teachers[0], Counter()
        outcome = job.work(_counted(teacher.ask, usage))
        entries = [entry | {"made": entry["made"] | {"teacher": teacher.name}} for entry in outcome.entries]
        return journal.add(job, teacher.name, Outcome(entries, outcome.dropped, outcome.kept), usage)

    yield from in_parallel(work, todo, n_workers)


def run_until(
    n: int, make_jobs: Callable[[int, int], list[Job]], journal: Journal, teachers: Sequence[Teacher],
    n_workers: int = 4, *, count: Callable[[list[Entry]], int] = len,
) -> Iterator[tuple[Job, Outcome | ChatError]]:  # fmt: skip
    """Jobs until `count` finds n entries in what they made: for those that are dropped more follow, 3 n at the most.

    make_jobs: (how many, the first one's number) -> jobs.
    """
    entries, start, n_failed = [], 0, 0
    while (lacking := n - count(entries)) > 0 and start < 3 * n and not n_failed:
        for job, outcome in run_jobs(make_jobs(lacking, start), journal, teachers, n_workers):
            yield job, outcome
            n_failed += isinstance(outcome, ChatError)  # no more jobs for these: they are asked again another time
            entries += [] if isinstance(outcome, ChatError) else outcome.entries
        start += lacking


def _counted(ask: Ask, usage: Counter) -> Ask:
    def counting(prompt: str) -> str:
        reply = ask(prompt)
        usage.update(requests=1, prompt_tokens=n_tokens(prompt), reply_tokens=n_tokens(reply))
        return reply

    return counting


def paced(ask: Ask, per_minute: float, stop: threading.Event | None = None) -> Ask:
    """The same teacher, whose requests begin at least 60 / per_minute seconds apart, whoever asks."""
    lock, stop, following = threading.Lock(), stop or threading.Event(), [0.0]

    def pacing(prompt: str) -> str:
        with lock:
            now = time.monotonic()
            begin = max(now, following[0])
            following[0] = begin + 60 / per_minute
        stop.wait(begin - now)
        return ask(prompt)

    return pacing


# ---- before it begins ----


@dataclass(frozen=True)
class Estimate:
    requests: int
    prompt_tokens: int
    reply_tokens: int
    dollars: float | None  # None: the price of a teacher is not known
    seconds: float

    def __str__(self) -> str:
        cost = "at an unknown price" if self.dollars is None else f"for about ${self.dollars:.2f}"
        time_needed = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{self.seconds / 60:.0f} min"
        return (f"about {self.requests:,} requests, {self.prompt_tokens:,} tokens of prompts and "
                f"{self.reply_tokens:,} of replies, {cost}, in about {time_needed}")  # fmt: skip


def n_tokens(text: str) -> int:
    """By GPT-2's encoding; a teacher's own may count somewhat more or fewer."""
    return len(_tokenizer().encode(text))


_tokenizer = cache(load_tokenizer)


def price_of(model: str, is_local: bool, prices: dict[str, tuple[float, float]]) -> tuple[float, float] | None:
    """A model's price by its name, less the date that some names end in; a local server without one is free."""
    name = re.sub(r"-\d{4}-\d{2}-\d{2}\Z", "", model)
    return prices.get(model, prices.get(name, (0.0, 0.0) if is_local else None))


def estimate(
    jobs: Sequence[Job], teachers: Sequence[Teacher], n_workers: int = 4, per_minute: float = 0, speed: float = 30
) -> Estimate:
    """What the jobs will take; `speed` is a teacher's tokens of reply per second, `per_minute` 0 means no limit."""
    asks = prompt_tokens = reply_tokens = 0.0
    dollars: float | None = 0.0
    for job in jobs:
        price = (teachers[-1] if job.hard else teachers[0]).price
        there, back = job.n_asks * n_tokens(job.prompt), job.n_asks * job.reply_tokens
        asks, prompt_tokens, reply_tokens = asks + job.n_asks, prompt_tokens + there, reply_tokens + back
        dollars = None if price is None or dollars is None else dollars + (there * price[0] + back * price[1]) / 1e6
    seconds = max(reply_tokens / speed / max(1, n_workers), 60 * asks / per_minute if per_minute else 0)
    return Estimate(round(asks), round(prompt_tokens), round(reply_tokens), dollars, seconds)


HARD = re.compile(
    r"\b(prove|derive|implement|debug|refactor|optimi[sz]e|algorithm|step[- ]by[- ]step|in detail|compare|analy[sz]e|"
    r"essay|trade-?offs?|design|at least|exactly|must|without using)\b|"
    r"证明|推导|实现|算法|优化|逐步|分析|比较|设计|必须",
    re.IGNORECASE,
)


def is_hard(entry: Entry) -> bool:
    """Whether a task is for the strong teacher: it is long, or two of its words speak of several steps or demands."""
    text = entry["instruction"] + "\n" + entry.get("input", "")
    return len(words(text)) > 120 or len({found[0].lower() for found in HARD.finditer(text)}) >= 2
