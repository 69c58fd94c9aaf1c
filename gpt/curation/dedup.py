"""Deduplication: exact copies by hash, near ones by MinHash and locality-sensitive hashing, each verified.

    entry -> text -> 5-grams of characters -> 128 minima (a MinHash) -> bands -> candidates -> their Jaccard similarity

Two texts agree in one minimum with the probability of their Jaccard similarity s (Broder 1997), so that they share at
least one of b bands of r minima with 1 - (1 - s^r)^b (Leskovec et al., Mining of Massive Datasets, 3.4). `band_shape`
takes the longest bands that still find 99.5% of the pairs at the threshold; what is found by accident is thrown out
by computing the similarity itself. So a drop is never a guess: its reason names the entry that is kept, and how near
it is.

Entries that ask about one long text are alike for that text alone. So where the input is longer than all else in both,
what is asked and answered has to be as near, too.

An entry is compared with those that are kept. In a chain a ~ b ~ c, where c is near b and not near a, c stays.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gpt.text.entries import Entry, words
from gpt.tuning.turns import exchanges

N_GRAM = 5  # characters
N_HASHES = 128  # minima of a text
RECALL = 0.995  # of the pairs whose similarity is the threshold; pairs that are nearer are found more surely
THRESHOLD = 0.8
PRIMES = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0xD6E8FEB86659FD93], np.uint64
)  # odd 64-bit numbers without a pattern


class Match(NamedTuple):
    label: str  # such as "entry 12"
    similarity: float  # Jaccard, 0..1
    is_copy: bool = False  # letter by letter: some texts that differ have the same runs


def dedup_text(entry: Entry) -> str:
    """What is compared: all three fields, of each exchange of a conversation, in lower case, white space collapsed."""
    fields = (f"{e['instruction']} {e['input']} {e['output']}" for e in exchanges(entry))
    return _folded(" ".join(fields))


def text_beside_input(entry: Entry) -> str:
    """What is compared as well where the input is longer than it: instruction and output; "" for any other entry."""
    beside = " ".join(f"{e['instruction']} {e['output']}" for e in exchanges(entry))
    return _folded(beside) if len(entry["input"]) > len(beside) else ""


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def shingle_hashes(text: str, size: int = N_GRAM) -> np.ndarray:
    """(n,) sorted 64-bit hashes of the different runs of `size` characters; a shorter text is one run."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    n_runs = max(len(codes) - size + 1, 1)
    hashes = np.zeros(n_runs, np.uint64)
    for i in range(min(size, len(codes))):
        hashes = (hashes ^ codes[i : i + n_runs]) * PRIMES[i % len(PRIMES)]  # wraps around, as it should
        hashes ^= hashes >> np.uint64(29)
    hashes.sort()
    return hashes[np.concatenate(([True], hashes[1:] != hashes[:-1]))]  # np.unique does it at twice the time


