"""Augmentation: the same task in other words. Only the instruction changes; the output stays to the letter.

    synonyms            a word or two by WordNet, without any model
    back-translation    into another language and back
    paraphrase          said anew by a teacher

An answer is only right for what was asked. So what it hangs on has to stand in the new instruction, too: numbers,
quoted text, what the constraints name, and every word that it takes from the instruction. Code is never touched.

Sources: back-translation as augmentation, Sennrich et al. 2016, arXiv:1511.06709; synonyms, Wei and Zou 2019 (EDA),
arXiv:1901.11196; Miller 1995, "WordNet: A Lexical Database for English". The prompts are ours.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

from gpt.curation.documents import COMMON
from gpt.curation.evol_instruct import SAME
from gpt.curation.replies import why_unusable, without_thoughts
from gpt.curation.teacher import Ask, Job, Outcome, entry_id, failed, key_of, made_by
from gpt.evaluation.metrics import rouge_l
from gpt.text.entries import UNSPACED, Entry, words

METHODS = ("synonyms", "back-translation", "paraphrase")
LANGUAGES = ("German", "French", "Spanish")
PARAPHRASE = """\
Say the instruction in other words, so that it asks for exactly the same. Keep numbers, names and everything in
quotation marks as they are, and keep its language. Reply with the new instruction alone; do not answer it.
(Variant {variant})

{instruction}"""
TRANSLATE = """\
Translate the text into {language}. Keep everything in quotation marks as it is. Reply with the translation alone; do
not answer or explain it.

{text}"""

CODE = re.compile(
    r"```|^\s*(?:def|class) \w+.*:\s*$|^\s*(?:import \w+|from \w+ import)|^\s*#include|</\w+>|\bconsole\.log\(|"
    r"\b(?:public|static|void) \w+ ?\w*\(|^\s*(?:SELECT|INSERT|UPDATE)\b.*\b(?:FROM|INTO|SET)\b|[;{}]\s*$|"
    r"\w+\(\w*\)\s*[:{]",
    re.MULTILINE,
)
ABOUT_CODE = re.compile(
    r"\b(?:python|javascript|java|c\+\+|sql|html|css|regex|regular expression|bash|function)\b", re.I
)
QUOTED = re.compile(r'"[^"\n]+"|“[^”\n]+”|「[^」\n]+」|(?<!\w)\'[^\'\n]+\'(?!\w)|`[^`\n]+`')
UNSURE = set("given granted someone somebody anyone person people yr mom dad like past less more most own kind".split())
ENDINGS = (("s", ""), ("es", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"))
ABOUT_WORDS = re.compile(
    r"\b(?:words?|synonyms?|antonyms?|opposite|rhymes?|spell\w*|letters?|plural|tense|translat\w+|syllables?|nouns?|verbs?|"
    r"adjectives?|sentences? with|pronounce\w*|define|definition)\b",
    re.IGNORECASE,
)  # fmt: skip


def is_code(entry: Entry) -> bool:
    """Whether code stands in the entry or is asked for; rather once too often, as a changed name breaks it."""
    text = "\n".join(entry[field] for field in ("instruction", "input", "output"))
    return entry.get("kind") in ("code", "coding") or bool(CODE.search(text) or ABOUT_CODE.search(entry["instruction"]))


def augment_jobs(
    entries: Sequence[Entry], method: str, *, n: int = 1, languages: Sequence[str] = LANGUAGES,
    synonyms: Callable[[str], list[str]] | None = None, seed: int = 123,
) -> list[Job]:  # fmt: skip
    """n jobs for each entry, each for one new wording. `synonyms` gives a word's synonyms: see wordnet_synonyms."""
    if method not in METHODS or (method == "synonyms" and synonyms is None):
        raise ValueError(f"method {method!r}: use {', '.join(METHODS)}; synonyms need a WordNet")
    jobs = []
    for i, entry in enumerate(entries):
        for variant in range(n):
            language = languages[(i + variant) % len(languages)]
            if method == "synonyms":
                rewrite = partial(with_synonyms, synonyms=synonyms, seed=f"{seed} {variant}")
            elif method == "paraphrase":
                rewrite = partial(paraphrase, variant=variant + 1)
            else:
                rewrite = partial(back_translate, language=language)
            detail = language if method == "back-translation" else ""
            key = key_of("augment", method, detail, str(variant), entry["instruction"], entry["input"], entry["output"])
            work = partial(augment, entry=entry, rewrite=rewrite, method=method)
            n_asks = {"synonyms": 0, "paraphrase": 2, "back-translation": 3}[method]
            jobs.append(Job(key, (i, variant), entry["instruction"], work, n_asks, reply_tokens=30))
    return jobs


