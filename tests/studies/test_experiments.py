import pytest

from gpt.model.gpt2 import GPTConfig
from gpt.studies.experiments import (
    fine_tune,
    left_out_arms,
    loss_on_arms,
    one_task_arms,
    paired_difference,
    score_rows,
)  # fmt: skip
from gpt.text.tokenizer import Tokenizer
from gpt.training.loss import evaluate_loss
from gpt.training.train import TrainConfig
from tests.reference import random_model

CONFIG = TrainConfig(epochs=2, batch_size=4, lr=1e-2)


def entries(kind: str, n: int) -> list[dict]:
    return [{"instruction": f"{kind} {i}", "input": "", "output": f"{kind}", "kind": kind} for i in range(n)]


TRAIN, VAL = entries("copy", 12) + entries("sort", 4), entries("copy", 3) + entries("sort", 1)


def test_the_three_ways_of_counting_differ_in_nothing_else() -> None:
    arms = loss_on_arms(TRAIN, VAL, CONFIG)
    assert [arm.config.loss_on for arm in arms] == ["all", "header", "response"]
    assert all(arm.train is TRAIN and arm.val is VAL for arm in arms)


def test_a_left_out_kind_is_in_neither_side_and_both_arms_have_as_many_entries() -> None:
    seen, left_out = left_out_arms(TRAIN, VAL, CONFIG, lambda e: e["kind"] == "sort")
    assert len(seen.train) == len(left_out.train) == 12
    assert sum(e["kind"] == "sort" for e in seen.train) == 4
    assert not any(e["kind"] == "sort" for e in left_out.train + left_out.val)


def test_one_task_alone_gets_as_many_steps_as_all_tasks() -> None:
    together, alone = one_task_arms(TRAIN, VAL, CONFIG, lambda e: e["kind"] == "sort")
    assert alone.config.epochs * len(alone.train) == together.config.epochs * len(together.train)
    assert {e["kind"] for e in alone.train} == {"sort"}


def test_a_paired_difference_sees_what_two_intervals_do_not() -> None:
    a = [i / 20 for i in range(20)]
    difference = paired_difference([x + 0.02 for x in a], a)
    assert difference["value"] == pytest.approx(0.02)
    assert difference["low"] > 0


def test_a_rows_score_is_the_mean_over_the_seeds() -> None:
    test = entries("copy", 2)
    assert score_rows([["copy", "x"], ["x", "x"]], test) == [0.5, 0.0]


def test_fine_tuning_leaves_the_base_as_it_is_and_keeps_the_best(tokenizer: Tokenizer) -> None:
    base = random_model(GPTConfig(context_length=64, n_embd=16, n_layer=1, n_head=2), scale=1.0)
    before = base.wte.weight.clone()
    arm = loss_on_arms(TRAIN, VAL, CONFIG)[2]
    tuned = fine_tune(base, arm, tokenizer, "short")
    assert base.wte.weight.equal(before)
    from gpt.text.dataset import InstructionDataset

    examples = InstructionDataset(VAL, tokenizer, "short", 64).examples
    assert evaluate_loss(tuned, examples)["response"] < evaluate_loss(base, examples)["response"] - 1
