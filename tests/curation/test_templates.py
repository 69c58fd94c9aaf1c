import calendar
import json
import re
from collections import Counter
from difflib import SequenceMatcher
from functools import cache

import pytest

from gpt.curation.cards import WORDS
from gpt.curation.templates import TEMPLATES, make_entries

KINDS = """question_answering generation rewriting summarising translation classification extraction reasoning
format_conversion spelling grammar arithmetic units synonyms antonyms"""
DAYS, MONTHS = list(calendar.day_name), list(calendar.month_name)[1:]
FACTORS = {"meters": 100, "kilometers": 1000, "hours": 60, "minutes": 60, "days": 24, "weeks": 7, "years": 12}
FACTORS |= {"kilograms": 1000, "feet": 12, "yards": 3, "liters": 1000, "dollars": 100, "centimeters": 10}
FACTORS |= {"pounds": 16, "gallons": 4, "quarts": 2, "euros": 100}
ODD_PLURALS = """leaf leaves knife knives wife wives life lives wolf wolves half halves shelf shelves loaf loaves
thief thieves calf calves elf elves scarf scarves hoof hooves self selves bookshelf bookshelves midwife midwives
penknife penknives housewife housewives foot feet tooth teeth goose geese mouse mice louse lice dormouse dormice ox
oxen child children person people eyetooth eyeteeth grandchild grandchildren stepchild stepchildren cactus cacti
fungus fungi crisis crises oasis oases analysis analyses sheep sheep deer deer salmon salmon trout trout aircraft
aircraft moose moose series series species species photo photos piano pianos radio radios zoo zoos video videos
kangaroo kangaroos studio studios"""
DOUBLING = """stop plan drop hug clap tap trip hop jog chat nod beg grab rub slip wrap skip shop trim mop pat pet
tug drag drum hum scrub snap step trap zip knit stir"""
SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
IRREGULAR = """become begin bend bite bleed blow break bring build buy catch choose come cost creep cut deal dig do
draw drink drive eat fall feed feel fight find fly forget freeze get give go grow have hear hide hit hold hurt keep
know lay lead leave lend let light lose make mean meet pay put quit read ride ring rise run say see seek sell send
set shake shine shoot shut sing sink sit sleep slide speak spend spin split spread spring stand steal stick sting
stride strike swear sweep swim swing take teach tear tell think throw understand wake wear weep win write bet
bind"""


@cache
def all_entries() -> list[dict]:
    return make_entries(36, 7)


def entries_of(name: str) -> list[dict]:
    return [e for e in all_entries() if e["source"] == "template:" + name]


def parse(pattern: str, text: str, whole: str = "") -> dict[str, str] | None:
    """The slots of the pattern as they stand in the text; the part `whole` counts as the slot "text"."""
    pattern = pattern.replace(whole, "{text}") if whole else pattern
    seen, parts = set(), re.split(r"{(\w+)}", pattern)
    for i in range(1, len(parts), 2):
        name = parts[i]
        shape = r"[^.?]+\?" if "question" in name or name.endswith("_small") else ".+?"
        parts[i] = f"(?P={name})" if name in seen else f"(?P<{name}>{shape})"
        seen.add(name)
    parts[::2] = map(re.escape, parts[::2])
    found = re.fullmatch("".join(parts), text, re.DOTALL)
    return found and found.groupdict()


def read(template, number: int, entry: dict) -> tuple[str, str, dict]:
    """(text to work on, answer, slots of the wording), read back from the entry's own strings."""
    wording, _, own = template.wordings[number % len(template.wordings)].partition(" => ")
    slots = parse(wording, entry["instruction"], template.input)
    assert slots is not None, (wording, entry)
    operand = entry["input"] or slots.get("text") or template.input.format(**slots)
    answer = entry["output"]
    if own:
        answer = list(parse(own, answer).values())[-1] if template.name != "longer_word" else answer.split()[0].lower()
    if own and template.name in ("day_after", "day_before"):
        answer = entry["output"].split()[0]
    if own and template.name == "units":
        answer = entry["output"].split(" are ")[1].strip(".")
    return operand, answer, slots


