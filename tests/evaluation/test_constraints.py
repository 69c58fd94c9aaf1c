import inspect
import json
from pathlib import Path

import pytest

from gpt.evaluation.constraints import (
    ARGUMENTS,
    CHECKS,
    check_constraints,
    count_words,
    format_followed,
    score_format,
    sentences,
    unmet,
)
from gpt.evaluation.metrics import bootstrap_interval
from gpt.text.entries import EntryError, load_entries, words

INSTRUCTIONS = Path(__file__).parents[2] / "data" / "instructions.json"

TABLE = [  # check, arguments, responses that meet it, responses that do not
    (
        "max_words",
        {"n": 4},
        [
            "Every single drop counts.",
            "Stop",
            "Don't wake the well-known",
            "Open 10:30 a.m. daily",
            "我爱下雨。",
            '"Stop!"',
        ],
        ["Every single drop of it counts.", "我很爱下雨", "a b c d\n\ne"],
    ),
    ("min_words", {"n": 3}, ["one two three", "one two three four", "下雨了"], ["one two", "one - two", "下雨", "..."]),
    (
        "n_words",
        {"n": 2},
        [
            "Time flies",
            "Time flies.",
            "- time\n- flies",
            "1. time\n2. flies",
            "It's 3.5",
            "1,000 euros",
            "天空",
            '"a" "b"',
        ],
        ["Time", "Time really flies", "天", "天空蓝", "red/green/blue"],
    ),
    (
        "n_items",
        {"n": 2},
        [
            "- fig\n- plum",
            "1. fig\n2. plum",
            "1) fig\n2) plum",
            "* fig\n* plum",
            "• fig\n• plum",
            "1、苹果\n2、梨",
            "- [ ] fig\n- [ ] plum",
            "Two fruits:\n\n- fig\n- plum\n\nEnjoy!",
            "- fig: red - or green\n- plum",
        ],
        [
            "- fig",
            "- fig\n- plum\n- pear",
            "fig\nplum",
            "- fig\n-",
            "- fig\n- \nplum",
            "1. fig 2. plum",
            "-fig\n-plum",
            "1.5 l\n2.5 l",
        ],
    ),
    (
        "n_comma_items",
        {"n": 3},
        [
            "fig, plum, pear",
            "fig,plum,pear.",
            "a big fig, a plum, and a pear",
            "1,000, 2,000, 3,000",
            "2,4,6",
            "梨，桃、杏",
            '"a", "b", "c"',
        ],
        [
            "fig, plum",
            "fig, plum and pear",
            "fig, plum, pear, nut",
            "fig, plum,",
            "fig,, pear",
            "- fig\n- plum\n- pear",
            "fig,\nplum,\npear",
        ],
    ),
    (
        "one_sentence",
        {},
        [
            "It rains.",
            "It costs 3.5 euros, i.e. about 4 dollars.",
            "Mr. Smith met Dr. Jones, a Ph.D. student, at No. 5.",
            '"Stop!" he said.',
            'She said: "Go home."',
            "Wait... what?",
            "Is it J. R. R. Tolkien?!",
            "He (the U.S. champion) won.",
            "**It rains.**",
            "1. It rains.",
            "We met at 8 a.m. and left.",
            "他三点来，五点走。",
            "他说：“好！”",
            "It rains! 🎉",
        ],
        [
            "It rains",
            "It rains. It pours.",
            "It rains. And the",
            "Rain? Rain!",
            "下雨了。天黑了。",
            "下雨了",
            "- rain\n- snow",
            "...",
        ],
    ),
    (
        "n_sentences",
        {"n": 2},
        [
            "It rains. It pours.",
            "No. It pours.",
            "it rains. it pours.",
            "It rains.\n\nIt pours!",
            '"It rains." It pours.',
            "1. It rains.\n2. It pours.",
            "It opens at 8 a.m. It closes at noon, etc.",
            "It rains... It pours.",
            "下雨了。天黑了！",
            "它很大。It is big.",
        ],
        [
            "It rains.",
            "It rains. It pours",
            "One. Two. Three.",
            "It rains.It pours.",
            "下雨了。天黑了",
            "下雨了，天黑了。",
        ],
    ),
    ("upper_case", {}, ["WET PAINT!", "APRIL, 2 MAY\n", "ÄPFEL"], ["WET Paint", "42", "停", "..."]),
    ("lower_case", {}, ["wet paint!", "april, 2 may", "äpfel"], ["Wet paint", "42", "停"]),
    (
        "json_keys",
        {"keys": ["name", "age"]},
        [
            '{"name": "Biscuit", "age": 6}',
            ' {"age": null,\n "name": {"first": "A"}} \n',
            '```json\n{"name": "天", "age": [1]}\n```',
            '```\n{"name": "", "age": 6}\n```\n',
            '```JSON\n{"name": "", "age": 6}```',
        ],
        [
            '{"name": "Biscuit"}',
            '{"name": "Biscuit", "age": 6, "kind": "dog"}',
            '{"name": "Biscuit", "age": 6, "age": 7}',
            '{"Name": "Biscuit", "Age": 6}',
            "{'name': 'Biscuit', 'age': 6}",
            '{"name": "Biscuit", "age": 6,}',
            '{"name": "Biscuit", "age": NaN}',
            '{"name": "Biscuit", "age": 6',
            'Here it is: {"name": "Biscuit", "age": 6}',
            '[{"name": "Biscuit", "age": 6}]',
            '[["name", "Biscuit"], ["age", 6]]',
            '"{\\"name\\": 1, \\"age\\": 2}"',
            "[" * 100_000,
            "null",
            "{}",
        ],
    ),
    (
        "starts_with",
        {"text": "Dear"},
        ["Dear Coach,", "dear all", "\n Dear", '"Dear Coach"', "“Dear”"],
        ["My Dear", "'Dear'", "De"],
    ),
    ("starts_with", {"text": "## "}, ["## Tomatoes"], ["# Tomatoes", "##Tomatoes"]),
    ("ends_with", {"text": "!"}, ["Look!", "Look! \n", '"Look!"', "“Look!”", "!"], ["Look!.", "Look", "看！"]),
    ("ends_with", {"text": "The end."}, ["So it was. The end.", "The End."], ["The end", "The end. Bye."]),
    (
        "contains",
        {"text": "rain"},
        ["rain", "The Rain, again", '"rain"', "rain-coat", "rain's", "又rain了", "no\nrain"],
        ["It rains", "the train", "rainbow", "rain_coat", "r ain"],
    ),
    ("contains", {"text": "hot soup"}, ["A bowl of hot soup."], ["hot and soup", "hot soups", "shot soup"]),
    ("contains", {"text": "雨"}, ["下雨了", "雨"], ["下雪了"]),
    ("contains", {"text": "c++ (new)"}, ["I like C++ (new)."], ["I like c (new)."]),
    ("excludes", {"text": "very"}, ["every one", "fine"], ["Very good", "very, very old", '"very"']),
    ("excludes", {"text": "天"}, ["下雨"], ["今天下雨"]),
    ("contains", {"text": "แมว"}, ["ฉันชอบแมวมาก", "แมว"], ["ฉันชอบหมามาก"]),  # Thai has no spaces either
    ("excludes", {"text": "ລາວ"}, ["ຂ້ອຍຮັກໝາ"], ["ຂ້ອຍຮັກລາວຫຼາຍ"]),  # nor Lao
    ("contains", {"text": "मैं"}, ["आज मैं खुश"], ["आज मैंने खाया"]),  # Hindi has: its marks are of the word
    (
        "one_of",
        {"options": ["Yes", "no", "not sure."]},
        ["yes", "Yes.", "NO", " no \n", "Not sure", "not sure."],
        ["yes!", "yes, it is", "maybe", '"yes"', "yes no", "- yes", "yes.."],
    ),
    ("one_of", {"options": ["好", "坏"]}, ["好", "好。"], ["好坏", "很好"]),
]

