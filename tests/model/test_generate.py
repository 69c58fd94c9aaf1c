import pytest
import torch

from gpt.model import generate as module
from gpt.model.generate import (
    GREEDY,
    Response,
    Sampling,
    fill_gaps,
    generate,
    generate_steps,
    prefill,
    respond,
    rows_at_once,
    sample_next,
    stream_response,
    token_probabilities,
)
from gpt.model.gpt2 import GPT, GPTConfig, KVCache
from gpt.text.prompts import encode_few_shot_prompt, encode_prompt
from gpt.text.tokenizer import Tokenizer
from tests.reference import random_model

EOT = 50256
ROWS = [[464, 3797], [15496, 11, 995, 0, 383, 6766], [40], [262, 5822, 7586, 21831, 11687]]


def slow_greedy(model: GPT, prompt: list[int], n: int, eot_id: int = EOT) -> list[int]:
    """The textbook loop: one row, no cache, the whole text read again for each token."""
    ids = list(prompt)
    for _ in range(n):
        next_id = int(model(torch.tensor([ids]))[0, -1].argmax())
        if next_id == eot_id:
            break
        ids.append(next_id)
    return ids[len(prompt) :]


def test_a_ragged_batch_equals_one_by_one_ids_for_ids(model: GPT) -> None:
    together = generate(model, ROWS, max_new_tokens=12)
    alone = [generate(model, [row], max_new_tokens=12)[0] for row in ROWS]
    assert together == alone
    assert [g.ids for g in together] == [slow_greedy(model, row, 12) for row in ROWS]
    assert len({tuple(g.ids) for g in together}) >= 3  # the rows do differ


def first_logits(model: GPT, rows: list[list[int]]) -> torch.Tensor:
    """What `prefill` gives after each row, in the order of the rows."""
    order, logits = prefill(model, rows, KVCache(model.config, 0, 64, like=model.wte.weight))
    return logits[torch.tensor(order).argsort()]


