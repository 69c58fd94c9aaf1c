"""For `finetune --recipe book`: what the recipe sets, and the comparison on screen, as recipe.json and recipe.md."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from gpt.evaluation.report import table
from gpt.model.gpt2 import GPT
from gpt.studies.recipe import RECIPES, Comparison, changes, compare, measure, published_batches, verdict
from gpt.text.dataset import InstructionDataset
from gpt.training.run import RunSettings
from gpt.weights.checkpoint import SIZES, read_json, write_atomically, write_json
from gpt.weights.download import download
from scripts.download import Bars

LOSS_NAMES = ("all", "header", "response")


def recipe_flags(name: str) -> dict[str, object]:
    """The recipe's settings, for which flags of the same names stand in; nothing where no recipe is asked for."""
    if name and name not in RECIPES:
        raise ValueError(f"recipe {name!r} is not known: use {', '.join(RECIPES)}")
    return {setting: value for setting, value in RECIPES.get(name, {}).items() if setting != "entries_sha256"}


def recipe_ways(settings: RunSettings, sides: dict[str, InstructionDataset]) -> dict[str, Callable]:
    """For `train_run`: the published batches of each epoch, and what is measured the published way after a step."""
    if not settings.recipe:
        return {}
    recipe_flags(settings.recipe)  # raises for one that is not known
    train_set, val_set, config = sides["train"], sides["val"], settings.config
    return {
        "batches_of": lambda epoch: published_batches(len(train_set), config, epoch),
        "measure": lambda model, step: measure(model, train_set, val_set, config, step),
    }


def fetch_entries(name: str) -> Path:
    """The recipe's data set of the same name, from the cache or the network, with a bar."""
    bars = Bars()
    try:
        return download(name, on_progress=bars.show)
    finally:
        bars.bar.close()


def released_name(model: GPT, asked: str) -> str:
    """The released model of this shape, so that a folder with its weights counts as it; else what was asked for."""
    shape = dataclasses.replace(model.config, dropout=0.0, tied=True)
    return next((name for name, size in SIZES.items() if size == shape), asked)


def write_comparison(folder: Path, settings: RunSettings, model: GPT) -> None:
    """Compare a finished run with the published one: print the page, and write it and its numbers."""
    found = dataclasses.asdict(settings) | vars(settings.config) | {"model": released_name(model, settings.model)}
    changed = changes(found, settings.recipe)
    comparisons = compare(read_json(folder / "history.json", list), model.config.tied)
    numbers = {
        "recipe": settings.recipe,
        "verdict": verdict(comparisons, changed),
        "changes": changed,
        "tied": model.config.tied,
        "rows": [
            {
                "label": row.point.label,
                "published": {"train": row.point.train, "val": row.point.val},
                "ours": row.ours,
                "tolerance": row.tolerance,
                "is_within": row.is_within if row.ours and not changed else None,
            }
            for row in comparisons
        ],
    }
    page = comparison_page(comparisons, changed, model.config.tied)
    write_json(folder / "recipe.json", numbers)
    write_atomically(folder / "recipe.md", lambda part: part.write_text(page, encoding="utf-8"))
    print(f"\n{page}")


def comparison_page(comparisons: list[Comparison], changed: list[str], is_tied: bool) -> str:
    """The two tables, what differs by construction, and the verdict, as Markdown."""
    rows, by_token = [], []
    for row in comparisons:
        judged = "-" if changed else "within" if row.is_within else "OUTSIDE"
        cells = [f"{row.point.train:.3f} / {row.point.val:.3f}", "-", "-", f"{row.tolerance:.3f}", "not reached"]
        if row.ours:
            cells[1:3] = [pair.format(*values) for pair, values in (
                ("{:.3f} / {:.3f}", (row.ours["train"], row.ours["val"])), ("{:+.3f} / {:+.3f}", row.differences)
            )]  # fmt: skip
            cells[4] = judged
            sides = [row.ours["by_token"][side] for side in ("train", "val")]
            by_token.append([row.point.label, *(" / ".join(f"{side[n]:.3f}" for n in LOSS_NAMES) for side in sides)])
        rows.append([row.point.label, *cells])
    layer = (
        "**The output layer is the one difference in the model**: tied to the embedding, as OpenAI trained it. The "
        "published model trains a copy of its own; `--untie` does so too and is compared with a smaller tolerance."
        if is_tied
        else "The output layer is a copy of the embedding with a training of its own, as in the published model."
    )
    parts = [
        "# The published run and this one",
        "Training / validation loss as the published log has it: means of five batch means, nats per token.",
        table(["", "published", "ours", "difference", "tolerance", "verdict"], rows),
        f"Verdict: {verdict(comparisons, changed)}.",
        "Order of shuffling: the published one, for batches are drawn as PyTorch's loader draws them after the same "
        "seed, in training and in measuring.",
        layer,
        "The run folder holds the best of its evaluations; the published code keeps the last weights.",
        "The same in our way: each token counts once, in the same training entries and in all validation entries "
        "(all tokens / response with header / response only).",
        table(["", "training", "validation"], by_token),
    ]
    return "\n\n".join(parts) + "\n"
