"""Generation: prompts in, new ids out, a batch of prompts of any lengths at a time.

Prompts of about one length are read together (prefill), padded on the right as in training, and a beginning that many
share is read once. Then each pass adds one id to every row (decode), with the KV cache holding all that came before. A
row that is finished leaves the batch, and the next prompts take the places that have become free.

    ids     generate_steps, pass by pass      generate, all at once          both return only new ids, so a response is
    text    stream_response, as it grows      respond, entry by entry        cut out by position, not by searching text

Letters: B batch, V vocab_size.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gpt.model.gpt2 import GPT, KVCache
from gpt.text.entries import Entry
from gpt.text.prompts import decode_response, encode_few_shot_prompt, format_prompt, has_stop_string
from gpt.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How a token is made out of logits."""

    temperature: float = 0.0  # 0 takes the likeliest token; 1 samples as the model believes
    top_k: int | None = None  # sample among the k likeliest tokens
    top_p: float | None = None  # sample among the likeliest tokens that together have this probability
    seed: int = 123  # of what is drawn at random

    def __post_init__(self) -> None:
        if self.temperature != 0 and not 1e-4 <= self.temperature < math.inf:  # less overflows, NaN is refused too
            raise ValueError(f"temperature {self.temperature}: use 0 for greedy, about 0.7 to sample")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} leaves no token: use 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is no probability: use more than 0 and at most 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed} is out of range: use 0 to 2**63 - 1")


GREEDY = Sampling()


class Step(NamedTuple):
    """What a row got in one pass."""

    row: int  # its place among the prompts
    id: int | None  # None at the end of text
    stopped_by: str | None  # None while the row goes on, else as in Generated
    slid: bool  # the context was full, and the model reads on from its newest half


class Generated(NamedTuple):
    ids: list[int]  # new ids only, without the end of text
    stopped_by: str  # "end_of_text", "stop_string", "max_new_tokens" or "context" (no position left)
    n_slides: int  # how often the older half of a full context was dropped


class Response(NamedTuple):
    text: str
    stopped_by: str | None  # as in Generated; None while it grows
    n_tokens: int  # new ids
    n_slides: int
    n_shots: int  # examples that the prompt had room for
    is_cut: bool = False  # the prompt was too long for the context and lost the end of its input
    n_earlier: int = 0  # exchanges before it that the context had room for (tuning/turns.py)


