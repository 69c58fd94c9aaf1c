"""Teach a run which of two responses is preferred: DPO on pairs, python -m scripts.prefer RUN PAIRS.

PAIRS: JSON or JSON Lines of {"instruction", "input", "chosen", "rejected"}, or a public form (gpt/tuning/pairs.py);
scripts.make_pairs makes some. The result is a run folder. Ctrl-C stops after the step and saves; --resume goes on.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from gpt.evaluation.plots import save_figure
from gpt.evaluation.report import preference_table
from gpt.hardware.locks import alone_with
from gpt.hardware.memory import peak_bytes
from gpt.hardware.precision import make_scaler
from gpt.model.gpt2 import GPT
from gpt.studies.preference import DEFAULTS, SCORES, PreferenceSettings, plot_preference, prefer_run, score_pairs
from gpt.studies.tracking import check_track, tracks
from gpt.text.entries import entries_sha256
from gpt.text.prompts import TEMPLATES
from gpt.text.tokenizer import load_tokenizer
from gpt.training import run
from gpt.training.train import TrainConfig, choose_trained
from gpt.tuning.dpo import PreferenceDataset, reference_log_probs
from gpt.tuning.pairs import read_pairs
from gpt.weights.checkpoint import find_folder, load_model, read_json, write_atomically, write_json
from scripts.choices import choose_device, choose_model, default_precision
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors
from scripts.drive import start_bar, stop_signals, where_it_stands
from scripts.evaluate import evaluate_run
from scripts.new_run import LORA_LR, check_free, free_folder

FLAGS = (
    "epochs batch_size micro_batch lr schedule warmup weight_decay clip dropout precision max_length eval_every "
    "patience seed freeze lora_rank lora_alpha lora_dropout lora_targets"
).split()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.usage = "%(prog)s RUN PAIRS [FLAG ...]"  # the rest stands below
    parser.add_argument(
        "model", nargs="?", default=None, metavar="RUN", help="where to start: a run folder, or a model"
    )
    parser.add_argument("pairs", nargs="?", type=Path, default=None, metavar="PAIRS", help="the pairs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the new run folder [runs/RUN-dpo]")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run on pairs that was stopped")
    parser.add_argument("--device", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    parser.add_argument("--template", metavar="X", help=f"{', '.join(TEMPLATES)} [the run's; alpaca for other models]")
    parser.add_argument("--beta", type=float, metavar="X", help="small lets it move far from where it began [0.1]")
    parser.add_argument("--track", metavar="X", help="curves beside history.csv, as the run goes on: tensorboard")
    add_config_flags(parser, TrainConfig, FLAGS)
    parser.epilog = "Other defaults than above: " + ", ".join(f"{name} {value}" for name, value in DEFAULTS.items()) + (
        "; after a run, a tenth of its learning rate; with LoRA, ten times as much")  # fmt: skip
    args = parser.parse_args(argv)
    if "track" in args:
        check_track(args.track)
    given = {name for name, value in vars(args).items() if value is not None}
    if "resume" in given and (others := given - {"resume", "device", "track"}):
        raise ValueError(f"--resume takes all settings from the run: leave out {', '.join(sorted(others))}")
    if "resume" not in given and not {"model", "pairs"} <= given:
        raise ValueError("give the run to start from and a file of pairs: RUN PAIRS")
    return args


def new_run(args: argparse.Namespace, device: torch.device) -> tuple[Path, PreferenceSettings, dict]:
    """A folder with the pairs in it, the settings, and what to say of them."""
    precision, reason = default_precision(device)
    pairs, converted = read_pairs(args.pairs)
    base, _ = choose_model(args.model, device)
    before = run.load_settings(Path(base))[0] if (find_folder(base) / "training.json").exists() else None
    lr = before.config.lr / (LORA_LR if before.config.lora_rank else 1) / 10 if before else DEFAULTS["lr"]
    lr *= LORA_LR if getattr(args, "lora_rank", 0) else 1
    config = config_from(args, TrainConfig, **DEFAULTS | {"precision": precision, "lr": lr})
    make_scaler(device, config.precision)
    folder = getattr(args, "out", None) or free_folder(Path("runs") / f"{Path(base).name}-dpo")
    check_free(folder)
    settings = PreferenceSettings(
        model=base, data=str((folder / "pairs.json").resolve()), entries_sha256=entries_sha256(pairs), config=config,
        template=getattr(args, "template", before.template if before else "alpaca"), split="grouped",
        turns=bool(before and before.turns), **{name: args.beta for name in ("beta",) if name in args},
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "pairs.json", pairs)
    reason = "as asked" if "precision" in args else reason
    return folder, settings, {"converted": converted, "precision": f"{config.precision} ({reason})"}


def say_start(settings: PreferenceSettings, facts: dict) -> None:
    config = settings.config
    entries = ", ".join(f"{n} {side}" for side, n in facts["entries"].items())
    print(
        f"reference  {settings.model}, {facts['parameters'] / 1e6:.1f}M parameters, of which {facts['trained']:,} learn"
    )
    print(f"pairs      {settings.data}: {entries} (near-duplicates grouped)")
    print(f"device     {facts['device']}\nprecision  {facts['precision']}")
    print(f"training   {config.epochs} epochs, {config.batch_size} pairs a step, learning rate {config.lr:g}, beta"
          f" {settings.beta:g}, template {settings.template}, seed {config.seed}")  # fmt: skip
    if config.lora_rank:
        print(f"LoRA       on {config.lora_targets}, rank {config.lora_rank}, alpha {config.lora_alpha:g},"
              f" scale {config.lora_alpha / config.lora_rank:g}")  # fmt: skip
    if left_out := {name: n for name, n in facts["converted"].items() if name != "pairs"}:
        print(f"note       records that gave no pair: {left_out}")
    for name, n in facts["counts"].items():
        if n["cut"]:
            print(f"note       {name}: {n['cut']} pairs were cut to fit the context")


def drive(
    folder: Path, settings: PreferenceSettings, model: GPT, sides: dict[str, PreferenceDataset], references: dict,
    track: str,
) -> int:  # fmt: skip
    """Train with a bar, to the end or to a signal: 0, or the exit code that tells of the signal."""
    bar, val, scores = tqdm(desc="validating", unit="step", dynamic_ncols=True), "", [*SCORES, "likelier"]
    with stop_signals() as asked, contextlib.closing(bar), tracks(track, folder, scores) as record:
        for report in prefer_run(folder, settings, model, sides, references, lambda: bool(asked)):
            record(report)
            if bar.total is None:
                start_bar(bar, report)
            if report["val"]:
                val = f"validation {report['val']['preference']:.3f}, accuracy {report['val']['accuracy']:.2f}"
            loss = f"loss {report['scores']['preference']:.3f}, " if "scores" in report else ""
            bar.set_postfix_str(loss + val, refresh=False)
            bar.update(report["step"] - bar.n)
    return 128 + asked[0] if asked else 0


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    device, shown_device = choose_device(getattr(args, "device", "auto"))
    if "resume" in args:
        folder, (settings, facts) = args.resume, run.load_settings(args.resume, PreferenceSettings)
        if not (folder / "pairs.json").exists():
            raise ValueError(f"{folder} is no run on pairs: go on with python -m scripts.finetune --resume {folder}")
    else:
        folder, settings, facts = new_run(args, device)
    with alone_with(folder):
        return prefer_in(folder, settings, facts | {"device": shown_device}, device, getattr(args, "track", ""))


def prefer_in(folder: Path, settings: PreferenceSettings, facts: dict, device: torch.device, track: str) -> int:
    """The run, from settings to report."""
    split = run.load_split(settings)
    model = load_model(settings.model, device, settings.config.dropout)
    max_length = min(settings.config.max_length, model.config.context_length)
    sides = {
        name: PreferenceDataset(side, load_tokenizer(), settings.template, max_length) for name, side in split.items()
    }
    facts |= {"parameters": model.n_parameters()}
    references = {
        name: reference_log_probs(model, side.pairs) for name, side in tqdm(sides.items(), "reference", leave=False)
    }
    choose_trained(model, settings.config)
    facts |= {
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "entries": {name: len(side) for name, side in sides.items()},
        "counts": {name: sides[name].counts() for name in ("train", "val")},
    }
    print(f"run        {where_it_stands(folder, settings.config)}")
    say_start(settings, facts)
    run.save_settings(folder, settings, facts)
    if exit_code := drive(folder, settings, model, sides, references, track):
        print(f"stopped and saved; go on with: python -m scripts.prefer --resume {folder}")
        return exit_code
    history = read_json(folder / "history.json", list)
    facts |= {"seconds": round(sum(report["seconds"] for report in history), 1), "peak_bytes": peak_bytes(device)}
    run.save_settings(folder, settings, facts)
    write_atomically(folder / "preference.png", lambda part: save_figure(plot_preference(history), part))
    del model
    after = reference_log_probs(load_model(folder, device), sides["test"].pairs)
    scores = score_pairs(references["test"], after, settings.beta)
    write_json(folder / "preference.json", scores)
    evaluate_run(folder, device)
    print(f"\n{preference_table(scores)}\npicture: {folder}/preference.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
