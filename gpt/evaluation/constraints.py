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

import regex

from gpt.evaluation.metrics import bootstrap_interval
from gpt.text.entries import SPACELESS, Entry, EntryError, words

# What stands inside one word: don't, well-known, 3.5, 10:30, 1,000, a.m.
JOINT = re.compile(r"(?<=\w)['’‐‑-](?=\w)|(?<=\d)[.:](?=\d)|(?<=\d),(?=\d{3}(?!\d))|(?<=\b[a-zA-Z])\.(?=[a-zA-Z]\b)")
LIST_MARK = re.compile(r"^(?:(?:[-*•]|\d+[.)])[^\S\n]+|\d+、)(?=\S)", re.MULTILINE)  # an item has a text after its mark
COMMA = re.compile(r"[,，、](?!(?<=\d,)\d{3}(?!\d))")  # not the one of 1,000
FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
LETTER = rf"[^\W{SPACELESS}]"  # of a script with spaces: only there has a word edges

CLOSERS = r"[\"'”’)\]」』）*_]*"
END = re.compile(rf"[.!?…]+{CLOSERS}(?=\s|\Z)|[。！？]+{CLOSERS}")
CLOSED = re.compile(rf"[.!?…。！？]{CLOSERS}\Z")
NO_END = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|vs|[eE]\.g|[iI]\.e|Ph\.D)\.|\bNo\.(?=\s\d)"
    r"|\b(?:[A-Z]\.\s?){2,}(?=\S)"  # J. R. R. Tolkien, the U.S. Army
    r"|(?:\b(?:etc|[ap]\.m)\.|\.\.\.|…|[.!?][\"'”’)\]]+)(?=\s+[a-z])"  # the sentence goes on: "Stop!" he said.
)


def count_words(text: str) -> int:
    """Words as a person counts them: don't and 3.5 are one each, list marks none, a Chinese character is one."""
    return len(words(JOINT.sub("", LIST_MARK.sub("", text.strip()))))


def sentences(text: str) -> list[str]:
    """The sentences of a text; the last may be broken off.

    >>> sentences('It costs 3.5 euros, e.g. at noon. "Why?" he asked.')
    ['It costs 3.5 euros, e.g. at noon.', '"Why?" he asked.']
    """
    text = LIST_MARK.sub("", text.strip())
    masked = NO_END.sub(lambda found: re.sub("[.!?…]", ",", found.group()), text)  # as long as the text
    seams = [0, *(end.end() for end in END.finditer(masked)), len(text)]
    return [text[a:b].strip() for a, b in pairwise(seams) if words(text[a:b])]


# ---- the checks ----


def n_sentences(response: str, n: int) -> bool:
    """The last one has to be closed as well: what breaks off, or lacks its full stop, is no sentence."""
    found = sentences(response)
    return len(found) == n and CLOSED.search(found[-1]) is not None


def n_comma_items(response: str, n: int) -> bool:
    """One line of n texts with commas between them."""
    items = COMMA.split(response.strip())
    return len(items) == n and all(item.strip() and "\n" not in item for item in items)


def json_keys(response: str, keys: list[str]) -> bool:
    """One JSON object and nothing else, with exactly these keys, in any order, each once."""
    fenced = FENCE.fullmatch(response.strip())
    try:
        # Objects as tuples of pairs: a dict would hide a repeated key, and a list is an array.
        # parse_constant meets NaN and Infinity, which are not JSON: int() refuses them.
        found = json.loads(fenced[1] if fenced else response, object_pairs_hook=tuple, parse_constant=int)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, tuple) and sorted(key for key, _ in found) == sorted(keys)


def starts_with(response: str, text: str) -> bool:
    """An opening quotation mark is ignored."""
    return response.strip().casefold().startswith(tuple(quote + text.casefold() for quote in ("", '"', "“")))


def ends_with(response: str, text: str) -> bool:
    """A closing quotation mark is ignored."""
    return response.strip().casefold().endswith(tuple(text.casefold() + quote for quote in ("", '"', "”")))


def contains(response: str, text: str) -> bool:
    """As a word or phrase of its own: "very" is not in "every". A Chinese or Thai one may stand anywhere."""
    left = rf"(?<!{LETTER})" if regex.match(LETTER, text) else ""
    right = rf"(?!{LETTER})" if regex.match(LETTER, text[-1]) else ""
    return regex.search(left + regex.escape(text) + right, response, regex.IGNORECASE) is not None


