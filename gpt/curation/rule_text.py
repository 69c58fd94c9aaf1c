"""Task-like plain text made by rules, for the last stretch of pretraining.

Books teach a small model what a sentence is, but not to use the words in front of it. This text does: every
document holds tasks whose answers follow from the words given (copy, sort, replace, spell, put in the past ...),
in many plain layouts, so that fine-tuning later has to teach only its own format. None of the layouts is
the Alpaca prompt. Words and sentences come from the pretraining corpus, so they practically never repeat.

    material = make_material(corpus_texts, gloss_text)
    text = rule_text(Random(1), material, Ban(test_entries))
"""

import re
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from gpt.curation.templates import (
    WORDS,
    capital,
    facts_card,
    kind_card,
    list_card,
    number_card,
    record_card,
    scene_card,
    sentence_card,
    word_card,
)

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,;'-]+[.!?]")
GLOSS = re.compile(r"(?m)^([a-z]+) \((noun|verb|adjective|adverb)\): ([a-z][^.:]*)\.(?: Similar words: ([^.]*)\.)?")

# ---- material: what the tasks are made of ----------------------------------------------------------------


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


# ---- the ban: nothing of a test entry --------------------------------------------------------------------


class Ban:
    """Knows the test entries; refuses text that holds one of them, and items whose answer one of them asks for."""

    def __init__(self, entries: Iterable[dict], run: int = 6) -> None:
        """A text may not share `run` words in a row with an instruction or input, nor hold a shorter one whole."""
        self.prompts, self.outputs = defaultdict(int), defaultdict(int)  # word -> the entries that have it, as bits
        self.runs = defaultdict(set)  # first three words -> the runs that begin so
        for number, entry in enumerate(entries):
            for word in fold(entry["instruction"] + " " + entry.get("input", "")):
                self.prompts[word] |= 1 << number
            for word in fold(entry["output"]):
                self.outputs[word] |= 1 << number
            for field in (entry["instruction"], entry.get("input", "")):
                words = fold(field)
                for i in range(max(1, len(words) - run + 1)):
                    piece = tuple(words[i : i + run])
                    if len(piece) >= 3:
                        self.runs[piece[:3]].add(piece)

    def has_text(self, text: str) -> bool:
        words = fold(text)
        for i, start in enumerate(zip(words, words[1:], words[2:], strict=False)):
            if start in self.runs and any(tuple(words[i : i + len(r)]) == r for r in self.runs[start]):
                return True
        return False

    def has_pair(self, operand: str, answer: str) -> bool:
        """Whether one test entry has the operand's words in its prompt and the answer's words in its output."""
        entries = -1
        for index, words in ((self.prompts, fold(operand)), (self.outputs, fold(answer))):
            for word in words:
                entries &= index.get(word, 0)
                if not entries:
                    return False
        return entries > 0

    def is_banned(self, text: str, operand: str = "", answer: str = "") -> bool:
        """Whether a test entry asks for this answer (or back from it), or stands in the text."""
        pairs = [(operand, answer), (answer, operand)] if operand and answer else []
        return any(self.has_pair(*pair) for pair in pairs) or self.has_text(text)


def fold(text: str) -> list[str]:
    return WORD.findall(text.lower())


# ---- cards from the corpus -------------------------------------------------------------------------------


def some_word(rng: Random, m: Material) -> str:
    return rng.choice(m.words if rng.random() < 0.6 else m.rare)


def odd_word(rng: Random, m: Material) -> str:
    """A rare word, or one that does not exist: it can be copied, not guessed."""
    syllables = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
    return rng.choice(m.rare) if rng.random() < 0.6 else "".join(syllables) + rng.choice(["", *"nrstl"])


def some_words(rng: Random, m: Material) -> list[str]:
    """Two to six different words."""
    words = {some_word(rng, m).lower() for _ in range(rng.randint(2, 6))}
    return rng.sample(sorted(words), len(words)) if len(words) > 1 else some_words(rng, m)


def sentence(rng: Random, m: Material) -> dict:
    return sentence_card(rng, rng.choice(m.sentences), some_word(rng, m))


