"""Time and memory of deduplication on perturbed real rows: python tests/curation/measure_dedup.py FOLDER 10000 100000

FOLDER holds public sets (.jsonl); PYTHONPATH=. finds the package.
Every row is a copy of a real one with a share of its words replaced, drawn for each
copy: 30% of the rows are near copies (up to one word in ten), the others far ones (three to eight in ten); a sixteenth
of the number of rows are different originals, as far as the folder goes. Prints a row of a table for each size.

Seen with one thread, threshold 0.8 and 5-grams, 63,479 real rows of 226 characters on average (a million in a process
of its own, the other two in one):

    | rows      | dropped | processor | a row  | clock | memory  |
    | --------: | ------: | --------: | -----: | ----: | ------: |
    | 10,000    | 1,347   | 4 s       | 378 µs | 5 s   | 0.51 GB |
    | 100,000   | 13,117  | 43 s      | 429 µs | 43 s  | 1.00 GB |
    | 1,000,000 | 129,372 | 440 s     | 440 µs | 443 s | 6.37 GB |
"""

import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gpt.curation.dedup import dedup_text, make_dedup
from gpt.text.entries import Entry, load_entries


def perturbed_rows(texts: list[str], n: int, seed: int = 0) -> Iterator[Entry]:
    """n rows, the same for the same seed."""
    rng = random.Random(seed)
    originals = texts[: max(1, n // 16)]
    pool = " ".join(texts[:5000]).split()
    for i in range(n):
        near = rng.random() < 0.3
        share = rng.uniform(0, 0.1) if near else rng.uniform(0.3, 0.8)
        parts = originals[i % len(originals)].split()
        yield {
            "instruction": " ".join(rng.choice(pool) if rng.random() < share else word for word in parts),
            "input": "",
            "output": "",
        }


def measure(texts: list[str], n: int) -> str:
    start, clock, check = time.process_time(), time.perf_counter(), make_dedup()
    n_dropped = sum(check(number, entry) is not None for number, entry in enumerate(perturbed_rows(texts, n), start=1))
    seconds, passed = time.process_time() - start, time.perf_counter() - clock
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # of the process so far: sizes go up
    cells = (f"{n:,}", f"{n_dropped:,}", f"{seconds:.0f} s", f"{seconds / n * 1e6:.0f} µs", f"{passed:.0f} s")
    return f"| {' | '.join(cells)} | {gigabytes:.2f} GB |"


def main() -> None:
    texts = [dedup_text(entry) for path in sorted(Path(sys.argv[1]).glob("*.jsonl")) for entry in load_entries(path)]
    random.Random(0).shuffle(texts)
    mean = sum(map(len, texts)) / len(texts)
    print(f"{len(texts):,} real rows of {mean:.0f} characters on average", flush=True)
    print("| rows | dropped | processor | a row | clock | memory |\n| --: | --: | --: | --: | --: | --: |", flush=True)
    for n in map(int, sys.argv[2:]):
        print(measure(texts, n), flush=True)


if __name__ == "__main__":
    main()
