"""Cards: the facets of one thing, from which templates and rule-made tasks take their texts and answers.

A card is a dict: for a sentence its upper case, its first word, itself with one word replaced ...; for a scene who did
what where. Word forms (plural, past, comparative, a/an) come from checked lists in words.json, never from a guess.
"""

import json
import re
from pathlib import Path
from random import Random

WORDS = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
ONES, TENS, KEYS = WORDS["ones"], WORDS["tens"], WORDS["keys"]
REAL_WORDS = set(WORDS["real_words"])  # what a slip in one of our words may make that is a word too
MARKS = [("(", ")", "round brackets"), ("[", "]", "square brackets"), ('"', '"', "double quotes"), ("*", "*", "stars")]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def number_words(n: int) -> str:
    """0 to 999 in words."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + ("-" + ONES[n % 10] if n % 10 else "")
    return ONES[n // 100] + " hundred" + (" and " + number_words(n % 100) if n % 100 else "")


def misspell(rng: Random, word: str) -> str:
    """One letter after the first dropped, doubled, changed or swapped with the next; three letters at least."""
    i = rng.randrange(1, len(word) - 1)
    wrong = rng.choice([
        word[:i] + word[i + 1 :],
        word[:i] + word[i] + word[i:],
        word[:i] + rng.choice("aeioustrn") + word[i + 1 :],
        word[:i] + word[i + 1] + word[i] + word[i + 2 :],
    ])  # fmt: skip
    return wrong if wrong != word else misspell(rng, word)


def word_card(rng: Random, word: str) -> dict:
    times = rng.randint(2, 6)
    card = {"word": word, "hyphens": "-".join(word), "apart": " ".join(word), "letters": ", ".join(word)}
    card |= {"first_letter": word[0], "last_letter": word[-1], "length": len(word)}
    card |= {"times": ONES[times], "digit": times, "repeated": " ".join([word] * times)}
    return card | ({"wrong": misspell(rng, word)} if len(word) > 3 else {})


def sentence_card(rng: Random, text: str, new: str) -> dict:
    """Facets of a sentence; those about one of its words, `w`, only if a word fits; `new` is a word for its place."""
    words = re.findall(r"[A-Za-z0-9'-]+", text)
    i, few = rng.randrange(min(len(words), 5)), rng.randint(2, 4)
    left, right, mark = rng.choice(MARKS)
    card = {"s": text, "upper": text.upper(), "lower": text.lower(), "title": text.title(), "count": len(words)}
    card |= {"first": words[0], "last": words[-1], "nth": WORDS["ordinals"][i], "n": i + 1, "nth_word": words[i]}
    card |= {"reversed": " ".join(words[::-1]), "bare": " ".join(words), "plain": text[0].lower() + text[1:-1]}
    card |= {"few": ONES[few], "opening": " ".join(words[:few]), "mark": mark, "wrapped": left + text + right}
    card |= {"ending": {"?": "question", "!": "exclamation"}.get(text[-1], "statement"), "new": new}
    card["New"] = capital(new)
    inner = [w for w in words[1:] if len(w) > 3 and w.isalpha() and text.count(w) == 1 and w.lower() != new.lower()]
    if not inner or new.lower() in text.lower():
        return card
    w = rng.choice(inner)
    wrong = misspell(rng, w)
    options = rng.sample([w, new], 2)
    card |= {"w": w, "wrong": wrong, "misspelled": text.replace(w, wrong), "swapped": text.replace(w, new)}
    card |= {"without": re.sub(rf"[ -]{w}\b", "", text), "before": text.replace(w, f"{new} {w}")}
    card |= {"after": text.replace(w, f"{w} {new}"), "gap": text.replace(w, "____"), "either": " or ".join(options)}
    return card | {"marked": text.replace(w, left + w + right), "options": ", ".join(options)}


def list_card(rng: Random, words: list[str]) -> dict:
    """Facets of two or more different words; `sorted` and `longest` only where there is one answer."""
    i = rng.randrange(len(words))
    card = {"words": ", ".join(words), "spaces": " ".join(words), "lines": "\n".join(words), "count": len(words)}
    card |= {"dashes": "\n".join(f"- {w}" for w in words), "stars": "\n".join(f"* {w}" for w in words)}
    card |= {"numbered": "\n".join(f"{n}. {w}" for n, w in enumerate(words, 1)), "slashes": " / ".join(words)}
    card |= {"one": words[i], "n": i + 1, "nth": WORDS["ordinals"][i], "first": words[0], "last": words[-1]}
    card |= {"backwards": ", ".join(words[::-1]), "ands": ", ".join(words[:-1]) + " and " + words[-1]}
    card |= {"sorted": ", ".join(sorted(words, key=str.lower)), "uppers": ", ".join(words).upper()}
    card |= {"doubled": ", ".join([*words, words[i]]), "titles": ", ".join(capital(w) for w in words)}
    if len({w[0].lower() for w in words}) == len(words):
        card["letter"] = words[i][0].lower()
    by_length = sorted(words, key=len)
    if len(by_length[-1]) > len(by_length[-2]):
        card |= {"longest": by_length[-1], "long_length": len(by_length[-1])}
    return card


def number_card(rng: Random) -> dict:
    a, b, start, step = rng.randint(1, 20), rng.randint(1, 20), rng.randint(0, 50), rng.choice([1, 1, 2, 5, 10])
    n, some = rng.randrange(rng.choice([20, 100, 1000])), rng.sample(range(1, rng.choice([20, 100])), rng.randint(3, 5))
    a, b = max(a, b), min(a, b)
    card = {"a": a, "b": b, "sum": a + b, "difference": a - b, "n": n, "in_words": number_words(n)}
    card |= {"sequence": ", ".join(str(start + i * step) for i in range(4)), "next": start + 4 * step}
    card |= {"some": ", ".join(map(str, some)), "largest": max(some), "smallest": min(some), "how_many": len(some)}
    return card | {"rising": ", ".join(map(str, sorted(some))), "falling": ", ".join(map(str, sorted(some)[::-1]))}


def record_card(rng: Random, values: list[str]) -> dict:
    """Two or more keys with the values given, in words and as JSON."""
    keys = rng.sample(KEYS, len(values))
    record, key = dict(zip(keys, values, strict=True)), rng.choice(keys)
    card = {"pairs": "; ".join(f"{k}: {v}" for k, v in record.items()), "json": json.dumps(record), "key": key}
    card |= {"equals": ", ".join(f"{k} = {v}" for k, v in record.items()), "value": record[key]}
    return card | {"keys": ", ".join(keys), "rows": "\n".join(f"{k}: {v}" for k, v in record.items())}


def scene_card(rng: Random) -> dict:
    """Someone does something somewhere, in the grammar's forms; {"who": "my aunt", "does": "bakes a cake", ...}."""
    person = rng.choice(["she", "he", "they", "people"])
    places, deeds = rng.choice(WORDS["scenes"])
    who, where, when = rng.choice(WORDS[person]), rng.choice(places), rng.choice(WORDS["times"])
    verb, rest = rng.choice(deeds).split(" ", 1)
    third, past, ing = WORDS["verbs"][verb]
    many = person == "they"
    card = {"who": who, "Who": capital(who), "where": where, "when": when, "verb": verb, "past": past}
    card |= {"do": f"{verb} {rest}", "does": f"{verb if many else third} {rest}", "did": f"{past} {rest}"}
    card |= {"doing": f"{ing} {rest}", "aux": "do" if many else "does", "Aux": "Do" if many else "Does"}
    card |= {"be": "are" if many else "is", "was": "were" if many else "was", "whom": f"{third} {rest}"}
    if card["did"] != card["does"]:  # "they cut the grass" is both
        card["turned"] = card["did"]
    return card | ({} if person == "people" else {"pronoun": person, "Pronoun": capital(person)})


