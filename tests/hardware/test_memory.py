import dataclasses
import random

import pytest
import torch

from gpt.hardware.memory import halve_until_it_fits, peak_bytes
from gpt.model.gpt2 import GPT, Block, GPTConfig
from gpt.speed import packing
from gpt.text.dataset import InstructionDataset
from gpt.text.tokenizer import Tokenizer
from gpt.training.train import StepReport, TrainConfig, make_optimizer, train
from tests.reference import random_model

TINY = GPTConfig(context_length=64, n_embd=16, n_layer=2, n_head=2)
WORDS = "river teacher garden window market doctor bridge candle".split()
PLAIN = {"epochs": 1, "batch_size": 8, "micro_batch": 8, "lr": 1e-2, "dropout": 0.0}


@pytest.fixture
def dataset(tokenizer: Tokenizer) -> InstructionDataset:
    rng = random.Random(0)
    entries = [
        {"instruction": " ".join(rng.choices(WORDS, k=3)), "input": "", "output": " ".join(rng.choices(WORDS, k=k))}
        for k in [1, 2, 12, 9, 3, 5] * 4
    ]
    return InstructionDataset(entries, tokenizer, "short", 64)


def full_from(patch: pytest.MonkeyPatch, model: GPT, n_rows: int, calls: range) -> list[int]:
    """From now on memory suffices for less than n_rows rows, in these forward passes of training; returns the rows of
    each pass. The last block raises as CUDA does, when half of the work is done."""
    seen: list[int] = []
    right = packing.run_block

    def run_block(block: Block, x: torch.Tensor, batch: packing.Packed, asked: torch.Tensor | None) -> torch.Tensor:
        if block is model.h[-1] and model.training:
            seen.append(len(batch.rows))
            if len(batch.rows) >= n_rows and len(seen) - 1 in calls:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return right(block, x, batch, asked)

    patch.setattr(packing, "run_block", run_block)
    return seen


def run(model: GPT, dataset: InstructionDataset, **settings: object) -> list[StepReport]:
    config = TrainConfig(**PLAIN | settings)
    return list(train(model, make_optimizer(model, config), dataset, dataset, config))


def fresh(dropout: float = 0.0) -> GPT:
    return random_model(dataclasses.replace(TINY, dropout=dropout), scale=1.0)


@pytest.mark.long
def test_a_step_that_does_not_fit_is_done_again_in_halves_and_so_are_all_after_it(
    dataset: InstructionDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, small, large = fresh(), fresh(), fresh()
    seen = full_from(monkeypatch, full, n_rows=3, calls=range(1, 99))  # the first step fits
    reports = run(full, dataset)
    assert seen == [8, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert [report.micro_batch for report in reports] == [8, 8, 2, 2]
    first = run(large, dataset)[1]
    assert reports[1].loss == first.loss
    for mine, other in zip(reports, run(small, dataset, micro_batch=2), strict=True):
        assert mine.loss == pytest.approx(other.loss, rel=1e-6) if mine.step else mine.val == other.val


@pytest.mark.long
def test_it_ends_at_the_same_bits_as_a_run_that_began_with_the_smaller_size(
    dataset: InstructionDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout too: its seed is set again. What dropout hits depends on the size, as it does with --micro-batch."""
    full, small, large = fresh(0.2), fresh(0.2), fresh(0.2)
    full_from(monkeypatch, full, n_rows=5, calls=range(99))
    reports = run(full, dataset, dropout=0.2)
    assert [r.loss for r in reports] == [r.loss for r in run(small, dataset, dropout=0.2, micro_batch=4)]
    assert all(torch.equal(a, b) for a, b in zip(full.parameters(), small.parameters(), strict=True))
    assert [r.loss for r in reports] != [r.loss for r in run(large, dataset, dropout=0.2)]


@pytest.mark.long
def test_gradients_of_the_failed_attempt_would_count_twice_if_they_were_kept(
    dataset: InstructionDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(fresh(), dataset, micro_batch=2)
    for keeps in (False, True):
        model = fresh()
        full_from(
            monkeypatch, model, n_rows=2, calls=range(1, 2)
        )  # after a micro-batch whose gradients are there already
        with monkeypatch.context() as patch:
            if keeps:
                patch.setattr(torch.optim.AdamW, "zero_grad", lambda self, set_to_none: keep_once(self))
            losses = [r.loss for r in run(model, dataset, micro_batch=4)[1:]]
        assert (losses == pytest.approx([r.loss for r in expected[1:]], rel=1e-6)) != keeps


def keep_once(optimizer: torch.optim.Optimizer) -> None:
    """Forgets to clear the gradients at the second of the calls, that before the repeated attempt."""
    optimizer.n_cleared = getattr(optimizer, "n_cleared", 0) + 1
    if optimizer.n_cleared != 2:
        torch.optim.Optimizer.zero_grad(optimizer, set_to_none=True)


def test_where_not_even_one_entry_fits_the_weights_stay_as_they_were(
    dataset: InstructionDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh()
    before = [p.detach().clone() for p in model.parameters()]
    full_from(monkeypatch, model, n_rows=1, calls=range(99))
    with pytest.raises(torch.OutOfMemoryError, match="one entry at a time does not fit"):
        run(model, dataset)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_only_lack_of_memory_is_met_by_halving() -> None:
    def broken(size: int) -> None:
        raise RuntimeError(f"size {size}")

    with pytest.raises(RuntimeError, match="size 8"):
        halve_until_it_fits(broken, 8)


@pytest.mark.long
def test_the_peak_is_that_of_this_process() -> None:
    before = peak_bytes(torch.device("cpu"))
    held = torch.ones(before // 4 + 2**24)  # more than was ever held, by 64 MB and the interpreter's own part
    assert peak_bytes(torch.device("cpu")) >= held.nbytes > before
