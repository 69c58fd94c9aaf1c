"""Documents: pieces that fit and overlap, pairs read from any reply, answers held against their piece."""

import json
from pathlib import Path

import pytest

from gpt.curation.documents import Piece, cut_document, document_jobs, read_documents, read_pieces, why_unsupported
from gpt.curation.teacher import n_tokens

TEXT = (
    "The mill at Orrin stands by a weir. It was built in 1794 by two brothers from the coast.\n\n"
    "In 1840 the river flooded the lower floor. The owners then raised the wheel by 2 meters.\n\n"
    "Today the mill grinds oats on Saturdays. Visitors may watch, and children may turn a small stone by hand."
)
PIECE = Piece("mill.txt", 1, TEXT)
PAIR = {"question": "When was the mill at Orrin built?", "answer": "It was built in 1794.",
        "quote": "It was built in 1794 by two brothers"}  # fmt: skip


# ---- pieces ----


def test_all_text_files_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.md").write_text("two")
    (tmp_path / "1.txt").write_text("one")
    (tmp_path / "3.bin").write_bytes(b"\xff")
    assert list(read_documents(tmp_path)) == [("1.txt", "one"), (str(Path("b") / "2.md"), "two")]
    assert list(read_documents(tmp_path / "1.txt")) == [("1.txt", "one")]
    (tmp_path / "4.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"4\.txt: byte 3 is not UTF-8"):
        list(read_documents(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no \.txt"):
        list(read_documents(tmp_path / "empty"))


def test_lines_that_are_no_document_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "source": "s"}\n\n{"text": "two"}\n')
    assert list(read_documents(path)) == [("s", "one"), ("a.jsonl:3", "two")]
    for line, message in (
        ("{broken", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"txt": ""}', "no .text"),
    ):
        path.write_text(f'{{"text": "one"}}\n{line}\n')
        with pytest.raises(ValueError, match=rf"a\.jsonl: line 2.*{message}"):
            list(read_documents(path))


def test_documents_without_text_are_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match=r"1\.txt is empty"):
        read_pieces(tmp_path / "1.txt")
    (tmp_path / "2.txt").write_text("two")
    assert read_pieces(tmp_path) == [Piece("2.txt", 1, "two")]


def test_zero_tokens_stands_for_paragraphs() -> None:
    assert [p.text for p in cut_document("a", TEXT, 0)] == TEXT.split("\n\n")


@pytest.mark.parametrize("most", [12, 30, 50, 1000])
@pytest.mark.parametrize("overlap", [0, 8])
def test_pieces_fit_and_hold_every_word_in_order(most: int, overlap: int) -> None:
    pieces = [piece.text for piece in cut_document("a", TEXT, most, overlap)]
    assert all(0 < n_tokens(piece) <= most for piece in pieces)
    if not overlap:
        assert " ".join(pieces).split() == TEXT.split()
    position = 0  # each piece is a stretch of the text, and none leaves a gap
    for piece in pieces:
        start = TEXT.find(piece)
        assert 0 <= start <= position + 2
        position = start + len(piece)
    assert position == len(TEXT)


def test_pieces_overlap_by_whole_sentences() -> None:
    pieces = [piece.text for piece in cut_document("a", TEXT, 45, 25)]
    for first, second in zip(pieces, pieces[1:], strict=False):
        shared = next(n for n in range(len(second), -1, -1) if first.endswith(second[:n]))
        assert shared > 0 and second[:shared].strip()[0].isupper() and second[:shared].strip()[-1] == "."
    with pytest.raises(ValueError, match="does not fit"):
        cut_document("a", TEXT, 20, 20)


def test_text_without_spaces_or_sentences_is_cut_too() -> None:
    text = "一二三四五六七八九十" * 30
    pieces = cut_document("a", text, 50, 0)
    assert "".join(piece.text for piece in pieces) == text
    assert all(n_tokens(piece.text) <= 50 for piece in pieces)
    assert cut_document("a", " \n\n ", 50, 0) == []


# ---- pairs ----


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps([PAIR]),
        f"Here you are:\n```json\n{json.dumps([PAIR], indent=1)}\n```",
        json.dumps({"pairs": [PAIR]}),
        json.dumps([PAIR])[:-1] + ', {"question": "How',
        f"1. Question: {PAIR['question']}\nAnswer: {PAIR['answer']}\nQuote: {PAIR['quote']}".replace("1. ", ""),
    ],
)
def test_pairs_are_read_from(reply: str) -> None:
    [job] = document_jobs([PIECE])
    outcome = job.work(lambda prompt: reply)
    [entry] = outcome.entries
    assert (entry["instruction"], entry["input"], entry["output"]) == (PAIR["question"], "", PAIR["answer"])
    assert (entry["source"], entry["made"]) == ("mill.txt", {"method": "documents", "parent": "mill.txt#1"})
    assert TEXT in job.prompt


