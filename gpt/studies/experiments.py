"""Experiments: the same base model fine-tuned in several ways, scored on the same test entries.

An arm is one way: which entries are trained on, and with which settings. All arms of an experiment answer the same test
entries, seed by seed, so two arms are compared row by row, and the interval of their difference tells more than two
intervals side by side. Longpre et al. 2023 ("The Flan Collection") ask the same questions of larger models.
"""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from gpt.evaluation.metrics import METRICS, bootstrap_interval
from gpt.model.generate import respond
from gpt.model.gpt2 import GPT
from gpt.text.dataset import FIRST_KIND, InstructionDataset
from gpt.text.entries import Entry
from gpt.text.tokenizer import Tokenizer
from gpt.training.train import TrainConfig, make_optimizer, train


@dataclass(frozen=True)
class Arm:
    name: str
    train: list[Entry]
    val: list[Entry]
    config: TrainConfig


def fine_tune(base: GPT, arm: Arm, tokenizer: Tokenizer, template: str = "alpaca") -> GPT:
    """A copy of the base model, trained; the weights are those of the lowest validation loss."""
    model = copy.deepcopy(base)
    max_length = min(arm.config.max_length, base.config.context_length)
    sides = [InstructionDataset(entries, tokenizer, template, max_length) for entries in (arm.train, arm.val)]
    best, best_loss = None, float("inf")
    for report in train(model, make_optimizer(model, arm.config), *sides, arm.config):
        if report.step and report.val and report.val[arm.config.loss_on] < best_loss:
            best, best_loss = copy.deepcopy(model.state_dict()), report.val[arm.config.loss_on]
    model.load_state_dict(best)
    return model.eval()


def run_arms(
    arms: Sequence[Arm],
    test: list[Entry],
    load: Callable[[TrainConfig], GPT],
    tokenizer: Tokenizer,
    seeds: Sequence[int],
) -> Iterator[tuple[str, int, list[str]]]:
    """(arm, seed, responses to the test entries) for every arm and seed, one at a time; a seed orders and drops out."""
    for seed in seeds:
        for arm in arms:
            seeded = replace(arm, config=replace(arm.config, seed=seed))
            model = fine_tune(load(seeded.config), seeded, tokenizer)
            yield arm.name, seed, [r.text for r in respond(model, tokenizer, test, max_new_tokens=128, batch_size=32)]


def score_rows(responses: Sequence[Sequence[str]], test: Sequence[Entry], metric: str = "rouge_l") -> list[float]:
    """A row's score, the mean over the seeds."""
    scorer = METRICS[metric]
    return [
        sum(scorer(texts[row], entry["output"]) for texts in responses) / len(responses)
        for row, entry in enumerate(test)
    ]


def paired_difference(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Mean of a - b over the same rows with its 95% interval: if that holds 0, no difference was seen."""
    return bootstrap_interval([x - y for x, y in zip(a, b, strict=True)])


# ---- the arms of each experiment ----


def loss_on_arms(train_side: list[Entry], val: list[Entry], config: TrainConfig) -> list[Arm]:
    """Which tokens should count: all, the response with its header, or the response alone?"""
    return [Arm(f"loss on {name}", train_side, val, replace(config, loss_on=name)) for name in FIRST_KIND]


def left_out_arms(
    train_side: list[Entry], val: list[Entry], config: TrainConfig, is_left_out: Callable[[Entry], bool]
) -> list[Arm]:
    """Does instruction tuning reach tasks that it has not seen? Both arms have as many entries, so that only what they
    are about differs: the arm that sees the tasks gives up as many of its other entries, drawn by the seed."""
    chosen = [entry for entry in train_side if is_left_out(entry)]
    others = [entry for entry in train_side if not is_left_out(entry)]
    fewer = random.Random(config.seed).sample(others, max(0, len(others) - len(chosen)))
    kept = [entry for entry in val if not is_left_out(entry)]
    return [Arm("seen in training", chosen + fewer, kept, config), Arm("left out", others, kept, config)]


def one_task_arms(
    train_side: list[Entry], val: list[Entry], config: TrainConfig, is_task: Callable[[Entry], bool]
) -> list[Arm]:
    """One task against many: the task's entries alone, for as many steps as the whole set takes."""
    task = [entry for entry in train_side if is_task(entry)]
    epochs = max(1, round(config.epochs * len(train_side) / len(task)))
    kept = [entry for entry in val if is_task(entry)] or val
    return [Arm("all tasks", train_side, kept, config), Arm("alone", task, kept, replace(config, epochs=epochs))]
