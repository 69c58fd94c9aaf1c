from pathlib import Path

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import GPT2LMHeadModel

from gpt.model.generate import generate
from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.dataset import InstructionDataset, collate
from gpt.text.tokenizer import Tokenizer
from gpt.training.loss import evaluate_loss
from gpt.training.train import TrainConfig, make_optimizer, train
from gpt.tuning.adapter import base_digest
from gpt.tuning.prompt_tuning import add_prompt, load_prompt, prompt_ids, save_prompt, with_prompt
from gpt.weights.checkpoint import load_model, save_model
from gpt.weights.tf_checkpoint import CheckpointError
from tests.reference import SMALL, random_model

IDS = torch.randint(0, 50257, (2, 9), generator=torch.Generator().manual_seed(0))
START = [11, 222, 3333, 44]
V = 50257


@torch.no_grad()
def logits_after(model: GPT, prompt: list[int], ids: torch.Tensor = IDS) -> torch.Tensor:
    """(B, T, V) at the text's own positions."""
    front = torch.tensor(prompt).expand(len(ids), -1)
    return model(torch.cat([front, ids], dim=1).long())[:, len(prompt) :]


def stirred(seed: int = 1) -> tuple[GPT, list[int]]:
    """A model whose prompt has learned something, as it were."""
    model = random_model()
    prompt = add_prompt(model, START)
    with torch.no_grad():
        model.wte.prompt += torch.randn(model.wte.prompt.shape, generator=torch.Generator().manual_seed(seed))
    return model, prompt


@pytest.fixture
def dataset(tokenizer: Tokenizer) -> InstructionDataset:
    entries = [
        {"instruction": f"Say the {word}.", "input": "", "output": word.upper()}
        for word in "river teacher garden window market doctor bridge candle forest kitchen".split()
    ]
    return InstructionDataset(entries, tokenizer, "short", 64)


def test_a_fresh_prompt_is_the_text_it_started_from(model: GPT) -> None:
    before = logits_after(model, START)
    prompt = add_prompt(model, START)
    assert prompt == prompt_ids(model) == [V, V + 1, V + 2, V + 3]
    assert torch.equal(logits_after(model, prompt), before)
    assert torch.equal(model(IDS), random_model()(IDS))  # text without it reads as before


def test_the_vectors_alone_learn_and_the_output_layer_has_no_rows_for_them(model: GPT) -> None:
    add_prompt(model, START)
    trained = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"wte.prompt": (4, 48)}
    assert model.output_weight.shape == (V, 48)
    assert model(IDS).shape == (2, 9, V)


def test_outputs_are_those_of_vectors_put_in_front_of_the_embeddings() -> None:
    model, prompt = stirred()
    vectors = torch.cat([model.wte.prompt.expand(2, -1, -1), model.wte.weight[IDS]], dim=1)
    x = vectors + model.wpe(torch.arange(13))
    for block in model.h:
        x = block(x, torch.arange(13), None, None)
    expected = model.logits(model.ln_f(x))[:, 4:]
    assert torch.allclose(logits_after(model, prompt), expected, atol=1e-5)


def test_an_id_behind_the_prompt_is_an_error_and_not_another_vector() -> None:
    model, prompt = stirred()
    with pytest.raises(IndexError):
        model(torch.tensor([[*prompt, V + 4]]))


def test_generation_reads_the_prompt_through_the_cache_row_by_row_as_in_a_batch() -> None:
    model, prompt = stirred()
    texts = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]
    batch = generate(model, [prompt + ids for ids in texts], max_new_tokens=10)
    for ids, found in zip(texts, batch, strict=True):
        assert found == generate(model, [prompt + ids], max_new_tokens=10)[0]
        slow = prompt + ids
        for _ in range(10):
            slow.append(int(model(torch.tensor([slow]))[0, -1].argmax()))
        assert found.ids == slow[len(prompt) + len(ids) :]
    assert all(i < V for found in batch for i in found.ids)
    assert batch != generate(model, texts, max_new_tokens=10)