ROWS = [
    (check, arguments, response, is_met)
    for check, arguments, met, not_met in TABLE
    for responses, is_met in ((met, True), (not_met, False))
    for response in responses
]


def demand(check: str, arguments: dict) -> dict:
    return {"check": check, **arguments}


@pytest.mark.parametrize(("check", "arguments", "response", "is_met"), ROWS)
def test_a_check_tells_responses_that_meet_it_from_others(
    check: str, arguments: dict, response: str, is_met: bool
) -> None:
    assert CHECKS[check](response, **arguments) is is_met
    assert unmet(response, [demand(check, arguments)]) == ([] if is_met else [check])


def test_every_check_stands_in_the_table_with_both_outcomes() -> None:
    assert {(check, is_met) for check, _, _, is_met in ROWS} == {(check, True) for check in CHECKS} | {
        (check, False) for check in CHECKS
    }


@pytest.mark.parametrize(("check", "arguments", "response", "is_met"), ROWS)
def test_white_space_around_a_response_changes_nothing(
    check: str, arguments: dict, response: str, is_met: bool
) -> None:
    assert CHECKS[check](f"\n {response} \n\n", **arguments) is is_met


@pytest.mark.parametrize("response", ["", " ", "\n\t\n"])
def test_an_empty_response_meets_no_demand(response: str) -> None:
    demands = [demand(check, arguments) for check, arguments, _, _ in TABLE]
    assert unmet(response, demands) == [check for check, _, _, _ in TABLE]
    assert CHECKS["max_words"](response, n=5)  # counting alone would let an empty response pass


