"""The rule filters: on rows that people labelled, on sound entries of ours, and each on what it is for."""

import os
import time
from pathlib import Path

import pytest

from gpt.curation import filters
from gpt.curation.balance import kind_of
from gpt.curation.filters import FILTERS, Limits, first_reason, guess_language, make_filters, repair_encoding
from gpt.text.entries import load_entries
from tests.curation.measure_filters import count, labelled_rows, rows_by_number

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("GPT_INSTRUCT_DATA", "/nowhere"))  # a folder of public sets
ROWS = labelled_rows()
pytest.importorskip("ftfy", reason="pip install -e '.[curate]'")

PROSE = "The river rises in the hills and runs past three villages. Boats carry grain and salt down to the sea. "
LONG = (
    PROSE * 1
    + "In spring the water is high, so the ferry stops and people take the bridge at the mill. "
    + ("The miller keeps a list of all who cross, and every autumn he reads it aloud at the fair. ")
)
CHINESE = {
    "instruction": "请介绍一下茶在中国日常生活中的作用。",
    "input": "",
    "output": "茶在中国人的生活里几乎无处不在。早晨起来，许多老人会先泡一壶热茶，再出门散步或者买菜。"
    "家里来了客人，主人总要端上一杯茶，表示欢迎和尊重。在南方，朋友们喜欢在茶馆里坐上半天，一边喝茶一边聊天，"
    "谈生意、说家常都很自然。饭后喝茶可以解腻，夏天喝绿茶觉得清凉，冬天喝红茶觉得暖和。不同的地方有不同的习惯：北方人爱喝花茶，福建人讲究小杯慢饮，"
    "西北的牧民则把茶和牛奶煮在一起。茶不仅是一种饮料，也是人们彼此关心、放慢脚步的方式。所以有人说，懂得喝茶，就懂得怎样过日子了。",
}


def entry(instruction: str = "Say something about rivers.", output: str = "They flow.", input: str = "") -> dict:
    return {"instruction": instruction, "input": input, "output": output}


# What was measured (measure_filters.py), rounded down: (rows, filter) -> precision, recall.
FLOORS = {
    ("tuning", "any"): (0.95, 0.80),
    ("held-out", "any"): (0.90, 0.50),
    ("all", "incomplete"): (0.60, 0.30),
    ("all", "refusal"): (0.95, 0.65),
    ("all", "placeholder"): (1.0, 0.90),
    ("all", "any"): (0.95, 0.65),
}


@pytest.mark.long
@pytest.mark.parametrize("part, name", FLOORS)
def test_sound_rows_of_public_sets_pass_and_most_faults_are_found(part: str, name: str) -> None:
    assert len(ROWS) == 354 and sum(bool(row["labels"]) for row in ROWS) == 45
    counts = count([row for row in ROWS if part in ("all", row["part"])], name)
    assert counts.precision >= FLOORS[part, name][0] and counts.recall >= FLOORS[part, name][1], counts


@pytest.mark.skipif(not REAL.is_dir(), reason="GPT_INSTRUCT_DATA names no folder of public sets")
@pytest.mark.parametrize("name, recall", [("incomplete", 0.65), ("encoding", 0.70), ("any", 0.70)])
def test_rows_labelled_by_number_are_told_apart_too(name: str, recall: float) -> None:
    rows = rows_by_number(REAL)
    counts = count(rows, name)
    assert len(rows) == 90 and counts.precision == 1 and counts.recall >= recall, counts


def test_without_its_rules_a_filter_falls_below_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "find_refusal", lambda text: text if " AI " in text[:300] else None)
    assert count(ROWS, "refusal").precision < 0.8  # "AI" alone is no sign: people ask about it


@pytest.mark.parametrize("name", ["length", "repetition", "language", "copied", "encoding"])
def test_filters_whose_fault_no_row_has_drop_none(name: str) -> None:
    assert count(ROWS, name) == (0, 0, 0)


