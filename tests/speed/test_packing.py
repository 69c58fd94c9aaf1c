"""The tree of rows against the plain way: each row alone, and `collate`, `GPT.hidden` and `supervised_loss`."""

import random

import pytest
import torch
import torch.nn.functional as F

from gpt.model.gpt2 import GPT
from gpt.speed import chunked_loss
from gpt.speed.chunked_loss import ChunkedCrossEntropy, packed_loss
from gpt.speed.packing import Packed, hidden_where_asked, pack
from gpt.text.dataset import Example, Kind, collate
from gpt.training.loss import supervised_loss
from gpt.tuning.lora import add_lora

LOSSES = ("response", "header", "all")


def ragged_rows(seed: int = 0) -> list[Example]:
    """Two preambles, responses of 1 to 40 tokens, one row twice, one that is another's beginning, and one
    that ends within its prompt."""
    rng = random.Random(seed)
    preambles = [[rng.randrange(50256) for _ in range(n)] for n in (9, 6)]
    rows = []
    for n_response in (1, 40, 2, 3, 17, 1):
        kinds = [Kind.PROMPT] * rng.randint(12, 20) + [Kind.HEADER] * 4 + [Kind.RESPONSE] * n_response + [Kind.END]
        start = rng.choice(preambles)
        ids = start + [rng.randrange(50256) for _ in kinds[len(start) + 1 :]] + [50256]
        rows.append(Example(ids, kinds))
    longest = rows[1]
    beginning = Example(longest.ids[:-9], longest.kinds[:-9])
    return [*rows, rows[4], beginning, Example(rows[0].ids[:11], rows[0].kinds[:11])]


def at_nodes(model: GPT, batch: Packed) -> torch.Tensor:
    """(N, C): the hidden state of every node that predicts."""
    found = hidden_where_asked(model, batch)
    nodes = torch.full((len(batch.ids), found.shape[1]), torch.nan)
    nodes[batch.asked] = found
    return nodes


def furthest(model: GPT, rows: list[Example], nodes: torch.Tensor, batch: Packed) -> float:
    """The largest difference to the logits of each row alone."""
    alone = [model(torch.tensor([row.ids[:-1]]))[0] for row in sorted(rows, key=lambda row: row.ids)]
    together = [model.logits(nodes[places[: len(one)]]) for one, places in zip(alone, batch.rows, strict=True)]
    return max((a - b).abs().max().item() for a, b in zip(alone, together, strict=True))