def plural(noun: str) -> str:
    odd = ODD_PLURALS.split()
    if noun in odd[::2]:
        return odd[2 * odd[::2].index(noun) + 1]
    if noun.endswith("man") and noun != "human":
        return noun[:-3] + "men"
    if re.search("[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search("(s|x|z|ch|sh)$|[^aeiou]o$", noun) else "s")


def past(verb: str) -> str:
    if re.search("[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    return verb + ("d" if verb.endswith("e") else verb[-1] + "ed" if verb in DOUBLING.split() else "ed")


def comparison(adjective: str, ending: str) -> set[str]:
    """Every form that the rules allow."""
    long = {f"{'more' if ending == 'er' else 'most'} {adjective}"} if len(adjective) > 5 else set()
    stem = adjective[:-1] + "i" if adjective.endswith("y") else adjective.removesuffix("e")
    if re.fullmatch("[^aeiou]*[aeiou][^aeiouwy]", adjective):
        stem = adjective + adjective[-1]
    return long | {stem + ending}


def in_digits(words: str) -> int:
    small = dict(zip(SMALL.split(), [*range(20), *range(20, 100, 10)], strict=True))
    hundreds, _, rest = words.rpartition(" hundred")
    return 100 * small.get(hundreds, 0) + sum(small[w] for w in re.findall(r"\w+", rest) if w != "and")


def is_one_typo_away(wrong: str, right: str) -> bool:
    pairs = [(a, b) for a, b in zip(wrong.split(), right.split(), strict=True) if a != b]
    return len(pairs) == 1 and SequenceMatcher(None, *pairs[0]).ratio() > 0.6 and pairs[0][0][0] == pairs[0][1][0]


def bare(text: str) -> list[str]:
    return [w.strip('.,?!"') for w in text.split()]


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def kind_of(word: str) -> set[str]:
    return {kind for kind, members in WORDS["categories"].items() if word in members}


def question_fits(text: str, answer: str, slots: dict) -> bool:
    """Answer and question together stand in one sentence of the text, up to the endings of their words."""
    asked = next(v for k, v in slots.items() if "_question" in k or "_small" in k).lower()
    words = bare(re.sub("^(who|(where )?(does|do)) ", "", asked) + " " + answer.lower())
    said = [bare(s.lower()) for s in text.split(". ")]
    return any(words[-1] in s and {w[:2] for w in words} <= {w[:2] for w in s} for s in said)


def singular_kind(kinds: str) -> str:
    return next(kind for kind, many in WORDS["kinds"].items() if many == kinds)


def is_past_of(present: str, told: str) -> bool:
    """One word differs, and it is a verb in its past."""
    changed = [(x, y) for x, y in zip(bare(present), bare(told), strict=True) if x != y]
    forms = [(x, past) for base, (third, past, _) in WORDS["verbs"].items() for x in (base, third)]
    return len(changed) == 1 and changed[0] in forms


def sounds_like_a_vowel(text: str) -> bool:
    if re.match("hour|honor|heir", text):
        return True
    return text[0] in "aeiou" and not re.match("uni[^n]|use|uku|ute|eu|ewe", text)


def all_of(is_right):
    """The check of a list of words: each answer follows from the word in its place, which may stand before it."""

    def check(text, answer, slots):
        pairs = list(zip(text.split(", "), answer.removeprefix("- ").split("\n- "), strict=True))
        return len(set(pairs)) >= 3 and all(is_right(t, a.removeprefix(f"{t}: "), slots) for t, a in pairs)

    return check


def pair_in(name: str):
    return lambda t, a, s: any({t, a} <= set(group) for group in WORDS[name]) and t != a


CHECKS = {  # name -> whether the answer follows from the text (and the wording's slots)
    "copy": lambda t, a, s: a == t,
    "upper_case": lambda t, a, s: a == t.upper(),
    "lower_case": lambda t, a, s: a == t.lower() and t == t.upper(),
    "first_word": lambda t, a, s: a == bare(t)[0],
    "last_word": lambda t, a, s: a == bare(t)[-1],
    "nth_word": lambda t, a, s: a == bare(t)[int(s.get("n") or WORDS["ordinals"].index(s["nth"]) + 1) - 1],
    "count_words": lambda t, a, s: int(a) == len(t.split()),
    "replace_word": lambda t, a, s: a == re.sub(rf"\b{s['old']}\b", s["fresh"], t) != t,
    "remove_word": lambda t, a, s: len(set(t.split()) - set(a.split())) == 1 and len(a.split()) == len(t.split()) - 1,
    "fix_spelling": lambda t, a, s: is_one_typo_away(t, a),
    "find_typo": lambda t, a, s: a in bare(t) and a.lower() not in set(bare(json.dumps(WORDS["scenes"]).lower())),
    "spell_word": lambda t, a, s: a.replace("-", "") == t and a.count("-") == len(t) - 1,
    "fix_word": lambda t, a, s: a != t and SequenceMatcher(None, t, a).ratio() > 0.6,
    "plural": lambda t, a, s: a == f"The plural of {t}: {plural(t)}",
    "plural_list": all_of(lambda t, a, s: a == plural(t)),
    "singular": lambda t, a, s: t == plural(a),
    "past_tense": lambda t, a, s: a == (WORDS["verbs"][t][1] if t in IRREGULAR.split() else past(t)),
    "sentence_to_past": lambda t, a, s: is_past_of(t, a),
    "sentence_to_future": lambda t, a, s: " will " in a and len(bare(a)) == len(bare(t)) + 1,
    "negative": lambda t, a, s: bool(re.search(" (does|do) not ", a)) and len(bare(a)) == len(bare(t)) + 2,
    "make_question": lambda t, a, s: bool(re.match("(Do|Does) .*[?]$", a)) and len(bare(a)) == len(bare(t)) + 1,
    "pronoun": lambda t, a, s: a.split()[0] in ("He", "She", "They") and t.endswith(a.split(" ", 1)[1]),
    "capital_and_stop": lambda t, a, s: a == t[0].upper() + t[1:] + ".",
    "join_sentences": lambda t, a, s: t.replace(". ", " and ", 1).lower() == a.lower() and a.count(".") == 1,
    "article": lambda t, a, s: a == ("an " if sounds_like_a_vowel(t) else "a ") + t,
    "comparative": lambda t, a, s: a in comparison(t, "er") | {"better", "worse", "farther"},
    "comparative_list": all_of(lambda t, a, s: a in comparison(t, "er")),
    "superlative": lambda t, a, s: a in comparison(t, "est") | {"best", "worst", "farthest"},
    "opposite": lambda t, a, s: pair_in("opposites")(t, a.removeprefix(f"The opposite of {t}: "), s),
    "opposite_list": all_of(pair_in("opposites")),
    "synonym": pair_in("synonyms"),
    "sort_words": lambda t, a, s: a.split(", ") == sorted(t.split(", ")),
    "begins_with": lambda t, a, s: [w for w in t.split(", ") if w[0] == s["letter"]] == [a],
    "longer_word": lambda t, a, s: a == max(t.split(" or "), key=len) and a != min(t.split(" or "), key=len),
    "repeat_word": lambda t, a, s: a.split() == [t] * (int(s["digit"]) if "digit" in s else in_digits(s["times"])),
    "commas": lambda t, a, s: a.split(", ") == t.split(),
    "lines_to_commas": lambda t, a, s: a.split(", ") == t.split("\n"),
    "bullets": lambda t, a, s: [line[2:] for line in a.split("\n") if line[:2] == "- "] == t.split(", "),
    "numbered_list": lambda t, a, s: a.split("\n") == [f"{i}. {w}" for i, w in enumerate(t.split(", "), 1)],
    "to_json": lambda t, a, s: all(str(v).lower() in t.lower() for v in json.loads(a).values()),
    "find_color": lambda t, a, s: a in bare(t) and "color" in kind_of(a),
    "find_animal": lambda t, a, s: a in bare(t) and "animal" in kind_of(a),
    "find_city": lambda t, a, s: a in t and a in WORDS["capitals"].values(),
    "find_number": lambda t, a, s: numbers(t) == [int(a)],
    "find_day": lambda t, a, s: [w for w in bare(t) if w in DAYS] == [a],
    "who": question_fits,
    "where": question_fits,
    "yes_or_no": lambda t, a, s: (a == "Yes") == question_fits(t, "", s),
    "summary": lambda t, a, s: t.startswith(a.rstrip(".")) and t.count(".") == 3,
    "category": lambda t, a, s: kind_of(t) == {a} or t in WORDS["categories"][a],
    "odd_one_out": lambda t, a, s: [w for w in t.split(", ") if kind_of(w) & kind_of(a)] == [a],
    "name_three": lambda t, a, s: set.intersection(*map(kind_of, a.split(", "))) == {singular_kind(s["kinds"])},
    "sentence_with": lambda t, a, s: s["adjective"] in bare(a) and s["thing"] in bare(a) and a[-1] in ".?",
    "kind_of_sentence": lambda t, a, s: a == ("question" if t[-1] == "?" else "statement"),
    "sentiment": lambda t, a, s: not any(w in t for w in WORDS["blame" if a == "positive" else "praise"]),
    "largest": lambda t, a, s: int(a) == max(numbers(t)),
    "smallest": lambda t, a, s: int(a) == min(numbers(t)),
    "sort_numbers": lambda t, a, s: numbers(a) == sorted(numbers(t)),
    "add": lambda t, a, s: int(a) == sum(numbers(t)),
    "subtract": lambda t, a, s: int(a) == numbers(t)[0] - numbers(t)[1] >= 0,
    "story_sum": lambda t, a, s: numbers(a) == [sum(numbers(t))],
    "number_words": lambda t, a, s: in_digits(a) == int(t),
    "units": lambda t, a, s: numbers(a) == [numbers(t)[0] * FACTORS[t.split()[1]]],
    "day_after": lambda t, a, s: any(t in n and n[(n.index(t) + 1) % len(n)] == a for n in (DAYS, MONTHS)),
    "day_before": lambda t, a, s: any(t in n and n[n.index(t) - 1] == a for n in (DAYS, MONTHS)),
    "capital": lambda t, a, s: WORDS["capitals"][t] == a,
    "young_animal": lambda t, a, s: WORDS["young"][t] == a,
    "translate": lambda t, a, s: any(words.get(t) == a for words in WORDS["translations"].values()),
}  # fmt: skip


def constraint_holds(constraint: dict, output: str) -> bool:
    lines = [line for line in output.split("\n") if re.match(r"- |\d+\. ", line)]
    n_ends = len(re.findall(r"[.!?](?=\s|$)", output))
    return {
        "n_words": lambda c: len(output.split()) == c["n"],
        "n_items": lambda c: len(lines) == c["n"],
        "n_comma_items": lambda c: len(output.split(",")) == c["n"],
        "one_sentence": lambda c: n_ends == 1,
        "upper_case": lambda c: output == output.upper(),
        "lower_case": lambda c: output == output.lower(),
        "json_keys": lambda c: list(json.loads(output)) == c["keys"],
        "ends_with": lambda c: output.endswith(c["text"]),
        "contains": lambda c: c["text"] in output,
        "excludes": lambda c: c["text"] not in output,
        "one_of": lambda c: output.lower().rstrip(".") in [o.lower() for o in c["options"]],
    }[constraint["check"]](constraint)


def test_every_template_has_a_check_of_its_own():
    assert {t.name for t in TEMPLATES} == set(CHECKS)
    assert len(TEMPLATES) == len({t.name for t in TEMPLATES}) >= 32


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_every_answer_follows_from_its_prompt(template):
    for number, entry in enumerate(entries_of(template.name)):
        text, answer, slots = read(template, number, entry)
        assert CHECKS[template.name](text, answer, slots), entry


def test_the_word_lists_follow_the_rules_or_are_known_exceptions():
    assert {w: p for w, p in WORDS["plural"].items() if p != plural(w)} == {}
    verbs = {base for base, (_, p, _) in WORDS["verbs"].items() if p != past(base)}
    assert verbs == set(IRREGULAR.split())
    odd = {w for w, (more, most) in WORDS["comparative"].items() if {more[:-1], most[:-2]} != {more[:-1]}}
    assert odd - {w for w in odd if WORDS["comparative"][w][0].startswith("more ")} == {"good", "bad"}
    assert not set(WORDS["a"]) & set(WORDS["an"])


def test_every_entry_has_the_fields_of_an_entry():
    for entry in make_entries(12, 3):
        assert set(entry) - {"constraints"} == {"instruction", "input", "output", "kind", "source"}
        assert all(isinstance(entry[field], str) for field in ("instruction", "input", "output"))
        assert entry["kind"] in KINDS.split()
        assert entry["instruction"] and entry["output"].strip() == entry["output"] != ""
        assert "{" not in entry["instruction"] + entry["input"]


def test_every_kind_has_a_template():
    assert {t.kind for t in TEMPLATES} == set(KINDS.split())


def test_every_constraint_holds():
    constraints = [(c, e["output"]) for e in make_entries(36, 11) for c in e.get("constraints", [])]
    assert len(constraints) > 500
    assert [pair for pair in constraints if not constraint_holds(*pair)] == []


def test_every_template_has_six_different_wordings():
    for template in TEMPLATES:
        asks = {wording.partition(" => ")[0] for wording in template.wordings}
        assert len(asks) == len(template.wordings) >= 6, template.name


def test_wordings_come_with_and_without_an_input():
    inputs = Counter(bool(e["input"]) for e in make_entries(6, 1))
    assert 0.35 < inputs[True] / inputs.total() < 0.75


def test_no_prompt_comes_twice():
    prompts = Counter((e["instruction"], e["input"]) for e in make_entries(36, 5))
    assert prompts.most_common(1)[0][1] == 1


def test_no_template_is_over_three_percent():
    counts = Counter(e["source"] for e in make_entries(36, 1))
    assert max(counts.values()) / (counts.total() + 1000) < 0.03


def test_the_same_seed_gives_the_same_entries():
    assert make_entries(5, 1) == make_entries(5, 1)
    assert make_entries(5, 1) != make_entries(5, 2)


@pytest.mark.long
def test_more_entries_than_a_template_has_is_an_error():
    with pytest.raises(ValueError, match="ask for fewer"):
        make_entries(500, 1)