def jaccard_of(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard similarity of two sets given as sorted arrays."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def band_shape(threshold: float, n_hashes: int = N_HASHES, recall: float = RECALL) -> tuple[int, int]:
    """(bands, minima a band): the longest bands with 1 - (1 - threshold^r)^b >= recall and b * r <= n_hashes.

    Raises ValueError for a threshold that so few minima cannot serve.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} is no similarity: give one above 0 and up to 1, such as {THRESHOLD}")
    for r in range(n_hashes // 2, 0, -1):
        hit = threshold**r  # of one band
        bands = 2 if hit == 1 else max(2, math.ceil(math.log(1 - recall) / math.log1p(-hit)))
        if bands * r <= n_hashes:
            return bands, r
    raise ValueError(f"threshold {threshold} is too low for {n_hashes} hashes: use 0.05 or more")


class DedupIndex:
    """Texts that can be asked for those near another. About 6 KB of memory a text, its bytes included."""

    def __init__(self, threshold: float = THRESHOLD, size: int = N_GRAM) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ModuleNotFoundError:
            raise ValueError("no module datasketch: pip install -c constraints.txt -e '.[curate]'") from None
        if size < 1:
            raise ValueError(f"runs of {size} characters tell no texts apart: give 1 or more, such as {N_GRAM}")
        self.threshold, self.size = threshold, size
        self.empty = MinHash(N_HASHES)
        self.lsh = MinHashLSH(num_perm=N_HASHES, params=band_shape(threshold))
        self.labels: list[str] = []
        self.texts: list[bytes] = []
        self.beside: list[str] = []  # long inputs, see `text_beside_input`
        self.sizes: list[int] = []  # different runs of each text
        self.exact: dict[bytes, int] = {}
        # Candidates come in clusters, so those asked for lately are kept.
        self.runs = lru_cache(maxsize=4096)(lambda i: shingle_hashes(self.texts[i].decode(), size))

    def sketch(self, text: str) -> tuple[bytes, np.ndarray, object]:
        """What a text is looked up and stored by: its digest, the hashes of its runs, its MinHash."""
        runs = shingle_hashes(text, self.size)
        minhash, (a, b) = copy.copy(self.empty), self.empty.permutations
        # What update_batch does, without a list in between: the runs are hashed already.
        minhash.hashvalues = (runs.astype(a.dtype)[:, None] * a + b).min(axis=0)  # (n, N_HASHES) -> (N_HASHES,)
        return hashlib.blake2b(text.encode(), digest_size=16).digest(), runs, minhash

    def candidates(self, minhash: object) -> list[int]:
        """Positions that share a band, in the order in which they were added."""
        return sorted(self.lsh.query(minhash))

    def matches(self, text: str, beside: str = "") -> Iterator[Match]:
        """The texts whose similarity is the threshold or more, in the order in which they were added; where they and
        this one have something beside a long input, that has to be as near."""
        yield from self._matches(beside, *self.sketch(text))

    def _matches(self, beside: str, digest: bytes, runs: np.ndarray, minhash: object) -> Iterator[Match]:
        if (same := self.exact.get(digest)) is not None:
            yield Match(self.labels[same], 1.0, is_copy=True)
        for i in self.candidates(minhash):
            small, large = sorted((len(runs), self.sizes[i]))
            if i != same and small >= self.threshold * large:  # else the similarity cannot be that high
                similarity = jaccard_of(runs, self.runs(i))
                if similarity >= self.threshold and self._near_beside(beside, self.beside[i]):
                    yield Match(self.labels[i], similarity)

    def _near_beside(self, a: str, b: str) -> bool:
        if not a or not b:
            return True
        return jaccard_of(shingle_hashes(a, self.size), shingle_hashes(b, self.size)) >= self.threshold

    def add(self, text: str, label: str, beside: str = "") -> None:
        self._add(text, label, beside, *self.sketch(text))

    def _add(self, text: str, label: str, beside: str, digest: bytes, runs: np.ndarray, minhash: object) -> None:
        position = len(self.labels)
        self.labels.append(label)
        self.texts.append(text.encode())
        self.beside.append(beside)
        self.sizes.append(len(runs))
        self.exact.setdefault(digest, position)
        self.lsh.insert(position, minhash, check_duplication=False)

    def find_or_add(self, text: str, label: str, beside: str = "") -> Match | None:
        """The first text that is near; None where there is none, and then this one is added."""
        sketch = self.sketch(text)
        if match := next(self._matches(beside, *sketch), None):
            return match
        self._add(text, label, beside, *sketch)
        return None


def make_dedup(
    threshold: float = THRESHOLD, size: int = N_GRAM, against: Iterable[Entry] = ()
) -> Callable[[int, Entry], str | None]:
    """A filter with a memory: (number, entry) -> None, or of which earlier entry it is a duplicate.

    `against` are entries to keep out as well, such as test entries: they are there from the start.
    """
    index = DedupIndex(threshold, size)
    for n, entry in enumerate(against, start=1):
        index.add(dedup_text(entry), f"test entry {n}", text_beside_input(entry))

    def check(number: int, entry: Entry) -> str | None:
        match = index.find_or_add(dedup_text(entry), f"entry {number}", text_beside_input(entry))
        if match is None:
            return None
        if match.is_copy:
            return f"duplicate of {match.label}"
        return f"near-duplicate of {match.label}, Jaccard {match.similarity:.2f}"

    return check


ORDERS: dict[str, Callable[[Entry], float]] = {
    "first": lambda entry: 0,
    "longest": lambda entry: -len(words(entry["output"])),
    "shortest": lambda entry: len(words(entry["output"])),
}


def order_key(order: str) -> Callable[[Entry], float]:
    """Sorts those to keep to the front: a name of ORDERS, or a field with a number ("score": the highest first)."""
    if order in ORDERS:
        return ORDERS[order]

    def key(entry: Entry) -> float:
        value = entry.get(order)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"order {order!r}: found {value!r}: use {', '.join(ORDERS)} or a field with a number")
        return -value

    return key


def deduplicate(
    entries: Sequence[Entry],
    threshold: float = THRESHOLD,
    *,
    size: int = N_GRAM,
    against: Iterable[Entry] = (),
    order: str = "first",
) -> list[str | None]:
    """For each entry None, or the reason why it should go; entries are numbered from 1."""
    check, key = make_dedup(threshold, size, against), order_key(order)
    reasons: list[str | None] = [None] * len(entries)
    for i in sorted(range(len(entries)), key=lambda i: key(entries[i])):  # stable: of equals, the first
        reasons[i] = check(i + 1, entries[i])
    return reasons
