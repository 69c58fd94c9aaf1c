import json
import re
import time
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from gpt.curation.cards import WORDS, tale
from gpt.curation.material import Material, clean_sentences, make_material
from gpt.curation.rule_tasks import TASKS
from gpt.curation.rule_text import CLOSE, ONE_BY_ONE, OPEN, TOGETHER, Ban, find_answers, lay_out, make_items, rule_text
from gpt.curation.templates import TEMPLATES, make_entries
from gpt.text.entries import load_entries
from scripts.finetune import ENTRIES

GLOSSES = """lamp (noun): a thing that gives light. Similar words: lantern, light.
paint (verb): cover with color. Example: Paint the door.
odd (adjective): not usual. Similar words: strange."""


@pytest.fixture(scope="module")
def material() -> Material:
    rng = Random(1)
    return Material(
        sentences=[tale(rng)["s"] for _ in range(3000)],
        words=sorted(WORDS["plural"]),
        rare=["lantern", "Zanzibar", "quixotic", "threshold", "gossamer", "Timbuktu"],
        glosses=[("lamp", "a thing that gives light"), ("odd", "not usual"), ("sleet", "rain that is half frozen")],
        synonyms=[tuple(group[:2]) for group in WORDS["synonyms"]],
        plurals=list(WORDS["plural"].items()),
        pasts=[(base, forms[1]) for base, forms in WORDS["verbs"].items()],
        comparatives=[(plain, *forms) for plain, forms in WORDS["comparative"].items()],
    )


def documents(material: Material, n: int, ban: Ban | None = None) -> list[str]:
    rng = Random(5)
    return [rule_text(rng, material, ban)[0] for _ in range(n)]


def examples(material: Material, text: str, answer: str, n: int = 30) -> list[tuple[str, str]]:
    """(text, answer) of the first task with these patterns."""
    card = next(task[1] for task in TASKS if task[2:4] == (text, answer))
    rng, made = Random(2), []
    while len(made) < n:
        try:
            facets = card(rng, material)
            made.append((text.format(**facets), answer.format(**facets)))
        except KeyError:
            continue
    return made


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def steps(first: int, second: int, n: int) -> list[int]:
    return [first + i * (second - first) for i in range(n)]


ANSWERS = [  # text pattern, answer pattern, whether the answer is right
    ("{s}", "{upper}", lambda t, a: a == t.upper()),
    ("{upper}", "{lower}", lambda t, a: a == t.lower()),
    ("{s}", "{first}", lambda t, a: a == t.split()[0].strip(",.?!")),
    ("{s}", "{last}", lambda t, a: a == t.split()[-1].strip(".?!")),
    ("{s}", "{reversed}", lambda t, a: a.split() == re.findall(r"[\w'-]+", t)[::-1]),
    ("{s}", "{count}", lambda t, a: int(a) == len(t.split())),
    ("{s}", "{without}", lambda t, a: len(a.split()) == len(t.split()) - 1),
    ("{s}", "{swapped}", lambda t, a: sum(x != y for x, y in zip(t.split(), a.split(), strict=True)) == 1),
    ("{misspelled}", "{s}", lambda t, a: sum(x != y for x, y in zip(t.split(), a.split(), strict=True)) == 1),
    ("{word}", "{hyphens}", lambda t, a: a == "-".join(t)),
    ("{apart}", "{word}", lambda t, a: a == t.replace(" ", "")),
    ("{words}", "{sorted}", lambda t, a: a.split(", ") == sorted(t.split(", "))),
    ("{words}", "{dashes}", lambda t, a: [line.removeprefix("- ") for line in a.split("\n")] == t.split(", ")),
    ("{words}", "{longest}", lambda t, a: all(len(w) < len(a) for w in t.split(", ") if w != a)),
    ("{lines}", "{words}", lambda t, a: t.split("\n") == a.split(", ")),
    ("{doubled}", "{words}", lambda t, a: list(dict.fromkeys(t.split(", "))) == a.split(", ")),
    ("{pairs}", "{json}", lambda t, a: dict(p.split(": ") for p in t.split("; ")) == json.loads(a)),
    ("{told}", "{json}", lambda t, a: all(str(v).lower() in t.lower() for v in json.loads(a).values())),
    ("{json}", "{value}", lambda t, a: a in json.loads(t).values()),
    ("{some}", "{largest}", lambda t, a: int(a) == max(numbers(t))),
    ("{some}", "{rising}", lambda t, a: numbers(a) == sorted(numbers(t))),
    ("{a} + {b}", "{sum}", lambda t, a: int(a) == sum(numbers(t))),
    ("{sequence}", "{next}", lambda t, a: [*numbers(t), int(a)] == steps(*numbers(t)[:2], 5)),
    ("{facts}", "{who_answer}", lambda t, a: a.strip(".") in t),
    ("{named}", "{name}", lambda t, a: f" is called {a}." in t),
    ("{one}", "{many}", lambda t, a: WORDS["plural"][t] == a),
]