def word(rng: Random, m: Material) -> dict:
    return word_card(rng, some_word(rng, m).lower())


def words(rng: Random, m: Material) -> dict:
    return list_card(rng, some_words(rng, m))


def odd(rng: Random, m: Material) -> dict:
    """Things to copy that cannot be guessed, and answers that can only be read."""
    digits = rng.choice(["", " ", "-"]).join(str(rng.randrange(100)) for _ in range(rng.randint(1, 6)))
    who, other = rng.sample(WORDS["people"], 2)
    thing, name, second = rng.choice(["dog", "boat", "home", "song", "farm"]), odd_word(rng, m), odd_word(rng, m)
    names = rng.sample([(who, capital(name)), (other, capital(second))], rng.choice([1, 2, 2]))
    return {
        "words": " ".join(odd_word(rng, m) for _ in range(rng.choice([1, 1, 2, 3, 5, 8]))),
        "digits": digits,
        "same": f"{name} and {name}",
        "differ": f"{name} and {second}",
        "named": " ".join(f"{capital(p)}'s {thing} is called {n}." for p, n in names),
        "question": f"What is {names[0][0]}'s {thing} called?",
        "name": names[0][1],
    }


def passage(rng: Random, m: Material) -> dict:
    parts = [rng.choice(m.sentences) for _ in range(rng.randint(2, 3))]
    return {"text": " ".join(parts), "first": parts[0], "last": parts[-1], "count": len(parts)}


def record(rng: Random, m: Material) -> dict:
    return record_card(rng, [some_word(rng, m) for _ in range(rng.randint(2, 4))])


def numbers(rng: Random, m: Material) -> dict:
    card, item = number_card(rng), rng.choice(m.plurals)[1]
    who, verb = rng.choice(WORDS["people"]), rng.choice(["has", "counts", "wants", "needs"])
    card["owned"] = f"{capital(who)} {verb} {card['n']} {item}."
    return card | {"bought": f"{capital(who)} has {card['a']} {item} and gets {card['b']} more."}


def scene(rng: Random, m: Material) -> dict:
    other = {k + "2": v for k, v in scene_card(rng).items()}
    return scene_card(rng) | other | facts_card(rng, rng.choice([1, 2, 3, 3]))


def lexicon(rng: Random, m: Material) -> dict:
    """A word and its relatives, each out of its own list."""
    name, days = rng.choice(["a", "an"]), rng.choice([WORDS["days"], WORDS["months"]])
    noun, day = rng.choice(WORDS[name]), rng.randrange(len(days))
    card = dict(zip(("one", "many"), rng.choice(m.plurals), strict=True))
    card |= dict(zip(("base", "past"), rng.choice(m.pasts), strict=True))
    card |= dict(zip(("plain", "more", "most"), rng.choice(m.comparatives), strict=True))
    card |= dict(zip(("word", "gloss"), rng.choice(m.glosses), strict=True))
    card |= dict(zip(("like", "alike"), rng.choice(m.synonyms), strict=True))
    card |= dict(zip(("yes", "no"), rng.choice(WORDS["opposites"])[:: rng.choice([1, -1])], strict=True))
    card |= {"noun": noun, "article": f"{name} {noun}", "day": days[day], "next": days[(day + 1) % len(days)]}
    return card | kind_card(rng)


# ---- tasks -----------------------------------------------------------------------------------------------

