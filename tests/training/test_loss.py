import random

import pytest
import torch
import torch.nn.functional as F

from gpt.model.gpt2 import GPT
from gpt.text.dataset import IGNORE_INDEX, Example, Kind, collate
from gpt.training import loss as module
from gpt.training.loss import evaluate_loss, supervised_loss


def examples(n: int = 12, seed: int = 0) -> list[Example]:
    """Rows whose responses have very different lengths: 1 to 40 tokens."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        kinds = [Kind.PROMPT] * rng.randint(3, 20) + [Kind.HEADER] * 4
        kinds += [Kind.RESPONSE] * rng.choice([1, 2, 3, 40]) + [Kind.END]
        rows.append(Example([rng.randrange(50256) for _ in kinds[1:]] + [50256], kinds))
    return rows


@pytest.mark.long
@pytest.mark.parametrize("loss_on", ["response", "header", "all"])
def test_the_loss_equals_cross_entropy_over_all_logits(model: GPT, loss_on: str) -> None:
    inputs, targets = collate(examples(), loss_on)
    loss_sum, n = supervised_loss(model.hidden(inputs), targets, model.output_weight)
    plain = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
    assert torch.allclose(loss_sum, plain, rtol=1e-5)
    assert n == (targets != IGNORE_INDEX).sum()


@pytest.mark.long
def test_gradients_equal_those_of_the_plain_loss(model: GPT) -> None:
    inputs, targets = collate(examples())
    supervised_loss(model.hidden(inputs), targets, model.output_weight)[0].backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum").backward()
    for name, p in model.named_parameters():
        assert torch.allclose(ours[name], p.grad, atol=1e-4 * p.grad.abs().max().item() + 1e-6), name


def test_the_loss_does_not_depend_on_batch_size_or_order(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = examples(13)
    losses = evaluate_loss(model, rows, batch_size=4)
    monkeypatch.setattr(module, "CHUNK", 7)
    for batch_size, order in ((1, rows), (13, rows[::-1]), (5, random.Random(1).sample(rows, 13))):
        assert evaluate_loss(model, order, batch_size) == pytest.approx(losses, abs=1e-5)


def test_a_mean_of_batch_means_would_depend_on_both(model: GPT) -> None:
    """A model that knows long answers and not short ones: the mean of means counts the short ones many times over."""
    rows = examples(13)

    def mean_of_means(order: list[Example], batch_size: int) -> float:
        means = []
        for start in range(0, len(order), batch_size):
            inputs, targets = collate(order[start : start + batch_size])
            means.append(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item())
        return sum(means) / len(means)

    by_length = sorted(rows, key=lambda row: len(row.ids))
    assert abs(mean_of_means(by_length, 1) - mean_of_means(rows, 13)) > 0.01


def test_three_losses_come_from_one_forward_pass(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = examples(6)
    passes = []
    hidden = module.hidden_where_asked
    monkeypatch.setattr(module, "hidden_where_asked", lambda gpt, b: passes.append(len(b.rows)) or hidden(gpt, b))
    losses = evaluate_loss(model, rows, batch_size=6)
    assert passes == [6]
    for loss_on in ("all", "header", "response"):
        inputs, targets = collate(rows, loss_on)
        plain = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item()
        assert losses[loss_on] == pytest.approx(plain, abs=1e-4)


def test_two_evaluations_agree_exactly_and_dropout_comes_back(model: GPT) -> None:
    rows = examples(4)
    noisy = GPT(type(model.config)(**{**vars(model.config), "dropout": 0.3}))
    noisy.load_state_dict(model.state_dict())
    noisy.train()
    assert evaluate_loss(noisy, rows) == evaluate_loss(noisy, rows)
    assert noisy.training
    inputs, targets = collate(rows)  # the wrong variant leaves dropout on
    assert (
        supervised_loss(noisy.hidden(inputs), targets, noisy.output_weight)[0]
        != (supervised_loss(noisy.hidden(inputs), targets, noisy.output_weight)[0])
    )


def test_nothing_to_evaluate_is_an_error_and_not_a_silent_zero(model: GPT) -> None:
    with pytest.raises(ValueError, match="no token counts"):
        evaluate_loss(model, [])