@pytest.mark.parametrize(("text", "answer", "is_right"), ANSWERS, ids=lambda v: v if isinstance(v, str) else "")
def test_answers_follow_from_their_texts(material, text, answer, is_right):
    for given, said in examples(material, text, answer):
        assert is_right(given, said), (given, said)


def test_every_wording_of_every_task_makes_an_item(material):
    rng = Random(1)
    for _, card, text, answer, wordings in TASKS:
        made = set()
        for wording in wordings.split("|") * 40:
            try:
                facets = card(rng, material)
                made.add((wording, bool(wording.format(**facets) + text.format(**facets) + answer.format(**facets))))
            except KeyError:
                continue
        assert made == {(wording, True) for wording in wordings.split("|")}


def test_there_are_fifty_tasks_and_ten_layouts_and_much_copying():
    copying = sum(weight for weight, _, text, answer, _ in TASKS if text == answer)
    assert len(TASKS) >= 50
    assert len(set(ONE_BY_ONE + TOGETHER)) >= 10
    assert copying > 0.12 * sum(weight for weight, *_ in TASKS)


def test_the_same_seed_gives_the_same_text(material):
    assert rule_text(Random(3), material) == rule_text(Random(3), material)
    assert len({rule_text(Random(seed), material)[0] for seed in range(50)}) == 50


@pytest.mark.long
def test_no_text_holds_a_piece_of_the_alpaca_prompt(material):
    text = "\n".join(documents(material, 2000))
    assert not re.search(r"###|Instruction:|Response:|Input:|Below is an instruction", text)


def test_no_pattern_is_left_unfilled(material):
    assert not re.search(r"\{[a-z_]+\}", "\n".join(documents(material, 1000)))


def test_no_wording_is_one_of_the_templates():
    def frames(wordings):
        return {re.sub(r"\{\w+\}", "_", w.partition(" => ")[0]).lower().strip(" .:?_") for w in wordings}

    ours = frames(w for task in TASKS for w in task[4].split("|"))
    theirs = frames(w for template in TEMPLATES for w in template.wordings)
    assert len(ours) > 200
    assert ours & theirs <= {""}


def test_answers_are_found_where_they_stand(material):
    for layout in ONE_BY_ONE + TOGETHER:
        together = "\n\n".join(lay_out(layout, "Shout", text, text.upper()) for text in ("ab", "cd e"))
        text, answers = find_answers(together)
        assert [text[answer].strip('\n") |,') for answer in answers] == ["AB", "CD E"], layout
    assert find_answers(f"A: {OPEN}1{CLOSE}\n\nB - {OPEN}2{CLOSE}") == ("A: 1\n\nB - 2", [slice(3, 6), slice(10, 11)])
    assert find_answers("no answer") == ("no answer", [])
    for text, answers in (rule_text(Random(seed), material) for seed in range(200)):
        assert answers and not re.search(f"[{OPEN}{CLOSE}]", text)
        assert all(before.stop <= after.start for before, after in pairwise(answers))
        assert answers[-1].stop <= len(text)


def marked(*item: str) -> str:
    return lay_out(*item).translate({ord(OPEN): "<", ord(CLOSE): ">"})


def test_the_line_of_an_empty_text_falls_away():
    assert marked("Task: {ask}\nText: {text}\nAnswer: {answer}", "Say 'a'", "", "a") == "Task: Say 'a'\nAnswer: <a>"
    assert marked("{text}\n\n{ask}\n\n{answer}", "Say 'a'", "", "a") == "Say 'a'\n\n<a>"


def test_an_answer_of_several_lines_begins_on_its_own_line():
    assert marked("Q: {both}\nA: {answer}", "Bullets", "x, y", "- x\n- y") == "Q: Bullets: x, y\nA:\n<- x\n- y>"


# ---- the ban ----

TEST_ENTRIES = [
    {"instruction": "What is the plural of the word?", "input": "mouse", "output": "mice"},
    {"instruction": "Name the opposite.", "input": "", "output": "The opposite of hot is cold."},
    {"instruction": "Say the reverse of hot", "input": "", "output": "cold"},
]


def test_an_answer_that_a_test_entry_asks_for_is_banned_both_ways():
    ban = Ban(TEST_ENTRIES)
    assert ban.is_banned("Two of them: mouse", "mouse", "mice")
    assert ban.is_banned("Just one: mice", "mice", "mouse")
    assert not ban.is_banned("Two of them: house", "house", "houses")
    assert not ban.is_banned("Copy: mouse", "", "")


