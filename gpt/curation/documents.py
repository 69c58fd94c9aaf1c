"""Documents to entries: pieces of text, questions about each, and answers that the piece supports.

    text -> paragraphs -> pieces of at most n tokens that overlap -> question-answer pairs -> checked -> entries

A teacher that knows the subject answers from memory what the text does not say. So each answer is held against its
piece: the words it quotes have to stand there, and so have its numbers and most of its words.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gpt.curation.replies import labelled_parts, objects_in, text_of, why_unusable, without_thoughts
from gpt.curation.teacher import Ask, Job, Outcome, drop, failed, key_of, made_by, n_tokens
from gpt.text.entries import words

SUFFIXES = (".txt", ".md", ".rst")
SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)|(?<=[。！？])")
SUPPORT = 0.6  # share of the answer's words of content that stand in the piece, at least
FEWEST = 8  # words of a piece: below that there is nothing to ask

PAIRS = """\
Write {n} questions that the text answers, each with its answer. A question must be clear to who does not see the text:
name what it is about, and do not say "the text" or "the author". Take the answers from the text alone. Use the language
of the text.
Reply with a JSON list of objects and nothing else:
[{{"question": "...", "answer": "a full sentence or two", "quote": "the words of the text that the answer rests on"}}]

<text>
{piece}
</text>"""
SUPPORTED = """\
Does the text say, or does it follow from the text, what the answer to the question says? Reply with yes or no.

<text>
{piece}
</text>

Question: {question}
Answer: {answer}"""
SPEAKS_OF_TEXT = re.compile(
    r"\b(?:the|this|that) (?:text|passage|author|excerpt|article|paragraph|document)\b"
    r"|(?:这|该|本|上述)(?:段|篇)?(?:文字|文章|文本|文)|作者",
    re.IGNORECASE,
)
COMMON = set(
    "a an and any are as at be because been but by can could did do does each for from had has have he her his how i"
    " if in into is it its may more most no not of on one or other our she so some such than that the their them"
    " then there these they this those to too two was we were what when where which while who why will with"
    " would yes you your"
    " 的 了 是 在 和 有 不 也 就 都 而 及 与 着 或 一 个 这 那 它 他 她 们".split()
)


class Piece(NamedTuple):
    source: str  # the document's name
    number: int  # from 1 on
    text: str


def read_documents(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of a text file, or of all text files in a folder and those below, in the order of their names; of
    JSON Lines, each row's "text" with its "source".

    Raises ValueError if there are none, or one is not UTF-8.
    """
    if path.suffix == ".jsonl":
        for number, line in enumerate(_read_text(path).split("\n"), start=1):
            if line.strip():
                yield _document_of(line, path, number)
        return
    paths = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file()) if path.is_dir() else [path]
    if not paths:
        raise ValueError(f"{path} has no {', '.join(SUFFIXES)} files")
    for file in paths:
        yield str(file.relative_to(path)) if path.is_dir() else file.name, _read_text(file)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8") from None


def _document_of(line: str, path: Path, number: int) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: line {number}: not valid JSON: {error}") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise ValueError(f'{path}: line {number} has no "text"')
    return str(row.get("source") or f"{path.name}:{number}"), row["text"]


def read_pieces(path: Path, most: int = 400, overlap: int = 60) -> list[Piece]:
    """The pieces of all documents. Raises ValueError if there is no text in them, or as read_documents does."""
    pieces = [piece for name, text in read_documents(path) for piece in cut_document(name, text, most, overlap)]
    if not pieces:
        raise ValueError(f"{path} is empty: there is no text to ask about")
    return pieces


def cut_document(source: str, text: str, most: int = 400, overlap: int = 60) -> list[Piece]:
    """Pieces of at most `most` tokens, cut between paragraphs where that is possible; each begins with the last
    paragraphs of the one before, or its last sentences, that have at most `overlap` tokens: so that no statement is cut
    off from what it refers to. most 0: each paragraph is a piece.
    """
    if not most:
        return [Piece(source, i, p.strip()) for i, p in enumerate(paragraphs_of(text), 1)]
    if not 0 <= overlap < most:
        raise ValueError(f"an overlap of {overlap} tokens does not fit into pieces of {most}: take less")
    pieces, units, n_new = [], [], 0
    for unit in units_of(text, most):
        if n_new and n_tokens("".join([*units, unit]).strip()) > most:
            pieces.append("".join(units).strip())
            units, n_new = last_units(units, overlap), 0
            while units and n_tokens("".join([*units, unit]).strip()) > most:
                units = units[1:]
        units, n_new = [*units, unit], n_new + 1
    pieces += ["".join(units).strip()] if n_new else []
    return [Piece(source, i, piece) for i, piece in enumerate(pieces, 1)]


def paragraphs_of(text: str) -> list[str]:
    """Each with the empty line that stands before it."""
    return ["\n\n" + paragraph.strip() for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]


def units_of(text: str, most: int) -> list[str]:
    """Paragraphs; those of more than `most` tokens as sentences, longer sentences as words; "".join gives the text."""
    units = []
    for paragraph in paragraphs_of(text):
        whole = n_tokens(paragraph.strip()) <= most
        for sentence in [paragraph] if whole else SENTENCE_END.split(paragraph):
            units += [sentence] if n_tokens(sentence.strip()) <= most else cut(sentence, most)
    return units


