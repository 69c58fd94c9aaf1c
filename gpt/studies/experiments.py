"""Experiments: the same base model fine-tuned in several ways, which all answer the same test entries.

An arm is one way: which entries are trained on, and with which settings. Two arms are compared row by row, so the
interval of their difference tells more than two intervals side by side. Longpre et al. 2023 ("The Flan Collection")
ask the same questions of larger models.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gpt.evaluation.constraints import format_followed
from gpt.evaluation.metrics import METRICS, bootstrap_interval, copied_input, nearest_responses
from gpt.evaluation.report import shown_score
from gpt.model.generate import respond
from gpt.model.gpt2 import GPT
from gpt.studies.agreement import paired_difference
from gpt.text.dataset import FIRST_KIND, InstructionDataset
from gpt.text.entries import Entry, near_duplicates
from gpt.text.tokenizer import Tokenizer
from gpt.training.train import TrainConfig, choose_trained, make_optimizer, train

SCORES = {
    "exact match": lambda response, entry: METRICS["exact_match"](response, entry["output"]),
    "ROUGE-L": lambda response, entry: METRICS["rouge_l"](response, entry["output"]),
    "format followed": format_followed,
}


@dataclass(frozen=True)
class Arm:
    name: str
    train: list[Entry]  # none: the base model as it is
    val: list[Entry]
    config: TrainConfig


@dataclass(frozen=True)
class View:
    """Some rows of the test entries, and the arms to compare there; each is set against the last."""

    name: str
    rows: list[int]
    arms: list[str]


@dataclass(frozen=True)
class Experiment:
    arms: list[Arm]
    test: list[Entry]
    views: list[View]
    floors: dict[str, list[str]] = field(default_factory=dict)  # responses that take no model, by name


def fine_tune(base: GPT, arm: Arm, tokenizer: Tokenizer, template: str = "alpaca") -> GPT:
    """A copy of the base model, trained; the weights are those of the lowest validation loss."""
    model = copy.deepcopy(base)
    if not arm.train:
        return model.eval()
    max_length = min(arm.config.max_length, base.config.context_length)
    sides = [InstructionDataset(entries, tokenizer, template, max_length) for entries in (arm.train, arm.val)]
    choose_trained(model, arm.config)
    best, best_loss = None, float("inf")
    for report in train(model, make_optimizer(model, arm.config), *sides, arm.config):
        if report.step and report.val and report.val[arm.config.loss_on] < best_loss:
            best, best_loss = copy.deepcopy(model.state_dict()), report.val[arm.config.loss_on]
    model.load_state_dict(best)
    return model.eval()


def runs(experiment: Experiment, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """(arm, seed) of everything to be done; the base model as it is answers once."""
    return [(arm.name, seed) for seed in seeds for arm in experiment.arms if arm.train or seed == seeds[0]]


def run_arm(
    experiment: Experiment, name: str, seed: int, load: Callable[[TrainConfig], GPT], tokenizer: Tokenizer
) -> list[str]:
    """Train one arm and give its responses to the test entries. The seed orders and drops out."""
    arm = next(arm for arm in experiment.arms if arm.name == name)
    arm = replace(arm, config=replace(arm.config, seed=seed))
    model = fine_tune(load(arm.config), arm, tokenizer)
    return [answer.text for answer in respond(model, tokenizer, experiment.test, max_new_tokens=128, batch_size=32)]


def score_rows(
    responses: Sequence[Sequence[str]], test: Sequence[Entry], score: Callable[[str, Entry], float | None]
) -> list[float]:
    """A row's score, the mean over the seeds; rows that the score does not speak of (None) are left out."""
    scores = [[score(texts[row], entry) for texts in responses] for row, entry in enumerate(test)]
    return [sum(row) / len(row) for row in scores if None not in row]


def score_views(
    experiment: Experiment, found: dict[str, list[list[str]]]
) -> tuple[list[list[str]], dict[str, dict[str, dict[str, float]]]]:
    """The lines of the table, and for the picture each view's arms with their ROUGE-L."""
    lines, bars = [], {}
    for view in experiment.views:
        test = [experiment.test[row] for row in view.rows]
        scores = {
            arm: {
                name: score_rows([[texts[row] for row in view.rows] for texts in found[arm]], test, score)
                for name, score in SCORES.items()
            }
            for arm in view.arms
        }
        last = scores[view.arms[-1]]["ROUGE-L"]
        for arm, of_arm in scores.items():
            shown = [shown_score(bootstrap_interval(values)) if values else "-" for values in of_arm.values()]
            against = "-" if arm == view.arms[-1] else shown_score(paired_difference(of_arm["ROUGE-L"], last))
            lines.append([view.name, arm, str(len(test)), *shown, against])
            bars[f"{view.name}, {arm}"] = {"rouge_l": bootstrap_interval(of_arm["ROUGE-L"])}
    return lines, bars