def facts_card(rng: Random, n: int) -> dict:
    """Up to n scenes with different people, deeds and places, and a question about one of them."""
    scenes = [scene_card(rng) for _ in range(n)]
    for facet in ("who", "verb", "where"):
        scenes = list({s[facet]: s for s in scenes}.values())
    s = rng.choice(scenes)
    text = " ".join("{Who} {does} {where}.".format(**s) for s in scenes)
    card = {"facts": text, "who_question": "Who {whom} {where}?".format(**s), "who_answer": s["Who"] + "."}
    card |= {"where_question": "Where {aux} {who} {do}?".format(**s), "where_answer": capital(s["where"]) + "."}
    card |= {"what_question": "What {aux} {who} do {where}?".format(**s), "what_answer": "{Who} {does}.".format(**s)}
    elsewhere = rng.choice([place for near, _ in WORDS["scenes"] if s["where"] not in near for place in near])
    asked = s if rng.random() < 0.5 else s | {"where": elsewhere}
    card["yes_question"] = "{Aux} {who} {do} {where}?".format(**asked)
    return card | {"yes_answer": "Yes" if asked["where"] == s["where"] else "No"}


def kind_card(rng: Random) -> dict:
    """Three words of a kind and one of another; kinds that overlap, as bird and animal, do not meet."""
    kind, other = rng.sample(list(WORDS["kinds"]), 2)
    if any(kind in group and other in group for group in WORDS["overlapping_kinds"]):
        return kind_card(rng)
    three, odd = rng.sample(WORDS["categories"][kind], 3), rng.choice(WORDS["categories"][other])
    card = {"kind": kind, "kinds": WORDS["kinds"][kind], "member": three[0], "three": ", ".join(three), "odd": odd}
    card |= {"members": ", ".join(rng.sample([three[0], odd], 2)), "mixed": ", ".join(rng.sample([*three, odd], 4))}
    options = rng.sample([kind, other], 2)
    card |= {"either": " or ".join(options), "options": ", ".join(options), "Three": capital(", ".join(three))}
    some = {name: ("an " if name[0] in "aeiou" else "a ") + name for name in options}
    return card | {"a_kind": some[kind], "two_kinds": " or ".join(some.values())}


