"""Precision and recall of the rule filters on labelled rows: python tests/curation/measure_filters.py [FOLDER]

FOLDER holds the public sets whose texts may not lie here (dolly_6400_partial.jsonl, open_trivia_qa.jsonl): with it the
rows that are labelled by number count too. fixtures/curation/README.md says how rows were drawn, labelled and parted.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

from gpt.curation.filters import FIELDS, FILTERS, first_reason, make_filters
from gpt.text.entries import Entry, load_entries

FIXTURES = Path(__file__).parents[1] / "fixtures" / "curation"
FILES = {"dolly": "dolly_6400_partial.jsonl", "trivia": "open_trivia_qa.jsonl"}


class Counts(NamedTuple):
    found: int  # faulty rows that are dropped
    wrong: int  # sound rows that are dropped
    missed: int  # faulty rows that are kept

    @property
    def precision(self) -> float:
        return self.found / max(1, self.found + self.wrong)

    @property
    def recall(self) -> float:
        return self.found / max(1, self.found + self.missed)


def read_lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (FIXTURES / name).open(encoding="utf-8")]


def labelled_rows() -> list[dict]:
    return read_lines("labelled.jsonl")


def rows_by_number(folder: Path) -> list[dict]:
    """The rows of `labelled_by_number.jsonl` with their texts; ValueError where a set is another edition."""
    sets = {name: load_entries(folder / file) for name, file in FILES.items()}
    rows = [row | sets[row["source"]][row["row"]] for row in read_lines("labelled_by_number.jsonl")]
    for row in rows:
        if digest(row) != row["digest"]:
            raise ValueError(f"{FILES[row['source']]}: row {row['row']} is not the one that was labelled")
    return rows


def digest(entry: Entry) -> str:
    return hashlib.sha256(json.dumps([entry[field] for field in FIELDS]).encode()).hexdigest()[:16]


def count(rows: list[dict], name: str = "any") -> Counts:
    """What one filter does about its fault, or all of them about any."""
    checks = make_filters()
    said = [bool(first_reason(row, checks) if name == "any" else checks[name](row)) for row in rows]
    true = [bool(row["labels"] if name == "any" else name in row["labels"]) for row in rows]
    pairs = list(zip(said, true, strict=True))
    return Counts(pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True)))


def main() -> None:
    rows = labelled_rows()
    parts = {part: [row for row in rows if row["part"] == part] for part in ("tuning", "held-out")}
    if sys.argv[1:]:
        parts["by number"] = rows_by_number(Path(sys.argv[1]))
    parts["all"] = [row for part in parts.values() for row in part]
    print("| rows | filter | faulty | found | wrongly dropped | precision | recall |")
    print("| --- " * 2 + "| --: " * 5 + "|")
    for part, found in parts.items():
        for name in (*FILTERS, "any"):
            if sum(c := count(found, name)):
                print(f"| {part}, {len(found)} | {name} | {c.found + c.missed} | {c.found} | {c.wrong} | "
                      f"{c.precision:.2f} | {c.recall:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