def augment(ask: Ask, entry: Entry, rewrite: Callable[[Ask, Entry], tuple[str, str | None]], method: str) -> Outcome:
    about = {"parent": entry_id(entry), "old": entry["instruction"]}
    if is_code(entry):
        return failed("code is never augmented", **about)
    if entry.get("turns"):
        return failed("a conversation is not augmented: its later turns answer the first as it was said", **about)
    new, reason = rewrite(ask, entry)
    reason = reason or why_not_same(entry, new)
    if not reason and method != "synonyms":
        verdict = without_thoughts(ask(SAME.format(first=entry["instruction"], second=new)))
        if not re.match(r"\W*(yes\b|是|相同)", verdict, re.IGNORECASE):
            reason = "the teacher does not find that it asks for the same"
    if reason:
        return failed(reason, instruction=new, **about)
    made = entry.get("made", {}) | made_by(f"augment:{method}", entry_id(entry))
    return Outcome([entry | {"instruction": new, "made": made}])


def why_not_same(entry: Entry, new: str) -> str | None:
    """The reason why the old output may not answer the new instruction, or None."""
    old, n_old, n_new = entry["instruction"], len(words(entry["instruction"])), len(words(new))
    if words(new) == words(old):
        return "nothing changed"
    if not 0.4 * n_old <= n_new <= 2.5 * n_old + 5:
        return f"{n_new} words instead of {n_old}"
    if rouge_l(new, entry["output"]) > 0.7 > rouge_l(old, entry["output"]):
        return "it is the answer"
    kept = QUOTED.findall(old) + [
        str(d.get("text", "")) for d in entry.get("constraints", []) if str(d.get("text")) in old
    ]
    if missing := [text for text in kept if text not in new]:
        return f"left out: {missing[0]}"
    taken = (set(words(entry["output"])) & set(words(old))) | set(re.findall(r"\d+", old))
    if missing := sorted(taken - COMMON - set(words(new)) - set(re.findall(r"\d+", new))):
        return f"left out: {missing[0]}"
    return None


# ---- by a teacher ----


def paraphrase(ask: Ask, entry: Entry, variant: int) -> tuple[str, str | None]:
    return bare(ask(PARAPHRASE.format(instruction=entry["instruction"], variant=variant)))


def back_translate(ask: Ask, entry: Entry, language: str) -> tuple[str, str | None]:
    home = "Chinese" if re.search(f"[{UNSPACED}]", entry["instruction"]) else "English"
    there, reason = bare(ask(TRANSLATE.format(language=language, text=entry["instruction"])))
    if reason or words(there) == words(entry["instruction"]):
        return there, reason or "it was not translated"
    return bare(ask(TRANSLATE.format(language=home, text=there)))


def bare(reply: str) -> tuple[str, str | None]:
    """(the text without quotation marks around it, the reason why it is of no use or None)."""
    text = without_thoughts(reply)
    reason = why_unusable(text)
    text = re.sub(
        r"\A\W*(?:new instruction|instruction|paraphrase|translation)\s*[:：]\s*", "", text, flags=re.I
    ).strip()
    if len(text) > 2 and text[0] + text[-1] in ('""', "“”", "''") and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text, reason


# ---- by WordNet ----