def cut(text: str, most: int) -> list[str]:
    """A text without sentences in parts of at most `most` tokens, between words where it has any."""
    parts, part = [], ""
    for word in re.findall(r"\s*\S+", text):
        for bit in [word] if n_tokens(word.strip()) <= most else word:
            if part and n_tokens((part + bit).strip()) > most:
                parts.append(part)
                part = ""
            part += bit
    return [*parts, part]


def last_units(units: list[str], most: int) -> list[str]:
    """The last units with at most `most` tokens together; where the last one has more, the same of its sentences."""
    found = units if n_tokens(units[-1].strip()) <= most else SENTENCE_END.split(units[-1])
    n = 0
    while n < len(found) and n_tokens("".join(found[len(found) - n - 1 :]).strip()) <= most:
        n += 1
    return found[len(found) - n :]


# ---- questions and answers ----


def document_jobs(
    pieces: Sequence[Piece], n_pairs: int = 3, with_piece: bool = False, ask_again: bool = False
) -> list[Job]:
    """A job for each piece. with_piece: the piece is the entry's input, for reading; else the question stands alone.
    ask_again: the teacher is asked, too, whether the piece supports the answer."""
    jobs = []
    for i, piece in enumerate(pieces):
        prompt = PAIRS.format(n=n_pairs, piece=piece.text)
        work = partial(pairs, prompt=prompt, piece=piece, n_pairs=n_pairs, with_piece=with_piece, ask_again=ask_again)
        n_asks = 1 + n_pairs * ask_again
        jobs.append(Job(key_of("documents", piece.source, prompt), (i,), prompt, work, n_asks, 60 * n_pairs // n_asks))
    return jobs


def pairs(ask: Ask, prompt: str, piece: Piece, n_pairs: int, with_piece: bool, ask_again: bool) -> Outcome:
    place = f"{piece.source}#{piece.number}"
    if len(words(piece.text)) < FEWEST:
        return failed(f"a piece of fewer than {FEWEST} words", parent=place, piece=piece.text)
    reply = ask(prompt)
    if reason := why_unusable(reply):
        return failed(reason, parent=place, reply=reply)
    records = objects_in(reply) or labelled_parts(reply, ("question", "answer", "quote", "q", "a"))
    entries, dropped, seen = [], [], set()
    for record in records:
        question, answer = text_of(record, "question", "q", "问题"), text_of(record, "answer", "a", "答案", "回答")
        quote = text_of(record, "quote", "evidence", "引用", "原文")
        reason = why_unsupported(question, answer, quote, piece.text, with_piece)
        reason = reason or ("the same question again" if question.lower() in seen else None)
        if not reason and ask_again:
            verdict = ask(SUPPORTED.format(piece=piece.text, question=question, answer=answer))
            if not re.match(r"\W*(yes\b|是)", without_thoughts(verdict), re.IGNORECASE):
                reason = "the teacher does not find it supported"
        if reason:
            whole = {} if question and answer else {"record": record}  # what the teacher wrote, under other names
            dropped.append(drop(reason, instruction=question, output=answer, quote=quote, parent=place, **whole))
            continue
        seen.add(question.lower())
        entry = {"instruction": question, "input": piece.text if with_piece else "", "output": answer}
        made = made_by("documents", place)
        entries.append(entry | {"kind": "question_answering", "source": piece.source, "quote": quote, "made": made})
    return Outcome(entries, dropped if records else [drop("no questions could be read", parent=place, reply=reply)])


def why_unsupported(question: str, answer: str, quote: str, piece: str, with_piece: bool = False) -> str | None:
    """The reason why a pair is not to be kept, or None: see the head of this file.

    Rules see no negation that the answer adds or leaves out; for that, ask_again.
    """
    if not question or not answer:
        return "question or answer is missing"
    if reason := why_unusable(answer):
        return reason
    if not with_piece and SPEAKS_OF_TEXT.search(question):
        return "the question speaks of a text that its reader does not see"
    have = words(piece)
    if quote and not _stands_in(words(quote), have):
        return "what it quotes does not stand in the piece"
    numbers = set(re.findall(r"\d+", answer.replace(",", ""))) - set(re.findall(r"\d+", piece.replace(",", "")))
    if numbers:
        return f"a number that the piece does not have: {min(numbers)}"
    known, asked = {stem(word) for word in have}, {stem(word) for word in words(question)}
    content = [stem(word) for word in words(answer) if word not in COMMON and stem(word) not in asked]
    share = sum(word in known for word in content) / len(content) if content else 1.0
    if share < SUPPORT:
        return f"only {share:.0%} of the answer's words stand in the piece"
    if not content and not quote and not re.match(r"\W*(yes|no|是|不)", answer, re.IGNORECASE):
        return "the answer only repeats the question"
    return None


def _stands_in(part: list[str], whole: list[str]) -> bool:
    """Whether the words stand in the whole one after the other; with "..." words may be left out, so in parts of 4."""
    runs = {tuple(whole[i : i + 4]) for i in range(len(whole))}
    n = min(4, len(part))
    if n < 4:
        return any(tuple(whole[i : i + n]) == tuple(part) for i in range(len(whole) - n + 1))
    hits = sum(tuple(part[i : i + 4]) in runs for i in range(len(part) - 3))
    return hits >= 0.8 * (len(part) - 3)


def stem(word: str) -> str:
    """The first five letters: enough to know "flooded" from "flooding" by."""
    return word[:5]
