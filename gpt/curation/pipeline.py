"""The funnel: entries stream through stages, and each stage passes an entry on, changes it, or says why it goes.

    rows of a file -> repair -> filter -> toxicity -> personal data -> dedup -> OUT, and what was dropped beside it

Nothing is lost: every row that is read stands in OUT or in the dropped file, there with the stage and the reason; a row
that is no entry stands there as it was. One row is in memory at a time, but for what deduplication has to remember.
"""

import gzip
import io
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO

from gpt.text.entries import Entry, check_entry, finite, most_unpacked, read_records
from gpt.text.formats import find_format, record_to_entries
from gpt.tuning.turns import check_turns
from gpt.weights.checkpoint import write_atomically

Stage = Callable[[int, Entry], Entry | str]  # (number from 1, entry) -> the entry, changed or not, or why it goes
N_SAMPLES = 5  # dropped entries that a report shows of each stage
LINES = (".jsonl", ".ndjson")  # endings of JSON Lines
READING = "read"  # the stage in which a row may turn out to be no entry
HALF_CHARACTERS = "backslashreplace"  # half an emoji, which UTF-8 cannot hold, becomes \ud83d, as JSON has it


@dataclass(frozen=True)
class Row:
    """What was read: an entry with its number, or the reason why it is none and its text."""

    number: int  # of the entry in the file, from 1; unreadable rows are counted
    entry: Entry | None
    where: str = ""  # "data.jsonl: line 7"
    reason: str = ""
    raw: str = ""
    counts: Mapping[str, int] = field(default_factory=Counter)  # of its record, at the first row: see text/formats.py


@dataclass
class StageReport:
    """What one stage did, for the table and the data card."""

    name: str
    n_in: int = 0
    n_changed: int = 0
    reasons: Counter = field(default_factory=Counter)  # by what stands before the first colon
    samples: list[tuple[str, dict]] = field(default_factory=list)  # (reason, entry), drawn at random
    converted: Counter = field(default_factory=Counter)  # records by format, and what changed in reading them

    @property
    def n_dropped(self) -> int:
        return self.reasons.total()

    @property
    def n_out(self) -> int:
        return self.n_in - self.n_dropped

    def drop(self, reason: str, entry: dict, rng: random.Random) -> None:
        """Count a drop, and keep each with the same chance for the report (reservoir sampling, Vitter 1985)."""
        self.reasons[reason_group(reason)] += 1
        if len(self.samples) < N_SAMPLES:
            self.samples.append((reason, entry))
        elif (place := rng.randrange(self.n_dropped)) < N_SAMPLES:
            self.samples[place] = (reason, entry)


def conversion_words(report: StageReport) -> str:
    """What reading the records left out or changed; "" where all are alpaca's, word for word."""
    found = {name: n for name, n in report.converted.items() if n}
    counts = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in found.items())
    return f"records by format, and what changed on the way: {counts}" if found.keys() - {"alpaca"} else ""


def reason_group(reason: str) -> str:
    """What reasons are counted by: `length` of "length: ...", `near-duplicate` of "near-duplicate of entry 7"."""
    head = reason.split(":")[0]
    return head.split(" of ")[0]


