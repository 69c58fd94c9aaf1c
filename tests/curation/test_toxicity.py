"""Toxic words found in all their disguises, and everyday words left alone."""

import sys
from pathlib import Path

import pytest

from gpt.curation import toxicity
from gpt.curation.toxicity import check_words, find_insult, make_classifier_filter, make_toxicity_filter
from gpt.text.entries import load_entries

pytest.importorskip("better_profanity", reason="pip install -e '.[curate]'")
ROOT = Path(__file__).parents[2]


def entry(output: str) -> dict:
    return {"instruction": "Say something.", "input": "", "output": output}


@pytest.mark.parametrize(
    "text",
    [
        "What an asshole.",
        "Fuck you!",
        "sh1t happens",
        "what the f*ck",
        "**bullshit**",
        "you wh0re",
        "a b!tchin day, motherfucker",
        "FAGGOT",
        "f@ggot",
        "a blow job",
    ],
)
def test_insults_are_found_in_their_disguises(text: str) -> None:
    assert find_insult(text)
    assert find_insult(text) in check_words(entry(text))


@pytest.mark.parametrize(
    "text",
    [
        "Dick Van Dyke sang in the show.",
        "Nazi Germany invaded Poland in 1939.",
        "the uterus and ovary",
        "A class on grass and brass in Scunthorpe",
        "He had a stroke and screwed the lid on.",
        "**bold** and * a list",
        "5 * 3 = 15",
        "A male cat is a tom, a female dog a bitch.",
        "Oh my god, what the hell!",
        "shiitake, cockpit, Essex, assassin",
    ],
)
def test_everyday_and_medical_words_pass(text: str) -> None:
    assert find_insult(text) is None


def test_the_package_as_it_comes_drops_what_everyone_may_say() -> None:
    from better_profanity import profanity

    for text in ("Nazi Germany invaded Poland.", "Dick Van Dyke sang.", "the uterus and ovary"):
        assert profanity.contains_profanity(text) and find_insult(text) is None


def test_our_own_entries_pass() -> None:
    assert [e for e in load_entries(ROOT / "data" / "instructions.json") if check_words(e)] == []


def test_words_of_a_file_are_added_also_chinese_ones(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("笨蛋\nblockhead\n\n", encoding="utf-8")
    check = make_toxicity_filter(path)
    assert "笨蛋" in check(entry("你真是个笨蛋！")) and "blockhead" in check(entry("You blockhead."))
    assert "asshole" in check(entry("asshole")) and check(entry("你真聪明。")) is None
    assert make_toxicity_filter()(entry("你真是个笨蛋！")) is None


def test_every_line_of_a_file_is_found_and_only_as_a_word_where_words_are_parted(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffVery  bad man\r\nbad.word\nté\n바보\nค\nnit-wit\n🖕\nÄrsch\nblockhead".encode())
    check = make_toxicity_filter(path)
    for text in ("A very bad man!", "Very bad\nman", "a bad.word", "bad word", "du té vert", "바보야!", "คน"):
        assert check(entry(text)), text
    for text in ("Nit-wit!", "so 🖕", "ärsch", "bl0ckhead"):
        assert check(entry(text)), text
    for text in ("en été", "every bad man", "very bad manners", "badword", "Ärschle", "blockheads"):
        assert check(entry(text)) is None, text
    path.write_text("fine\n...\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"words.txt: line 2: '...' has no letter"):
        make_toxicity_filter(path)


def test_a_classifier_is_asked_for_every_field_that_has_text() -> None:
    asked = []

    def score(text: str) -> dict[str, float]:
        asked.append(text)
        return {"toxicity": 0.1, "severe_toxicity": 0.9 if "hate" in text else 0.0}

    check = make_classifier_filter(score)
    assert check(entry("I hate you.")) == "severe toxicity: 0.90 in the output"
    assert asked == ["Say something.", "I hate you."]
    assert check(entry("I like you.")) is None
    assert make_classifier_filter(score, threshold=0.95)(entry("I hate you.")) is None


def test_a_missing_library_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("better_profanity", "detoxify"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises ModuleNotFoundError
    toxicity.insults.cache_clear()
    with pytest.raises(ValueError, match="no module better_profanity: pip install"):
        make_toxicity_filter()
    with pytest.raises(ValueError, match="no module detoxify: pip install"):
        make_classifier_filter()


def test_no_everyday_word_slips_back_in() -> None:
    assert not toxicity.EVERYDAY & toxicity.insults()


def test_every_turn_of_a_conversation_is_read() -> None:
    turns = [{"role": "user", "content": "Say something."}, {"role": "assistant", "content": "Hello."},
             {"role": "user", "content": "More!"}, {"role": "assistant", "content": "You asshole."}]  # fmt: skip
    said = entry("Hello.") | {"turns": turns}
    assert "in the conversation's turn 4" in make_toxicity_filter()(said)
    classify = make_classifier_filter(lambda text: {"toxicity": float("ass" in text)})
    assert classify(said) == "toxicity: 1.00 in the conversation's turn 4"
    assert "in the system message" in make_toxicity_filter()(entry("Hello.") | {"system": "Asshole"})
