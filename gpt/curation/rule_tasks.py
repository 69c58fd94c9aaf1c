"""The tasks of rule-made text: a card drawn from the corpus, what is shown of it, the answer, and ways to ask.

All wordings differ from those of `templates.py`: what is pretrained on is not what is fine-tuned and tested on.
"""

import json
from itertools import accumulate
from random import Random

from gpt.curation.cards import (
    WORDS,
    capital,
    facts_card,
    kind_card,
    list_card,
    number_card,
    record_card,
    scene_card,
    sentence_card,
    tale,
    word_card,
)
from gpt.curation.material import Material

LISTS = ("plural", "verbs", "comparative", "things", "adjectives")
EVERYDAY = sorted({word for name in LISTS for word in WORDS[name] if word.isalpha()})


def some_word(rng: Random, m: Material) -> str:
    """A word of the checked lists, a common one of the corpus, or a rare one."""
    return rng.choice(rng.choices([EVERYDAY, m.words, m.rare], [2, 5, 3])[0])


def odd_word(rng: Random, m: Material) -> str:
    """A rare word, or one that does not exist: it can be copied, not guessed."""
    syllables = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
    return rng.choice(m.rare) if rng.random() < 0.6 else "".join(syllables) + rng.choice(["", *"nrstl"])


def some_words(rng: Random, m: Material) -> list[str]:
    """Two to six different words."""
    words = {some_word(rng, m).lower() for _ in range(rng.randint(2, 6))}
    return rng.sample(sorted(words), len(words)) if len(words) > 1 else some_words(rng, m)


def sentence(rng: Random, m: Material) -> dict:
    """Facets of a sentence of the corpus, or of a made one of everyday words, which come again and again: the capitals
    and the slips of words that are met once are not learned."""
    text = tale(rng)["s"] if rng.random() < 0.4 else rng.choice(m.sentences)
    return sentence_card(rng, text, some_word(rng, m))


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