# ---- reading ----


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSON file, or line by line of a JSON Lines file, gzipped or not, in a format of `text/formats.py`.

    Which of the two a file is its content says, as it does to `text.entries.read_records`. Raises ValueError for one
    that is neither; a bad record inside is a row with a reason.
    """
    number = 0
    for where, value, raw in map(_taken_back, _json_values(path)):
        items, counts = _entries_of(value)
        for place, item in enumerate(items):
            number, counted = number + 1, Counter() if place else counts
            if isinstance(item, str):
                yield Row(number, None, where, writable(item), raw, counted)
            else:
                yield Row(number, item, where, counts=counted)


def _taken_back(seen: tuple[str, object, str]) -> tuple[str, object, str]:
    """A row of a dropped file as what was dropped there; any other as it is."""
    where, value, raw = seen
    if not isinstance(value, dict) or not {"reason", "stage", "number"} <= value.keys() or find_format(value):
        return seen
    if isinstance(value.get("record"), str):
        return where, _parsed(value["record"]), value["record"]
    return where, value.get("entry", value), raw


def _entries_of(value: object) -> tuple[list[Entry | str], Mapping[str, int]]:
    """The entries of a record, a reason in place of what is none, and what reading it left out or changed."""
    if isinstance(value, str):
        return [value], Counter()
    if not isinstance(value, dict):
        return [f"not an object but a {type(value).__name__}"], Counter()
    try:
        entries, counts = record_to_entries(value)
    except ValueError as error:
        return [str(error)], Counter()
    return [_checked(entry) for entry in entries] or ["the record holds no answered instruction"], counts


def writable(text: str) -> str:
    """The text with an escape in place of each half character."""
    return text.encode("utf-8", HALF_CHARACTERS).decode("utf-8")


def _checked(entry: Entry) -> Entry | str:
    try:
        check_entry(entry)
        check_turns(entry, "the conversation")
    except ValueError as error:
        return str(error)
    return entry


def _json_values(path: Path) -> Iterator[tuple[str, object, str]]:
    """(where, parsed value, text); where a line is no JSON, the value is a text that says why."""
    if (values := _whole_values(path)) is not None:
        for n, value in enumerate(values, start=1):
            yield f"{path.name}: entry {n}", _no_text(value), json.dumps(value, ensure_ascii=False)
        return
    with _open_text(path) as file:
        for n, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path.name}: line {n}", _parsed(raw := line.rstrip("\n")), raw


def _whole_values(path: Path) -> list | None:
    """The records of a file that is one JSON value; None where it is to be read by lines.

    That is where the first line is an object by itself and others follow, and where the file is called JSON Lines and
    is no JSON: then its first line costs its row and not the file.
    """
    with _open_text(path) as file:
        first, second = [*islice(filter(str.strip, file), 2), "", ""][:2]
    is_object, is_called_lines = False, _stem_and_ending(path)[1] in LINES
    with suppress(ValueError, RecursionError):
        is_object = isinstance(json.loads(first), dict)
    goes_on = first.lstrip().startswith("[") or first.rstrip().endswith(("[", "{", ","))  # rather than being cut
    if (second and is_object) or (is_called_lines and not is_object and not goes_on):
        return None
    with _open_text(path) as file:
        text = file.read()
    try:
        return _records(_loads(text)) if first else []
    except (ValueError, RecursionError):
        if is_called_lines:
            return None
        read_records(path)  # which raises as well, and says what the file looks like and what to do
        raise


def _no_text(value: object) -> object:
    return f"not an object but text: {value[:40]!r}" if isinstance(value, str) else value


def _parsed(line: str) -> object:
    try:
        return _no_text(_loads(line))
    except (ValueError, RecursionError) as error:
        return f"not valid JSON: {error}"


def _loads(text: str) -> object:
    return json.loads(text, object_pairs_hook=_no_lost_value, parse_constant=finite, parse_float=finite)


def _no_lost_value(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _records(value: object) -> list:
    """A list, the one list of objects that an object wraps, or the object itself."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and not find_format(value):
        lists = [v for v in value.values() if isinstance(v, list) and v and all(isinstance(i, dict) for i in v)]
        if len(lists) == 1:
            return lists[0]
    return [value]


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    binary = io.BufferedReader(_Unpacked(path), 2**17) if is_gzip else path.open("rb")
    # A byte that is not UTF-8 becomes U+FFFD, which the encoding filter names: the row is dropped, and not the file.
    with io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="\n") as file:
        try:
            yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: the gzip file is cut off or damaged: {error}") from None


class _Unpacked(io.RawIOBase):
    """The bytes of a gzip file as they are asked for, up to the limit that `text/entries.py` sets."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, gzip.open(path)  # noqa: SIM115 - closed below
        self.left = most_unpacked(path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        data = self.file.read(len(buffer))
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f"{self.path}: it unpacks to over 200 times its size: unpack it if that is meant")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()


def _stem_and_ending(path: Path) -> tuple[Path, str]:
    """`a.JSONL.gz` -> `a`, ".jsonl"."""
    path = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return path.with_suffix(""), path.suffix.lower()


def is_json_lines(path: Path) -> bool:
    """What to write, by the ending. Raises ValueError for one that says neither JSON nor JSON Lines."""
    ending = _stem_and_ending(path)[1]
    if ending not in (*LINES, ".json"):
        raise ValueError(f"{path}: the ending says neither JSON nor JSON Lines: call it .json or .jsonl")
    return ending in LINES


# ---- writing ----


@contextmanager
def writing(path: Path) -> Iterator[Callable[[dict], None]]:
    """Gives a function that writes one more entry; the file is put in place when all of it is there."""
    as_lines = is_json_lines(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    gathered = path.with_name(path.name + ".partial")
    n_written = 0
    try:
        with _write_text(gathered, is_gzip=path.suffix.lower() == ".gz") as file:

            def write(entry: dict) -> None:
                nonlocal n_written
                text = json.dumps(entry, ensure_ascii=False, indent=None if as_lines else 1)
                file.write(f"{text}\n" if as_lines else f"{',' if n_written else '['}\n{text}")
                n_written += 1

            yield write
            if not as_lines:
                file.write("\n]\n" if n_written else "[]\n")
        write_atomically(path, lambda part: gathered.replace(part))
    finally:
        gathered.unlink(missing_ok=True)


@contextmanager
def _write_text(path: Path, is_gzip: bool) -> Iterator[IO[str]]:
    with path.open("wb") as raw:
        # Neither name nor time in the gzip file: the same entries are the same bytes.
        binary = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if is_gzip else raw
        with io.TextIOWrapper(binary, encoding="utf-8", errors=HALF_CHARACTERS) as file:
            yield file


def beside(out: Path, ending: str) -> Path:
    """The path beside --out with another ending: `clean.jsonl.gz` -> `clean.card`."""
    stem, _ = _stem_and_ending(out)
    return stem.with_name(stem.name + ending)


def dropped_path(out: Path) -> Path:
    """Where what was dropped goes: `clean.json` -> `clean.dropped.jsonl`."""
    return beside(out, ".dropped.jsonl")


def held_path(out: Path) -> Path:
    """Where entries wait until all of them are seen."""
    return beside(out, ".held.jsonl")


def check_apart(written: Path, *read: Path) -> None:
    """ValueError where a file that will be written is one that is still needed."""
    if written.resolve() in [path.resolve() for path in read]:
        raise ValueError(f"{written}: would overwrite what is read or dropped: give --out another name")


# ---- the funnel ----


def run_stages(
    rows: Iterable[Row],
    stages: dict[str, Stage],
    keep: Callable[[int, Entry], None],
    drop: Callable[[dict], None],
    seed: int = 123,
) -> list[StageReport]:
    """Send every row through the stages until one drops it, and give it to `keep` or `drop`."""
    rng, reports = random.Random(seed), [StageReport(name) for name in (READING, *stages)]
    for row in rows:
        reports[0].n_in += 1
        reports[0].converted.update(row.counts)
        if row.entry is None:
            reports[0].drop(row.reason, {"record": row.raw}, rng)
            drop(dropped_row(READING, row.reason, row.number, where=row.where, record=row.raw))
            continue
        entry: Entry = row.entry
        for report, stage in zip(reports[1:], stages.values(), strict=True):
            report.n_in += 1
            result = stage(row.number, entry)
            if isinstance(result, str):
                report.drop(result, entry, rng)
                drop(dropped_row(report.name, result, row.number, entry=entry))
                break
            report.n_changed += result is not entry
            entry = result
        else:
            keep(row.number, entry)
    return reports


def dropped_row(stage: str, reason: str, number: int, **seen: object) -> dict[str, object]:
    """A line of the dropped file; the entry stands in a field of its own, where no other can have its field's name."""
    return {"reason": reason, "stage": stage, "number": number, **seen}