TASKS = [  # weight, card, text, answer, wordings (a wording that holds the text itself is not followed by it)
    (10, sentence, "{s}", "{s}",
     "Copy|Say it again|Repeat after me|Type the same line|Echo it|Give me back what I gave you"),
    (8, odd, "{words}", "{words}",
     "Echo the strange words|Say '{words}'|Copy letter for letter|Same words, same order"),
    (3, odd, "{digits}", "{digits}", "Copy the digits|Type the code again|The code is {digits}. What is the code?"),
    (8, passage, "{text}", "{text}",
     "Give the passage back unchanged|Do not change a word|Copy all of it|Echo everything"),
    (4, words, "{words}", "{words}", "Copy the list|Type this list again|Keep the list as it is"),
    (3, words, "{slashes}", "{slashes}", "Say these again|Copy with the slashes"),
    (3, sentence, "{s}", "{s}\n{s}", "Two lines of the same, please|Write it down twice, one below the other"),
    (2, sentence, "{marked}", "{w}",
     "Which word stands in {mark}?|Take out what is inside {mark}|Copy the marked word only"),
    (2, words, "{lines}", "{one}", "Copy line {n}|Which word is on line {n}?|Read out the {nth} line"),
    (1, words, "{words}", "{one}", "Take number {n} of the list|Which one comes {nth}?"),
    (2, sentence, "{s}", "{upper}",
     "Shout it|Make every letter a big one|Change all small letters to big ones|Use capitals throughout"),
    (2, sentence, "{upper}", "{lower}",
     "Do not shout|Change all big letters to small ones|Use small letters throughout"),
    (1, words, "{words}", "{titles}", "Give each word of the list a capital|Start every one with a big letter"),
    (1, words, "{words}", "{uppers}", "Print the list in capitals|Big letters for every item"),
    (2, sentence, "{s}", "{first}",
     "Copy the opening word|How does it begin? One word|Say just the word it opens with"),
    (2, sentence, "{s}", "{last}", "Copy the closing word|How does it end? One word|Say just the word it stops with"),
    (2, sentence, "{s}", "{nth_word}", "Word number {n}|Count to word {n} and copy it|Pick out the {nth} word"),
    (2, sentence, "{s}", "{opening}",
     "Copy the opening {few} words|Stop after {few} words|Keep just the opening {few} words"),
    (2, word, "{word}", "{hyphens}", "Put hyphens between the letters|Pull '{word}' apart with hyphens"),
    (1, word, "{word}", "{apart}", "Pull the letters apart|Leave a space after every letter"),
    (1, word, "{word}", "{letters}", "Put commas between the letters|Say the letters of {word} one by one"),
    (1, word, "{hyphens}", "{word}", "Put the letters together|Which word do these letters make?"),
    (1, word, "{apart}", "{word}", "Close the gaps|Push the letters together"),
    (1, sentence, "{s}", "{reversed}", "Read it backwards, word by word|Turn the order of the words around"),
    (1, words, "{words}", "{backwards}", "Turn the list around|The list from its end to its start"),
    (1, word, "{word}", "{first_letter}", "Opening letter|Which letter opens {word}?|It starts with the letter"),
    (1, word, "{word}", "{last_letter}", "Closing letter|Which letter closes {word}?|It stops with the letter"),
    (1, word, "{word}", "{length}", "How long is the word, in letters?|Count how many letters {word} takes"),
    (2, word, "{word}", "{repeated}", "{times} times|Say it over and over, {times} times|{digit} x"),
    (2, lexicon, "{one}", "{many}", "More than one|Here is one {one}. Here are two|Turn one into many"),
    (2, lexicon, "{many}", "{one}", "Just one of them|Many {many}, one|Turn many into one"),
    (2, lexicon, "{base}", "{past}", "Say it for yesterday|Today we {base}. Yesterday we|Verb, past form"),
    (1, lexicon, "{past}", "{base}", "Say it for today|Yesterday they {past}. Today they|Verb, base form"),
    (2, scene, "{Who} {does}.", "{Who} {turned}.", "It happened yesterday|Tell it as if over|Move this into the past"),
    (1, scene, "{Who} {does} {where}.", "{Who} {turned} {where}.", "Put it into the past|Long ago"),
    (1, scene, "{Who} {did}.", "{Who} {does}.", "It happens every day|Tell it as if it were now"),
    (1, scene, "{Who} {does}.", "{Who} {be} {doing}.", "It is going on right now|Say it with -ing"),
    (1, scene, "{Who} {does}.", "{Who} will {do}.", "It will happen tomorrow|Say it with will"),
    (2, lexicon, "{yes}", "{no}", "The contrary of {yes}|Say the reverse|If it is not {yes}, it is|Turn it around"),
    (2, lexicon, "{like}", "{alike}", "Nearly the same as {like}|Another way to say {like}|A word close in meaning"),
    (2, lexicon, "{word}", "{gloss}", "Dictionary|Meaning of {word}|Say in other words what {word} is|Explain it"),
    (1, lexicon, "{gloss}", "{word}", "Which word is meant?|Riddle|Name it|It has a name"),
    (2, lexicon, "{plain}", "{more}", "Comparing form|One is {plain}, the other is even"),
    (1, lexicon, "{plain}", "{most}", "Above all others|{plain}, and of all the"),
    (2, lexicon, "{noun}", "{article}", "a or an?|The small word in front|Say it with a or an"),
    (2, sentence, "{misspelled}", "{s}", "One letter is wrong. Mend it|Repair the typing error|Proofread"),
    (1, word, "{wrong}", "{word}", "How should this be spelled?|Typing error, should be|{wrong}? You mean"),
    (1, sentence, "{misspelled}", "{wrong}", "Which word looks wrong?|Point at the typing error"),
    (2, sentence, "{s}", "{swapped}", "Swap {w} for {new}|Where it says {w}, put {new}|Let {new} stand in for {w}"),
    (2, sentence, "{s}", "{without}", "Leave out {w}|Strike {w}|Keep everything but {w}"),
    (1, sentence, "{s}", "{before}", "Squeeze in {new} just before {w}|Set {new} in front of {w}"),
    (1, sentence, "{s}", "{after}", "Squeeze in {new} right after {w}|Let {new} follow {w}"),
    (2, sentence, "{gap}", "{w}", "Which word goes in the gap, {either}?|Gap word: {options}"),
    (1, sentence, "{gap}", "{s}", "Fill the gap with {w}|Set {w} where the line is"),
    (1, sentence, "{s}", "{w}", "Which of the two is in the text, {either}?|Look in the text: {either}?"),
    (1, sentence, "{s}", "Yes", "Does {w} occur here? Yes or No|Is {w} in there? Yes or No"),
    (1, sentence, "{s}", "No", "Does {new} occur here? Yes or No|Is {new} in there? Yes or No"),
    (2, words, "{words}", "{sorted}", "A to Z|As in a dictionary|Line the words up by their letters"),
    (1, numbers, "{some}", "{rising}", "Small to big|Count upwards|Line the numbers up, lowest at the front"),
    (1, numbers, "{some}", "{falling}", "Big to small|Count downwards"),
    (1, numbers, "{some}", "{largest}", "Which is most?|Top number|Take the highest"),
    (1, numbers, "{some}", "{smallest}", "Which is least?|Bottom number|Take the lowest"),
    (1, numbers, "{some}", "{how_many}", "How many numbers stand here?|Count them"),
    (1, sentence, "{s}", "{count}", "Word count|How long is it, in words?"),
    (1, words, "{words}", "{count}", "Length of the list|How many are listed?"),
    (1, words, "{words}", "{longest}", "Which has more letters than the others?|Most letters"),
    (2, words, "{words}", "{one}", "Which begins with {letter}?|{letter} opens which of them?"),
    (2, words, "{words}", "{dashes}", "Dash list|One per line with a dash|Bullets|Hang a dash before each"),
    (1, words, "{words}", "{stars}", "Star list|A star in front of each"),
    (2, words, "{words}", "{numbered}", "Number them|Lines 1, 2, 3 and so on|Give each a number and a line"),
    (1, words, "{words}", "{lines}", "One below the other|No commas, new lines"),
    (1, words, "{lines}", "{words}", "Back on one line, with commas|Flatten the lines"),
    (1, words, "{dashes}", "{words}", "From bullets to commas|Flatten the bullets"),
    (1, words, "{spaces}", "{words}", "Commas between the words|Comma, comma, comma"),
    (1, words, "{words}", "{spaces}", "Drop the commas|Words with nothing but spaces"),
    (1, words, "{words}", "{ands}", "Say the last one with and|And before the last"),
    (1, words, "{doubled}", "{words}", "Each only once|Drop what comes twice"),
    (2, record, "{pairs}", "{json}", "As JSON|JSON object|Pack it into JSON"),
    (1, record, "{equals}", "{json}", "From equals signs to JSON|Pack these into JSON"),
    (1, record, "{json}", "{pairs}", "Unpack the JSON|From JSON to plain"),
    (1, record, "{json}", "{keys}", "Keys only|List the keys of the object"),
    (2, record, "{pairs}", "{value}", "{key}?|Read off the {key}|What stands under {key}?"),
    (2, record, "{json}", "{value}", "Value of {key}|Look up {key}"),
    (1, record, "{rows}", "{value}", "On the line with {key} stands|Which value has {key}?"),
    (1, numbers, "{a} + {b}", "{sum}", "Plus|Altogether|Put the two together"),
    (1, numbers, "{a} - {b}", "{difference}", "Minus|What is left?"),
    (1, numbers, "{bought}", "{sum}", "How many in the end?|And now there are"),
    (1, numbers, "{n}", "{in_words}", "Number in letters|Say the number"),
    (1, numbers, "{in_words}", "{n}", "As figures|Back into digits"),
    (1, numbers, "{sequence}", "{next}", "Go on|Which number follows?"),
    (1, numbers, "{owned}", "{n}", "Number in it|Only the figure|Copy the number you see"),
    (3, scene, "{facts}", "{who_answer}",
     "I wonder: {who_question}|Read and reply: {who_question}|Look it up: {who_question}"),
    (3, scene, "{facts}", "{where_answer}", "I wonder: {where_question}|Look it up: {where_question}"),
    (2, scene, "{facts}", "{what_answer}", "I wonder: {what_question}|Read and reply: {what_question}"),
    (2, scene, "{facts}", "{yes_answer}",
     "True to the text? Yes or No. {yes_question}|Check it, Yes or No: {yes_question}"),
    (3, odd, "{named}", "{name}", "I wonder: {question}|Read and reply: {question}|Look it up: {question}"),
    (2, lexicon, "{members}", "{member}", "Which is {a_kind}?|Only one is {a_kind}. Show it"),
    (2, lexicon, "{member}", "{kind}", "{either}?|What sort of thing, {either}?"),
    (1, scene, "{Who} {does}.", "{Aux} {who} {do}?", "Ask it|Turn it into something you ask"),
    (1, scene, "{Aux} {who} {do}?", "{Who} {does}.", "Do not ask, say it|Turn the asking into telling"),
    (1, scene, "{Who} {does}.", "{Who} {aux} not {do}.", "Say no|Deny it|Say it with not"),
    (2, scene, "{Who} {does} {where}.", "{Pronoun} {does} {where}.", "He, she or they in front|Person, short word"),
    (1, scene, "{Who} {does}. {Who2} {does2}.", "{Who} {does} and {who2} {does2}.", "Tie both with and"),
    (1, odd, "{same}", "same", "Are they equal? same or different|Twice the same word? same or different"),
    (1, odd, "{differ}", "different", "Are they equal? same or different|Twice the same word? same or different"),
    (1, sentence, "{s}", "{wrapped}", "Put {mark} around it|Lock it up in {mark}"),
    (1, sentence, "{s}", "{New}: {s}", "Begin with {New} and a colon, then go on as before"),
    (1, sentence, "{s}", "{bare}", "Take the marks away|Words only"),
    (1, sentence, "{plain}", "{s}", "Dress it as a sentence|Big letter in front, mark at the end"),
    (1, sentence, "{s}", "{ending}",
     "question, statement or exclamation|Look at the mark: question, statement or exclamation"),
    (1, lexicon, "{day}", "{next}", "What follows?|And after that?|The one after {day}"),
    (2, passage, "{text}", "{first}", "Opening sentence only|Keep the opening sentence, drop the others"),
    (1, passage, "{text}", "{last}", "Closing sentence only|Keep the closing sentence, drop the others"),
]  # fmt: skip
CUMULATIVE = list(accumulate(weight for weight, *_ in TASKS))