@torch.no_grad()
def test_what_rows_begin_with_is_read_once(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    start = list(range(100, 130))
    rows = [*([*start, *row] for row in ROWS), start, [7, 8, 9]]  # of one nothing but the beginning is asked
    right = torch.stack([model(torch.tensor([row]))[0, -1] for row in rows])
    expected, read, hidden = [slow_greedy(model, row, 6) for row in rows], [], GPT.hidden

    def seen(self: GPT, inputs: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        read.append(tuple(inputs.shape))
        return hidden(self, inputs, cache)

    monkeypatch.setattr(GPT, "hidden", seen)
    assert [g.ids for g in generate(model, rows, max_new_tokens=6)] == expected
    assert read[:3] == [(1, 3), (1, 29), (5, 7)]  # 67 tokens, pads and all, in place of 166
    torch.testing.assert_close(first_logits(model, rows), right, rtol=1e-4, atol=1e-4)
    common_beginning = module.common_beginning
    monkeypatch.setattr(module, "common_beginning", lambda alike: common_beginning(alike)[::-1])  # the wrong variant
    wrong = (first_logits(model, rows) - right).abs().amax(-1)
    assert wrong[:-1].min() > 1e-2
    assert wrong[-1] < 1e-4


def test_three_that_begin_alike_are_read_as_they_are(model: GPT) -> None:
    """A pass of its own for the beginning would cost more than it saves."""
    rows = [[*range(100, 130), i] for i in range(3)]
    cache = KVCache(model.config, 0, 64, like=model.wte.weight)
    order, logits = prefill(model, rows, cache)
    assert order == [0, 1, 2]
    assert torch.equal(logits.argmax(-1), model(torch.tensor(rows))[:, -1].argmax(-1))
    assert cache.lengths.tolist() == [31] * 3


def test_left_pads_without_a_mask_would_change_the_short_rows(model: GPT) -> None:
    longest = max(map(len, ROWS))
    padded = torch.tensor([[EOT] * (longest - len(row)) + row for row in ROWS])
    wrong = model(padded)[:, -1].argmax(-1).tolist()
    right = [g.ids[0] for g in generate(model, ROWS, max_new_tokens=1)]
    assert wrong[1] == right[1]  # the longest has no pads
    assert wrong != right


def test_every_row_stops_for_itself(model: GPT) -> None:
    """One row's first new id is taken for the end of text: it ends at once, its neighbours go on."""
    first = generate(model, ROWS, max_new_tokens=1)
    stop_id = first[0].ids[0]
    for sampling in (GREEDY, Sampling(temperature=1.0, top_k=1)):
        found = generate(model, ROWS, max_new_tokens=8, sampling=sampling, eot_id=stop_id)
        assert found[0] == ([], "end_of_text", 0)
        assert [g.ids for g in found] == [slow_greedy(model, row, 8, stop_id) for row in ROWS]
        assert any(g.stopped_by == "max_new_tokens" and len(g.ids) == 8 for g in found[1:])
    with pytest.raises(RuntimeError, match="ambiguous"):  # the wrong variant: `if next_id == eot_id` on a batch
        bool(torch.tensor([stop_id, stop_id + 1]) == stop_id)


@pytest.fixture
def short_model() -> GPT:
    """A context of 16 tokens; 300 is the end of text. Its scale is such that greedy text does not fall into a loop."""
    return random_model(GPTConfig(vocab_size=301, context_length=16, n_embd=48, n_layer=2, n_head=2), scale=20.0)


def test_rows_end_at_the_end_of_the_context(short_model: GPT) -> None:
    model = short_model
    found = generate(model, [[1] * 15, [2] * 3], max_new_tokens=100, eot_id=300)
    for row, prompt in zip(found, ([1] * 15, [2] * 3), strict=True):
        assert row.stopped_by == "context"
        assert len(prompt) + len(row.ids) == 16
    assert found[1].ids == slow_greedy(model, [2] * 3, 13, 300)


@pytest.mark.parametrize("prompt", [[], [1] * 16, [1] * 20])
def test_a_prompt_that_is_empty_or_fills_the_context_is_refused(short_model: GPT, prompt: list[int]) -> None:
    with pytest.raises(ValueError, match=f"prompt 1 has {len(prompt)} tokens: it must have 1 to 15"):
        generate(short_model, [[1], prompt])


# ---- past the end of the context ----


def slow_sliding(model: GPT, prompt: list[int], n: int) -> list[int]:
    """`slow_greedy` for 16 tokens of context: a full window is cut to its newest 8 and read from position 0 on."""
    window, new_ids = list(prompt), []
    for _ in range(n):
        if len(window) == 16:
            window = window[8:]
        window.append(int(model(torch.tensor([window]))[0, -1].argmax()))
        new_ids.append(window[-1])
        if window[-1] == 300:
            return new_ids[:-1]
    return new_ids


SLIDERS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9], [2, 7], [1, 8, 2, 8, 1], [11] * 9]


def own_id(model: GPT, row: int, n: int) -> int:
    """An id that this row of SLIDERS says after it slid for the first time, and no other row says."""
    said = [slow_sliding(model, prompt, n) for prompt in SLIDERS]
    others = {i for number, ids in enumerate(said) if number != row for i in ids}
    return next(i for i in said[row][16 - len(SLIDERS[row]) :] if i not in others)


def test_sliding_equals_reading_the_newest_half_anew(short_model: GPT) -> None:
    found = generate(short_model, SLIDERS, max_new_tokens=60, eot_id=300, past_context="slide")
    assert [g.ids for g in found] == [slow_sliding(short_model, row, 60) for row in SLIDERS]
    assert found == [
        generate(short_model, [row], max_new_tokens=60, eot_id=300, past_context="slide")[0] for row in SLIDERS
    ]
    assert all(len(set(row.ids[-20:])) > 5 for row in found)  # no row says the same id again and again
    for prompt, row in zip(SLIDERS, found, strict=True):
        assert row.stopped_by == "max_new_tokens"
        assert row.n_slides == 1 + (len(prompt) + 60 - 16 - 1) // 8  # at 16 tokens, then every 8; not after the last id


def test_a_row_that_stops_leaves_those_that_slide_alone(short_model: GPT) -> None:
    stop_id = own_id(short_model, 0, 40)
    found = generate(
        short_model,
        SLIDERS,
        max_new_tokens=40,
        eot_id=300,
        past_context="slide",
        is_stopped=lambda ids: ids[-1] == stop_id,
    )
    assert found[0].stopped_by == "stop_string"
    assert [row.stopped_by for row in found[1:]] == ["max_new_tokens"] * 3
    for row, prompt in zip(found, SLIDERS, strict=True):
        assert row.ids == slow_sliding(short_model, prompt, 40)[: len(row.ids)]