# ---- the questions ----

Sides = tuple[list[Entry], list[Entry], list[Entry]]  # train, val, test


def loss_on(sides: Sides, config: TrainConfig) -> Experiment:
    """Which tokens should count: all, the response with its header, or the response alone?"""
    train_side, val, test = sides
    arms = [Arm(f"loss on {name}", train_side, val, replace(config, loss_on=name)) for name in FIRST_KIND]
    return Experiment(arms, test, [View("all entries", list(range(len(test))), [arm.name for arm in arms])])


def of_kinds(test: Sequence[Entry], kinds: Sequence[str]) -> tuple[list[Entry], dict[str, list[int]]]:
    """The test entries of these kinds, and the rows of each. Raises ValueError for a kind that has none."""
    chosen = [entry for entry in test if entry.get("kind") in kinds]
    rows = {kind: [i for i, entry in enumerate(chosen) if entry["kind"] == kind] for kind in kinds}
    for kind, found in rows.items():
        if not found:
            raise ValueError(f"no test entry is of the kind {kind!r}: nothing could be measured")
    return chosen, rows


def left_out(sides: Sides, config: TrainConfig, kinds: Sequence[str]) -> Experiment:
    """Does instruction tuning reach kinds of task that it has not seen? All arms train on equally many entries, so that
    only what they are about differs: those that lack a smaller kind, or none, give up others, drawn by the seed."""
    train_side, val, test = sides
    chosen, rows = of_kinds(test, kinds)
    without = {kind: [entry for entry in train_side if entry.get("kind") != kind] for kind in kinds}
    n = min(map(len, without.values()))
    draw = lambda entries: random.Random(config.seed).sample(entries, n)  # noqa: E731
    arms = [Arm("all kinds", draw(train_side), val, config)]
    for kind in kinds:
        arms.append(Arm(f"without {kind}", draw(without[kind]), [e for e in val if e.get("kind") != kind], config))
    base = Arm("before", [], [], config)
    views = [View(kind, rows[kind], ["before", f"without {kind}", "all kinds"]) for kind in kinds]
    return Experiment([base, *arms], chosen, views)


def one_task(sides: Sides, config: TrainConfig, kinds: Sequence[str]) -> Experiment:
    """One task against many: a kind's entries alone, for as many steps as the whole set takes."""
    train_side, val, test = sides
    chosen, rows = of_kinds(test, kinds)
    arms = [Arm("all kinds", train_side, val, config)]
    for kind in kinds:
        alone, own = ([entry for entry in side if entry.get("kind") == kind] for side in (train_side, val))
        epochs = max(1, round(config.epochs * len(train_side) / max(1, len(alone))))
        arms.append(Arm(f"{kind} alone", alone, own or val, replace(config, epochs=epochs)))
    return Experiment(arms, chosen, [View(kind, rows[kind], [f"{kind} alone", "all kinds"]) for kind in kinds])


def unseen_templates(sides: Sides, config: TrainConfig) -> Experiment:
    """What is reached beyond the templates trained on? Every sixth template is kept out of training, and its entries
    are tested apart from those of the templates that were seen and from the written ones, beside the floors."""
    names = sorted({name for side in sides for entry in side if (name := template_of(entry))})
    hidden = set(random.Random(config.seed).sample(names, len(names) // 6))
    train_side, val, test = ([e for e in side if template_of(e) not in hidden] for side in sides)
    test += [entry for side in sides for entry in side if template_of(entry) in hidden]
    crossing = {j for i, j in near_duplicates(train_side + test) if i < len(train_side) <= j}
    test = [entry for j, entry in enumerate(test, len(train_side)) if j not in crossing]
    seen = lambda e: "written" if not template_of(e) else "templates " + "un" * (template_of(e) in hidden) + "seen"  # noqa: E731
    places = [seen(entry) for entry in test]
    floors = {"copied input": [copied_input(e) for e in test], "nearest answer": nearest_responses(train_side, test)}
    arms = [Arm("before", [], [], config), Arm("after", train_side, val, config)]
    views = [
        View(place, [i for i, p in enumerate(places) if p == place], ["before", *floors, "after"])
        for place in ("templates seen", "templates unseen", "written")
    ]
    every = View("all", list(range(len(test))), views[0].arms)
    return Experiment(arms, test, [*views, every], floors)


def template_of(entry: Entry) -> str:
    """The template's name, or "" for an entry that was written."""
    kind, _, name = entry.get("source", "").partition(":")
    return name if kind == "template" else ""
