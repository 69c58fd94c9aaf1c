"""Personal data: found by pattern, replaced everywhere, without asking anyone on the network."""

import socket
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpt.curation.personal_data import (
    find_patterns,
    is_identity_number,
    make_finder,
    make_personal_filter,
    make_scrubber,
)
from gpt.text.entries import load_entries

# importorskip would import it, in every worker, which takes seconds
pytestmark = pytest.mark.skipif(not find_spec("presidio_analyzer"), reason="pip install -e '.[curate]'")
ROOT = Path(__file__).parents[2]
CASES = {
    "Write to ada.b@mail.example.org today.": "Write to <EMAIL_ADDRESS> today.",
    "Call +49 30 901820 or (212) 555-0143.": "Call <PHONE_NUMBER> or <PHONE_NUMBER>.",
    "我的手机是13812345678，请联系。": "我的手机是<PHONE_NUMBER>，请联系。",
    "身份证号：11010519491231002X": "身份证号：<CN_IDENTITY_NUMBER>",
    "Card 4111 1111 1111 1111, thanks": "Card <CREDIT_CARD>, thanks",
    "IBAN DE89 3704 0044 0532 0130 00 it is": "IBAN <IBAN_CODE> it is",
    "from 192.168.17.4 to 2001:db8::8a2e:370:7334": "from <IP_ADDRESS> to <IP_ADDRESS>",
    "SSN 536-22-1234 given": "SSN <US_SSN> given",
}


@pytest.mark.parametrize("text, scrubbed", CASES.items())
def test_each_kind_is_found_and_nothing_beside_it(text: str, scrubbed: str) -> None:
    entry = {"instruction": text, "input": "", "output": "fine"}
    assert make_scrubber(find_patterns)(entry) == entry | {"instruction": scrubbed}


@pytest.mark.parametrize(
    "text",
    [
        "3,141,592,653 people",
        "12345678901234 / 7 = 1763668414462",
        "Version 3.11.7 of 2024-01-15",
        "at 12:30:45, x = [1, 2, 3]",
        "4111 1111 1111 1112 has a wrong check digit",
        "110105194912310021",
        "1990-2000, 1,200,000 units",
        "user@localhost, a@b",
        "5*10=50, 50*20=1000, 1000+250=1250; 1000-200-400=400; 0.75-0.25-0.10; 60000 - 10800",
        "the year 1998 and the year 2003 and 2010",
        "def f(a): return a @ b",
    ],
)
def test_numbers_dates_and_code_are_no_personal_data(text: str) -> None:
    assert find_patterns(text) == []


def test_turns_and_system_are_scrubbed_too_and_a_clean_entry_is_the_same_object() -> None:
    mail = "ada@example.org"
    turns = [{"role": "user", "content": f"I am {mail}"}, {"role": "assistant", "content": "Hello"}]
    entry = {"instruction": f"I am {mail}", "input": mail, "output": f"Hello {mail}, {mail}", "system": mail}
    entry["turns"] = turns
    assert mail not in str(make_scrubber(find_patterns)(entry))
    assert mail in str(entry)
    clean = {"instruction": "a", "input": "", "output": "b"}
    assert make_scrubber(find_patterns)(clean) is clean


def test_the_reason_does_not_repeat_the_data() -> None:
    reason = make_personal_filter(find_patterns)({"instruction": "a", "input": "", "output": "ada@example.org"})
    assert reason == "personal data: EMAIL_ADDRESS in the output"


def test_no_address_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"looked up {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert [found.kind for found in find_patterns("b@example.co.uk and c@example.invalidtld")] == ["EMAIL_ADDRESS"]


def test_names_are_found_by_a_spacy_model(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ada Byron"}])
    nlp.to_disk(tmp_path / "model")
    find = make_finder(str(tmp_path / "model"))
    entry = {"instruction": "Who is Ada Byron?", "input": "", "output": "ada@example.org"}
    assert make_scrubber(find)(entry)["instruction"] == "Who is <PERSON>?"
    assert make_scrubber(make_finder())(entry)["instruction"] == "Who is Ada Byron?"
    with pytest.raises(ValueError, match="no spaCy model 'xx_none': python -m spacy download"):
        make_finder("xx_none")


def test_the_check_digit_of_an_identity_number_counts() -> None:
    assert is_identity_number("11010519491231002x") and not is_identity_number("110105194912310021")


def test_of_our_own_entries_only_made_up_addresses_are_found() -> None:
    texts = [e[field] for e in load_entries(ROOT / "data" / "instructions.json") for field in ("input", "output")]
    found = [text[hit.start : hit.end] for text in texts for hit in find_patterns(text)]
    assert found and all("@example.com" in item or "555" in item for item in found)


def test_dropping_looks_wherever_scrubbing_does() -> None:
    hello = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    entry = {"instruction": "Hi", "input": "", "output": "Hello"}
    entry["turns"] = [*hello, {"role": "user", "content": "I am ada@example.org"}]
    assert make_personal_filter(find_patterns)(entry) == "personal data: EMAIL_ADDRESS in the conversation's turn 3"
    entry["turns"][2] = {"role": "user", "content": "Who?", "input": "ada@example.org"}
    assert make_personal_filter(find_patterns)(entry) == "personal data: EMAIL_ADDRESS in the input of turn 3"
    assert make_scrubber(find_patterns)(entry)["turns"][2]["input"] == "<EMAIL_ADDRESS>"
    assert make_personal_filter(find_patterns)(entry | {"turns": hello}) is None
