"""Teach GPT-2 to follow instructions; show its responses before and after, scored. Ctrl-C saves."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from gpt.hardware.locks import alone_with
from gpt.hardware.memory import peak_bytes
from gpt.hardware.processes import first_alone, n_processes, rank, together
from gpt.studies.self_check import check_model
from gpt.studies.tracking import check_track
from gpt.text.prompts import TEMPLATES
from gpt.training import run
from gpt.training.train import TrainConfig, choose_trained
from gpt.weights.checkpoint import load_model, read_json, untie
from scripts.choices import choose_device
from scripts.command import add_config_flags, field_comments, make_parser, one_line_errors
from scripts.drive import drive, first_prints, how_ended, show_forecast, where_it_stands
from scripts.evaluate import evaluate_run
from scripts.new_run import ENTRIES, TINY_SETTINGS, new_run, write_rejected
from scripts.recipe import write_comparison

FLAGS = (
    "epochs batch_size micro_batch lr schedule warmup weight_decay clip dropout loss_on precision max_length "
    "eval_every patience seed lr_embeddings lr_layer_decay freeze lora_rank lora_alpha lora_dropout lora_targets"
).split()
SWITCHES = ("checkpointing", "decay_all", "drop_last")  # a recipe may have them on, so they can be turned off too


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.usage = "%(prog)s [FLAG ...]"  # all of them stand below
    parser.add_argument(
        "--model", metavar="X", help="a name or folder [gpt2-medium; without CUDA or weights gpt2-tiny]"
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help=f"entries in JSON [data/{ENTRIES.name}]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder [runs/MODEL]")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run that was stopped")
    parser.add_argument("--device", metavar="X", help="auto, cuda, mps or cpu [auto]; several GPUs: see torchrun")
    parser.add_argument("--template", metavar="X", help=f"words of the prompt: {', '.join(TEMPLATES)} [alpaca]")
    parser.add_argument("--split", metavar="X", help="85/10/5, near-duplicates grouped, or ordered [grouped]")
    parser.add_argument("--turns", action="store_true", help="learn from every answer of a conversation, not the first")
    parser.add_argument("--recipe", metavar="X", help="a published run to repeat and compare with: book")
    parser.add_argument("--skip-bad", action="store_true", help="leave out records that cannot be read, and say which")
    parser.add_argument("--untie", action="store_true", help="train an output layer of its own, as the book does")
    parser.add_argument("--no-self-check", action="store_true", help="begin although device or weights may be broken")
    parser.add_argument("--dry-run", action="store_true", help="say what memory and time it will take, and end")
    parser.add_argument("--track", metavar="X", help="curves beside history.csv, as the run goes on: tensorboard")
    add_config_flags(parser, TrainConfig, FLAGS, TINY_SETTINGS)
    for name in SWITCHES:
        flag, comment = "--" + name.replace("_", "-"), field_comments(TrainConfig)[name]
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=comment)
    args = parser.parse_args(argv)
    if "track" in args:
        check_track(args.track)
    if "resume" in args and (others := set(vars(args)) - {"resume", "device", "no_self_check", "track", "dry_run"}):
        raise ValueError(f"--resume takes all settings from the run: leave out {', '.join(sorted(others))}")
    return args


def say_start(settings: run.RunSettings, facts: dict) -> None:
    """Which model, data, device and precision, and why; what was cut or dropped."""
    config = settings.config
    entries = ", ".join(f"{n} {side}" for side, n in facts["entries"].items())
    print(f"model      {settings.model}, {facts['parameters'] / 1e6:.1f}M parameters ({facts['why']})")
    print(f"data       {settings.data}: {entries} ({settings.split} split)")
    print(f"device     {facts['device']}\nprecision  {facts['precision']}\nself-check {facts['self_check']}")
    print(f"training   {config.epochs} epochs, {config.batch_size} entries a step, learning rate {config.lr:g},"
          f" loss on {config.loss_on}, template {settings.template}, seed {config.seed}")  # fmt: skip
    if facts["trained"] != facts["parameters"]:
        how = f"{config.freeze} frozen"
        if config.lora_rank:
            how = (f"LoRA on {config.lora_targets}, rank {config.lora_rank}, alpha {config.lora_alpha:g},"
                   f" scale {config.lora_alpha / config.lora_rank:g}")  # fmt: skip
        share = facts["trained"] / facts["parameters"]
        print(f"trained    {facts['trained']:,} parameters, {share:.2%} of the model's: {how}")
    if set(facts["converted"]) != {"alpaca"}:
        print(f"note       records by format, and what changed on the way: {facts['converted']}")
    if settings.turns:
        print(f"turns      {facts['counts']['train']['turns']} answers in the training entries, all of them count")
    for name, n in facts["counts"].items():
        if n.get("cut_turns"):
            print(f"note       {name}: {n['cut_turns']} answers, last in their conversations, were left out: the row"
                  " was full, or a text before them empty")  # fmt: skip
        if n["cut_prompt"] or n["cut_response"] or n["dropped"]:
            print(f"note       {name}: {n['cut_prompt']} prompts and {n['cut_response']} responses were cut to fit the"
                  f" context, {n['dropped']} entries without output or room for it were dropped")  # fmt: skip


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    device, shown_device = choose_device(getattr(args, "device", "auto"))
    with together(device), first_prints():
        return fine_tune(args, device, shown_device)


def fine_tune(args: argparse.Namespace, device: torch.device, shown_device: str) -> int:
    """The run, from flags to report. Started by torchrun, every process comes here; the first one writes."""
    with first_alone():
        folder, settings, facts = continued(args.resume) if "resume" in args else new_run(args, device)
    with alone_with(folder) if rank() == 0 else contextlib.nullcontext():
        return fine_tune_in(folder, settings, facts, args, device, shown_device)


def fine_tune_in(
    folder: Path, settings: run.RunSettings, facts: dict, args: argparse.Namespace, device: torch.device, shown: str
) -> int:
    split, rejected = run.load_split(settings), facts.pop("rejected", None)
    model = load_model(settings.model, device, settings.config.dropout)
    check = "left out" if "no_self_check" in args else check_model(model, settings.model, settings.config.precision)
    model = untie(model) if settings.untie else model
    sides = run.make_datasets(split, settings, model.config.context_length)
    facts |= {"parameters": model.n_parameters()}  # before adapters come to it
    choose_trained(model, settings.config)
    facts |= {
        "device": shown + (f", {n_processes()} processes" if n_processes() > 1 else ""),
        "self_check": check,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "entries": {name: len(side) for name, side in split.items()},
        "counts": {name: side.counts() for name, side in sides.items()},
    }
    print(f"run        {where_it_stands(folder, settings.config)}")
    say_start(settings, facts)
    if rejected and rank() == 0:
        write_rejected(None if "dry_run" in args else folder / "rejected.jsonl", rejected)
    if "dry_run" in args:
        return show_forecast(model, sides, settings.config)
    if rank() == 0:
        run.save_settings(folder, settings, facts)
    if exit_code := drive(folder, settings, model, sides, getattr(args, "track", "")):
        print(f"stopped and saved; go on with: {command()} --resume {folder}")
        return exit_code
    if rank() > 0:
        return 0
    history = read_json(folder / "history.json", list)
    facts["ended"] = how_ended(folder, settings)
    facts["seconds"] = round(sum(report["seconds"] for report in history), 1)
    facts["tokens_per_second"] = round(run.tokens_per_second(history))
    facts["peak_bytes"] = peak_bytes(device)
    run.save_settings(folder, settings, facts)
    if settings.recipe:
        write_comparison(folder, settings, model)
    del model
    evaluate_run(folder, device)
    example = '"Negate the sentence." --input "The boy reads a book."'
    print(f"ask it: python -m scripts.respond {folder} {example}")
    return 0


def continued(folder: Path) -> tuple[Path, run.RunSettings, dict]:
    if (folder / "pairs.json").exists():
        raise ValueError(f"{folder} learns from pairs: go on with python -m scripts.prefer --resume {folder}")
    return folder, *run.load_settings(folder)


def command() -> str:
    """How this script was started, so that going on is the same."""
    start = f"torchrun --nproc-per-node {n_processes()}" if n_processes() > 1 else "python"
    return f"{start} -m scripts.finetune"


if __name__ == "__main__":
    sys.exit(main())