def test_our_own_entries_pass() -> None:
    checks = make_filters()
    entries = load_entries(ROOT / "data" / "instructions.json")[::5]
    assert [reason for e in entries if (reason := first_reason(e, checks))] == []


def test_chinese_of_two_hundred_characters_passes_all_and_does_not_where_words_are_split_at_spaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 180 <= len(CHINESE["output"]) <= 260
    assert first_reason(CHINESE, make_filters()) is None
    demanding = make_filters(Limits(min_output=20, min_instruction=3))
    assert first_reason(CHINESE, demanding) is None
    monkeypatch.setattr(filters, "words", str.split)
    assert "the instruction has 1 words" in first_reason(CHINESE, demanding)


BAD = {
    "length": [
        entry(output="  \n"),
        entry(instruction="?!"),
        entry(output="word " * 2001),
        entry(instruction="Sum up.", input="a b " * 1200),
        entry(output="qwertyuiop" * 13),
    ],
    "repetition": [
        entry(output="I am a cat. " * 9),
        entry(output="no " * 20),
        entry(output="a" * 60),
        entry(output="Buy milk.\nGo home.\n" * 3),
        entry(output="我喜欢你。" * 9),
        entry(output=(LONG + "\n") * 3),
    ],
    "incomplete": [
        entry(output=LONG + "After the fair the people of the village walk home along the old road by"),
        entry(output=LONG + "After the fair the people walk home along the old road, which leads them"),
        entry(output="Take flour, sugar, eggs, milk, butter,"),
        entry(output='{"name": "Ada", "age": '),
        entry(output="Here it is:\n```python\nprint(1)\n"),
        entry("Summarise the following text."),
        entry("Translate the following text into French:"),
        entry("请总结下面的文章。"),
        entry("Take the previous outline as a starting point and argue the other way."),
    ],
    "refusal": [
        entry(output="I'm sorry, but I can't help with that."),
        entry(output="As an AI language model, I have no body."),
        entry(output="Unfortunately, I am unable to access the internet."),
        entry(output="I cannot fulfill this request."),
        entry(output="I’m sorry, I cannot provide that."),
        entry(output="Please provide the text you want summarised."),
        entry(output="抱歉，我无法回答这个问题。"),
        entry(output="作为一个人工智能语言模型，我没有个人感受。"),
        entry(output="对不起，我不能提供这样的信息。"),
        entry(output="很抱歉，作为AI我不能完成这个请求。"),
        entry(output="I'm sorry, but as a language model, it is not right to say so."),
        entry(output="I apologize if that was unclear. Could you please give more context?"),
        entry(output="I am physically incapable of doing that."),
        entry(output="I do not have personal feelings."),
        entry("Translate it into Chinese.", "I'm sorry, but I cannot translate this text.", "Good morning."),
        entry("Who said sorry first?", "I'm sorry, but I can't help with that."),
        entry("翻译成英文：早上好", "抱歉，我无法回答这个问题。"),
    ],
    "placeholder": [
        entry(output="Dear [Name], thank you. [Your Name]"),
        entry(output="N/A"),
        entry(output="Lorem ipsum dolor sit amet."),
        entry(output="Hello {{first_name}}!"),
        entry(output="尊敬的[姓名]，您好！"),
        entry(output="Your answer here"),
        entry("Write about [insert topic]."),
    ],
    "language": [
        entry("Schreibe einen kurzen Text über die Stadt, in der du mit deiner Familie lebst."),
        entry("Explique pourquoi les feuilles des arbres sont rouges et tombent en automne."),
        entry("¿Cuál es la capital de España y cómo es el clima en la ciudad?"),
        entry("Расскажи о реке."),
        entry("川について教えてください。"),
        entry("강에 대해 말해 주세요."),
        entry(output="Река течёт к морю."),
    ],
    "copied": [
        entry("Name a river.", "name a river"),
        entry("写一首诗。", "写一首诗"),
        entry("Sort:", "Sort: b a", "b a"),
    ],
    "encoding": [
        entry(output="The cafÃ© is open."),
        entry(output="It�s late."),
        entry(output="a\x00b"),
        entry(output="He didn t come."),
        entry(output="â€œHello,â€\x9d she said."),
        entry(output="\ue123 a"),
    ],
}
GOOD = {
    "length": [
        entry(output="+"),
        entry(output="7"),
        entry(output="https://example.com/" + "a" * 200),
        entry(output="=" * 200),
        entry("你好"),
    ],
    "repetition": [
        entry("Repeat the word no twenty times.", "no " * 20),
        entry(output="1*2*2*2*2*2*2*2*2*2*2 = 1024"),
        entry(output="Tofu: in the kitchen\nKale: in the kitchen\nPork: in the kitchen\nSoap: elsewhere"),
        entry(output="Title\n" + "-" * 60 + "\nA line."),
    ],
    "incomplete": [
        entry(output="a lamp, a book and a pen"),
        entry(output=LONG),
        entry(output="1. Bread\n2. Milk\n3. The salt of the"),
        entry(output="def f(x):\n    return x + 1"),
        entry(output="Dear Ann,\nsee you on Friday.\nBest regards,"),
        entry("Summarise the following text.", input="A river runs."),
        entry("Fix this sentence: he go home."),
        entry("请总结下面的文章：河水流过村庄，船只运送粮食。"),
        entry(output="[1, 2, 3]"),
        entry(output=LONG + "So the miller wrote this rule on the wall:\n\npay before you cross"),
        entry(output="河水流向大海"),
    ],
    "refusal": [
        entry(output="I'm sorry, but I can't come to the party on Friday."),
        entry(output="I cannot swim, said the fox."),
        entry("Decline politely.", "Unfortunately, I am busy that week."),
        entry(output="抱歉，我星期五不能来参加聚会。"),
        entry("What is a language model?", "An AI language model predicts the next token."),
        entry(output="我不能吃辣。"),
        entry(output="As an AI researcher, I read many papers."),
        entry("Text her that you are late.", "I'm sorry I missed you. Shall we meet at six?"),
        entry("Which board game has players swap places?", "Sorry!"),
        entry("Translate into English: Entschuldigung", "Sorry."),
        entry("Translate to Chinese.", "对不起", "désolé"),
        entry("用中文怎么说 sorry？", "对不起。"),
        entry("Translate into English: 抱歉，我无法回答这个问题。", "I'm sorry, I cannot answer this question."),
        entry("Correct it.", "I'm sorry, I can't help you with that.", "i'm sorry, i can't help you with that"),
        entry("Which word is an apology: sorry, table, river?", "Sorry"),
        entry("What does lo siento mean?", "I'm sorry."),
        entry(output="I'm an AI engineer by trade."),
    ],
    "placeholder": [
        entry("Write a letter template.", "Dear [Name],"),
        entry("What is the symbol of sodium?", "Na"),
        entry(output="See [the map](map.png)."),
        entry(output="x = [a, b]"),
        entry(output="None of these"),
        entry("Make a slogan.", "At [company name], we care.", "For [Company Name]."),
    ],
    "language": [
        entry("Translate into German: good morning", "Guten Morgen"),
        entry("Say it in Russian: river", "река"),
        entry("Who wrote Don Quixote de la Mancha?"),
        entry("翻译成英文：河流", "river"),
        entry("Panama canal, when?"),
        entry("Print 5.", "print(5)"),
        entry("Which letter is this?", "α"),
    ],
    "copied": [entry("Correct the sentence if needed.", "It is late.", "It is late."), entry("Say hello.", "hello")],
    "encoding": [
        entry(output="naïve café, “quoted” — 100 € ½"),
        entry(output="mañana, Ångström, São Paulo, SÃO PAULO"),
        entry(output="河流\t流向\n大海"),
        entry(output="🙂 fine"),
        entry(output="Let S be a set."),
    ],
}