def test_keeping_the_cache_of_the_newest_half_would_change_what_follows(short_model: GPT) -> None:
    """The wrong variant: keys and values of positions 8 to 14, computed while the older half could be seen."""
    window = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 1]
    cache = KVCache(short_model.config, 0, 16, like=short_model.wte.weight)
    with torch.no_grad():
        prefill(short_model, [window[:-1]], cache)
        cache.keys[:, :, :, :7], cache.values[:, :, :, :7] = cache.keys[:, :, :, 8:15], cache.values[:, :, :, 8:15]
        cache.lengths -= 8
        cache.longest -= 8
        wrong = short_model(torch.tensor([window[-1:]]), cache)[0, -1]
        right = short_model(torch.tensor([window[8:]]))[0, -1]
    assert (wrong - right).abs().max() > 1
    assert wrong.argmax() != right.argmax()


def test_stopping_is_the_default_and_never_slides(short_model: GPT) -> None:
    found = generate(short_model, SLIDERS, max_new_tokens=60, eot_id=300)
    assert found == generate(short_model, SLIDERS, max_new_tokens=60, eot_id=300, past_context="stop")
    assert {(row.stopped_by, row.n_slides) for row in found} == {("context", 0)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"past_context": "slid"}, "past_context 'slid' is not known: use stop or slide"),
        ({"max_new_tokens": 0}, "1 or more"),
        ({"max_new_tokens": [5, 5]}, "a limit for each prompt"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_impossible_limits_are_refused(short_model: GPT, wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(short_model, [[1]], **wrong)


# ---- step by step ----


@pytest.mark.long
@pytest.mark.parametrize("past_context", ["stop", "slide"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_those_who_take_a_free_place_get_the_ids_of_those_who_begin_together(
    short_model: GPT, past_context: str, batch_size: int
) -> None:
    """Rows of six lengths and limits, so that places become free at different times, in few places and in many."""
    prompts, limits = [*SLIDERS, [5], [7] * 14, [13, 1]], [3, 60, 1, 25, 9, 40, 33]
    options = {"max_new_tokens": limits, "eot_id": 300, "past_context": past_context}
    found = generate(short_model, prompts, batch_size=batch_size, **options)
    assert found == generate(short_model, prompts, **options)
    if past_context == "slide":
        assert [g.ids for g in found] == [slow_sliding(short_model, p, n) for p, n in zip(prompts, limits, strict=True)]
        assert sum(g.n_slides for g in found) > 10


def test_places_that_become_free_are_taken_and_never_too_many(short_model: GPT) -> None:
    limits = [12, 2, 3, 2, 5, 1, 4, 2]
    steps = list(generate_steps(short_model, [[i] for i in range(8)], max_new_tokens=limits, eot_id=300, batch_size=3))
    assert max(map(len, steps)) == 3
    assert len(steps) == 12  # the first row's; batches of three, each as long as its longest, would take 12 + 5 + 4
    assert sorted({step.row for step in steps[0]}) == [0, 1, 2]
    order = [step.row for pass_ in steps for step in pass_ if step.stopped_by]
    assert sorted(order) == list(range(8)) and order[-1] == 0 and order[0] == 1


def test_more_rows_go_together_where_they_take_little_memory(short_model: GPT) -> None:
    """gpt2 keeps 73,728 bytes a token: 128 rows of 113 tokens are below 2**30 bytes, of 114 above."""
    gpt2 = GPT.without_weights(GPTConfig())
    prompts = [[1] * 50, [1] * 13, [1]]
    assert rows_at_once(gpt2, prompts, [63, 100, 63]) == 128
    assert rows_at_once(gpt2, prompts, [64, 100, 63]) == 64
    assert rows_at_once(gpt2, prompts, [63, 101, 63]) == 64
    assert rows_at_once(GPT.without_weights(GPTConfig(n_layer=1)), prompts, [10**6] * 3) == 128  # a context has an end
    steps = next(generate_steps(short_model, [[i] for i in range(130)], max_new_tokens=2, eot_id=300))
    assert len(steps) == 128


def test_a_row_that_leaves_costs_no_copy_of_those_that_stay() -> None:
    assert fill_gaps([0, 2, 3, 5]) == [0, 5, 2, 3]
    assert fill_gaps([1, 2]) == [2, 1]
    assert fill_gaps(list(range(5))) == list(range(5)) and fill_gaps([]) == []
    for going in ([0, 2, 3, 4, 6], [4, 5, 6], [1]):
        assert sorted(fill_gaps(going)) == going


def test_steps_bring_the_ids_of_generate_one_by_one(short_model: GPT) -> None:
    eot_id = own_id(short_model, 0, 30)
    for past_context in ("stop", "slide"):
        options = {"max_new_tokens": 30, "eot_id": eot_id, "past_context": past_context}
        steps = [step for steps in generate_steps(short_model, SLIDERS, **options) for step in steps]
        for row, whole in enumerate(generate(short_model, SLIDERS, **options)):
            own = [step for step in steps if step.row == row]
            assert [step.id for step in own if step.id is not None] == whole.ids
            assert [step.stopped_by for step in own] == [None] * (len(own) - 1) + [whole.stopped_by]
            assert sum(step.slid for step in own) == whole.n_slides
    assert {step.stopped_by for step in steps} == {None, "end_of_text", "max_new_tokens"}


def test_whoever_stops_listening_stops_the_model(short_model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    hidden = short_model.hidden
    monkeypatch.setattr(short_model, "hidden", lambda *args: passes.append(1) or hidden(*args))
    steps = generate_steps(short_model, [[2, 7]], max_new_tokens=13)
    assert len([next(steps) for _ in range(3)]) == len(passes) == 3


def test_gradients_are_off_inside_and_as_before_between_two_steps(short_model: GPT) -> None:
    for _ in generate_steps(short_model, [[2, 7]], max_new_tokens=3):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_sampling_follows_its_seed_and_not_its_neighbours(model: GPT) -> None:
    sampling = Sampling(temperature=1.2, top_k=50, seed=7)
    once = generate(model, ROWS, max_new_tokens=10, sampling=sampling)
    assert once == generate(model, ROWS, max_new_tokens=10, sampling=sampling)
    assert once != generate(model, ROWS, max_new_tokens=10, sampling=Sampling(temperature=1.2, top_k=50, seed=8))
    alone = [generate(model, [row], max_new_tokens=10, sampling=sampling, first_row=i)[0] for i, row in enumerate(ROWS)]
    assert once == alone


def test_top_k_and_top_p_leave_out_the_unlikely() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1], [0.1, 0.15, 0.25, 0.5]]))
    top_k = token_probabilities(logits, Sampling(temperature=1, top_k=2))
    assert torch.allclose(top_k, torch.tensor([[2 / 3, 1 / 3, 0, 0], [0, 0, 1 / 3, 2 / 3]]))
    top_p = token_probabilities(logits, Sampling(temperature=1, top_p=0.7))  # 0.5 is not enough, 0.75 is
    assert torch.allclose(top_p, torch.tensor([[2 / 3, 1 / 3, 0, 0], [0, 0, 1 / 3, 2 / 3]]))
    for p in (1e-6, 1e-50):  # the second is 0 in float32
        tiny = token_probabilities(logits, Sampling(temperature=1, top_p=p))
        assert torch.allclose(tiny, torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))  # the likeliest always stays
    assert torch.allclose(token_probabilities(logits, Sampling(temperature=1, top_k=99)), logits.exp())
    cold = token_probabilities(logits, Sampling(temperature=0.5))
    assert torch.allclose(cold[0], torch.tensor([0.25, 0.0625, 0.0225, 0.01]) / 0.345)


