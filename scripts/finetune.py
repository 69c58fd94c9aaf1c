"""Teach GPT-2 to follow instructions, and show what it learned: responses before and after, scored.

Without flags: gpt2-medium if there is a CUDA device and its weights can be had, else the bundled
gpt2-tiny, on the bundled entries. Ctrl-C stops after the step and saves; --resume goes on from there.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from gpt.model.gpt2 import GPT
from gpt.text.dataset import InstructionDataset
from gpt.text.entries import entries_sha256, read_entries
from gpt.text.prompts import TEMPLATES
from gpt.training import run
from gpt.training.train import TrainConfig
from gpt.weights.checkpoint import load_model, read_json
from scripts.choices import choose_device, choose_model, default_precision
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors
from scripts.evaluate import evaluate_run

ENTRIES = Path(__file__).parents[1] / "data" / "instructions.json"
FLAGS = (
    "epochs batch_size micro_batch lr schedule warmup weight_decay dropout loss_on precision max_length seed".split()
)
# A model of 8M parameters that has read little takes larger steps and more passes than OpenAI's.
TINY_SETTINGS = {"lr": 1e-3, "epochs": 5, "batch_size": 16, "micro_batch": 16}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", metavar="X", help="a name (gpt2, gpt2-medium, ..., gpt2-tiny) or a folder")
    parser.add_argument("--data", type=Path, metavar="FILE", help="entries in JSON [data/instructions.json]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder [runs/MODEL]")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run that was stopped")
    parser.add_argument("--device", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    parser.add_argument("--template", metavar="X", help=f"words of the prompt: {', '.join(TEMPLATES)} [alpaca]")
    parser.add_argument("--split", metavar="X", help="85/10/5, near-duplicates grouped, or ordered [grouped]")
    add_config_flags(parser, TrainConfig, FLAGS)
    args = parser.parse_args(argv)
    if "resume" in args and (others := set(vars(args)) - {"resume", "device"}):
        raise ValueError(f"--resume takes all settings from the run: leave out {', '.join(sorted(others))}")
    return args


def new_run(args: argparse.Namespace, device: torch.device) -> tuple[Path, run.RunSettings, dict]:
    """A folder that holds no run yet, the settings, and why the model was chosen and what was converted."""
    data = getattr(args, "data", ENTRIES).resolve()
    entries, converted = read_entries(data)
    defaults = {"precision": default_precision(device)[0]}
    config_from(args, TrainConfig, **defaults)  # like a bad file, a bad flag should fail before anything is fetched
    model, why = choose_model(getattr(args, "model", None), device)
    config = config_from(args, TrainConfig, **defaults | (TINY_SETTINGS if model == "gpt2-tiny" else {}))
    template, split = getattr(args, "template", "alpaca"), getattr(args, "split", "grouped")
    folder = getattr(args, "out", None) or free_folder(Path("runs") / Path(model).name)
    if (folder / "training.json").exists():
        raise ValueError(f"{folder} already holds a run: choose another --out, or go on with --resume {folder}")
    settings = run.RunSettings(model, str(data), entries_sha256(entries), template, split, config)
    reason = "as asked" if "precision" in args else default_precision(device)[1]
    return folder, settings, {"why": why, "converted": converted, "precision": f"{config.precision} ({reason})"}


def free_folder(wanted: Path) -> Path:
    folder, n = wanted, 1
    while folder.exists():
        n += 1
        folder = wanted.with_name(f"{wanted.name}-{n}")
    return folder


def say_start(settings: run.RunSettings, facts: dict) -> None:
    """Which model, data, device and precision, and why; what was cut or dropped."""
    config = settings.config
    entries = ", ".join(f"{n} {side}" for side, n in facts["entries"].items())
    print(f"model      {settings.model}, {facts['parameters'] / 1e6:.1f}M parameters ({facts['why']})")
    print(f"data       {settings.data}: {entries} ({settings.split} split)")
    print(f"device     {facts['device']}\nprecision  {facts['precision']}")
    print(f"training   {config.epochs} epochs, {config.batch_size} entries a step, learning rate {config.lr:g},"
          f" loss on {config.loss_on}, template {settings.template}, seed {config.seed}")  # fmt: skip
    if set(facts["converted"]) != {"alpaca"}:
        print(f"note       records by format, and what changed on the way: {facts['converted']}")
    for name, n in facts["counts"].items():
        if n["cut_prompt"] or n["cut_response"] or n["dropped"]:
            print(f"note       {name}: {n['cut_prompt']} prompts and {n['cut_response']} responses were cut to fit the"
                  f" context, {n['dropped']} entries without output were dropped")  # fmt: skip


def drive(folder: Path, settings: run.RunSettings, model: GPT, sides: dict[str, InstructionDataset]) -> bool:
    """Train with a bar, to the end or to Ctrl-C; True if it came to the end."""
    asked: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    history, val = [], float("nan")
    bar = tqdm(unit="step", dynamic_ncols=True, mininterval=0.5)
    try:
        for report in run.train_run(folder, settings, model, sides, lambda: bool(asked)):
            history.append(report)
            bar.total, bar.n = report["n_steps"], report["step"]
            val = report["val"][settings.config.loss_on] if report["val"] else val
            loss = "" if report["loss"] is None else f"loss {report['loss']:.3f}, "
            bar.set_postfix_str(f"{loss}validation {val:.3f}, {run.tokens_per_second(history):,.0f} tokens/s")
    finally:
        signal.signal(signal.SIGINT, previous)
        bar.close()
    return not asked


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
    sides = run.make_datasets(split, settings, model.config.context_length)
    facts |= {
        "device": shown_device,
        "parameters": model.n_parameters(),
        "entries": {name: len(side) for name, side in split.items()},
        "counts": {name: side.counts() for name, side in sides.items()},
    }
    say_start(settings, facts)
    run.save_settings(folder, settings, facts)
    if not drive(folder, settings, model, sides):
        print(f"stopped and saved; go on with: python -m scripts.finetune --resume {folder}")
        return 130
    history = read_json(folder / "history.json", list)
    facts["seconds"] = round(sum(report["seconds"] for report in history), 1)
    facts["tokens_per_second"] = round(run.tokens_per_second(history))
    run.save_settings(folder, settings, facts)
    del model
    evaluate_run(folder, device)
    print(f'\nread {folder}/report.md, or ask it: python -m scripts.respond {folder} "Name three colors."')
    return 0


if __name__ == "__main__":
    sys.exit(main())
