"""Generation: prompts in, new ids out, a batch of prompts of any lengths at a time.

The prompts are read together in one pass (prefill), padded on the right as in training; then each pass adds one id to
every row (decode), with the KV cache holding all that came before. A row that is finished leaves the batch.

`generate` returns only the new ids, so a response is cut out by position and never by searching for the prompt in text.
Letters: B batch, V vocab_size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gpt.model.gpt2 import GPT, KVCache
from gpt.text.entries import Entry
from gpt.text.prompts import encode_prompt, get_template
from gpt.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How a token is made out of logits."""

    temperature: float = 0.0  # 0 takes the likeliest token; 1 samples as the model believes
    top_k: int | None = None  # sample among the k likeliest tokens
    top_p: float | None = None  # sample among the likeliest tokens that together have this probability
    seed: int = 123  # of what is drawn at random

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature {self.temperature} is negative: use 0 for greedy, about 0.7 to sample")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} leaves no token: use 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is no probability: use more than 0 and at most 1")


GREEDY = Sampling()


class Generated(NamedTuple):
    ids: list[int]  # new ids only, without the end of text
    stopped_by: str  # "end_of_text", "stop_string", "max_new_tokens" or "context" (no position left)


class Response(NamedTuple):
    text: str
    stopped_by: str
    n_tokens: int  # new ids


def token_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """(B, V) -> (B, V): what is sampled from, with the tokens that top_k and top_p leave out at 0."""
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        kth = logits.topk(sampling.top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if sampling.top_p is not None:
        ordered, index = logits.softmax(-1).sort(descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # the probability of all likelier tokens: the first always stays
        ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
        return torch.zeros_like(ordered).scatter(1, index, ordered / ordered.sum(-1, keepdim=True))
    return logits.softmax(-1)


def sample_next(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> list[int]:
    """(B, V) -> B ids. Each row draws from its own generator, so its neighbours do not change what it gets."""
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist()
    probabilities = token_probabilities(logits, sampling)
    drawn = [torch.multinomial(row, 1, generator=g) for row, g in zip(probabilities, generators, strict=True)]
    return torch.cat(drawn).tolist()


@torch.inference_mode()
def generate(
    model: GPT,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int = 256,
    sampling: Sampling = GREEDY,
    eot_id: int = 50256,
    is_stopped: Callable[[list[int]], bool] | None = None,
    first_row: int = 0,
) -> list[Generated]:
    """Continue every prompt until end of text, `is_stopped(new ids)`, max_new_tokens or the end of the context.

    Row i samples with the seed `sampling.seed` + first_row + i. Raises ValueError for a prompt that is empty or fills
    the context.
    """
    context = model.config.context_length
    for row, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise ValueError(f"prompt {row} has {len(prompt)} tokens: it must have 1 to {context - 1}")
    model.eval()
    generators = [torch.Generator(model.device).manual_seed(sampling.seed + first_row + i) for i in range(len(prompts))]
    room = min(context, max(map(len, prompts)) + max_new_tokens)
    cache = KVCache(model.config, len(prompts), room, like=model.wte.weight)
    new_ids: list[list[int]] = [[] for _ in prompts]
    stopped_by = ["max_new_tokens"] * len(prompts)
    rows = list(range(len(prompts)))  # those still at work
    logits = prefill(model, prompts, cache)  # (B, V)
    for _ in range(max_new_tokens):
        next_ids = sample_next(logits, sampling, [generators[row] for row in rows])
        going = []  # places in `rows`
        for place, (row, next_id) in enumerate(zip(rows, next_ids, strict=True)):
            if next_id == eot_id:
                stopped_by[row] = "end_of_text"
                continue
            new_ids[row].append(next_id)
            if is_stopped is not None and is_stopped(new_ids[row]):
                stopped_by[row] = "stop_string"
            elif len(prompts[row]) + len(new_ids[row]) == context:
                stopped_by[row] = "context"
            elif len(new_ids[row]) < max_new_tokens:
                going.append(place)
        if not going:
            break
        if len(going) < len(rows):
            cache.keep(going)
            rows = [rows[place] for place in going]
        last = torch.tensor([[new_ids[row][-1]] for row in rows], device=model.device)  # (B, 1)
        logits = model.logits(model.hidden(last, cache)[:, -1])
        cache.advance(1)
    return [Generated(ids, reason) for ids, reason in zip(new_ids, stopped_by, strict=True)]


def prefill(model: GPT, prompts: Sequence[list[int]], cache: KVCache) -> Tensor:
    """Read all prompts into the cache and return the logits after the last token of each: (B, V)."""
    lengths = [len(prompt) for prompt in prompts]
    inputs = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        inputs[row, : len(prompt)] = torch.tensor(prompt)
    hidden = model.hidden(inputs.to(model.device), cache)  # (B, T, C)
    cache.advance(lengths)
    last = torch.tensor(lengths, device=model.device) - 1
    return model.logits(hidden[torch.arange(len(prompts), device=model.device), last])


def respond(
    model: GPT,
    tokenizer: Tokenizer,
    entries: Sequence[Entry],
    *,
    template: str = "alpaca",
    max_new_tokens: int = 256,
    sampling: Sampling = GREEDY,
    batch_size: int = 16,
) -> Iterator[Response]:
    """Answer each entry's instruction, in their order; the prompt ids are those of training.

    A prompt that would leave less than a quarter of the context to answer loses the end of its input.
    """
    stop_strings = get_template(template).stop_strings
    most = model.config.context_length - min(max_new_tokens, model.config.context_length // 4)

    def is_stopped(ids: list[int]) -> bool:
        return any(stop in tokenizer.decode(ids[-20:]) for stop in stop_strings)

    for start in range(0, len(entries), batch_size):
        prompts = [encode_prompt(entry, tokenizer, template, most) for entry in entries[start : start + batch_size]]
        generated = generate(
            model, prompts, max_new_tokens=max_new_tokens, sampling=sampling, eot_id=tokenizer.eot_id,
            is_stopped=is_stopped, first_row=start,
        )  # fmt: skip
        for ids, stopped_by in generated:
            text = tokenizer.decode(ids)
            end = min((text.find(stop) for stop in stop_strings if stop in text), default=len(text))
            yield Response(text[:end].strip(), stopped_by, len(ids))
