"""`scripts.curate review`: a person looks at a sample in the terminal; verdicts are kept as they come.

Stopped, the same command goes on with what is open.
"""

import argparse
import hashlib
import json
import random
import sys
from collections import Counter
from pathlib import Path

from gpt.curation.data_card import draw_entries
from gpt.curation.pipeline import read_rows, writable
from gpt.evaluation.metrics import bootstrap_interval
from gpt.text.entries import Entry
from scripts.curate_stages import at_least_one

Parser, Args = argparse.ArgumentParser, argparse.Namespace
ANSWERS = {"g": "good", "b": "bad", "u": "unsure"}


def add_review(parser: Parser) -> None:
    parser.add_argument("--in", dest="source", type=Path, required=True, metavar="FILE", help="in any common format")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="verdicts, JSON Lines; it goes on there"
    )
    parser.add_argument("--size", type=int, default=50, metavar="N", help="entries of the sample [50]")
    parser.add_argument("--seed", type=int, default=123, metavar="N", help="of the sample [123]")


def run_review(args: Args) -> int:
    """Show a sample entry by entry; what is given stands in --out at once."""
    at_least_one(args, "size")
    entries, total = draw_entries((row.entry for row in read_rows(args.source) if row.entry), args.size, args.seed)
    random.Random(args.seed).shuffle(entries)
    known = read_verdicts(args.out)
    open_ones = [entry for entry in entries if digest(entry) not in known]
    for n, entry in enumerate(open_ones, start=len(entries) - len(open_ones) + 1):
        verdict, note = ask_person(entry, f"{n} of {len(entries)}")
        if verdict is None:
            break
        known[digest(entry)] = {"digest": digest(entry), "verdict": verdict, "note": note, **entry}
        append_line(args.out, known[digest(entry)])
    print(review_words([known[digest(entry)]["verdict"] for entry in entries if digest(entry) in known], total))
    return 0


def ask_person(entry: Entry, place: str) -> tuple[str | None, str]:
    """(verdict, note); None to stop. A reason may follow the letter: `b wrong year`."""
    print(f"\n--- {place} ---\n{entry['instruction']}")
    if entry["input"]:
        print(f"\n[input] {entry['input']}")
    print(f"\n[output] {entry['output']}\n")
    while True:
        print("g good, b bad, u unsure, q quit (a note may follow): ", end="", flush=True)
        line = sys.stdin.readline()
        letter, _, note = line.strip().partition(" ")
        if not line or letter.lower() == "q":
            return None, ""
        if letter.lower() in ANSWERS:
            return ANSWERS[letter.lower()], note.strip()


def append_line(path: Path, row: dict) -> None:
    """One more line; where a kill cut the last one off, it is ended first, so that this one is not lost with it."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            file.write(b"" if file.read(1) == b"\n" else b"\n")
        file.write(writable(json.dumps(row, ensure_ascii=False)).encode() + b"\n")


def digest(entry: Entry) -> str:
    fields = json.dumps([entry["instruction"], entry["input"], entry["output"]])
    return hashlib.sha256(fields.encode()).hexdigest()[:16]


def read_verdicts(path: Path) -> dict[str, dict]:
    """The verdicts so far; of two on one entry the later counts. A line cut off by a kill is asked again."""
    found: dict[str, dict] = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.split("\n"):  # not splitlines(): U+2028 may stand inside a string
        try:
            verdict = json.loads(line)
        except ValueError:
            continue
        if not isinstance(verdict, dict) or not {"digest", "verdict"} <= verdict.keys():
            raise ValueError(f"{path}: not a file of verdicts: give --out another name")
        found[verdict["digest"]] = verdict
    return found


def review_words(verdicts: list[str], total: int) -> str:
    if not verdicts:
        return "no verdict yet"
    share = bootstrap_interval([float(verdict == "good") for verdict in verdicts])
    counts = ", ".join(f"{n} {verdict}" for verdict, n in Counter(verdicts).most_common())
    return (
        f"{len(verdicts)} of {total:,} entries seen: {counts}; "
        f"good are {share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"
    )