# ---- counting ----


def test_a_word_is_what_a_person_counts_as_one() -> None:
    title = "The Slow Snail's Big Race"
    assert count_words(title) == 5
    assert len(words(title)) == 6  # the unit of ROUGE takes the s for a word
    assert count_words("Well-known shops open at 10:30 a.m. and sell 1,000 kinds at 3.5 euros.") == 13
    assert count_words("1. red\n2. green\n- blue") == 3


def test_chinese_is_counted_by_character() -> None:
    assert count_words("今天下雨。") == 4
    assert count_words("我有3个apple") == 5
    assert len("今天下雨。".split()) == 1  # the wrong variant: any Chinese response would be one word


def test_abbreviations_and_decimals_end_no_sentence() -> None:
    text = "Dr. Hill paid 3.5 euros, e.g. for tea. Was it at 9 a.m. or later? No."
    assert sentences(text) == ["Dr. Hill paid 3.5 euros, e.g. for tea.", "Was it at 9 a.m. or later?", "No."]
    assert len(text.rstrip(".").split(". ")) == 5  # the wrong variant


def test_sentences_split_at_latin_and_chinese_marks() -> None:
    assert sentences("“好！”他笑了。Then he left... Why?!") == ["“好！”", "他笑了。", "Then he left...", "Why?!"]
    assert sentences("He came and") == ["He came and"]
    assert sentences(" ") == sentences("...") == []


# ---- responses ----


def test_unmet_names_every_demand_that_is_not_met_in_order() -> None:
    demands = [
        {"check": "contains", "text": "cat"},
        {"check": "max_words", "n": 3},
        {"check": "contains", "text": "dog"},
        {"check": "lower_case"},
    ]
    assert unmet("The dog barks all day", demands) == ["contains", "max_words", "lower_case"]
    assert unmet("a cat, a dog", demands) == ["max_words"]
    assert unmet("cat dog", demands) == []
    assert [len(each) for each in demands] == [2, 2, 2, 1]  # left as they were


def entry(constraints: list[dict] | None, kind: str = "list") -> dict:
    made = {"instruction": "Name it.", "input": "", "output": "x", "kind": kind}
    return made if constraints is None else made | {"constraints": constraints}


def test_format_followed_is_all_or_none_and_none_without_constraints() -> None:
    both = entry([{"check": "upper_case"}, {"check": "n_words", "n": 2}])
    assert [format_followed(text, both) for text in ("WET PAINT", "WET", "wet", "")] == [1.0, 0.0, 0.0, 0.0]
    assert format_followed("anything", entry(None)) is format_followed("anything", entry([])) is None


def test_the_score_is_the_mean_over_the_entries_that_demand_something() -> None:
    entries = [entry([{"check": "upper_case"}])] * 4 + [entry(None)] * 6
    responses = ["A", "B", "C", "d"] + ["e"] * 6
    assert score_format(responses, entries) == {"n": 4, **bootstrap_interval([1, 1, 1, 0])}
    assert score_format(responses, entries)["value"] == 0.75


