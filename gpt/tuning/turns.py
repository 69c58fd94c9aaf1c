"""Conversations: every answer of one teaches, each after all that was said before it.

    ids       prompt 1 ... header   response 1   end   prompt 2 ... header   response 2   end      one row
    counts         no                   yes      yes        no                   yes      yes

A row is the rows of its exchanges, one after the other: each user turn is a prompt with all its headers, and each
answer closes with an end of text, so that the model learns at every turn where to stop. A run's chat template, the
server and the terminal chat write earlier turns the same way, id for id. `kinds` say what each id is, so `collate`
needs to know nothing of turns.

Source: Chiang et al. 2023, "Vicuna: An Open-Source Chatbot Impressing GPT-4", "Training": multi-turn conversations
with the loss on the assistant's outputs alone.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise

from gpt.model.generate import Response, prompt_room, stream_response
from gpt.model.gpt2 import GPT
from gpt.text.dataset import Example, InstructionDataset, Kind, encode_entry
from gpt.text.entries import SURROGATE, Entry
from gpt.text.formats import shown
from gpt.text.prompts import format_prompt
from gpt.text.tokenizer import Tokenizer


def check_turns(entry: Entry, where: str) -> None:
    """Raises ValueError unless an entry's "turns", if it has any, are messages whose roles alternate."""
    turns = entry.get("turns", [])
    if not isinstance(turns, list) or not all(map(is_message, turns)):
        raise ValueError(f'{where}: "turns" must be a list of {{"role": "user" or "assistant", "content": text}}, an'
                         f' "input" beside it if need be, found {shown(turns)}')  # fmt: skip
    for number, (turn, following) in enumerate(pairwise(turns)):
        if turn["role"] == following["role"]:
            raise ValueError(f"{where}: turns {number} and {number + 1} are both the {turn['role']}'s: join them")


def is_message(turn: object) -> bool:
    if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant"):
        return False
    texts = [turn.get("content"), turn.get("input", "")]
    return all(isinstance(text, str) and not SURROGATE.search(text) for text in texts)


def exchanges(entry: Entry) -> list[Entry]:
    """The answered user turns, each as an entry: the entry itself is the first, its "turns" hold the later ones.

    What an assistant says before it is asked, and a last question that nobody answers, are in none.
    """
    turns = entry.get("turns", [])
    first = int(bool(turns) and turns[0]["role"] == "assistant")  # position of the first user turn
    later = zip(turns[first + 2 :: 2], turns[first + 3 :: 2], strict=False)
    return [entry] + [
        {"instruction": asked["content"], "input": asked.get("input", ""), "output": answer["content"]}
        for asked, answer in later
    ]


def encode_turns(entry: Entry, tokenizer: Tokenizer, template: str = "alpaca", max_length: int = 1024) -> Example:
    """The exchanges of an entry as one row of at most max_length ids.

    Later exchanges are in it whole or not at all: the row ends before the first that does not fit, or that lacks a
    text. The first is cut as `encode_entry` cuts, for without it there would be no row.
    """
    first, *later = exchanges(entry)
    row = encode_entry(first, tokenizer, template, max_length)
    for exchange in later:
        if not exchange["instruction"].strip() or not exchange["output"].strip():
            break
        ids, kinds = encode_entry(exchange, tokenizer, template, max_length=sys.maxsize)
        if len(row.ids) + len(ids) > max_length:
            break
        row = Example(row.ids + ids, row.kinds + kinds)
    return row


class ConversationDataset(InstructionDataset):
    """Entries with all their turns, encoded once. n_cut_turns: answers that are in no row (see `encode_turns`)."""

    def __init__(
        self, entries: Sequence[Entry], tokenizer: Tokenizer, template: str = "alpaca", max_length: int = 1024
    ) -> None:
        super().__init__(entries, tokenizer, template, max_length)  # which counts what the first exchanges lose
        self.examples = [encode_turns(entry, tokenizer, template, max_length) for entry in self.entries]
        self.n_cut_turns = sum(len(exchanges(entry)) for entry in self.entries) - self.n_turns()

    def n_turns(self) -> int:
        """Answers that teach."""
        return sum(example.kinds.count(Kind.END) for example in self.examples)

    def counts(self) -> dict[str, int]:
        return super().counts() | {"turns": self.n_turns(), "cut_turns": self.n_cut_turns}


# ---- the next turn ----


def encode_earlier(
    history: Sequence[Entry], tokenizer: Tokenizer, template: str = "alpaca", room: int = 1024
) -> tuple[list[int], int]:
    """The ids of the newest exchanges of `history` that fit into `room` tokens, and how many these are."""
    ids: list[int] = []
    for n, exchange in enumerate(reversed(history)):
        longer = encode_entry(exchange, tokenizer, template, max_length=sys.maxsize).ids + ids
        if len(longer) > room:
            return ids, n
        ids = longer
    return ids, len(history)


def stream_turn(
    model: GPT,
    tokenizer: Tokenizer,
    entry: Entry,
    history: Sequence[Entry] = (),
    *,
    template: str = "alpaca",
    max_new_tokens: int = 256,
    **options: object,
) -> Iterator[Response]:
    """`stream_response` to an entry that follows the exchanges of `history`; where the context is too short, the oldest
    go first, and `n_earlier` says how many were left."""
    room = prompt_room(model, max_new_tokens) - len(tokenizer.encode(format_prompt(entry, template)))
    earlier, n = encode_earlier(history, tokenizer, template, room)
    options |= {"template": template, "max_new_tokens": max_new_tokens, "earlier": earlier}
    for response in stream_response(model, tokenizer, entry, **options):
        yield response._replace(n_earlier=n)