@pytest.mark.parametrize("name, row", [(name, row) for name, rows in BAD.items() for row in rows])
def test_what_a_filter_is_for_is_dropped_with_a_reason(name: str, row: dict) -> None:
    reason = make_filters()[name](row)
    assert reason and "\n" not in reason and len(reason) < 160


@pytest.mark.parametrize("name, row", [(name, row) for name, rows in GOOD.items() for row in rows])
def test_what_looks_like_it_and_is_sound_passes(name: str, row: dict) -> None:
    assert make_filters()[name](row) is None


def test_every_filter_has_both_kinds_of_cases() -> None:
    assert list(BAD) == list(GOOD) == list(FILTERS)


def test_mojibake_is_mended_and_what_was_fine_is_the_same_object() -> None:
    broken, fine = entry(output="The cafÃ© isnâ€™t open."), entry()
    assert repair_encoding(broken)["output"] in ("The café isn’t open.", "The café isn't open.")
    assert repair_encoding(fine) is fine


def test_a_filter_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match="'spelling' is not known: use some of length"):
        make_filters(names=["spelling"])


def test_short_texts_have_no_language_but_their_script() -> None:
    assert [guess_language(text) for text in ("Hamburg", "", "河流很长", "ありがとう")] == [None, None, "zh", "ja"]