def test_draws_have_the_probabilities_of_the_model() -> None:
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1]]))
    generator = torch.Generator().manual_seed(0)
    drawn = [sample_next(logits, Sampling(temperature=1), [generator])[0] for _ in range(3000)]
    shares = torch.bincount(torch.tensor(drawn)) / 3000
    assert torch.allclose(shares, torch.tensor([0.6, 0.3, 0.1]), atol=0.03)


IMPOSSIBLE = [
    *({"temperature": x} for x in (-1.0, float("nan"), float("inf"), 1e-40)),
    *({"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_p": float("nan")}, {"seed": -1}, {"seed": 2**64}),
]


@pytest.mark.parametrize("wrong", IMPOSSIBLE)
def test_impossible_sampling_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_seeds_go_from_0_to_the_largest_that_a_generator_takes() -> None:
    for seed in (0, 2**63 - 1):
        torch.Generator().manual_seed(Sampling(seed=seed).seed)
    with pytest.raises(ValueError, match="use 0 to"):
        Sampling(seed=2**63)


# ---- responses ----

ENTRY = {"instruction": "Repeat the header.", "input": "", "output": ""}


def speak(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer, *texts: str) -> None:
    """Let every row say the given text, whatever the logits are."""
    scripts = [[*tokenizer.encode(text), EOT] for text in texts]
    turn = iter(range(10_000))
    rows = list(range(len(scripts)))

    def say(logits: torch.Tensor, *_: object) -> list[int]:
        step = next(turn)
        rows[:] = [row for row in rows if step < len(scripts[row])]
        return [scripts[row][step] for row in rows]

    monkeypatch.setattr(module, "sample_next", say)


