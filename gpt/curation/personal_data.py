"""Personal data: mail addresses, phone numbers, cards, accounts and the like, found by presidio's patterns.

Patterns need no model and no network. Names of persons need a spaCy model: with one ("en_core_web_sm" or a folder) they
are found too, famous ones as well, which is rarely wanted for a set about the world.

presidio checks the domain of a mail address against a list that tldextract would fetch from the internet at the first
use; here it takes the copy that comes with the package, so that nothing leaves the machine.
"""

import logging
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from gpt.curation.filters import texts_of, with_texts
from gpt.text.entries import Entry

SURE = 0.5  # presidio's confidence, 0..1, from which a pattern counts
# Before the slow recognizers run: a sign of an address, or digits enough for a number.
HINT = re.compile(
    r"@|\d(?:[\s().\-/]{0,2}\d){6}|\d\.\d{1,3}\.|[0-9a-f]:[0-9a-f]*:|\b[A-Z]{2}\d{2}|\b(?:bc1|[13])\w{25}", re.I
)
MOBILE_CN = r"(?<!\d)(?:\+?86[- ]?)?1[3-9]\d{9}(?!\d)"
IDENTITY_CN = r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\d)"
WEIGHTS_CN = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999
PHONE_SHAPE = re.compile(r"\+|\(\d|0\d|\d{3}[-. ]\d{3}[-. ]\d{4}$")  # 1000-200-400 is a sum as often as a phone


class Found(NamedTuple):
    kind: str  # such as EMAIL_ADDRESS
    start: int  # characters
    end: int


Finder = Callable[[str], list[Found]]


def is_identity_number(text: str) -> bool:
    """The check digit of a Chinese identity number (GB 11643-1999) is right."""
    total = sum(int(digit) * weight for digit, weight in zip(text[:17], WEIGHTS_CN, strict=True))
    return "10X98765432"[total % 11] == text[17].upper()


@cache
def _recognizers() -> list[object]:
    try:
        import tldextract
        from presidio_analyzer import Pattern, PatternRecognizer
        from presidio_analyzer import predefined_recognizers as ready
    except ModuleNotFoundError as error:
        raise ValueError(f"no module {error.name}: pip install -c constraints.txt -e '.[curate]'") from None
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmail(ready.EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            return bool(suffixes(pattern_text.rsplit("@", 1)[1]).suffix)

    class ChineseIdentity(PatternRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            return is_identity_number(pattern_text)

    return [
        OfflineEmail(),
        ready.CreditCardRecognizer(),
        ready.IbanRecognizer(),
        ready.IpRecognizer(),
        ready.UsSsnRecognizer(),
        ready.CryptoRecognizer(),
        ChineseIdentity("CN_IDENTITY_NUMBER", patterns=[Pattern("identity", IDENTITY_CN, 0.5)]),
        PatternRecognizer("PHONE_NUMBER", patterns=[Pattern("mobile", MOBILE_CN, 0.6)]),
        ready.PhoneRecognizer(supported_regions=("US", "GB", "DE", "FR", "IN", "CN"), leniency=1),
    ]


def find_patterns(text: str) -> list[Found]:
    """What the patterns find, in order and without overlaps: the recognizers above win over those below."""
    if not HINT.search(text):
        return []
    taken: list[Found] = []
    for recognizer in _recognizers():
        for hit in recognizer.analyze(text, recognizer.supported_entities, None):
            is_phone = recognizer.name == "PhoneRecognizer"
            is_sure = PHONE_SHAPE.match(text[hit.start : hit.end]) if is_phone else hit.score >= SURE
            if is_sure and all(hit.end <= other.start or hit.start >= other.end for other in taken):
                taken.append(Found(hit.entity_type, hit.start, hit.end))
    return sorted(taken, key=lambda found: found.start)


def make_finder(names_model: str | None = None) -> Finder:
    """Patterns, and with a spaCy model names of persons. Raises ValueError where the model is not installed."""
    _recognizers()
    if names_model is None:
        return find_patterns
    import spacy

    try:
        nlp = spacy.load(names_model)
    except OSError:
        raise ValueError(f"no spaCy model {names_model!r}: python -m spacy download {names_model}") from None

    def find(text: str) -> list[Found]:
        found = find_patterns(text)
        for name in nlp(text).ents:
            free = all(name.end_char <= other.start or name.start_char >= other.end for other in found)
            if name.label_ in ("PERSON", "PER") and free:
                found.append(Found("PERSON", name.start_char, name.end_char))
        return sorted(found, key=lambda item: item.start)

    return find


def scrub(text: str, found: Sequence[Found]) -> str:
    """The text with `<EMAIL_ADDRESS>` and the like in place of what was found."""
    for item in sorted(found, key=lambda item: -item.start):
        text = f"{text[: item.start]}<{item.kind}>{text[item.end :]}"
    return text


def make_personal_filter(find: Finder) -> Callable[[Entry], str | None]:
    """A filter that drops an entry with personal data. The reason names the kind and not the data."""

    def check(entry: Entry) -> str | None:
        for field, text in texts_of(entry):
            if found := find(text):
                return f"personal data: {', '.join(sorted({item.kind for item in found}))} in the {field}"
        return None

    return check


def make_scrubber(find: Finder) -> Callable[[Entry], Entry]:
    """Puts kinds in place of personal data, in every text of an entry; the same object if there is none."""
    return lambda entry: with_texts(entry, lambda text: scrub(text, find(text)))