@pytest.mark.long
@pytest.mark.parametrize(
    "unit", ["a ", "(", "[", "{{", "1 2-3.", "\n", "抱歉我", "as an ", "sorry ", "the following ", "f*", "```"]
)
def test_a_huge_monotonous_text_takes_no_time_and_breaks_nothing(unit: str) -> None:
    checks = make_filters()
    for field in ("instruction", "output"):
        row = entry() | {field: unit * (20_000 // len(unit))}
        start = time.perf_counter()
        for check in checks.values():
            check(row)
        kind_of(row)
        assert time.perf_counter() - start < 5  # quadratic ones took minutes


def chat(*said: str, **others: object) -> dict:
    """A conversation as it is read: the first exchange is the entry, the whole stands in its turns."""
    roles = ("user", "assistant") * len(said)
    turns = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    return entry(said[0], said[1]) | {"turns": turns, **others}


@pytest.mark.parametrize(
    "answer, name",
    [
        ("As an AI language model, I have no body.", "refusal"),
        ("Here it is:\n```python\nprint(1)", "incomplete"),
        ("Dear [Name], thank you.", "placeholder"),
        ("I am a cat. " * 9, "repetition"),
        ("Река течёт к морю.", "language"),
    ],
)
def test_a_later_answer_of_a_conversation_is_looked_at_like_the_first(answer: str, name: str) -> None:
    spoilt = chat("Hello there!", "Hello!", "What now?", answer)
    assert first_reason(spoilt, make_filters()).startswith(f"{name}: exchange 2: ")
    first = {field: spoilt[field] for field in ("instruction", "input", "output")}
    assert first_reason(first, make_filters()) is None  # which is all that was looked at


def test_a_later_turn_may_speak_of_what_was_said_before_it() -> None:
    sound = chat("Tell me of the river.", PROSE, "Summarise the text above.", "It rises, runs and feeds.", "?", "Yes?")
    assert first_reason(sound, make_filters()) is None
    alone = entry("Summarise the text above.", "It rises, runs and feeds.")
    assert "there is no input" in first_reason(alone, make_filters())


def test_a_conversation_is_mended_as_a_whole_and_a_fault_in_it_has_its_place() -> None:
    broken = chat("Where is the cafÃ©?", "There.", "The cafÃ©?", "The cafÃ©.", system="A cafÃ©.")
    mended = repair_encoding(broken)
    assert mended["turns"][0]["content"] == mended["instruction"] == "Where is the café?"
    assert "Ã" not in str(mended) and "Ã" in str(broken)
    later = chat("Where is it?", "There.", "The cafÃ©?", "Yes.")
    assert "the conversation's turn 3 was read in the wrong encoding" in first_reason(
        later, make_filters(names=["encoding"])
    )
