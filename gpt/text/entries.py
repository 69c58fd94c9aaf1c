"""Entries: the JSON objects that teach. Read, check, find near-duplicates, split.

    {"instruction": "Name the colour.", "input": "The sky is blue.", "output": "Blue."}

In a file `input` may be missing, and the record may have any format of `text/formats.py`; other fields (`kind`,
`source` ...) are kept and travel along.
"""

import gzip
import hashlib
import io
import json
import math
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NotRequired, TypedDict

import regex

from gpt.text.formats import find_format, record_to_entries, shown

SHINGLE = 3  # words
NEAR = 0.7  # Jaccard similarity of two prompts' shingles from which they are near-duplicates
NEAR_INPUT = 0.5  # and of their inputs': the same question about another text is another question
MEETING = {1: 150, 2: 8, 3: 1}  # pairs that share so many rare shingles are compared: work for each that is met

# A word is a run of letters, their marks (vowel signs are no ornament) and digits; in scripts written without spaces
# each character is one.
UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
SPACELESS = UNSPACED + r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(rf"[{SPACELESS}]\p{{M}}*|(?:(?![{SPACELESS}])[\p{{L}}\p{{M}}\p{{N}}_])+")

OPTIONAL = {"kind": str, "source": str, "system": str, "constraints": list, "turns": list}  # fields that are used
SURROGATE = regex.compile("[\ud800-\udfff]")
DEEPEST = 100  # brackets in brackets in one record: what is deeper could be read, and not written again
DISGUISES = (  # how a file begins that is no JSON, and what to do about it
    (rb"PK\x03\x04", "a zip archive: unpack it"),
    (rb"PAR1", "a Parquet file: convert it to JSON Lines"),
    (rb"\x1f\x8b", "gzip in gzip: unpack it once"),
    (rb"\x80[\x02-\x05]", "a pickle, which can run code when it is read: ask for JSON"),
    (rb"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (rb"\s*<", "a web page or XML: download the data file itself"),
    (rb"\xff\xfe|\xfe\xff|\x00|[^\x00]\x00", "no UTF-8 text, perhaps UTF-16: save the file as UTF-8"),
    (rb"[^{\[\n]*[,;\t][^{\[\n]*\n", "a table such as CSV: make it JSON, an object for each row"),
    (rb"\s*\[?\s*\{?\s*'", "Python, not JSON: write it with json.dump"),
    (rb"\s*- ", "YAML: convert it to JSON"),
)


class Entry(TypedDict):
    instruction: str
    input: str
    output: str
    kind: NotRequired[str]  # the sort of task, such as "summarising"
    source: NotRequired[str]  # where the entry comes from
    system: NotRequired[str]  # what a conversation's system message said
    constraints: NotRequired[list[dict]]  # what a program can check of the answer (evaluation/constraints.py)
    turns: NotRequired[list[dict[str, str]]]  # a conversation of more than one exchange, whole: {"role", "content"}


class EntryError(ValueError):
    """An entry file that cannot be used as it is; the message names file, position, field and what was found."""


def words(text: str) -> list[str]:
    """The words of a text in lower case; a Chinese or Japanese character is a word of its own."""
    return WORD.findall(text.lower())


# ---- reading ----


def load_entries(path: str | Path) -> list[Entry]:
    """All entries of a JSON or JSON Lines file, gzipped or not, in any format of `text/formats.py`.

    Raises EntryError for the first record that cannot be read, FileNotFoundError where there is no file.
    """
    return read_entries(path)[0]


def read_entries(path: str | Path, rejected: list[dict] | None = None) -> tuple[list[Entry], dict[str, int]]:
    """`load_entries`, and the counts: records of each format, and what `text/formats.py` left out or changed.

    Given a list `rejected`, a record that cannot be read is added to it, as {"where", "reason", "record"}, and reading
    goes on. What is no JSON at all is an error all the same.
    """
    path = Path(path)
    entries, counts = [], Counter()
    for where, record in read_records(path):
        try:
            converted, counted = record_to_entries(parse_record(record, where))
            for entry in converted:
                check_entry(entry)
        except ValueError as error:
            reason = str(error).removeprefix(f"{where}: ")
            if rejected is None:
                raise EntryError(f"{where}: {reason}") from None
            rejected.append({"where": where, "reason": reason, "record": record})
            continue
        entries += converted
        counts += counted
    if not entries:
        found = f"only {dict(counts)}" if counts else "it needs a JSON list or one JSON object a line"
        raise EntryError(f"{path}: no entries: {f'all {len(rejected)} were rejected' if rejected else found}")
    return entries, dict(counts)


def check_entry(entry: Entry) -> None:
    """ValueError for what would fail only later, when answers are scored or written."""
    if (depth := _depth(entry)) > DEEPEST:
        raise ValueError(f"{depth} brackets stand in each other, at most {DEEPEST} can be written again: flatten it")
    for field, kind in OPTIONAL.items():
        if field in entry and entry[field] is None:
            del entry[field]  # the field is there for all rows of the file and empty for this one
        if field in entry and not isinstance(entry[field], kind):
            wanted = "text" if kind is str else "a list"
            raise ValueError(f'"{field}" must be {wanted}, found {shown(entry[field])}: mend it or leave the field out')
    for turn in entry.get("turns", []):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise ValueError(f'"turns" must be objects with a text "content", found {shown(turn)}')
    for field, value in entry.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if half := SURROGATE.search(text) or SURROGATE.search(field):
            code, position = f"\\u{ord(half[0]):04x}", half.start()
            raise ValueError(f'"{field}" has half a character, {code} at position {position}: a text cut in an emoji')


def most_unpacked(n_bytes: int) -> int:
    """Bytes that a gzip file of this size may unpack to: text takes 3 to 20 times as many."""
    return max(200 * n_bytes, 2**26)


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):  # gzip, whatever the file is called
        try:
            most = most_unpacked(len(data))
            file = gzip.GzipFile(fileobj=io.BytesIO(data))
            data = b"".join(islice(iter(lambda: file.read(2**20), b""), most // 2**20 + 1))  # in pieces
        except (EOFError, OSError, zlib.error) as error:
            raise EntryError(f"{path}: the gzip file is cut off or damaged: {error}") from None
        if len(data) > most:
            raise EntryError(f"{path}: it unpacks to over 200 times its size: unpack it if that is meant")
    try:
        return data.decode("utf-8-sig")  # -sig: Windows editors put a byte order mark in front
    except UnicodeDecodeError as error:
        remedy = _disguise(data) or "save the file as UTF-8"
        raise EntryError(f"{path}: byte {error.start} is not UTF-8: {remedy}") from None


def _disguise(data: bytes) -> str:
    """What a file that is no JSON looks like, and what to do; "" where nothing comes to mind."""
    seen = next((remedy for pattern, remedy in DISGUISES if regex.match(pattern, data[:2000])), "")
    return seen and f"it looks like {seen}"


def _depth(value: object) -> int:
    """How many objects and lists stand in each other; a loop, as the value may be deeper than Python's stack."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, (dict, list)) and v]:
        depth += 1
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    return depth


class Line(str):
    """A line of a JSON Lines file, not parsed yet."""


def read_records(path: Path) -> list[tuple[str, object]]:
    """(position in words, record) for each record of a file in JSON or JSON Lines."""
    text = _read_text(path)
    if _is_json_lines(text.strip()):
        lines = enumerate(text.split("\n"), start=1)  # not splitlines(): U+2028 may stand inside a string
        return [(f"{path}: line {n}", Line(line)) for n, line in lines if line.strip()]
    values = _unwrapped(_parse(text, f"{path}"), path) if text.strip() else []
    return [(f"{path}: entry {position}", value) for position, value in enumerate(values)]


def parse_record(record: object, where: str) -> dict[str, object]:
    """The object of a record that `read_records` gives. ValueError if it is none."""
    value = _parse(record, where) if isinstance(record, Line) else record
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {shown(value)}")
    return value


def _is_json_lines(text: str) -> bool:
    """Whether the first of several lines is an object by itself, or one of the next two where the first is bad."""
    first, *others = text.split("\n", 3)
    is_bad = first.strip() not in ("[", "{") and any(_is_json(line, dict) for line in others[:2]) and not _is_json(text)
    return bool(others) and (_is_json(first, dict) or is_bad)


def _is_json(text: str, kind: type = object) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False


def _parse(text: str, where: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_no_duplicate_keys, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError) as error:
        remedy = _disguise(text[:2000].encode("utf-8", "replace"))
        reason = "not valid JSON" + f", {remedy}" * bool(remedy)
        raise EntryError(f"{where}: {reason}: {error}: {text.strip()[:60]!r}") from None


def finite(text: str) -> float:
    if not math.isfinite(float(text)):  # NaN, Infinity, and 1e999, which would be read as such
        raise ValueError(f"{text} is no number of JSON: write null")
    return float(text)


def _no_duplicate_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    counts = Counter(key for key, _ in pairs)
    if repeated := [key for key, n in counts.items() if n > 1]:
        raise ValueError(f"the key {repeated[0]!r} stands twice in one object")
    return dict(pairs)


def _unwrapped(value: object, path: Path) -> list[object]:
    """The records of a JSON file: its list, the one list of objects that its object holds, or the object itself."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or find_format(value):  # a conversation holds a list of objects too
        return [value]
    lists = {n: v for n, v in value.items() if v and isinstance(v, list) and all(isinstance(i, dict) for i in v)}
    if len(lists) > 1:
        raise EntryError(f"{path}: {sorted(lists)} are lists of objects: put each into a file of its own")
    return next(iter(lists.values()), [value])


def entries_sha256(entries: list[Entry]) -> str:
    """A fingerprint of what is trained on: it changes with any text and with the order."""
    digest = hashlib.sha256()
    for entry in entries:
        fields = [entry["instruction"], entry["input"], entry["output"], *entry.get("turns", [])]
        digest.update(json.dumps(fields).encode() + b"\n")
    return digest.hexdigest()


# ---- near-duplicates ----


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """All runs of three words, with the two ends marked so that a first or last word counts like any other."""
    padded = ["", "", *words(text), "", ""]
    return frozenset(tuple(padded[i : i + SHINGLE]) for i in range(len(padded) - SHINGLE + 1))


def jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b)


def near_duplicates(entries: list[Entry]) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, whose prompts are nearly or exactly the same: about linear where few are.

    Of two sets with Jaccard similarity t each has |set| * (1 - t) shingles at most that the other has not, so they
    share n of that many + n of the rarest (prefix filtering, Chaudhuri et al. 2006; n > 1: Wang et al. 2012): only
    pairs that meet n times in an index of these are compared. One index is of prompts and one of inputs, as both have
    to be near: under one instruction all meet in the first, without inputs in the second. The cheapest way is taken.
    """
    prompts = [shingles(entry["instruction"] + "\n" + entry["input"]) for entry in entries]
    inputs = [shingles(entry["input"]) for entry in entries]
    indexed = [(_rarest(sets, t), defaultdict(list)) for sets, t in ((prompts, NEAR), (inputs, NEAR_INPUT))]
    for j in range(len(entries)):
        # In each index: the earlier entries that have j's rare shingles, and how many of these may be j's alone.
        met = [([index[shingle] for shingle in rarest[j][1]], rarest[j][0]) for rarest, index in indexed]
        # A near-duplicate is met n times in the first `apart + n`, in either index and for any n: the cheapest is read.
        ways = [(lists[: apart + n], n) for lists, apart in met for n in MEETING if apart + n <= len(lists)]
        lists, shared = min(ways, key=lambda way: sum(map(len, way[0])) * MEETING[way[1]])
        for i in sorted(i for i, n in Counter(chain.from_iterable(lists)).items() if n >= shared):
            if jaccard(prompts[i], prompts[j]) >= NEAR and jaccard(inputs[i], inputs[j]) >= NEAR_INPUT:
                yield i, j
        for members in chain.from_iterable(lists for lists, _ in met):
            members.append(j)


def _rarest(sets: list[frozenset], t: float) -> list[tuple[int, list]]:
    """For each set how many shingles may be its own alone, and its rarest: that many and a few more."""
    frequency = Counter(chain.from_iterable(sets))
    apart = [int(len(s) * (1 - t) + 1e-9) for s in sets]
    by_rarity = (sorted(s, key=lambda shingle: (frequency[shingle], shingle)) for s in sets)
    return [(n, ordered[: n + max(MEETING)]) for n, ordered in zip(apart, by_rarity, strict=True)]


def duplicate_groups(entries: list[Entry]) -> list[list[int]]:
    """Positions of the entries, those that are near-duplicates (of each other or by way of others) together."""
    copies = {}  # a thousand of a prompt would be half a million pairs; union-find: each points towards its first
    group = [copies.setdefault((entry["instruction"], entry["input"]), i) for i, entry in enumerate(entries)]
    kept = list(copies.values())

    def first(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for i, j in near_duplicates([entries[i] for i in kept]):
        group[first(kept[j])] = first(kept[i])
    members = defaultdict(list)
    for i in range(len(entries)):
        members[first(i)].append(i)
    return list(members.values())


# ---- splitting ----


def split_entries(
    entries: list[Entry], *, test: float = 0.10, val: float = 0.05, how: str = "grouped", seed: int = 123
) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """Train, validation and test entries; `test` and `val` are fractions of the whole.

    `grouped` shuffles and keeps near-duplicates on one side, so that a test entry is new to the model. `ordered` takes
    them as they stand: train first, then test, then validation, as in published comparisons.
    """
    n_test, n_val = int(len(entries) * test), int(len(entries) * val)
    n_train = len(entries) - n_test - n_val
    if how == "ordered":
        # The order and the rounding of the published 935 / 110 / 55.
        n_train = int(len(entries) * (1 - test - val) + 1e-9)
        return entries[:n_train], entries[n_train + n_test :], entries[n_train : n_train + n_test]
    if how != "grouped":
        raise ValueError(f"split {how!r} is not known: use 'grouped' or 'ordered'")
    sides: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    groups = duplicate_groups(entries)
    random.Random(seed).shuffle(groups)
    for members in groups:
        room = {"test": n_test - len(sides["test"]), "val": n_val - len(sides["val"]), "train": len(entries)}
        side = next(name for name, free in room.items() if len(members) <= free)
        sides[side] += members
    train, val_side, test_side = ([entries[i] for i in sorted(side)] for side in sides.values())
    return train, val_side, test_side


def split_report(train: list[Entry], held_out: list[Entry]) -> dict[str, int]:
    """How many held-out prompts stand in train, word for word and nearly: those scores flatter."""
    prompts = {(entry["instruction"], entry["input"]): entry for entry in train}
    exact = {i for i, entry in enumerate(held_out) if (entry["instruction"], entry["input"]) in prompts}
    near = {j - len(prompts) for i, j in near_duplicates([*prompts.values(), *held_out]) if i < len(prompts) <= j}
    return {"entries": len(held_out), "exact": len(exact), "near": len(near - exact)}