def watch_prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """A list that gets all prompts that are continued from now on."""
    seen = []
    monkeypatch.setattr(
        module,
        "generate_steps",
        lambda model, prompts, **o: seen.extend(prompts) or generate_steps(model, prompts, **o),
    )
    return seen


def test_a_response_may_hold_the_response_header(
    model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "The header is\n### Response:\nand then the answer."
    speak(monkeypatch, tokenizer, said)
    response = next(respond(model, tokenizer, [ENTRY], template="short"))
    assert response.text == said
    assert response.stopped_by == "end_of_text"
    whole = "### Instruction:\nRepeat the header.\n\n### Response:\n" + said
    assert (
        whole.replace("### Response:", "").strip().endswith(said) is False
    )  # the wrong variant deletes from the answer
    assert whole.split("### Response:")[-1].strip() != said


def test_a_response_ends_where_the_model_writes_the_next_instruction(
    model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, tokenizer, "Blue.\n\n### Instruction:\nName another.", "Red.")
    first, second = respond(model, tokenizer, [ENTRY, ENTRY], template="short")
    assert (first.text, first.stopped_by) == ("Blue.", "stop_string")
    assert (second.text, second.stopped_by) == ("Red.", "end_of_text")


def test_respond_reads_the_ids_of_training(model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_prompts(monkeypatch)
    list(respond(model, tokenizer, [ENTRY], template="zh", max_new_tokens=1))
    list(stream_response(model, tokenizer, ENTRY, template="zh", max_new_tokens=1))
    assert seen == [encode_prompt(ENTRY, tokenizer, "zh")] * 2


def test_a_prompt_longer_than_the_context_still_gets_an_answer(model: GPT, tokenizer: Tokenizer) -> None:
    entry = ENTRY | {"input": "the sky is blue " * 100}
    response = next(respond(model, tokenizer, [entry], max_new_tokens=20))
    assert 0 < response.n_tokens <= 20


def test_responses_come_in_the_order_of_the_entries(model: GPT, tokenizer: Tokenizer) -> None:
    entries = [
        ENTRY | {"instruction": f"Say {word}."} for word in ("one", "a much longer thing than that", "two", "x", "y")
    ]
    batched = [r.text for r in respond(model, tokenizer, entries, max_new_tokens=5, batch_size=2, template="short")]
    alone = [next(respond(model, tokenizer, [e], max_new_tokens=5, template="short")).text for e in entries]
    assert batched == alone


# ---- responses as they grow ----

FRUIT = {"instruction": "Name a fruit.", "input": "", "output": "An apple."}


def check_growth(grown: list[Response]) -> None:
    for earlier, later in zip(grown, grown[1:], strict=False):
        assert later.text.startswith(earlier.text)
        assert earlier.stopped_by is None


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"past_context": "slide"}, {"shots": [FRUIT, FRUIT]}])
def test_the_last_of_a_stream_is_the_response(model: GPT, tokenizer: Tokenizer, options: dict) -> None:
    options = {"template": "short", "max_new_tokens": 150, "sampling": Sampling(1.0, top_k=40, seed=4)} | options
    grown = list(stream_response(model, tokenizer, ENTRY, **options))
    check_growth(grown)
    assert grown[-1] == next(respond(model, tokenizer, [ENTRY], **options))
    assert len(grown) == grown[-1].n_tokens > 70
    assert (grown[-1].n_slides, grown[-1].n_shots) == ("past_context" in options, len(options.get("shots", [])))


SAID = "天气 is 🙂 weather, \u0ca0_\u0ca0 naïve"