Selector = Callable[[Iterable[Entry]], list[str | None]]  # sees all entries that are left: None, or why one goes


def clean_file(
    source: Path,
    out: Path,
    stages: dict[str, Stage],
    select: Selector | None = None,
    progress: Callable[[Iterable[Row]], Iterable[Row]] = iter,
) -> list[StageReport]:
    """`run_stages` from file to file, with the dropped beside the kept; `progress` may draw a bar.

    `select` comes last and sees what is left as a whole, as quotas have to.
    """
    check_apart(out, source, dropped_path(source))
    check_apart(dropped_path(out), source)
    check_apart(held_path(out), source)
    with writing(dropped_path(out)) as drop:
        if select is None:
            with writing(out) as write:
                reports = run_stages(progress(read_rows(source)), stages, lambda _, entry: write(entry), drop)
                check_read(source, reports[0])
                return reports
        held, numbers = held_path(out), []

        def keep(number: int, entry: Entry) -> None:
            numbers.append(number)
            write(entry)

        try:
            with writing(held) as write:
                reports = run_stages(progress(read_rows(source)), stages, keep, drop)
                check_read(source, reports[0])
            with writing(out) as write:
                return [*reports, _select(held, numbers, select, write, drop)]
        finally:
            held.unlink(missing_ok=True)


def check_read(source: Path, report: StageReport) -> None:
    """ValueError where rows were read and none is an entry: then it is the file that is to be mended."""
    if report.n_in and not report.n_out:
        read_records(source)  # raises where it is no JSON at all, and says what it looks like
        raise ValueError(f"{source}: none of its {report.n_in:,} rows is an entry; one of them: {report.samples[0][0]}")


def _select(
    held: Path, numbers: list[int], select: Selector, write: Callable[[dict], None], drop: Callable[[dict], None]
) -> StageReport:
    report, rng = StageReport("balance", n_in=len(numbers)), random.Random(0)
    reasons = select(row.entry for row in read_rows(held))
    for row, number, reason in zip(read_rows(held), numbers, reasons, strict=True):
        if reason is None:
            write(row.entry)
        else:
            report.drop(reason, row.entry, rng)
            drop(dropped_row(report.name, reason, number, entry=row.entry))
    return report


def from_filter(check: Callable[[Entry], str | None]) -> Stage:
    """A stage out of a filter."""
    return lambda number, entry: check(entry) or entry


def from_memory(check: Callable[[int, Entry], str | None]) -> Stage:
    """A stage out of a filter that is told the entry's number, such as `make_dedup`'s."""
    return lambda number, entry: check(number, entry) or entry


def from_change(change: Callable[[Entry], Entry]) -> Stage:
    """A stage that drops nothing, but for an entry of whose instruction the change leaves nothing."""

    def stage(number: int, entry: Entry) -> Entry | str:
        changed = change(entry)
        return changed if changed["instruction"].strip() else "nothing is left of the instruction"

    return stage