def test_a_test_input_is_banned_as_a_whole_and_in_long_pieces():
    ban = Ban([{"instruction": "Shout.", "input": "The old baker sells warm bread in town.", "output": "..."}])
    assert ban.is_banned("Copy: The old baker sells warm bread, in town!")
    assert ban.is_banned("She said the old baker sells warm bread")
    assert not ban.is_banned("Copy: The old baker sells warm milk in town.")


def test_a_short_instruction_is_banned_as_a_whole():
    ban = Ban([{"instruction": "Strike the verb.", "input": "", "output": "x"}])
    assert ban.is_banned("Please: strike the verb")
    assert not ban.is_banned("strike the noun")


@pytest.mark.long
def test_no_text_holds_what_a_test_entry_holds_and_without_the_ban_it_would(material):
    secret = [{"instruction": "Copy it.", "input": s, "output": s} for s in material.sentences[:300]]
    wording = {"instruction": "Keep the opening sentence, drop the others", "input": "", "output": "x"}
    pairs = [{"instruction": f"Many of {one}?", "input": "", "output": many} for one, many in material.plurals[:200]]
    ban = Ban([*secret, wording, *pairs])
    leaks = {"banned": 0, "free": 0}
    for name, texts in (("banned", documents(material, 1500, ban)), ("free", documents(material, 1500))):
        leaks[name] += sum(ban.has_text(text) for text in texts)
        leaks[name] += sum(f"\n{one} -> {many}\n" in text for text in texts for one, many in material.plurals[:200])
    assert leaks["free"] > 20
    assert leaks["banned"] == 0


@pytest.mark.long
def test_no_item_has_an_answer_of_a_test_entry_and_without_the_ban_it_would(material):
    pairs = set(material.plurals[:250])
    ban = Ban({"instruction": f"Many of {one}?", "input": "", "output": many} for one, many in pairs)

    def leaks(ban):
        rng = Random(8)
        items = [item for _ in range(3000) for item in make_items(rng, material, ban, 4)]
        return Counter((text, answer) in pairs for _, text, answer in items)[True]

    assert leaks(None) > 20
    assert leaks(ban) == 0


def test_entries_made_by_templates_can_be_banned(material):
    ban = Ban(make_entries(4, 1))
    texts = documents(material, 300, ban)
    assert not any(ban.has_text(text) for text in texts)


def test_what_templates_ask_about_words_is_kept_out_of_the_tasks():
    """The nouns, adjectives and opposites of `asked` are items of bundled entries, every one; others are not."""
    ban, asked = Ban(load_entries(ENTRIES)), WORDS["asked"]
    assert all(ban.is_banned("", noun, WORDS["plural"][noun]) for noun in asked["plural"])
    assert all(ban.is_banned("", plain, WORDS["comparative"][plain][0]) for plain in asked["comparative"])
    assert all(ban.is_banned("", a, b) for a, b in WORDS["opposites"] if a in asked["opposites"])
    assert sum(ban.is_banned("", one, many) for one, many in WORDS["plural"].items()) < len(WORDS["plural"]) / 2


# ---- material ----


def test_clean_sentences_are_whole_and_plain():
    text = 'The cat sat on the mat. "No," said he. Too short.\nMr. Fox came (late). See Dr. Brown now!\nIt is 5 km off.'
    assert list(clean_sentences(text)) == ["The cat sat on the mat.", "It is 5 km off."]


def test_material_comes_from_the_corpus():
    lines = ["We saw a big lamp there today.", "They painted the walls.", "Long lanterns glow near strange lanterns."]
    lines += [f"We like to paint the big house with {w}." for w in WORDS["plural"] for _ in range(2)]
    material = make_material(["\n".join(lines)] * 2, GLOSSES, seed=3)
    assert "We saw a big lamp there today." in material.sentences
    assert ("lamp", "a thing that gives light") in material.glosses
    assert ("lamp", "lantern") in material.synonyms
    assert "house" in material.words
    assert make_material(["\n".join(lines)], GLOSSES, seed=3) == material


def test_regular_forms_are_taken_only_if_the_corpus_has_them():
    lines = [f"The {w} was near here {n} times." for w in ("gate", "gates", "widget") for n in range(60)]
    lines += [f"We saw a small lantern {n} and some lanterns here." for n in range(2)]
    glosses = GLOSSES + "\ngate (noun): a door in a fence.\nwidget (noun): a small thing."
    material = make_material(["\n".join(lines)], glosses)
    assert ("gate", "gates") in material.plurals
    assert "widget" not in dict(material.plurals)


def test_too_little_text_is_an_error():
    with pytest.raises(ValueError, match="too little text"):
        make_material(["The cat sat on the mat."], GLOSSES)


def test_a_second_gives_200_kilobytes(material):
    ban = Ban(make_entries(3, 1))
    rng, n, start = Random(1), 0, time.process_time()
    while n < 200_000:
        n += len(rule_text(rng, material, ban)[0])
    assert time.process_time() - start < 1
