"""Continuous batching against `generate`, which begins all rows together, and `respond`."""

import pytest
import torch

from gpt.model.generate import Sampling, generate, respond
from gpt.model.gpt2 import GPT, KVCache
from gpt.serving import batching
from gpt.serving.batching import Batch, Job
from gpt.text.prompts import encode_prompt
from gpt.text.tokenizer import Tokenizer
from tests.reference import SMALL, random_model

PROMPTS = ["The lamp", "A", "My father builds a bench in the yard because the day is hot.", "One two three"]
SAMPLINGS = [Sampling(1.5, seed=5), Sampling(0.0), Sampling(1.0, top_k=40, seed=5), Sampling(2.0, top_p=0.9, seed=7)]


def jobs_for(tokenizer: Tokenizer, samplings: list[Sampling], n: int = 24) -> list[Job]:
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    return [Job(prompt, n - 3 * i, s) for i, (prompt, s) in enumerate(zip(prompts, samplings, strict=True))]


def run(batch: Batch, arrivals: dict[int, list[Job]]) -> list[Job]:
    """All passes; arrivals gives the jobs that join at a pass."""
    jobs, n = [job for group in arrivals.values() for job in group], 0
    while any(job.is_going for job in jobs):
        batch.step(arrivals.get(n, []))
        n += 1
    return jobs


def alone(model: GPT, job: Job) -> list[int]:
    [found] = generate(model, [job.prompt], max_new_tokens=job.max_new_tokens, sampling=job.sampling)
    return found.ids


def staggered(model: GPT, tokenizer: Tokenizer, samplings: list[Sampling]) -> list[Job]:
    a, b, c, d = jobs_for(tokenizer, samplings)
    return run(Batch(model, tokenizer), {0: [a], 3: [b, c], 7: [d]})


