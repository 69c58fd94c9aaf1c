"""Demands that a program can check: the format that an instruction asks for, held against a response.

    {"instruction": "Name two fruits.", "output": "fig, plum", "constraints": [{"check": "n_comma_items", "n": 2}]}

The idea is IFEval's (Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models", arXiv:2311.07911):
what can be counted needs no judge. `format_followed` is its strict accuracy by prompt: all demands of an entry, or
none. As there, white space around a response and upper or lower case count for nothing unless the check is about them,
a Markdown fence around JSON is let through, and an empty response meets no demand.
"""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from itertools import pairwise

from gpt.evaluation.metrics import bootstrap_interval
from gpt.text.entries import UNSPACED, Entry, EntryError, words

LIST_MARK = re.compile(r"^(?:(?:[-*•]|\d+[.)])[^\S\n]+|\d+、)(?=\S)", re.MULTILINE)  # an item has a text after its mark
COMMA = re.compile(r"[,，、](?!(?<=\d,)\d{3}(?!\d))")  # not the one of 1,000
FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
LETTER = rf"[^\W{UNSPACED}]"  # of a script with spaces: only there does a word have edges
SMALL_WORDS = frozenset("a an and as at but by for from in of on or the to with".split())  # may stay small in a title

# What stands inside one word: don't, well-known, 3.5, 10:30, 1,000, a.m.
JOINT = re.compile(r"(?<=\w)['’‐‑-](?=\w)|(?<=\d)[.:](?=\d)|(?<=\d),(?=\d{3}(?!\d))|(?<=\b[a-zA-Z])\.(?=[a-zA-Z]\b)")
CLOSERS = r"[\"'”’)\]」』）*_]*"
END = re.compile(rf"[.!?…]+{CLOSERS}(?=\s|\Z)|[。！？]+{CLOSERS}")
CLOSED = re.compile(rf"[.!?…。！？]{CLOSERS}\Z")
NO_END = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|vs|[eE]\.g|[iI]\.e)\."
    r"|\b(?:[A-Z]\.\s?){2,}(?=\S)"  # J. R. R. Tolkien, the U.S. Army
    r"|(?:\b(?:etc|[ap]\.m)\.|\.\.\.|…|[.!?][\"'”’)\]]+)(?=\s+[a-z])"  # the sentence goes on: "Stop!" he said.
)


def n_words_in(text: str) -> int:
    """Words as a person counts them: don't and 3.5 are one each, list marks none, a Chinese character is one."""
    return len(words(JOINT.sub("", LIST_MARK.sub("", text))))


def sentences(text: str) -> list[str]:
    """The sentences of a text; the last may be broken off.

    >>> sentences('It costs 3.5 euros, e.g. at noon. "Why?" he asked.')
    ['It costs 3.5 euros, e.g. at noon.', '"Why?" he asked.']
    """
    text = LIST_MARK.sub("", text.strip())
    masked = NO_END.sub(lambda found: re.sub("[.!?…]", ",", found.group()), text)  # of the same length
    seams = [0, *(end.end() for end in END.finditer(masked)), len(text)]
    return [text[a:b].strip() for a, b in pairwise(seams) if words(text[a:b])]


# ---- the checks ----


def max_words(response: str, *, n: int) -> bool:
    return n_words_in(response) <= n


def min_words(response: str, *, n: int) -> bool:
    return n_words_in(response) >= n


def n_words(response: str, *, n: int) -> bool:
    return n_words_in(response) == n


def n_items(response: str, *, n: int) -> bool:
    """n lines with a list mark and a text after it; other lines may stand around them."""
    return len(LIST_MARK.findall(response.strip())) == n


def n_comma_items(response: str, *, n: int) -> bool:
    """One line of n texts with commas between them."""
    items = COMMA.split(response.strip())
    return len(items) == n and all(item.strip() for item in items) and "\n" not in response.strip()


def one_sentence(response: str) -> bool:
    return n_sentences(response, n=1)


def n_sentences(response: str, *, n: int) -> bool:
    """n sentences, the last one closed: what breaks off or lacks its full stop is no sentence."""
    found = sentences(response)
    return len(found) == n and CLOSED.search(found[-1]) is not None


def upper_case(response: str) -> bool:
    """No small letter, and at least one capital."""
    return response.isupper()


def lower_case(response: str) -> bool:
    return response.islower()


def title_case(response: str) -> bool:
    """Each word starts with a capital; after the first, small words such as "of" need none."""
    found = re.findall(r"\w+", JOINT.sub("", response))
    return bool(found) and all(not word[0].islower() or (i > 0 and word in SMALL_WORDS) for i, word in enumerate(found))


def json_keys(response: str, *, keys: list[str]) -> bool:
    """One JSON object and nothing else, with exactly these keys, in any order, each once."""
    fenced = FENCE.fullmatch(response.strip())
    try:
        # Pairs, since a dict would hide a repeated key; a tuple, since a list is what a JSON array becomes.
        found = json.loads(fenced[1] if fenced else response, object_pairs_hook=tuple, parse_constant=float.fromhex)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, tuple) and sorted(key for key, _ in found) == sorted(keys)


