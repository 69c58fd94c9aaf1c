"""Continuous batching: requests that come and go share the passes of the model.

`generate_steps` begins all its rows together. Here a job joins between two passes and leaves between two others:

    step        reads the newest id of each job at work and the whole prompts of the newcomers; each gets its next id
    newcomers   are read into caches of their own, whose rows then follow those of the others
    leavers     are those that are finished and those whose client has gone

A job's sampling and random numbers are its own, seeded as `generate_steps` seeds a prompt that is asked alone, so the
neighbours change nothing of an answer but the rounding of its logits (a few parts in a million; 3e-6 seen).

Source of the idea: Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models",
section 3 (iteration-level scheduling). Letters: B jobs, S slots of the cache, V vocab_size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpt.model.generate import GREEDY, Sampling, fill_gaps, prefill, read_on, sample_next
from gpt.model.gpt2 import GPT, KVCache
from gpt.text.prompts import get_template
from gpt.text.tokenizer import Tokenizer


@dataclass(eq=False)  # two jobs that ask the same are two jobs
class Job:
    """One request at work: what was asked, and how far the answer is."""

    prompt: list[int]
    max_new_tokens: int = 256
    sampling: Sampling = GREEDY
    stops: tuple[str, ...] = ()  # strings that end the answer and are no part of it
    template: str | None = None  # of a chat; None continues a plain text
    ids: list[int] = field(default_factory=list)  # new ones, without the end of text
    text: str = ""  # of the ids, as far as it is certain: it only grows
    stopped_by: str | None = None  # as in Generated; None while it grows
    is_gone: bool = False  # nobody waits for it any more
    generator: torch.Generator | None = None

    @property
    def is_going(self) -> bool:
        return self.stopped_by is None and not self.is_gone


class Batch:
    """The jobs at work and their KV cache."""

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        tokenizer.check_fits(model.config.vocab_size)
        self.model, self.tokenizer = model.eval(), tokenizer
        self.jobs: list[Job] = []
        self.cache: KVCache | None = None

    @torch.inference_mode()
    def step(self, newcomers: Sequence[Job] = ()) -> list[Job]:
        """One pass: the next id for each job at work, the first for each newcomer. Returns these jobs."""
        self.drop_leavers()
        logits = [self.read_on()] if self.jobs else []
        logits += [self.read_prompts(newcomers)] if newcomers else []
        for job, row in zip(self.jobs, torch.cat(logits) if logits else (), strict=True):
            [next_id] = sample_next(row[None], job.sampling, [job.generator])
            self.give(job, next_id)
        return list(self.jobs)

    def drop_leavers(self) -> None:
        going = fill_gaps([place for place, job in enumerate(self.jobs) if job.is_going])
        if not going:
            self.cache = None
        elif len(going) < len(self.jobs):
            self.cache.keep(going)
        self.jobs = [self.jobs[place] for place in going]

    def read_on(self) -> Tensor:
        """Logits after the newest id of each job: (B, V)."""
        return read_on(self.model, [job.ids[-1] for job in self.jobs], self.cache)

    def read_prompts(self, newcomers: Sequence[Job]) -> Tensor:
        """Logits after the prompt of each newcomer, which is at work from here on: (B, V)."""
        if self.cache is None:
            config = self.model.config
            self.cache = KVCache(config, 0, config.context_length, like=self.model.wte.weight)
        order, logits = prefill(self.model, [job.prompt for job in newcomers], self.cache)
        for job in newcomers:
            job.generator = torch.Generator(self.model.device).manual_seed(job.sampling.seed)
        self.jobs += [newcomers[place] for place in order]
        return logits

    def give(self, job: Job, next_id: int) -> None:
        """Add an id to a job, with the endings of `generate_steps` in their order."""
        if next_id == self.tokenizer.eot_id:
            job.stopped_by = "end_of_text"
        else:
            job.ids.append(next_id)
            if find_stop(job, self.tokenizer) is not None:
                job.stopped_by = "stop_string"
            elif len(job.prompt) + len(job.ids) == self.model.config.context_length:
                job.stopped_by = "context"
            elif len(job.ids) == job.max_new_tokens:
                job.stopped_by = "max_new_tokens"
        job.text = certain_text(job, self.tokenizer)


# ---- ids -> what may be shown ----


def new_text(job: Job, tokenizer: Tokenizer) -> str:
    """The job's ids as text, after one line break that stands for the end of a chat prompt: a response may begin with
    a stop string of its template, which has a line break in front."""
    return "\n" + tokenizer.decode(job.ids).rstrip("\ufffd")  # half a character: the other half may come


def all_stops(job: Job) -> list[tuple[str, int]]:
    """Each stop string, and from which place of `new_text` on it counts: 1 is the first new character."""
    of_template = get_template(job.template).stop_strings if job.template else ()
    return [(stop, 0) for stop in of_template] + [(stop, 1) for stop in job.stops]


def find_stop(job: Job, tokenizer: Tokenizer) -> int | None:
    """Where in `new_text` the first stop string begins."""
    text = new_text(job, tokenizer)
    return min((at for stop, start in all_stops(job) if (at := text.find(stop, start)) >= 0), default=None)


def certain_text(job: Job, tokenizer: Tokenizer) -> str:
    """What will not change any more: up to a stop string, and without what may be the beginning of one.

    A chat's answer has no white space around it, a plain text keeps all.
    """
    text = new_text(job, tokenizer)[: find_stop(job, tokenizer)]
    if job.stopped_by is None:
        held = (n for stop, _ in all_stops(job) for n in range(len(stop)) if text.endswith(stop[:n]))
        text = text[: len(text) - max(held, default=0)]
    return text.strip() if job.template else text[1:]
