"""Try several learning rates: the same run at each, its validation losses as a table and a picture.

Each rate is kept as soon as it is done, so after Ctrl-C the same command goes on with the next one.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from gpt.evaluation.plots import save_figure
from gpt.studies.sweep import finding, finished, plot_sweep, run_at, sweep_table
from gpt.text.entries import entries_sha256, read_entries, split_entries
from gpt.training.run import RunSettings, make_datasets
from gpt.training.train import StepReport, TrainConfig
from gpt.weights.checkpoint import load_model, read_json, write_atomically, write_json
from scripts.choices import choose_device, choose_model, default_precision
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors
from scripts.new_run import ENTRIES, TINY_SETTINGS, settings_of

FLAGS = "epochs batch_size micro_batch schedule dropout loss_on precision max_length eval_every freeze lora_rank seed"
RATES = {"gpt2-tiny": [1e-4, 2e-4, 4e-4, 8e-4]}
OTHER_RATES = [1e-5, 2e-5, 5e-5, 1e-4]


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--rates", type=float, nargs="+", metavar="X", help="around what is usual for the model")
    parser.add_argument("--model", metavar="X", help="a name or folder [as for finetune]")
    parser.add_argument("--data", type=Path, default=ENTRIES, metavar="FILE", help="entries [data/instructions.json]")
    parser.add_argument("--template", default="alpaca", metavar="X", help="words of the prompt [alpaca]")
    parser.add_argument("--device", default="auto", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    add_config_flags(parser, TrainConfig, FLAGS.split(), TINY_SETTINGS)
    args = parser.parse_args(argv)
    device, shown = choose_device(args.device)
    model, why = choose_model(getattr(args, "model", None), device)
    defaults = {"precision": default_precision(device)[0]} | settings_of(model)
    config = config_from(args, TrainConfig, **defaults)
    rates = getattr(args, "rates", None) or RATES.get(model, OTHER_RATES)
    configs = [replace(config, lr=rate) for rate in sorted(set(rates))]  # a rate of 0 is refused here
    entries, _ = read_entries(args.data)
    settings = RunSettings(model, str(args.data), entries_sha256(entries), args.template, "grouped", config)
    about = asdict(replace(settings, config=replace(config, lr=1.0), data=""))
    train, val, _ = split_entries(entries, how=settings.split, seed=config.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    points = read_points(args.out / "sweep.json", about)
    print(f"model {model} ({why}), {shown}, {len(train)} entries, {config.epochs} epochs, rates {rates}")
    sides = {}
    for one in configs:
        if one.lr in {point["lr"] for point in points}:
            continue
        fresh = load_model(model, device, one.dropout)
        sides = sides or make_datasets({"train": train, "val": val}, settings, fresh.config.context_length)
        with tqdm(unit="step", desc=f"{one.lr:g}", dynamic_ncols=True) as bar:

            def show(report: StepReport, bar: tqdm = bar) -> None:
                bar.total, bar.n = report.n_steps, report.step
                bar.set_postfix_str("" if report.loss is None else f"loss {report.loss:.3f}")

            points.append(run_at(fresh, sides, one, show))
        write_json(args.out / "sweep.json", {"settings": about, "points": points})
    page = sweep_table(points) + "\n\n" + finding(points) + "\n"
    write_atomically(args.out / "sweep.md", lambda part: part.write_text(page, encoding="utf-8"))
    if finished(points):
        write_atomically(args.out / "sweep.png", lambda part: save_figure(plot_sweep(points), part))
    print(page, end="")
    return 0


def read_points(path: Path, about: dict) -> list[dict]:
    """What an earlier call has done. Raises ValueError where it was asked for something else."""
    if not path.exists():
        return []
    found = read_json(path, dict)
    if found["settings"] != about:
        changed = [name for name in about if found["settings"].get(name) != about[name]]
        raise ValueError(f"{path} holds runs with other settings ({', '.join(changed)}): choose another --out")
    return found["points"]


if __name__ == "__main__":
    sys.exit(main())
