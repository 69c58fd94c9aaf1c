"""For `finetune`: flags -> the settings of a new run, and the folder it goes to."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from gpt.evaluation.constraints import check_constraints
from gpt.text.entries import Entry, entries_sha256, read_entries
from gpt.training.run import RunSettings
from gpt.training.train import TrainConfig, make_scaler
from gpt.tuning.turns import check_turns, exchanges
from gpt.weights.checkpoint import SIZES, read_json, write_atomically
from scripts.choices import choose_model, default_precision
from scripts.command import config_from
from scripts.recipe import fetch_entries, recipe_flags

ENTRIES = Path(__file__).parents[1] / "data" / "instructions.json"
# A model of 8M parameters takes larger steps and more passes than OpenAI's, and has nothing to spare for dropout. At
# 1e-3 and above it forgets how to copy (an earlier gpt2-tiny: validation loss 3.8 instead of 3.3).
TINY_SETTINGS = {"lr": 4e-4, "epochs": 3, "dropout": 0.0}
# Adapters learn at ten times the rate of whole matrices (Schulman et al. 2025, "LoRA Without Regret"). gpt2-tiny's of
# rank 8 are best at 4e-3: validation loss 2.47, at half and double that rate 2.52 and 2.51 (`scripts.sweep`).
LORA_LR = 10


def new_run(args: argparse.Namespace, device: torch.device) -> tuple[Path, RunSettings, dict]:
    """A folder that holds no run yet, the settings, and why the model was chosen, what was converted and rejected.

    Writes nothing: of several processes each comes to the same folder.
    """
    recipe = getattr(args, "recipe", "")
    args = argparse.Namespace(**recipe_flags(recipe) | vars(args))
    precision, reason = default_precision(device)
    defaults, reason = {"precision": precision}, "as asked" if "precision" in args else reason
    config = config_from(args, TrainConfig, **defaults)
    check_ways(args, config)
    make_scaler(device, config.precision)  # a bad flag should fail before anything is fetched
    data = getattr(args, "data", None) or (fetch_entries(recipe) if recipe else ENTRIES)
    rejected = [] if "skip_bad" in args else None
    entries, converted = read_entries(data, rejected)
    for position, entry in enumerate(entries):
        check_constraints(entry.get("constraints", []), f"{data}: entry {position}")
    if "turns" in args:
        check_conversations(entries, data)
        converted.pop("later_turns", 0)  # they are not left out
    model, why = choose_model(getattr(args, "model", None), device)
    config = config_from(args, TrainConfig, **defaults | settings_of(model))
    if config.lora_rank and "lr" not in args:
        config = replace(config, lr=LORA_LR * config.lr)
    template, split = getattr(args, "template", "alpaca"), getattr(args, "split", "grouped")
    folder = getattr(args, "out", None) or free_folder(Path("runs") / f"{recipe}-{Path(model).name}".lstrip("-"))
    check_free(folder)
    settings = RunSettings(
        model, str(data.resolve()), entries_sha256(entries), template, split, config, "untie" in args, recipe,
        "turns" in args, skip_bad=rejected is not None,
    )  # fmt: skip
    facts = {"why": why, "converted": converted, "precision": f"{config.precision} ({reason})", "rejected": rejected}
    return folder, settings, facts


def settings_of(model: str) -> dict[str, object]:
    """What is usual for this model where it is not TrainConfig's: TINY_SETTINGS for gpt2-tiny, by its name or as a
    folder of its shape (a copy, a run that began from it)."""
    path, tiny = Path(model) / "config.json", SIZES["gpt2-tiny"]
    found = read_json(path) if path.exists() else {}
    has_its_shape = (found.get("n_layer"), found.get("n_embd")) == (tiny.n_layer, tiny.n_embd)
    return TINY_SETTINGS if model == "gpt2-tiny" or has_its_shape else {}


def check_conversations(entries: list[Entry], data: Path) -> None:
    """Raises ValueError for turns that cannot be read, and where there is nothing in them to learn from."""
    for position, entry in enumerate(entries):
        check_turns(entry, f"{data}: entry {position}")
    if all(len(exchanges(entry)) == 1 for entry in entries):
        raise ValueError(f"--turns: no entry of {data} has a second answer: leave it out")


def write_rejected(path: Path | None, rejected: list[dict]) -> None:
    """A line that says what was left out; and into a file, but for a dry run, the records, where they stood and why."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rejected)
        write_atomically(path, lambda part: part.write_text(lines, encoding="utf-8", errors="backslashreplace"))
    print(f"note       {len(rejected)} records cannot be read and are left out{f', all in {path}' if path else ''}; the"
          f" first: {rejected[0]['where']}: {rejected[0]['reason']}")  # fmt: skip


def check_ways(args: argparse.Namespace, config: TrainConfig) -> None:
    """Raises ValueError for flags that mean nothing together."""
    given = [name for name in vars(args) if name.startswith("lora_")]
    if given and not config.lora_rank:
        raise ValueError(f"{', '.join(given)} without LoRA: say --lora-rank 8, for instance")
    if "recipe" in args and (given or {"freeze", "lr_embeddings", "lr_layer_decay"} & set(vars(args))):
        raise ValueError("a recipe trains the whole model at one rate: leave out LoRA, freezing and other rates")


def check_free(folder: Path) -> None:
    """Raises ValueError for a folder that holds a run or a model: nobody's weights are written over."""
    if (folder / "training.json").exists():
        raise ValueError(f"{folder} already holds a run: choose another --out, or go on with --resume {folder}")
    for name in ("config.json", "hparams.json", "model.safetensors"):
        if (folder / name).exists():
            raise ValueError(f"{folder} already holds a model ({name}): choose another --out")


def free_folder(wanted: Path) -> Path:
    folder, n = wanted, 1
    while folder.exists():
        n += 1
        folder = wanted.with_name(f"{wanted.name}-{n}")
    return folder