def one_of(response: str, options: list[str]) -> bool:
    """The whole response is one of the options, but for a final full stop."""
    bare = [text.strip().casefold().removesuffix(".").removesuffix("。") for text in (response, *options)]
    return bare[0] in bare[1:]


CHECKS: dict[str, Callable[..., bool]] = {  # the arguments after the first are the fields of a demand
    "max_words": lambda response, n: count_words(response) <= n,
    "min_words": lambda response, n: count_words(response) >= n,
    "n_words": lambda response, n: count_words(response) == n,
    "n_items": lambda response, n: len(LIST_MARK.findall(response.strip())) == n,
    "n_comma_items": n_comma_items,
    "one_sentence": lambda response: n_sentences(response, 1),
    "n_sentences": n_sentences,
    "upper_case": lambda response: response.isupper(),  # no small letter, and at least one capital
    "lower_case": lambda response: response.islower(),
    "json_keys": json_keys,
    "starts_with": starts_with,
    "ends_with": ends_with,
    "contains": contains,
    "excludes": lambda response, text: not contains(response, text),
    "one_of": one_of,
}


# ---- responses ----


def is_met(response: str, demand: dict) -> bool:
    arguments = {name: demand[name] for name in demand if name != "check"}
    return bool(response.strip()) and CHECKS[demand["check"]](response, **arguments)


def unmet(response: str, constraints: Sequence[dict]) -> list[str]:
    """The names of the demands that the response does not meet, in their order.

    >>> unmet("Fig, plum.", [{"check": "n_comma_items", "n": 2}, {"check": "lower_case"}])
    ['lower_case']
    """
    return [demand["check"] for demand in constraints if not is_met(response, demand)]


def format_followed(response: str, entry: Entry) -> float | None:
    """1 if the response meets every demand of the entry, 0 if not; None where the entry demands nothing."""
    constraints = entry.get("constraints")
    return float(not unmet(response, constraints)) if constraints else None


def score_format(responses: Sequence[str], entries: Sequence[Entry]) -> dict[str, float | None]:
    """The share of the entries with constraints whose format is followed, its 95% interval, and their number `n`.

    Where no entry has constraints, `n` is 0 and the rest None.
    """
    pairs = zip(responses, entries, strict=True)
    followed = [score for response, entry in pairs if (score := format_followed(response, entry)) is not None]
    if not followed:
        return {"n": 0, "value": None, "low": None, "high": None}
    return {"n": len(followed), **bootstrap_interval(followed)}


# ---- the field of an entry ----


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


ARGUMENTS: dict[str, tuple[str, Callable[[object], bool]]] = {  # what it must be, in words and as a test
    "n": ("a whole number from 1", lambda value: type(value) is int and value >= 1),  # True is an int to isinstance
    "text": ("a text", is_text),
    "keys": ("a list of texts", are_texts),
    "options": ("a list of texts", are_texts),
}


def check_constraints(value: object, where: str) -> list[dict]:
    """The "constraints" of an entry as they are; EntryError that starts with `where` if one of them is no demand."""
    if not isinstance(value, list):
        raise EntryError(f'{where}: "constraints" must be a list, found {value!r}')
    for position, demand in enumerate(value):
        _check_demand(demand, f"{where}: constraint {position}")
    return value


def _check_demand(demand: object, where: str) -> None:
    if not isinstance(demand, dict) or not isinstance(demand.get("check"), str):
        raise EntryError(f'{where}: expected an object with the name of a "check", found {demand!r}')
    name = demand["check"]
    if name not in CHECKS:
        nearest = get_close_matches(name, CHECKS, n=1, cutoff=0)[0]
        raise EntryError(
            f'{where}: the check "{name}" is not known; the nearest is "{nearest}", all are {list(CHECKS)}'
        )
    _, *arguments = inspect.signature(CHECKS[name]).parameters
    if wrong := demand.keys() - {"check", *arguments}:
        raise EntryError(f"{where}: {name} has no argument {min(wrong)!r}; it takes {arguments}")
    for argument in arguments:
        if argument not in demand:
            raise EntryError(f'{where}: {name} lacks its argument "{argument}"')
        wanted, fits = ARGUMENTS[argument]
        if not fits(demand[argument]):
            raise EntryError(f'{where}: "{argument}" of {name} must be {wanted}, found {demand[argument]!r}')