def tale(rng: Random) -> dict:
    """A short sentence about someone or something, and what becomes of it."""
    card = scene_card(rng)
    for name, words in (("thing", "things"), ("adjective", "adjectives")):
        card[name], card[name + "2"] = rng.sample(WORDS[words], 2)
    with_thing = rng.random() < 0.5
    pattern = rng.choice(WORDS["thing_sentences"] if with_thing else WORDS["scene_sentences"])
    text = pattern.format(**card)
    slot = rng.choice(["thing", "adjective"])
    if with_thing and len(re.findall(rf"\b{card[slot]}\b", text)) == 1:  # "the big box under the big tree" has two
        card |= {"object": text, "old": card[slot], "fresh": card[slot + "2"]}
        card["changed"] = pattern.format(**card | {slot: card["fresh"]})
        if card["adjective"] not in (bare := pattern.replace("{adjective} ", "").format(**card)):  # "red" in "covered"
            card["bare_object"] = bare
    card |= sentence_card(rng, text, "-")
    if card.get("wrong") in REAL_WORDS:
        del card["misspelled"]
    return card


def some_things(rng: Random) -> dict:
    nouns = rng.sample(sorted(WORDS["plural"]), rng.randint(3, 5))
    card = list_card(rng, nouns) | word_card(rng, nouns[0]) | {"number": ONES[len(nouns)]}
    short, long = sorted(nouns[:2], key=len)
    if len(short) < len(long):
        card |= {"two": " or ".join(rng.sample([short, long], 2)), "longer": long, "Longer": capital(long)}
    return card


def mention(rng: Random) -> dict:
    """Sentences that mention a color, an animal, a city, a number, a day."""
    card = scene_card(rng) | {"n": rng.randint(2, 99)}
    card |= {"goods": rng.choice(WORDS["goods"]), "day": rng.choice(WORDS["days"])}
    card |= {"color": rng.choice(WORDS["categories"]["color"]), "animal": rng.choice(WORDS["categories"]["animal"])}
    card |= {"thing": rng.choice(WORDS["things"]), "city": rng.choice(list(WORDS["capitals"].values()))}
    for name, patterns in WORDS["mentions"].items():
        card[name + "_text"] = rng.choice(patterns).format(**card)
    return card


def described(rng: Random) -> dict:
    """A sentence and the JSON object it amounts to."""
    who, n = "the " + rng.choice(WORDS["categories"]["job"]), rng.randint(2, 60)
    color, thing = rng.choice(WORDS["categories"]["color"]), rng.choice(WORDS["things"])
    city, day = rng.choice(list(WORDS["capitals"].values())), rng.choice(WORDS["days"])
    goods = rng.choice(WORDS["goods"])
    text, record = rng.choice([
        (f"The {color} {thing} costs {n} dollars.", {"item": thing, "color": color, "price": n}),
        (f"{capital(who)} is {n + 19} years old and lives in {city}.", {"person": who, "age": n + 19, "city": city}),
        (f"{capital(who)} bought {n} {goods} on {day}.", {"buyer": who, "item": goods, "number": n, "day": day}),
        (f"The train to {city} leaves on {day} from platform {n}.", {"city": city, "day": day, "platform": n}),
    ])  # fmt: skip
    quoted = [f'"{key}"' for key in record]
    keys = {"keys": ", ".join(record), "key_list": ", ".join(quoted[:-1]) + " and " + quoted[-1]}
    return {"s": text, "json": json.dumps(record)} | keys