def with_synonyms(_: Ask, entry: Entry, synonyms: Callable[[str], list[str]], seed: str) -> tuple[str, str | None]:
    """The instruction with up to two words replaced: none in quotation marks, and none that input or output have."""
    old = entry["instruction"]
    if ABOUT_WORDS.search(old):
        return old, "it speaks of words themselves"
    rng, fixed = Random(f"{seed} {old}"), set(words(entry["input"] + "\n" + entry["output"]))
    quoted = [range(*found.span()) for found in QUOTED.finditer(old)]
    places = []
    for found in re.finditer(r"(?<![\w'-])[A-Za-z]?[a-z]{3,}(?![\w'-])", old):
        word = found[0].lower()
        is_name = found[0] != word and found.start() > 0 and not re.search(r"[.!?]\s+\Z", old[: found.start()])
        if word in fixed or is_name or any(found.start() in span for span in quoted):
            continue
        article = re.search(r"\b(an?) \Z", old[: found.start()], re.IGNORECASE)
        options = [s for s in synonyms(word) if not article or (s[0] in "aeiou") == (word[0] in "aeiou")]
        if options:
            new = rng.choice(options)
            places.append((found.span(), new.capitalize() if found[0][0].isupper() else new))
    if not places:
        return old, "no word with a sure synonym"
    new = old
    for (start, end), word in sorted(rng.sample(places, min(2, len(places))), reverse=True):  # from behind
        new = new[:start] + word + new[end:]
    return new, None


def wordnet_synonyms(folder: Path, sure: float = 0.8) -> Callable[[str], list[str]]:
    """Synonyms by the WordNet 3.0 files in a folder, such as /usr/share/wordnet of Debian's package wordnet-base.

    Only sure ones: of both words' uses (WordNet counts them in a tagged text) that share has this sense. They replace
    base forms alone, as nothing here inflects. Raises ValueError without the files or without nltk.
    """
    try:
        import nltk.data
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ImportError:
        raise ValueError("synonyms need nltk: pip install nltk") from None
    if not (folder / "data.noun").is_file():
        raise ValueError(
            f"{folder} has no data.noun: name the folder of WordNet's files (Debian: apt install wordnet-base)"
        )

    class Reader(WordNetCorpusReader):
        """Debian leaves out the names of the lexicographers' files, and other languages are not needed."""

        def open(self, file: str) -> object:
            names = "".join(f"{i:02d}\tfile{i}\t1\n" for i in range(45))
            return io.StringIO(names) if file == "lexnames" else super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            return None

    if str(folder.resolve()) not in nltk.data.path:
        nltk.data.path.append(str(folder.resolve()))  # nltk reads nowhere else
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = Reader(nltk.data.FileSystemPathPointer(str(folder.resolve())), None)

    def main_sense(word: str) -> object:
        """The synset with enough uses of a base form, if nearly all are of its part of speech; or None."""
        is_form = any(word.endswith(end) and reader.morphy(word.removesuffix(end) + e) for end, e in ENDINGS)
        uses = {} if word in UNSURE or is_form else {synset: _count(synset, word) for synset in reader.synsets(word)}
        best = max(uses, key=uses.get, default=None)
        if best is None or best.pos() == "r" or uses[best] < max(3, sure * sum(uses.values())):
            return None  # r: an adverb, which may as well be a preposition; WordNet has none of those
        same = sum(n for synset, n in uses.items() if synset.pos().replace("s", "a") == best.pos().replace("s", "a"))
        return best if same >= 0.95 * sum(uses.values()) else None

    def synonyms(word: str) -> list[str]:
        sense = main_sense(word)
        names = [lemma.name() for lemma in sense.lemmas()] if sense and word in sense.lemma_names() else []
        return [n for n in names if n != word and n.isalpha() and n.islower() and main_sense(n) == sense]

    return synonyms


def _count(synset: object, word: str) -> int:
    return sum(lemma.count() for lemma in synset.lemmas() if lemma.name().lower() == word)
