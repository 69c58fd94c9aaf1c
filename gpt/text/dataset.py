"""Entries as batches: encode, pad, shift, mask. The custom collate function of this project lives here.

    ids      prompt ............ header ...... response ... end        one row of a batch, before the shift
    inputs   prompt ............ header ...... response ...            all but the last
    targets    -100 -100 -100 -100 -100 -100   response ... end        all but the first; -100 where nothing counts

inputs[b, t] predicts targets[b, t]. `collate` says shift and mask plainly, for models and notebooks that want padded
rows; training and its losses go through `pack` (speed/packing.py), which does the same without padding: a test holds
loss and gradients of the two equal.
Letters: B batch, T longest row of the batch less one.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gpt.text.entries import Entry
from gpt.text.prompts import encode_prompt, get_template, n_least_prompt_tokens
from gpt.text.tokenizer import Tokenizer, load_tokenizer

IGNORE_INDEX = -100  # the target that F.cross_entropy leaves out


class Kind(IntEnum):
    """What an id is. The order matters: a loss counts the ids of one kind and all after it."""

    PROMPT = 0
    HEADER = 1  # the response header: a constant that the prompt already promises
    RESPONSE = 2
    END = 3  # the end of text that closes a response


FIRST_KIND = {"all": Kind.PROMPT, "header": Kind.HEADER, "response": Kind.RESPONSE}  # loss_on -> first kind that counts


class Example(NamedTuple):
    """An entry as ids, and what each id is."""

    ids: list[int]
    kinds: list[Kind]


def encode_entry(entry: Entry, tokenizer: Tokenizer, template: str = "alpaca", max_length: int = 1024) -> Example:
    """Prompt, response and end of text as one row of at most max_length ids.

    Prompt and response are encoded apart and the ids joined: BPE would merge across the seam, and generation, which
    has only the prompt, would then start from other ids. A row that is too long loses the end of its input first, then
    the end of its response, and of its instruction only what is beyond three quarters of the room; the end of text
    always stands.
    """
    response = tokenizer.encode(entry["output"])
    least = n_least_prompt_tokens(entry, tokenizer, template, max_length)
    prompt = encode_prompt(entry, tokenizer, template, max(max_length - len(response) - 1, least))
    if len(prompt) + len(response) >= max_length:
        response = response[: max_length - len(prompt) - 1]
        while tokenizer.decode(response).endswith("\ufffd"):  # half a character would be learned as an ending
            response.pop()
    n_header = len(tokenizer.encode(get_template(template).header))
    kinds = (
        [Kind.PROMPT] * (len(prompt) - n_header)
        + [Kind.HEADER] * n_header
        + [Kind.RESPONSE] * len(response)
        + [Kind.END]
    )
    return Example(prompt + response + [tokenizer.eot_id], kinds)


class InstructionDataset(Dataset):
    """Entries encoded once. `examples[i]` belongs to `entries[i]`; what was cut or dropped is counted.

    n_cut_prompt, n_cut_response: rows that lost the end of their prompt, of their response.
    dropped: (position in the given list, reason) of rows with nothing to learn.
    """

    def __init__(
        self, entries: Sequence[Entry], tokenizer: Tokenizer, template: str = "alpaca", max_length: int = 1024
    ) -> None:
        self.entries: list[Entry] = []
        self.examples: list[Example] = []
        self.dropped: list[tuple[int, str]] = []
        self.n_cut_prompt = self.n_cut_response = 0
        for position, entry in enumerate(entries):
            if not entry["output"].strip():
                self.dropped.append((position, "empty output"))
                continue
            whole = example = encode_entry(entry, tokenizer, template, max_length=sys.maxsize)  # to know what is cut
            if len(whole.ids) > max_length:
                example = encode_entry(entry, tokenizer, template, max_length)
            if Kind.RESPONSE not in example.kinds:  # its first character alone takes more tokens
                self.dropped.append((position, "no room for the output"))
                continue
            self.n_cut_prompt += example.kinds.count(Kind.PROMPT) < whole.kinds.count(Kind.PROMPT)
            self.n_cut_response += example.kinds.count(Kind.RESPONSE) < whole.kinds.count(Kind.RESPONSE)
            self.entries.append(entry)
            self.examples.append(example)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> Example:
        return self.examples[i]

    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(example.ids) for example in self.examples]

    def counts(self) -> dict[str, int]:
        return {
            "entries": len(self.examples),
            "tokens": sum(self.lengths()),
            "cut_prompt": self.n_cut_prompt,
            "cut_response": self.n_cut_response,
            "dropped": len(self.dropped),
        }


def collate(examples: Sequence[Example], loss_on: str = "response", eot_id: int = 50256) -> tuple[Tensor, Tensor]:
    """Rows of different lengths -> inputs (B, T), targets (B, T), padded on the right.

    loss_on says what counts: `all` tokens, the response with its `header`, or the `response` and its end alone. Kinds
    decide, by position: an id 50256 in the padding is no target, one that ends a response is.
    """
    first_kind = FIRST_KIND[loss_on]
    T = max(len(example.ids) for example in examples) - 1
    inputs = torch.full((len(examples), T), eot_id)
    targets = torch.full((len(examples), T), IGNORE_INDEX)
    for row, (ids, kinds) in enumerate(examples):
        n = len(ids) - 1
        inputs[row, :n] = torch.tensor(ids[:-1])
        counts = torch.tensor(kinds[1:]) >= first_kind
        targets[row, :n] = torch.where(counts, torch.tensor(ids[1:]), IGNORE_INDEX)
    return inputs, targets


def batches_by_length(
    lengths: Sequence[int], batch_size: int, rng: random.Random, drop_last: bool = False
) -> Iterator[list[int]]:
    """One epoch of positions, shuffled, with rows of similar length in a batch so that little is padding.

    Sorting happens within pools of 16 batches, and the batches come in random order: every epoch differs.
    """
    order = list(range(len(lengths)))
    rng.shuffle(order)
    if drop_last:  # before the rows are sorted: after that it would always be the longest
        order = order[: len(order) - len(order) % batch_size]
    pool = 16 * batch_size
    pools = [sorted(order[i : i + pool], key=lambda row: lengths[row]) for i in range(0, len(order), pool)]
    batches = [rows[i : i + batch_size] for rows in pools for i in range(0, len(rows), batch_size)]
    rng.shuffle(batches)
    yield from batches


def show_mask(example: Example, loss_on: str = "response", tokenizer: Tokenizer | None = None) -> None:
    """Print a row token by token: green counts as a target, grey does not; `·` ends a token, `⏎` is a line break.

    The first token of a row is grey always: nothing stands before it that could predict it.
    """
    tokenizer = tokenizer or load_tokenizer()
    shown, pending = [], []
    for position, (i, kind) in enumerate(zip(example.ids, example.kinds, strict=True)):
        pending.append(i)
        token = tokenizer.decode(pending)
        if token.endswith("\ufffd") and kind != Kind.END:
            continue  # a character of several ids: show it whole
        colour = "\033[1;32m" if kind >= FIRST_KIND[loss_on] and position else "\033[90m"
        shown.append(colour + token.replace("\n", "⏎\n") + "\033[0m" + ("" if "\n" in token else "·"))
        pending = []
    print("".join(shown))
