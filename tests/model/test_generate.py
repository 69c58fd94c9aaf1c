import pytest
import torch

from gpt.model import generate as module
from gpt.model.generate import GREEDY, Sampling, generate, respond, sample_next, token_probabilities
from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.prompts import encode_prompt
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
        assert found[0] == ([], "end_of_text")
        assert [g.ids for g in found] == [slow_greedy(model, row, 8, stop_id) for row in ROWS]
        assert any(g.stopped_by == "max_new_tokens" and len(g.ids) == 8 for g in found[1:])
    with pytest.raises(RuntimeError, match="ambiguous"):  # the wrong variant: `if next_id == eot_id` on a batch
        bool(torch.tensor([stop_id, stop_id + 1]) == stop_id)


def test_rows_end_at_the_end_of_the_context() -> None:
    model = random_model(GPTConfig(vocab_size=301, context_length=16, n_embd=24, n_layer=2, n_head=2))
    found = generate(model, [[1] * 15, [2] * 3], max_new_tokens=100, eot_id=300)
    for row, prompt in zip(found, ([1] * 15, [2] * 3), strict=True):
        assert row.stopped_by == "context"
        assert len(prompt) + len(row.ids) == 16
    assert found[1].ids == slow_greedy(model, [2] * 3, 13, 300)


@pytest.mark.parametrize("prompt", [[], [1] * 16, [1] * 20])
def test_a_prompt_that_is_empty_or_fills_the_context_is_refused(prompt: list[int]) -> None:
    model = random_model(GPTConfig(vocab_size=301, context_length=16, n_embd=24, n_layer=2, n_head=2))
    with pytest.raises(ValueError, match=f"prompt 1 has {len(prompt)} tokens: it must have 1 to 15"):
        generate(model, [[1], prompt])


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
    tiny = token_probabilities(logits, Sampling(temperature=1, top_p=1e-6))
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


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_sampling_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


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
    seen = []
    monkeypatch.setattr(module, "generate", lambda model, prompts, **_: seen.extend(prompts) or [])
    list(respond(model, tokenizer, [ENTRY], template="zh"))
    assert seen == [encode_prompt(ENTRY, tokenizer, "zh")]


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