def starts_with(response: str, *, text: str) -> bool:
    """Ignoring an opening quotation mark."""
    return response.strip().casefold().startswith(tuple(quote + text.casefold() for quote in ("", '"', "“")))


def ends_with(response: str, *, text: str) -> bool:
    """Ignoring a closing quotation mark."""
    return response.strip().casefold().endswith(tuple(text.casefold() + quote for quote in ("", '"', "”")))


def contains(response: str, *, text: str) -> bool:
    """As a word or phrase of its own: "very" is not in "every". In Chinese anywhere."""
    left = rf"(?<!{LETTER})" if re.match(LETTER, text) else ""
    right = rf"(?!{LETTER})" if re.match(LETTER, text[-1]) else ""
    return re.search(left + re.escape(text) + right, response, re.IGNORECASE) is not None


def excludes(response: str, *, text: str) -> bool:
    return not contains(response, text=text)


def one_of(response: str, *, options: list[str]) -> bool:
    """The whole response is one of the options; a final full stop is ignored."""
    bare = [text.strip().casefold().removesuffix(".").removesuffix("。") for text in (response, *options)]
    return bare[0] in bare[1:]


CHECKS: dict[str, Callable[..., bool]] = {
    check.__name__: check
    for check in (
        *(max_words, min_words, n_words, n_items, n_comma_items, one_sentence, n_sentences),
        *(upper_case, lower_case, title_case, json_keys, starts_with, ends_with, contains, excludes, one_of),
    )
}


# ---- responses ----


def unmet(response: str, constraints: Sequence[dict]) -> list[str]:
    """The names of the demands that the response does not meet, in their order; an empty response meets none."""
    return [
        demand["check"]
        for demand in constraints
        if not response.strip()
        or not CHECKS[demand["check"]](response, **{name: demand[name] for name in demand if name != "check"})
    ]


def format_followed(response: str, entry: Entry) -> float | None:
    """1 if the response meets every demand of the entry, 0 if not; None where the entry demands nothing."""
    constraints = entry.get("constraints")
    return float(not unmet(response, constraints)) if constraints else None


def score_format(responses: Sequence[str], entries: Sequence[Entry]) -> dict[str, float | None]:
    """The share of entries with constraints whose format is followed, with its 95% interval; `n` is their number.

    Where no entry has constraints, `n` is 0 and the rest None.
    """
    pairs = zip(responses, entries, strict=True)
    followed = [score for response, entry in pairs if (score := format_followed(response, entry)) is not None]
    if not followed:
        return {"n": 0, "value": None, "low": None, "high": None}
    return {"n": len(followed), **bootstrap_interval(followed)}


def score_format_by_kind(responses: Sequence[str], entries: Sequence[Entry]) -> dict[str, dict[str, float | None]]:
    """`score_format` for each kind that has an entry with constraints; entries without a kind are under ""."""
    rows: dict[str, list[tuple[str, Entry]]] = {}
    for response, entry in zip(responses, entries, strict=True):
        if entry.get("constraints"):
            rows.setdefault(entry.get("kind", ""), []).append((response, entry))
    return {kind: score_format(*zip(*rows[kind], strict=True)) for kind in sorted(rows)}


# ---- the field of an entry ----

TYPES = {int: "a whole number from 1", str: "a text that is not empty", list[str]: "a list of such texts"}


def check_constraints(value: object, where: str) -> list[dict]:
    """The "constraints" of an entry as they are; EntryError that starts with `where` if a demand cannot be checked."""
    if not isinstance(value, list):
        raise EntryError(f'{where}: "constraints" must be a list, found {value!r}')
    for position, demand in enumerate(value):
        _check_demand(demand, f"{where}: constraint {position}")
    return value


def _check_demand(demand: object, where: str) -> None:
    if not isinstance(demand, dict) or not isinstance(demand.get("check"), str):
        raise EntryError(f'{where}: expected an object with the text "check", found {demand!r}')
    name = demand["check"]
    if name not in CHECKS:
        nearest = get_close_matches(name, CHECKS, n=1, cutoff=0)[0]
        raise EntryError(f'{where}: the check "{name}" is not known; the nearest is "{nearest}", all: {list(CHECKS)}')
    where = f"{where}, {name}"
    arguments = {key: parameter.annotation for key, parameter in inspect.signature(CHECKS[name]).parameters.items()}
    del arguments["response"]
    if unknown := [key for key in demand if key != "check" and key not in arguments]:
        raise EntryError(f'{where}: the argument "{unknown[0]}" is not known; it takes {list(arguments) or "none"}')
    for key, kind in arguments.items():
        if key not in demand:
            raise EntryError(f'{where}: the argument "{key}" is missing: {TYPES[kind]}')
        if not _fits(demand[key], kind):
            raise EntryError(f'{where}: the argument "{key}" must be {TYPES[kind]}, found {demand[key]!r}')


def _fits(value: object, kind: object) -> bool:
    if kind is int:
        return type(value) is int and value >= 1  # True is an int to isinstance
    if kind is str:
        return isinstance(value, str) and bool(value.strip())
    return isinstance(value, list) and bool(value) and all(_fits(text, str) for text in value)