def test_without_any_constraints_the_score_is_none_of_zero_entries() -> None:
    assert score_format(["a"], [entry(None)]) == {"n": 0, "value": None, "low": None, "high": None}


def test_responses_and_entries_of_different_number_are_an_error() -> None:
    with pytest.raises(ValueError, match="longer"):
        score_format(["a"], [entry(None)] * 2)


# ---- the field of an entry ----

WRONG = {
    '{"check": "upper_case"}': r'^here: "constraints" must be a list, found \{',
    "null": r'"constraints" must be a list, found None',
    '["upper_case"]': r"^here: constraint 0: expected an object with the name of a \"check\", found 'upper_case'",
    '[{"n": 3}]': r"constraint 0: expected an object with the name",
    '[{"check": ["n_words"]}]': r"constraint 0: expected an object with the name",
    '[{"check": "upper_case"}, {"check": "max_word", "n": 3}]': r'constraint 1: the check "max_word" is not known; the nearest is "max_words"',  # noqa: E501
    '[{"check": "n_sentence", "n": 3}]': r'the nearest is "n_sentences"',
    '[{"check": "Uppercase"}]': r'the nearest is "upper_case"',
    '[{"check": "zzz"}]': r'"zzz" is not known; .* all are \[.*"?max_words',
    '[{"check": "max_words"}]': r'constraint 0: max_words lacks its argument "n"',
    '[{"check": "max_words", "N": 3}]': r"constraint 0: max_words has no argument 'N'; it takes \['n'\]",
    '[{"check": "max_words", "n": 3, "unit": "words"}]': r"max_words has no argument 'unit'",
    '[{"check": "one_sentence", "n": 1}]': r"one_sentence has no argument 'n'; it takes \[\]",
    '[{"check": "max_words", "n": "3"}]': r"\"n\" of max_words must be a whole number from 1, found '3'",
    '[{"check": "max_words", "n": 3.0}]': r"must be a whole number from 1, found 3.0",
    '[{"check": "max_words", "n": true}]': r"must be a whole number from 1, found True",
    '[{"check": "max_words", "n": 0}]': r"must be a whole number from 1, found 0",
    '[{"check": "contains", "text": ["a"]}]': r"\"text\" of contains must be a text, found \['a'\]",
    '[{"check": "contains", "text": " "}]': r"\"text\" of contains must be a text, found ' '",
    '[{"check": "json_keys", "keys": "name"}]': r"\"keys\" of json_keys must be a list of texts, found 'name'",
    '[{"check": "json_keys", "keys": []}]': r"must be a list of texts, found \[\]",
    '[{"check": "one_of", "options": ["yes", 1]}]': r"\"options\" of one_of must be a list of texts, found \['yes', 1\]",  # noqa: E501
}


@pytest.mark.parametrize("text", WRONG)
def test_a_demand_that_cannot_be_checked_is_an_error_that_names_what_is_wrong(text: str) -> None:
    with pytest.raises(EntryError, match=WRONG[text]) as caught:
        check_constraints(json.loads(text), "here")
    assert str(caught.value).startswith("here: ")


def test_good_constraints_come_back_as_they_are() -> None:
    demands = [demand(check, arguments) for check, arguments, _, _ in TABLE]
    assert check_constraints(demands, "here") is demands
    assert check_constraints([], "here") == []


def test_every_argument_of_every_check_has_a_type() -> None:
    arguments = {name for check in CHECKS.values() for name in list(inspect.signature(check).parameters)[1:]}
    assert arguments == set(ARGUMENTS)


# ---- the bundled entries ----


def test_every_reference_of_the_bundled_entries_meets_its_constraints() -> None:
    entries = [entry for entry in load_entries(INSTRUCTIONS) if "constraints" in entry]
    assert len(entries) > 100
    for position, each in enumerate(entries):
        check_constraints(each["constraints"], f"{INSTRUCTIONS.name}: entry {position} of those with constraints")
    missed = [(unmet(each["output"], each["constraints"]), each["output"]) for each in entries]
    assert [row for row in missed if row[0]] == []