def told(rng: Random, m: Material) -> dict:
    """A sentence and the JSON object that says the same."""
    n, who, place = rng.randint(2, 60), rng.choice(WORDS["people"]), rng.choice(list(WORDS["capitals"].values()))
    color, item, day = rng.choice(WORDS["categories"]["color"]), rng.choice(m.plurals)[0], rng.choice(WORDS["days"])
    text, facts = rng.choice([
        (f"{capital(who)} needs {n} of them by {day}.", {"who": who, "needs": n, "by": day}),
        (f"In {place} it was {n} degrees on {day}.", {"place": place, "degrees": n, "when": day}),
        (f"{capital(item)}, {color}, sold to {who}.", {"thing": item, "look": color, "to": who}),
        (f"{n} {color} ones went to {place}.", {"count": n, "look": color, "place": place}),
    ])  # fmt: skip
    return {"told": text, "json": json.dumps(facts), "keys": ", ".join(facts)}


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
    (5, passage, "{text}", "{text}",
     "Give the passage back unchanged|Do not change a word|Copy all of it|Echo everything"),
    (5, words, "{words}", "{words}", "Copy the list|Type this list again|Keep the list as it is"),
    (3, words, "{slashes}", "{slashes}", "Say these again|Copy with the slashes"),
    (3, sentence, "{s}", "{s}\n{s}", "Two lines of the same, please|Write it down twice, one below the other"),
    (2, sentence, "{marked}", "{w}",
     "Which word stands in {mark}?|Take out what is inside {mark}|Copy the marked word only"),
    (2, words, "{lines}", "{one}", "Copy line {n}|Which word is on line {n}?|Read out the {nth} line"),
    (1, words, "{words}", "{one}", "Take number {n} of the list|Which one comes {nth}?"),
    (7, sentence, "{s}", "{upper}",
     "Shout it|Make every letter a big one|Change all small letters to big ones|Use capitals throughout"),
    (5, sentence, "{upper}", "{lower}",
     "Do not shout|Change all big letters to small ones|Use small letters throughout"),
    (2, words, "{words}", "{titles}", "Give each word of the list a capital|Start every one with a big letter"),
    (3, words, "{words}", "{uppers}", "Print the list in capitals|Big letters for every item"),
    (3, sentence, "{s}", "{first}",
     "Copy the opening word|How does it begin? One word|Say just the word it opens with"),
    (4, sentence, "{s}", "{last}", "Copy the closing word|How does it end? One word|Say just the word it stops with"),
    (4, sentence, "{s}", "{nth_word}", "Word number {n}|Count to word {n} and copy it|Pick out the {nth} word"),
    (3, sentence, "{s}", "{opening}",
     "Copy the opening {few} words|Stop after {few} words|Keep just the opening {few} words"),
    (8, word, "{word}", "{hyphens}", "Put hyphens between the letters|Pull '{word}' apart with hyphens"),
    (4, word, "{word}", "{apart}", "Pull the letters apart|Leave a space after every letter"),
    (4, word, "{word}", "{letters}", "Put commas between the letters|Say the letters of {word} one by one"),
    (3, word, "{hyphens}", "{word}", "Put the letters together|Which word do these letters make?"),
    (3, word, "{apart}", "{word}", "Close the gaps|Push the letters together"),
    (1, sentence, "{s}", "{reversed}", "Read it backwards, word by word|Turn the order of the words around"),
    (1, words, "{words}", "{backwards}", "Turn the list around|The list from its end to its start"),
    (2, word, "{word}", "{first_letter}", "Opening letter|Which letter opens {word}?|It starts with the letter"),
    (2, word, "{word}", "{last_letter}", "Closing letter|Which letter closes {word}?|It stops with the letter"),
    (1, word, "{word}", "{length}", "How long is the word, in letters?|Count how many letters {word} takes"),
    (2, word, "{word}", "{repeated}", "{times} times|Say it over and over, {times} times|{digit} x"),
    (5, lexicon, "{one}", "{many}", "More than one|Here is one {one}. Here are two|Turn one into many"),
    (4, lexicon, "{many}", "{one}", "Just one of them|Many {many}, one|Turn many into one"),
    (4, lexicon, "{base}", "{past}", "Say it for yesterday|Today we {base}. Yesterday we|Verb, past form"),
    (2, lexicon, "{past}", "{base}", "Say it for today|Yesterday they {past}. Today they|Verb, base form"),
    (3, scene, "{Who} {does}.", "{Who} {turned}.", "It happened yesterday|Tell it as if over|Move this into the past"),
    (1, scene, "{Who} {does} {where}.", "{Who} {turned} {where}.", "Put it into the past|Long ago"),
    (1, scene, "{Who} {did}.", "{Who} {does}.", "It happens every day|Tell it as if it were now"),
    (1, scene, "{Who} {does}.", "{Who} {be} {doing}.", "It is going on right now|Say it with -ing"),
    (1, scene, "{Who} {does}.", "{Who} will {do}.", "It will happen tomorrow|Say it with will"),
    (2, lexicon, "{yes}", "{no}", "The contrary of {yes}|Say the reverse|If it is not {yes}, it is|Turn it around"),
    (2, lexicon, "{like}", "{alike}", "Nearly the same as {like}|Another way to say {like}|A word close in meaning"),
    (2, lexicon, "{word}", "{gloss}", "Dictionary|Meaning of {word}|Say in other words what {word} is|Explain it"),
    (1, lexicon, "{gloss}", "{word}", "Which word is meant?|Riddle|Name it|It has a name"),
    (4, lexicon, "{plain}", "{more}", "Comparing form|One is {plain}, the other is even"),
    (3, lexicon, "{plain}", "{most}", "Above all others|{plain}, and of all the"),
    (3, lexicon, "{noun}", "{article}", "a or an?|The small word in front|Say it with a or an"),
    (8, sentence, "{misspelled}", "{s}", "One letter is wrong. Mend it|Repair the typing error|Proofread"),
    (6, word, "{wrong}", "{word}", "How should this be spelled?|Typing error, should be|{wrong}? You mean"),
    (6, sentence, "{misspelled}", "{wrong}", "Which word looks wrong?|Point at the typing error"),
    (6, sentence, "{s}", "{swapped}", "Swap {w} for {new}|Where it says {w}, put {new}|Let {new} stand in for {w}"),
    (5, sentence, "{s}", "{without}", "Leave out {w}|Strike {w}|Keep everything but {w}"),
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
    (3, words, "{words}", "{dashes}", "Dash list|One per line with a dash|Bullets|Hang a dash before each"),
    (1, words, "{words}", "{stars}", "Star list|A star in front of each"),
    (4, words, "{words}", "{numbered}", "Number them|Lines 1, 2, 3 and so on|Give each a number and a line"),
    (2, words, "{words}", "{lines}", "One below the other|No commas, new lines"),
    (2, words, "{lines}", "{words}", "Back on one line, with commas|Flatten the lines"),
    (1, words, "{dashes}", "{words}", "From bullets to commas|Flatten the bullets"),
    (1, words, "{spaces}", "{words}", "Commas between the words|Comma, comma, comma"),
    (1, words, "{words}", "{spaces}", "Drop the commas|Words with nothing but spaces"),
    (1, words, "{words}", "{ands}", "Say the last one with and|And before the last"),
    (1, words, "{doubled}", "{words}", "Each only once|Drop what comes twice"),
    (3, record, "{pairs}", "{json}", "As JSON|JSON object|Pack it into JSON"),
    (4, told, "{told}", "{json}", "As JSON, keys {keys}|JSON object of {keys}|Pack it into JSON: {keys}"),
    (1, record, "{equals}", "{json}", "From equals signs to JSON|Pack these into JSON"),
    (1, record, "{json}", "{pairs}", "Unpack the JSON|From JSON to plain"),
    (1, record, "{json}", "{keys}", "Keys only|List the keys of the object"),
    (2, record, "{pairs}", "{value}", "{key}?|Read off the {key}|What stands under {key}?"),
    (2, record, "{json}", "{value}", "Value of {key}|Look up {key}"),
    (1, record, "{rows}", "{value}", "On the line with {key} stands|Which value has {key}?"),
    (1, numbers, "{a} + {b}", "{sum}", "Plus|Altogether|Put the two together"),
    (1, numbers, "{a} - {b}", "{difference}", "Minus|What is left?"),
    (1, numbers, "{bought}", "{sum}", "How many in the end?|And now there are"),
    (3, numbers, "{n}", "{in_words}", "Number in letters|Say the number"),
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