def forms(rng: Random) -> dict:
    """A noun, a verb, an adjective, a group of synonyms ... with their forms, each drawn for itself."""
    card = dict(zip(("one", "many"), rng.choice(list(WORDS["plural"].items())), strict=True))
    base, (_, past, _) = rng.choice(list(WORDS["verbs"].items()))
    plain, (more, most) = rng.choice(list(WORDS["comparative"].items()))
    like, alike = rng.sample(rng.choice(WORDS["synonyms"])[:2], 2)
    yes, no = rng.sample(rng.choice(WORDS["opposites"]), 2)
    an = rng.choice(["a", "an"])
    noun, adjective = rng.choice(WORDS[an]), rng.choice(WORDS["a_an_adjectives"][an])
    of_noun, of_adjective = f"{an} {noun}", f"{an} {adjective} {rng.choice(WORDS['things'])}"
    phrase = rng.choice([of_noun, of_adjective])
    card |= {"base": base, "past": past, "plain": plain, "more": more, "most": most}
    card |= {"like": like, "alike": alike, "yes": yes, "no": no, "phrase": phrase, "noun": phrase.split(" ", 1)[1]}
    wrong, right = rng.choice([(w, r) for r, w in WORDS["misspelled"].items()])
    return card | {"right": right, "wrong": wrong}


def asked_forms(rng: Random) -> dict:
    """Plurals, comparatives and opposites that no task of pretraining asks for, one of each and several of each: few
    enough that every one is asked about in several wordings."""
    asked = WORDS["asked"]
    nouns = [(one, WORDS["plural"][one]) for one in rng.sample(asked["plural"], 3)]
    adjectives = [(plain, WORDS["comparative"][plain][0]) for plain in rng.sample(asked["comparative"], 3)]
    pairs = rng.sample([pair for pair in WORDS["opposites"] if pair[0] in asked["opposites"]], 4)
    opposites = [rng.sample(pair, 2) for pair in pairs]
    card = {}
    for word, form, rows in (("one", "many", nouns), ("plain", "more", adjectives), ("yes", "no", opposites)):
        card |= {word: rows[0][0], form: rows[0][1], f"{word}_list": ", ".join(given for given, _ in rows)}
        card |= {f"{form}_lines": "\n".join(f"- {wanted}" for _, wanted in rows)}
        card |= {f"{word}_pairs": "\n".join(f"- {given}: {wanted}" for given, wanted in rows)}
    return card


def facts(rng: Random) -> dict:
    """Things one knows: capitals, units, young animals, days, words of other languages."""
    names, n = rng.choice(["days", "months"]), rng.randint(2, 9)
    i = rng.randrange(len(WORDS[names]))
    language = rng.choice(list(WORDS["translations"]))
    big, small, factor = rng.choice(WORDS["units"])
    card = {"day": WORDS[names][i], "next": WORDS[names][(i + 1) % len(WORDS[names])], "before": WORDS[names][i - 1]}
    card |= {"n": n, "big": big, "small": small, "result": n * factor, "unit": names[:-1], "language": language}
    for first, second, table in (("country", "city", "capitals"), ("animal", "baby", "young")):
        card[first], card[second] = rng.choice(list(WORDS[table].items()))
    card["english"], card["foreign"] = rng.choice(list(WORDS["translations"][language].items()))
    return card


def opinion(rng: Random) -> dict:
    mood = rng.choice(["positive", "negative"])
    word = rng.choice(WORDS["praise" if mood == "positive" else "blame"])
    text = rng.choice(WORDS[mood]).format(rated=rng.choice(WORDS["rated"]), word=word)
    return {"s": text, "mood": mood}


def report(rng: Random) -> dict:
    """A few sentences of which one matters."""
    card = scene_card(rng)
    first, second = rng.sample(WORDS["fillers"], 2)
    card["text"] = "{Who} {did} {where} {when}. {first}. {second}.".format(**card, first=first, second=second)
    return card


def sums(rng: Random) -> dict:
    card = number_card(rng) | {"who": rng.choice(WORDS["people"]), "goods": rng.choice(WORDS["goods"])}
    return card | {"Who": capital(card["who"])}


def asked(rng: Random) -> dict:
    """Some facts and questions; and two facts as clauses, to be joined."""
    a, b, card = scene_card(rng), scene_card(rng), facts_card(rng, rng.randint(1, 3))
    card |= {f"{w}_small": card[f"{w}_question"][0].lower() + card[f"{w}_question"][1:] for w in ("who", "where")}
    if a["who"] == b["who"] or a["verb"] == b["verb"]:
        return card
    first, second = ("{who} {did} {where}".format(**s) for s in (a, b))
    return card | {"first_fact": capital(first), "second_fact": capital(second), "second_small": second}