def test_of_a_pair_under_other_names_nothing_is_lost() -> None:
    record = {"prompt": "When was the mill built?", "completion": "In 1794."}
    [row] = document_jobs([PIECE])[0].work(lambda prompt: json.dumps([record])).dropped
    assert (row["reason"], row["record"]) == ("question or answer is missing", record)


@pytest.mark.parametrize("reply", ["", "No.", "[]", '{"question": "Who', "I'm sorry, I cannot help with that.", "[[[["])
def test_a_reply_without_pairs_is_dropped_with_its_piece(reply: str) -> None:
    outcome = document_jobs([PIECE])[0].work(lambda prompt: reply)
    assert outcome.entries == []
    assert outcome.dropped[0]["parent"] == "mill.txt#1" and outcome.dropped[0]["reason"]


@pytest.mark.parametrize(
    ("question", "answer", "quote", "reason"),
    [
        ("What happened to the mill in 1840?", "The river flooded its lower floor.", "flooded the lower floor",
         None),
        ("Who may turn a stone at the mill?", "Children.", "children may turn a small stone", None),
        ("Does the mill at Orrin still grind?", "Yes, it does.", "", None),
        ("When was the mill built?", "It was built in 1795.", "", "a number that the piece does not have: 1795"),
        ("Who runs the mill?", "A wealthy baker called Gordon owns everything.", "",
         "only 0% of the answer's words stand in the piece"),
        ("When was the mill built?", "In 1794.", "constructed during the year 1794 by siblings",
         "what it quotes does not stand in the piece"),
        ("What does the text say of 1840?", "The river flooded.", "",
         "the question speaks of a text that its reader does not see"),
        ("When was it?", "", "", "question or answer is missing"),
        ("When was it?", "I cannot answer that.", "", "the teacher refused"),
        ("Is there a mill at Orrin?", "There is a mill at Orrin.", "", "the answer only repeats the question"),
    ],
)  # fmt: skip
def test_an_answer_is_held_against_its_piece(question: str, answer: str, quote: str, reason: str | None) -> None:
    assert why_unsupported(question, answer, quote, TEXT) == reason


def test_chinese_answers_are_held_against_their_piece_by_character() -> None:
    piece = "这座磨坊建于1794年，由两兄弟建造。1840年河水淹没了底层。"
    assert why_unsupported("磨坊是什么时候建的？", "磨坊建于1794年。", "建于1794年", piece) is None
    assert why_unsupported("谁建造了磨坊？", "国王派遣军队修筑城堡。", "", piece).startswith("only")
    assert (
        why_unsupported("磨坊是什么时候建的？", "1795年。", "", piece) == "a number that the piece does not have: 1795"
    )


def test_the_teacher_is_asked_whether_the_piece_supports_it_if_wanted() -> None:
    [job] = document_jobs([PIECE], ask_again=True)
    assert job.work(lambda prompt: json.dumps([PAIR]) if "JSON" in prompt else "Yes.").entries
    outcome = job.work(lambda prompt: json.dumps([PAIR]) if "JSON" in prompt else "It is unclear.")
    assert outcome.dropped[0]["reason"] == "the teacher does not find it supported"


def test_the_piece_can_be_the_input_and_a_question_comes_once() -> None:
    [job] = document_jobs([PIECE], with_piece=True)
    outcome = job.work(lambda prompt: json.dumps([PAIR, PAIR | {"question": PAIR["question"].upper()}]))
    [entry] = outcome.entries
    assert entry["input"] == TEXT
    assert outcome.dropped[0]["reason"] == "the same question again"


def test_a_heading_is_no_piece_to_ask_about() -> None:
    outcome = document_jobs([Piece("a", 1, "Chapter One")])[0].work(lambda prompt: pytest.fail("asked"))
    assert outcome.dropped[0]["reason"] == "a piece of fewer than 8 words"
