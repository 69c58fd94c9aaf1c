"""Material for rule-made text: clean sentences, words, glosses and word forms out of a plain-text corpus."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from gpt.curation.cards import WORDS

SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,;'-]+[.!?]")
GLOSS = re.compile(r"(?m)^([a-z]+) \((noun|verb|adjective|adverb)\): ([a-z][^.:]*)\.(?: Similar words: ([^.]*)\.)?")


@dataclass(frozen=True)
class Material:
    sentences: list[str]  # 3 to 20 words, plain punctuation
    words: list[str]  # common words, lower case
    rare: list[str]  # words and names that the corpus has a few times
    glosses: list[tuple[str, str]]  # word, definition
    synonyms: list[tuple[str, str]]
    plurals: list[tuple[str, str]]  # singular, plural
    pasts: list[tuple[str, str]]  # base, past
    comparatives: list[tuple[str, str, str]]  # plain, comparative, superlative


def clean_sentences(text: str) -> Iterable[str]:
    """Sentences of 3 to 20 words without quotes, brackets or abbreviations."""
    for line in text.splitlines():
        for sentence in re.split(r"(?<=[.!?])\s+", line):
            whole = SENTENCE.fullmatch(sentence) and not sentence.endswith(("Mr.", "Mrs.", "Dr.", "St."))
            if whole and 3 <= len(sentence.split()) <= 20 and "  " not in sentence:
                yield sentence


def make_material(texts: Iterable[str], gloss_text: str, max_sentences: int = 400_000, seed: int = 1) -> Material:
    """Sentences and words of `texts`; definitions, synonyms and word forms of `gloss_text` (WordNet lines).

    Raises ValueError where the texts are too short to hold common words, rare words and definitions.
    """
    sentences = list(dict.fromkeys(s for text in texts for s in clean_sentences(text)))
    Random(seed).shuffle(sentences)
    del sentences[max_sentences:]
    counts = Counter(w for s in sentences for w in re.findall(r"(?<= )[A-Za-z]{3,14}\b", s))
    common = [w for w, n in counts.items() if n >= 50 and w.islower()]
    rare = [w for w, n in counts.items() if 2 <= n < 50 and len(w) > 3 and (w.islower() or w.istitle())]
    found = [f for f in GLOSS.findall(gloss_text) if f[2].count("(") == f[2].count(")")]  # "(... etc" was cut short
    nouns, verbs = ({word for word, kind, *_ in found if kind == k} for k in ("noun", "verb"))
    other = {word for word, kind, *_ in found if kind != "noun"}
    synonyms = [(word, s) for word, _, _, similar in found for s in similar.split(", ") if s.isalpha()]
    synonyms += [(a, b) for group in WORDS["synonyms"] for a in group for b in group if a != b]
    glosses = [(word, gloss) for word, _, gloss, _ in found if len(gloss.split()) < 16]
    if not (common and rare and glosses):
        raise ValueError(f"too little text: {len(common)} common words, {len(rare)} rare ones, {len(glosses)} glosses")
    plurals = word_pairs(WORDS["plural"], nouns - other, counts, plural_forms)
    pasts = word_pairs({base: past for base, (_, past, _) in WORDS["verbs"].items()}, verbs, counts, past_forms)
    comparatives = [(plain, *forms) for plain, forms in WORDS["comparative"].items()]
    return Material(sentences, common, rare, glosses, synonyms, plurals, pasts, comparatives)


def word_pairs(known: dict[str, str], candidates: set[str], counts: Counter, forms: Callable) -> list[tuple[str, str]]:
    """The checked pairs, and regular ones of which the corpus has both words several times."""
    seen = {w for pair in known.items() for w in pair}
    pairs = list(known.items())
    for word in sorted(candidates - seen):
        best = max(forms(word), key=lambda form: counts[form])
        if counts[word] >= 8 and counts[best] >= 8 and best not in seen and best not in candidates:
            pairs.append((word, best))
    return pairs


def plural_forms(noun: str) -> list[str]:
    if re.search(r"[^aeiou]y$", noun):
        return [noun[:-1] + "ies"]
    return [noun + "es"] if re.search(r"(s|x|z|ch|sh)$", noun) else [noun + "s"]


def past_forms(verb: str) -> list[str]:
    if re.search(r"[^aeiou]y$", verb):
        return [verb[:-1] + "ied"]
    return [verb + "d"] if verb.endswith("e") else [verb + "ed", verb + verb[-1] + "ed"]