# ---- layouts ---------------------------------------------------------------------------------------------

ONE_BY_ONE = """Task: {ask}|Text: {text}|Answer: {answer}
Q: {both}|A: {answer}
Teacher: {both}|Pupil: {answer}
{quoted}|{answer}
{both}||{answer}
{ask}||{text}||{answer}
{text}||{ask}||{answer}
{ask}|input: {text}|output: {answer}
Given: {text}|Wanted: {ask}|Result: {answer}
"{both}" said the teacher.|"{answer}" said the girl.
> {both}|{answer}
Please help. {both}|Reply: {answer}
Exercise. {ask}|{text}|Solution: {answer}
{both} - {answer}
Read this: {text}|Now do this: {ask}|Done: {answer}
My turn: {ask}|"{text}"|{answer}
One asked: {quoted}|The other wrote: {answer}""".splitlines()
ONE_BY_ONE = [layout.replace("|", "\n") for layout in ONE_BY_ONE]
TOGETHER = ["{text} -> {answer}", "{text} => {answer}", "{text} = {answer}", "{text}: {answer}",
            "{text} becomes {answer}", "| {text} | {answer} |", "in: {text}\nout: {answer}\n",
            "input: {text}\noutput: {answer}", "* {text} ({answer})", "text: {text}, answer: {answer}"]  # fmt: skip