def token_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """(B, V) -> (B, V): what is sampled from, with the tokens that top_k and top_p leave out at 0."""
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        kth = logits.topk(sampling.top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if sampling.top_p is not None:
        ordered, index = logits.softmax(-1).sort(descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # the probability of all likelier tokens
        before[:, 0] = -1.0  # the first always stays, also where float32 rounds top_p to 0
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


@dataclass
class Row:
    """A prompt that waits or is at work."""

    number: int
    max_new_tokens: int
    window: list[int]  # what the model sees: prompt and new ids, less what has slid out
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)  # the new ones


@torch.inference_mode()
def generate_steps(
    model: GPT, prompts: Sequence[list[int]], *, max_new_tokens: int | Sequence[int] = 256, sampling: Sampling = GREEDY,
    eot_id: int = 50256, is_stopped: Callable[[list[int]], bool] | None = None, first_row: int = 0,
    past_context: str = "stop", batch_size: int | None = None,
) -> Iterator[list[Step]]:  # fmt: skip
    """Continue every prompt, and yield after each pass what the rows at work got: `rows_at_once` or batch_size at most.

    A row ends at end of text, `is_stopped(new ids)`, max_new_tokens (one number, or one for each prompt) or, if
    past_context is "stop", when the context is full. With "slide" the newest half of the context is then read anew,
    from position 0 on: GPT-2's positions are learned and absolute, so the keys in the cache cannot move. What was in
    the older half, the instruction first, is forgotten. Row i samples with the seed `sampling.seed` + first_row + i.
    Raises ValueError for a prompt that is empty or fills the context.
    """
    context = model.config.context_length
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    batch_size = rows_at_once(model, prompts, limits) if batch_size is None else batch_size
    check_limits(prompts, context, limits, batch_size)
    if past_context not in ("stop", "slide"):
        raise ValueError(f"past_context {past_context!r} is not known: use stop or slide")

    def add(row: Row, next_id: int) -> Step:
        if next_id == eot_id:
            return Step(row.number, None, "end_of_text", slid=False)
        row.ids.append(next_id)
        row.window.append(next_id)
        is_full, stopped_by = len(row.window) == context, None
        if is_stopped is not None and is_stopped(row.ids):
            stopped_by = "stop_string"
        elif is_full and past_context == "stop":
            stopped_by = "context"
        elif len(row.ids) == row.max_new_tokens:
            stopped_by = "max_new_tokens"
        elif is_full:
            row.window = row.window[-(context // 2) :]
        return Step(row.number, next_id, stopped_by, slid=is_full and stopped_by is None)

    model.eval()
    waiting = [
        Row(i, limit, list(prompt), torch.Generator(model.device).manual_seed(sampling.seed + first_row + i))
        for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]
    cache, rows = KVCache(model.config, min(batch_size, len(prompts)), context, like=model.wte.weight), []
    cache.keep([])
    while rows or waiting:
        logits = [read_on(model, [row.window[-1] for row in rows], cache)] if rows else []
        n_free = batch_size - len(rows)
        if waiting and (not rows or n_free * 4 >= batch_size):  # a pass for each newcomer alone would cost a GPU much
            newcomers, waiting = waiting[:n_free], waiting[n_free:]
            order, first = prefill(model, [row.window for row in newcomers], cache)
            logits.append(first)
            rows += [newcomers[place] for place in order]
        next_ids = sample_next(torch.cat(logits), sampling, [row.generator for row in rows])  # of (B, V)
        steps = [add(row, next_id) for row, next_id in zip(rows, next_ids, strict=True)]
        yield steps
        waiting[:0] = [row for row, step in zip(rows, steps, strict=True) if step.slid]  # to be read anew
        going = fill_gaps([i for i, step in enumerate(steps) if step.stopped_by is None and not step.slid])
        if len(going) < len(rows):
            rows = [rows[place] for place in going]
            cache.keep(going)


def fill_gaps(going: list[int]) -> list[int]:
    """The same places, the last in the gaps, [0, 2, 3, 5] as [0, 5, 2, 3]: most rows stay and need not be copied."""
    late, staying = [place for place in going if place >= len(going)], set(going)
    return [place if place in staying else late.pop() for place in range(len(going))]


def rows_at_once(model: GPT, prompts: Sequence[list[int]], limits: Sequence[int]) -> int:
    """More rows share each reading of the weights: 128 where their keys and values take at most a gigabyte, else 64."""
    longest = max((len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=False)), default=0)
    a_token = 2 * model.config.n_layer * model.config.n_embd * model.wte.weight.element_size()  # bytes
    return 128 if 128 * min(longest, model.config.context_length) * a_token <= 2**30 else 64


def check_limits(prompts: Sequence[list[int]], context: int, limits: Sequence[int], batch_size: int) -> None:
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise ValueError(f"prompt {number} has {len(prompt)} tokens: it must have 1 to {context - 1}")
    if min([batch_size, *limits]) < 1 or len(limits) != len(prompts):
        raise ValueError(
            f"max_new_tokens {limits[:3]}, batch_size {batch_size}: use 1 or more, a limit for each prompt"
        )


def prefill(model: GPT, prompts: Sequence[list[int]], cache: KVCache, at_once: int = 16) -> tuple[list[int], Tensor]:
    """Read the prompts into new rows of the cache, some in each pass. Returns in which order they stand there, and the
    logits after each: (B, V).

    A pass is padded to its longest prompt, so those of about one length are read together: a few have tokens enough for
    any machine. Where four or more begin alike, as by one template or examples, what they share is read once for all.
    """
    n_alike = Counter(tuple(prompt[:16]) for prompt in prompts)
    starts = [start if n_alike[start := tuple(prompt[:16])] >= 4 else () for prompt in prompts]
    order, logits = sorted(range(len(prompts)), key=lambda i: (starts[i], len(prompts[i]))), []
    for start, places in itertools.groupby(order, starts.__getitem__):
        alike = [prompts[i] for i in places]
        shared = common_beginning(alike)[: len(alike[0]) - 1] if start else []  # each keeps an id to be read
        read = KVCache(model.config, 1, cache.max_length, like=model.wte.weight)
        if shared:
            model.hidden(torch.tensor([shared], device=model.device), read)
            read.advance(len(shared))
        for first in range(0, len(alike), at_once):
            rest = [torch.tensor(prompt[len(shared) :]) for prompt in alike[first : first + at_once]]
            lengths, part = [len(ids) for ids in rest], read.repeated(len(rest))
            hidden = model.hidden(pad_sequence(rest, batch_first=True).to(model.device), part)  # (B, T, C)
            part.advance(lengths)
            cache.add(part)
            logits.append(model.logits(hidden[range(len(rest)), [n - 1 for n in lengths]]))
    return order, torch.cat(logits)


def common_beginning(prompts: Sequence[list[int]]) -> list[int]:
    first, last = min(prompts), max(prompts)  # what these two share, all have that stand between them
    return [a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]


def read_on(model: GPT, newest: list[int], cache: KVCache) -> Tensor:
    """Read the newest id of each row of the cache and return the logits after it: (B, V)."""
    hidden = model.hidden(torch.tensor(newest, device=model.device)[:, None], cache)  # (B, 1, C)
    cache.advance(1)
    return model.logits(hidden[:, 0])


def generate(model: GPT, prompts: Sequence[list[int]], **options: Any) -> list[Generated]:
    """All steps of `generate_steps`, with its options, put together row by row."""
    return list(generate_in_order(model, prompts, **options))


def generate_in_order(model: GPT, prompts: Sequence[list[int]], **options: Any) -> Iterator[Generated]:
    """What `generate` returns, each row as soon as it and all before it are finished."""
    by_row: list[list[Step]] = [[] for _ in prompts]
    n_given = 0
    for steps in generate_steps(model, prompts, **options):
        for step in steps:
            by_row[step.row].append(step)
        while n_given < len(by_row) and by_row[n_given] and by_row[n_given][-1].stopped_by:
            own = by_row[n_given]
            yield Generated([s.id for s in own if s.id is not None], own[-1].stopped_by, sum(s.slid for s in own))
            n_given += 1


# ---- entries in, text out ----


def prompt_room(model: GPT, max_new_tokens: int) -> int:
    """The tokens a prompt may have: at least a quarter of the context stays for the answer, if it may be that long."""
    context = model.config.context_length
    return context - min(max_new_tokens, context // 4)


def respond(
    model: GPT, tokenizer: Tokenizer, entries: Sequence[Entry], *, template: str = "alpaca", max_new_tokens: int = 256,
    sampling: Sampling = GREEDY, batch_size: int | None = None, past_context: str = "stop", shots: Sequence[Entry] = (),
) -> Iterator[Response]:  # fmt: skip
    """Answer each entry's instruction, in their order; the prompt ids are those of training, as long as they fit.

    `shots` are examples that stand before each prompt, as many as fit (for models that were not fine-tuned). A prompt
    that would leave less than a quarter of the context to answer loses first its shots, then the end of its input; then
    `is_cut` says so.
    """
    tokenizer.check_fits(model.config.vocab_size)
    room = prompt_room(model, max_new_tokens)
    prompts = [encode_few_shot_prompt(entry, shots, tokenizer, template, room) for entry in entries]
    generated = generate_in_order(
        model, [ids for ids, _ in prompts], max_new_tokens=max_new_tokens, sampling=sampling,
        eot_id=tokenizer.eot_id, is_stopped=lambda ids: has_stop_string(ids, tokenizer, template),
        past_context=past_context, batch_size=batch_size,
    )  # fmt: skip
    for entry, (ids, stopped_by, n_slides), (_, n_shots) in zip(entries, generated, prompts, strict=True):
        is_cut = len(tokenizer.encode(format_prompt(entry, template))) > room
        yield Response(decode_response(ids, tokenizer, template), stopped_by, len(ids), n_slides, n_shots, is_cut)


def stream_response(
    model: GPT, tokenizer: Tokenizer, entry: Entry, *, template: str = "alpaca", max_new_tokens: int = 256,
    sampling: Sampling = GREEDY, past_context: str = "stop", shots: Sequence[Entry] = (), earlier: Sequence[int] = (),
) -> Iterator[Response]:  # fmt: skip
    """The response to one entry as it grows, an item for each token: its text begins with the text before it, and the
    last item is what `respond` gives. The ids of `earlier` turns stand before the prompt."""
    tokenizer.check_fits(model.config.vocab_size)
    room = prompt_room(model, max_new_tokens) - len(earlier)
    prompt, n_shots = encode_few_shot_prompt(entry, shots, tokenizer, template, room)
    is_cut = len(tokenizer.encode(format_prompt(entry, template))) > room
    ids, n_slides = [], 0
    for [step] in generate_steps(
        model, [[*earlier, *prompt]], max_new_tokens=max_new_tokens, sampling=sampling, eot_id=tokenizer.eot_id,
        is_stopped=lambda ids: has_stop_string(ids, tokenizer, template), past_context=past_context,
    ):  # fmt: skip
        ids += [] if step.id is None else [step.id]
        n_slides += step.slid
        text = decode_response(ids, tokenizer, template, is_whole=step.stopped_by is not None)
        yield Response(text, step.stopped_by, len(ids), n_slides, n_shots, is_cut)