@pytest.mark.parametrize("loss_on", ["all", "header", "response"])
def test_vectors_are_read_and_never_are_targets(loss_on: str, dataset: InstructionDataset) -> None:
    plain, prompted = dataset.examples[:3], with_prompt(dataset, [V, V + 1]).examples[:3]
    inputs, targets = collate(prompted, loss_on)
    assert (inputs[:, :2] == torch.tensor([V, V + 1])).all()
    assert targets.max() < V
    bare_inputs, bare_targets = collate(plain, loss_on)
    assert torch.equal(inputs[:, 2:], bare_inputs)
    assert torch.equal(targets[:, 2:], bare_targets)
    # With "all", the first token of the text becomes a target: something stands before it now.
    n_more = (targets >= 0).sum() - (bare_targets >= 0).sum()
    assert n_more == (3 if loss_on == "all" else 0)
    assert len(dataset.examples[0].ids) == len(plain[0].ids)  # the given one stays as it was


@pytest.mark.long
def test_training_moves_the_vectors_lowers_the_loss_and_leaves_the_base(dataset: InstructionDataset) -> None:
    model = load_model("gpt2-tiny")  # a model without knowledge cannot be asked for any
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prompt = add_prompt(model, START)
    sides = with_prompt(dataset, prompt)
    config = TrainConfig(epochs=8, batch_size=5, lr=0.05, dropout=0.0, weight_decay=0.0, eval_every=16)
    reports = list(train(model, make_optimizer(model, config), sides, sides, config))
    assert reports[-1].val["response"] < reports[0].val["response"] - 0.1
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    without = evaluate_loss(model, dataset.examples)["response"]
    assert without == pytest.approx(evaluate_loss(load_model("gpt2-tiny"), dataset.examples)["response"])


# ---- files ----


def theirs(folder: Path) -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(folder).eval()


def test_peft_reads_our_prompt_and_has_the_same_outputs(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "base")
    model, prompt = stirred()
    save_prompt(model, tmp_path / "prompt", str(tmp_path / "base"))
    peft = PeftModel.from_pretrained(theirs(tmp_path / "base"), tmp_path / "prompt").eval()
    with torch.no_grad():
        found = peft(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -9:]
    assert (found - logits_after(model, prompt)).abs().max() < 1e-4
    assert (found - logits_after(model, [])).abs().max() > 0.1


def test_we_read_pefts_prompt_and_have_the_same_outputs(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "base")
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6)
    peft = get_peft_model(theirs(tmp_path / "base"), config).eval()
    peft.save_pretrained(tmp_path / "prompt")
    model = random_model()
    load_prompt(model, tmp_path / "prompt")
    with torch.no_grad():
        expected = peft(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -9:]
    assert len(prompt_ids(model)) == 6
    assert (logits_after(model, prompt_ids(model)) - expected).abs().max() < 1e-4


def test_a_prompt_of_another_base_is_an_error_that_says_so(tmp_path: Path) -> None:
    model, _ = stirred()
    save_prompt(model, tmp_path)
    assert base_digest(model) == base_digest(random_model())
    with pytest.raises(CheckpointError, match="was trained on a base with other weights"):
        load_prompt(random_model(seed=5), tmp_path)
    with pytest.raises(CheckpointError, match=r"\(4, 48\) belong to another base: here n_embd is 64"):
        load_prompt(random_model(GPTConfig(**{**vars(SMALL), "n_embd": 64})), tmp_path, any_base=True)
    again = random_model()
    assert load_prompt(again, tmp_path) == [V, V + 1, V + 2, V + 3]
    assert torch.equal(again.wte.prompt, model.wte.prompt)


@pytest.mark.parametrize("start", [[], [1] * 128])
def test_an_impossible_prompt_is_refused(start: list[int], model: GPT) -> None:
    with pytest.raises(ValueError, match="prompt"):
        add_prompt(model, start)
    assert all(p.requires_grad for p in model.parameters())


def test_a_second_prompt_is_refused(model: GPT) -> None:
    add_prompt(model, START)
    with pytest.raises(ValueError, match="a model that has no prompt yet"):
        add_prompt(model, START)