FORBIDDEN = re.compile(r"###|Instruction:|Response:|Input:")


def lay_out(layout: str, ask: str, text: str, answer: str) -> str:
    """The item in the layout: the line of an empty text falls away, several lines begin on a line of their own."""
    if not text:
        layout = re.sub(r"(?m)^[^{\n]*{text}\"?\n+", "", layout)
    for name, value in (("text", text), ("answer", answer)):
        layout = layout.replace(f": {{{name}}}", f":\n{{{name}}}") if "\n" in value else layout
    stop, seam = ("", " ") if ask[-1] in "?.:" else (".", ": ")
    both, quoted = (f"{ask}{seam}{mark}{text}{mark}" if text else ask + stop for mark in ("", '"'))
    return layout.format(ask=ask, text=text, answer=answer, both=both, quoted=quoted)


def make_items(rng: Random, material: Material, ban: Ban | None, n: int) -> list[tuple[str, str, str]]:
    """n times (wording, text, answer) of one task in one wording; fewer where the ban refuses much."""
    _, card, text_pattern, answer_pattern, wordings = TASKS[bisect(CUMULATIVE, rng.random() * CUMULATIVE[-1])]
    wording = rng.choice(wordings.split("|"))
    items = []
    for _ in range(n + 10):
        try:
            facets = card(rng, material)
            ask, text, answer = (p.format(**facets) for p in (wording, text_pattern, answer_pattern))
        except KeyError:  # this sentence or list lacks what the task needs
            continue
        if ban is None or not ban.is_banned(f"{ask}\n{text}\n{answer}", "" if text == answer else text, answer):
            items.append((ask, "" if text_pattern in wording else text, answer))
        if len(items) == n:
            break
    return items


def block(rng: Random, material: Material, ban: Ban | None, layout: str) -> str:
    """One to six items of one task, one by one, or as a bare list of examples."""
    items = make_items(rng, material, ban, rng.choice([1, 1, 1, 2, 3, 4, 6]))
    asks = {ask for ask, _, _ in items}
    if len(items) > 2 and len(asks) == 1 and all(text and "\n" not in text + answer for _, text, answer in items):
        together = rng.choice(TOGETHER)
        head = rng.choice(["", f"{asks.pop()}:\n"])
        return head.replace("?:", "?") + "\n".join(lay_out(together, *item) for item in items)
    return "\n\n".join(lay_out(layout, *item) for item in items)


def rule_text(rng: Random, material: Material, ban: Ban | None = None) -> str:
    """One document: one to five blocks, half of the documents in a single layout. Holds nothing that `ban` refuses."""
    while True:
        layouts = rng.choices(ONE_BY_ONE, k=rng.choice([1, 1, 2, 3, 5]))
        if rng.random() < 0.5:
            layouts = [layouts[0]] * len(layouts)
        text = "\n\n".join(block(rng, material, ban, layout) for layout in layouts).strip()
        if text and not FORBIDDEN.search(text) and not (ban and ban.has_text(text)):
            return text
