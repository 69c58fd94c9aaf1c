"""Teach GPT-2 to follow instructions, and show what it learned: responses before and after, scored.

Without flags: gpt2-medium if there is a CUDA device and its weights can be had, else the bundled
gpt2-tiny, on the bundled entries. Ctrl-C stops after the step and saves; --resume goes on.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from gpt.model.gpt2 import GPT
from gpt.studies.self_check import check_model
from gpt.text.dataset import InstructionDataset
from gpt.text.prompts import TEMPLATES
from gpt.training import run
from gpt.training.train import TrainConfig, choose_trained
from gpt.weights.checkpoint import load_model, read_json, untie
from scripts.choices import choose_device
from scripts.command import add_config_flags, field_comments, make_parser, one_line_errors
from scripts.evaluate import evaluate_run
from scripts.new_run import ENTRIES, new_run
from scripts.recipe import recipe_ways, write_comparison

try:
    import resource
except ImportError:  # Windows
    resource = None

FLAGS = (
    "epochs batch_size micro_batch lr schedule warmup weight_decay clip dropout loss_on precision max_length "
    "eval_every patience seed lr_embeddings lr_layer_decay freeze lora_rank lora_alpha lora_dropout lora_targets"
).split()
SWITCHES = ("decay_all", "drop_last")  # a recipe may have them on, so they can be turned off too


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.usage = "%(prog)s [FLAG ...]"  # all of them stand below
    parser.add_argument("--model", metavar="X", help="a name (gpt2, gpt2-medium, ..., gpt2-tiny) or a folder")
    parser.add_argument("--data", type=Path, metavar="FILE", help=f"entries in JSON [data/{ENTRIES.name}]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder [runs/MODEL]")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run that was stopped")
    parser.add_argument("--device", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    parser.add_argument("--template", metavar="X", help=f"words of the prompt: {', '.join(TEMPLATES)} [alpaca]")
    parser.add_argument("--split", metavar="X", help="85/10/5, near-duplicates grouped, or ordered [grouped]")
    parser.add_argument("--turns", action="store_true", help="learn from every answer of a conversation, not the first")
    parser.add_argument("--recipe", metavar="X", help="a published run to repeat and compare with: book")
    parser.add_argument("--skip-bad", action="store_true", help="leave out records that cannot be read, and say which")
    parser.add_argument("--untie", action="store_true", help="train an output layer of its own, as the book does")
    parser.add_argument("--no-self-check", action="store_true", help="begin although device or weights may be broken")
    add_config_flags(parser, TrainConfig, FLAGS)
    for name in SWITCHES:
        flag, comment = "--" + name.replace("_", "-"), field_comments(TrainConfig)[name]
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=comment)
    args = parser.parse_args(argv)
    if "resume" in args and (others := set(vars(args)) - {"resume", "device", "no_self_check"}):
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
                  f" context, {n['dropped']} entries without output were dropped")  # fmt: skip


def drive(folder: Path, settings: run.RunSettings, model: GPT, sides: dict[str, InstructionDataset]) -> bool:
    """Train with a bar, to the end or to Ctrl-C; True if it came to the end."""
    asked: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    reports, val = [], ""
    bar = tqdm(unit="step", dynamic_ncols=True, mininterval=0.5)
    try:
        for report in run.train_run(
            folder, settings, model, sides, lambda: bool(asked), **recipe_ways(settings, sides)
        ):
            reports.append(report)
            if len(reports) == 1:  # on resume the rate must not count what was done before
                bar.initial = report["step"]
            bar.total, bar.n = report["n_steps"], report["step"]
            val = f"validation {report['val'][settings.config.loss_on]:.3f}, " if report["val"] else val
            loss = "" if report["loss"] is None else f"loss {report['loss']:.3f}, "
            bar.set_postfix_str(f"{loss}{val}{run.tokens_per_second(reports):,.0f} tokens/s")
        bar.set_postfix_str(how_ended(folder, settings))
    finally:
        signal.signal(signal.SIGINT, previous)
        bar.close()
    return not asked


def how_ended(folder: Path, settings: run.RunSettings) -> str:
    """Where the best model came from, whether patience ended the run, and how many steps overflowed fp16."""
    history = read_json(folder / "history.json", list)
    best, n_skipped = run.best_step(history, settings.config.loss_on), sum(report["skipped"] for report in history)
    parts = [
        best and f"best validation at step {best}",
        n_skipped and f"{n_skipped} steps left out because gradients overflowed fp16",
        run.why_ended(history, settings.config),
    ]
    return "; ".join(filter(None, parts))


def peak_bytes(device: torch.device) -> int:
    """The most memory this process has held so far: the device's on CUDA, else its own; 0 where nobody counts."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    device, shown_device = choose_device(getattr(args, "device", "auto"))
    if "resume" in args:
        folder, (settings, facts) = args.resume, run.load_settings(args.resume)
    else:
        folder, settings, facts = new_run(args, device)
    split = run.load_split(settings)
    model = load_model(settings.model, device, settings.config.dropout)
    check = "left out" if "no_self_check" in args else check_model(model, settings.model, settings.config.precision)
    model = untie(model) if settings.untie else model
    sides = run.make_datasets(split, settings, model.config.context_length)
    facts |= {"parameters": model.n_parameters()}  # before adapters come to it
    choose_trained(model, settings.config)
    facts |= {
        "device": shown_device,
        "self_check": check,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "entries": {name: len(side) for name, side in split.items()},
        "counts": {name: side.counts() for name, side in sides.items()},
    }
    say_start(settings, facts)
    run.save_settings(folder, settings, facts)
    if not drive(folder, settings, model, sides):
        print(f"stopped and saved; go on with: python -m scripts.finetune --resume {folder}")
        return 130
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
    print(f'\nread {folder}/report.md, or ask it: python -m scripts.respond {folder} "Name three colors."')
    return 0


if __name__ == "__main__":
    sys.exit(main())