def test_no_character_is_shown_half(model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    speak(monkeypatch, tokenizer, SAID)
    grown = list(stream_response(model, tokenizer, ENTRY, template="short"))
    check_growth(grown)
    assert grown[-1].text == SAID
    assert not any("\ufffd" in response.text for response in grown)
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(SAID)]  # the wrong variant: decode id by id
    assert sum("\ufffd" in piece for piece in pieces) > 5


def test_a_response_cut_within_a_character_ends_before_it(
    model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = len(tokenizer.encode("It is 天气"))
    assert tokenizer.decode(tokenizer.encode("It is 天气")[:-1]).endswith("\ufffd")
    for ask in (respond, lambda model, tokenizer, entries, **o: stream_response(model, tokenizer, entries[0], **o)):
        speak(monkeypatch, tokenizer, "It is 天气")
        *_, response = ask(model, tokenizer, [ENTRY], template="short", max_new_tokens=n - 1)
        assert (response.text, response.stopped_by) == ("It is 天", "max_new_tokens")


@pytest.mark.parametrize("answer", ["Blue.", "", "Sharp: C##\n### and so on"])
def test_a_stop_string_is_never_shown_in_part(
    model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    said = answer + "\n\n### Instruction:\nName another." if answer else "### Instruction:\nName another."
    speak(monkeypatch, tokenizer, said)
    grown = list(stream_response(model, tokenizer, ENTRY, template="short"))
    check_growth(grown)
    assert (grown[-1].text, grown[-1].stopped_by) == (answer, "stop_string")
    ids = tokenizer.encode(said)
    wrong = [tokenizer.decode(ids[:n]).partition("\n### Instruction:")[0].strip() for n in range(1, len(ids))]
    assert any(not answer.startswith(text) for text in wrong)  # the wrong variant waits for the whole stop string


def test_what_only_began_like_a_stop_string_is_shown_in_the_end(
    model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, tokenizer, "Blue.\n### In")
    grown = list(stream_response(model, tokenizer, ENTRY, template="short"))
    assert [grown[-2].text, grown[-1].text] == ["Blue.", "Blue.\n### In"]


def test_a_quarter_of_the_context_is_left_to_answer(
    model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_prompts(monkeypatch)
    long = ENTRY | {"input": "the sky is blue " * 100}
    list(respond(model, tokenizer, [long]))
    list(stream_response(model, tokenizer, long, earlier=[7] * 20))  # earlier turns take from the prompt's room
    assert [len(prompt) for prompt in seen] == [96, 96]
    assert seen[1][:20] == [7] * 20


# ---- few-shot ----


def test_shots_stand_before_every_prompt_and_are_counted(
    model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_prompts(monkeypatch)
    long = ENTRY | {"instruction": "Repeat the header. " * 22}
    options = {"template": "short", "max_new_tokens": 4, "shots": [FRUIT, FRUIT]}
    first, second = respond(model, tokenizer, [ENTRY, long], **options)
    assert seen[0] == encode_few_shot_prompt(ENTRY, [FRUIT, FRUIT], tokenizer, "short")[0]
    assert (first.n_shots, second.n_shots) == (2, 1)  # a context of 128 has no room for more beside the long one
    assert len(seen[1]) <= 128 - 4
    assert next(respond(model, tokenizer, [ENTRY], template="short", max_new_tokens=4)).n_shots == 0


def test_a_cut_prompt_and_a_foreign_vocabulary_are_said(model: GPT, tokenizer: Tokenizer) -> None:
    long = ENTRY | {"input": "the sky is blue " * 100}
    cut = [response.is_cut for response in respond(model, tokenizer, [ENTRY, long], max_new_tokens=2)]
    assert cut == [False, True]
    n_words = 126 - len(encode_prompt(ENTRY | {"input": "sky"}, tokenizer))
    fitting = ENTRY | {"input": "sky" + " sky" * n_words}
    assert len(encode_prompt(fitting, tokenizer)) == 126
    assert not next(respond(model, tokenizer, [fitting], max_new_tokens=2)).is_cut  # 126 of 128, to the token
    assert next(respond(model, tokenizer, [fitting], max_new_tokens=3)).is_cut
    padded = random_model(GPTConfig(vocab_size=50304, context_length=64, n_embd=16, n_layer=1, n_head=2))
    for grown in (respond(padded, tokenizer, [ENTRY]), stream_response(padded, tokenizer, ENTRY)):
        with pytest.raises(ValueError, match="the model has 50304 tokens and GPT-2 50257"):
            next(grown)