def padded(model: GPT, rows: list[Example], loss_on: str, micro_batch: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a step the plain way."""
    model.zero_grad()
    cuts = [collate(rows[i : i + micro_batch], loss_on) for i in range(0, len(rows), micro_batch)]
    n = sum(int((targets >= 0).sum()) for _, targets in cuts)
    total = 0.0
    for inputs, targets in cuts:
        loss = supervised_loss(model.hidden(inputs), targets, model.output_weight)[0] / n
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def packed(
    model: GPT, rows: list[Example], loss_on: str, micro_batch: int, checkpointing: bool = False
) -> tuple[float, dict[str, torch.Tensor]]:
    """The same step on trees."""
    model.zero_grad()
    batches = [pack(rows[i : i + micro_batch], loss_on) for i in range(0, len(rows), micro_batch)]
    factor = 1 / sum(batch.weights(loss_on).sum() for batch in batches)
    total = 0.0
    for batch in batches:
        loss = packed_loss(model, batch, loss_on, factor, checkpointing)
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor], within: float = 1e-5) -> None:
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        assert (ours[name] - gradient).abs().max() <= within * max(1.0, gradient.abs().max().item()), name


@torch.no_grad()
def test_each_row_sees_itself_alone(model: GPT) -> None:
    rows = ragged_rows()
    batch = pack(rows, "all")
    assert furthest(model, rows, at_nodes(model, batch), batch) < 1e-4


@torch.no_grad()
def test_plain_causal_attention_over_the_concatenation_would_see_the_rows_before(model: GPT) -> None:
    """Positions start at 0 in each row even here: that alone does not keep rows apart."""
    rows = ragged_rows()[2:4]  # which fit the context one after the other
    batch = pack(rows, "all")
    line = torch.arange(len(batch.ids))
    one_line = batch._replace(rows=line[None], places=line)
    assert furthest(model, rows, at_nodes(model, one_line), batch) > 1e-2


def test_what_rows_share_is_computed_once() -> None:
    rows = ragged_rows()
    batch = pack(rows, "all")
    beginnings = {tuple(row.ids[:n]) for row in rows for n in range(1, len(row.ids))}
    assert len(batch.ids) == len(beginnings) < sum(len(row.ids) - 1 for row in rows)
    assert len(set(zip(batch.asked.tolist(), batch.targets.tolist(), strict=True))) == len(batch.asked)


@pytest.mark.long
@pytest.mark.parametrize("loss_on", LOSSES)
@pytest.mark.parametrize("micro_batch", [9, 4, 1])
def test_loss_and_gradients_equal_the_padded_ones(model: GPT, loss_on: str, micro_batch: int) -> None:
    rows = ragged_rows()
    plain_loss, plain = padded(model, rows, loss_on, len(rows))
    loss, gradients = packed(model, rows, loss_on, micro_batch)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    assert_equal(gradients, plain)


def test_a_prediction_that_two_rows_share_counts_twice(model: GPT) -> None:
    rows = ragged_rows()
    batch = pack(rows, "all")
    n = batch.weights("all").sum()
    assert n == (collate(rows, "all")[1] >= 0).sum()
    once = batch._replace(counts=batch.counts.clamp(max=1))
    right, wrong = (packed_loss(model, given, "all", 1 / given.weights("all").sum()).item() for given in (batch, once))
    plain = padded(model, rows, "all", len(rows))[0]
    assert right == pytest.approx(plain, rel=1e-5)
    assert abs(wrong - plain) > 1e-3


def test_adapters_get_the_same_gradients_and_the_frozen_output_layer_none(model: GPT) -> None:
    add_lora(model, 4, 8.0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    rows = ragged_rows()
    plain, gradients = (way(model, rows, "response", 4)[1] for way in (padded, packed))
    assert plain and "wte.weight" not in gradients
    assert_equal(gradients, plain)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_gradient(model: GPT, dropout: float) -> None:
    """With dropout too: what is computed again drops the same units."""
    other = GPT(type(model.config)(**{**vars(model.config), "dropout": dropout}))
    other.load_state_dict(model.state_dict())
    other.train()
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(5)
        results.append(packed(other, ragged_rows(), "response", 4, checkpointing))
    assert results[0][0] == results[1][0]
    assert_equal(results[1][1], results[0][1], within=1e-7)


@pytest.mark.parametrize("upstream", [1.0, 3.0])
def test_the_chunked_loss_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch, upstream: float) -> None:
    monkeypatch.setattr(chunked_loss, "CHUNK", 7)
    torch.manual_seed(0)
    hidden, output = torch.randn(40, 16), torch.randn(301, 16)
    targets, weights = torch.randint(301, (40,)), torch.randint(3, (40,)).float()

    def plain(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (F.cross_entropy(F.linear(h, w), targets, reduction="none") * weights).sum()

    results = []
    for loss_of in (plain, lambda h, w: ChunkedCrossEntropy.apply(h, w, targets, weights)):
        given = hidden.clone().requires_grad_(), output.clone().requires_grad_()
        loss = loss_of(*given)
        (upstream * loss).backward()
        results.append((loss.detach(), *(tensor.grad for tensor in given)))
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(expected, found, rtol=1e-5, atol=1e-5)


def test_a_row_longer_than_the_context_is_an_error(model: GPT) -> None:
    n = model.config.context_length + 2
    with pytest.raises(ValueError, match="do not fit the context"):
        hidden_where_asked(model, pack([Example([1] * n, [Kind.RESPONSE] * n)]))