@pytest.mark.long
@pytest.mark.parametrize("samplings", [[Sampling()] * 4, SAMPLINGS], ids=["greedy", "each its own"])
def test_who_joins_between_two_passes_gets_the_ids_it_gets_alone(
    model: GPT, tokenizer: Tokenizer, samplings: list[Sampling], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [alone(model, job) for job in jobs_for(tokenizer, samplings)]
    assert [job.ids for job in staggered(model, tokenizer, samplings)] == expected

    def without_lengths(ours: KVCache, theirs: KVCache) -> None:  # as if all rows were equally long
        add(ours, theirs)
        ours.lengths[:] = ours.lengths.min()

    add = KVCache.add
    monkeypatch.setattr(KVCache, "add", without_lengths)
    assert [job.ids for job in staggered(model, tokenizer, samplings)] != expected


def test_each_job_draws_from_its_own_random_numbers(
    model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [alone(model, job) for job in jobs_for(tokenizer, SAMPLINGS)]
    assert [job.ids for job in run(Batch(model, tokenizer), {0: jobs_for(tokenizer, SAMPLINGS)})] == expected
    one, own = torch.Generator().manual_seed(5), batching.sample_next
    monkeypatch.setattr(batching, "sample_next", lambda logits, sampling, _: own(logits, sampling, [one]))
    assert [job.ids for job in run(Batch(model, tokenizer), {0: jobs_for(tokenizer, SAMPLINGS)})] != expected


def test_the_same_seed_gives_the_same_answer_to_two_jobs_of_one_batch(model: GPT, tokenizer: Tokenizer) -> None:
    sampling = Sampling(1.5, seed=9)
    first, second = run(Batch(model, tokenizer), {0: [Job([5], 20, sampling)], 2: [Job([5], 20, sampling)]})
    assert first.ids == second.ids


def test_who_has_gone_leaves_at_the_next_pass_and_the_others_do_not_notice(model: GPT, tokenizer: Tokenizer) -> None:
    a, b, c, d = jobs_for(tokenizer, SAMPLINGS)
    expected = [alone(model, job) for job in (a, c)]
    batch = Batch(model, tokenizer)
    batch.step([a, b, c, d])
    b.is_gone = d.is_gone = True
    assert batch.step() == [c, a]  # in the order in which their prompts were read
    assert len(batch.cache.lengths) == 2
    while a.is_going or c.is_going:
        batch.step()
    assert [a.ids, c.ids] == expected
    assert len(b.ids) == len(d.ids) == 1
    batch.drop_leavers()
    assert batch.cache is None  # nothing is held for nobody


def test_endings_are_those_of_generate(tokenizer: Tokenizer) -> None:
    model = random_model()
    context = SMALL.context_length
    prompts = [tokenizer.encode("The lamp"), [7] * (context - 3), [11]]
    found = generate(model, prompts, max_new_tokens=40, sampling=Sampling(1.0), first_row=0)
    jobs = [Job(prompt, 40, Sampling(1.0, seed=123 + i)) for i, prompt in enumerate(prompts)]
    run(Batch(model, tokenizer), {0: jobs})
    assert [(job.ids, job.stopped_by) for job in jobs] == [(g.ids, g.stopped_by) for g in found]
    assert jobs[1].stopped_by == "context"
    batch, job = Batch(model, tokenizer), Job([1], 40)
    batch.give(job, 5)
    batch.give(job, tokenizer.eot_id)
    assert (job.ids, job.stopped_by) == ([5], "end_of_text")


@pytest.mark.long
@pytest.mark.parametrize("template", ["alpaca", "zh"])
def test_a_chats_text_only_grows_and_ends_as_respond_gives_it(tokenizer: Tokenizer, template: str) -> None:
    model = random_model()
    entry = {"instruction": "Name it.", "input": "", "output": ""}
    sampling = Sampling(3.0)  # hot: all sorts of bytes, half characters too
    [expected] = respond(model, tokenizer, [entry], template=template, max_new_tokens=60, sampling=sampling)
    job = Job(encode_prompt(entry, tokenizer, template), 60, sampling, template=template)
    batch, newcomers, seen = Batch(model, tokenizer), [job], [""]
    while job.is_going:
        batch.step(newcomers)
        newcomers = []
        assert job.text.startswith(seen[-1])
        seen.append(job.text)
    assert job.text == expected.text
    assert len(set(seen)) > 20


def texts(tokenizer: Tokenizer, said: str, **options: object) -> tuple[Job, list[str]]:
    """A job that is given the ids of a text one by one, until it stops, and its text after each."""
    job, batch, seen = Job([1], 1000, **options), Batch(random_model(), tokenizer), []
    for next_id in tokenizer.encode(said):
        if job.is_going:
            batch.give(job, next_id)
            seen.append(job.text)
    return job, seen


def test_a_stop_string_of_several_tokens_is_never_shown(tokenizer: Tokenizer) -> None:
    job, seen = texts(tokenizer, "Blue.\n\nQ: And the sea?", stops=("\n\nQ:",))
    assert (job.text, job.stopped_by) == ("Blue.", "stop_string")
    assert not any("\n" in text for text in seen)
    job, seen = texts(tokenizer, "Blue.\n\nGreen.", stops=("\n\nQ:",))  # held back, then shown
    assert job.text == "Blue.\n\nGreen."
    assert job.is_going


def test_the_earliest_of_several_stop_strings_counts(tokenizer: Tokenizer) -> None:
    job, _ = texts(tokenizer, "one two three four", stops=("three", "two"))
    assert job.text == "one "


def test_a_chat_stops_where_it_begins_the_next_instruction(tokenizer: Tokenizer) -> None:
    job, seen = texts(tokenizer, " Blue.\n\n### Instruction:\nName", template="alpaca")
    assert (job.text, job.stopped_by) == ("Blue.", "stop_string")
    assert set(seen) == {"Blue", "Blue."}
    assert texts(tokenizer, "### Instruction:\n", template="alpaca")[0].stopped_by == "stop_string"
    assert texts(tokenizer, "### Instruction:\n")[0].text == "### Instruction:\n"  # a plain text has no template


def test_half_a_character_is_not_shown(tokenizer: Tokenizer) -> None:
    job, seen = texts(tokenizer, "好 🙂!")
    assert job.text == "好 🙂!"
    assert not any("\ufffd" in text for text in seen)
