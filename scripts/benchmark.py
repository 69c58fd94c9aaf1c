"""How fast is it, beside what people would use instead, and beside what the machine can do?

Each duel sets ours against one peer: a textbook's loop, and with --peers transformers and TRL, where installed. Both
take turns on the same entries, order, batches and weights; losses are compared before any speed is measured. --growth
sets ours against ours at other sizes, --speedrun runs to a fixed loss; the same FILE takes all three.
Writes FILE (JSON), and beside it a table and a picture. Ctrl-C keeps what is measured, and the same command goes on.
Weights are random where the model's are not here: speed does not depend on them, and decoding stops at each
reference's length. Dropout is off.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from gpt.model.gpt2 import GPTConfig
from gpt.speed.decoding import PACKED
from gpt.studies import benchmark, growth
from gpt.studies.arena import Here, Process
from gpt.studies.contestants import Task
from gpt.studies.decoders import agreement
from gpt.studies.machine import machine, machine_limits, n_busy
from gpt.studies.speed_report import begun, results_page, write_report
from gpt.studies.speedrun import TARGET
from gpt.text.entries import entries_sha256, load_entries
from gpt.weights.checkpoint import load_model
from scripts.choices import choose_device
from scripts.command import make_parser, one_line_errors
from scripts.new_run import ENTRIES

N_TRAINED = 192  # entries, after which the same come again
QUICK = {"model": "gpt2-tiny", "rounds": 2, "prompts": 4, "batch_size": 2}
QUICK_TARGET = 4.6  # nats: a few steps


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go [out/benchmark.json]")
    parser.add_argument("--peers", action="store_true", help="transformers and TRL too (pip's extra [peers])")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--growth", action="store_true", help="how the cost grows, in place of the duels with peers")
    what.add_argument("--speedrun", action="store_true", help="seconds to a fixed loss from a fixed start, likewise")
    parser.add_argument("--device", metavar="X", help="cpu or cuda [cpu]")
    parser.add_argument("--model", metavar="X", help="a name or a folder [gpt2]")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measure the duels with this in their name, anew")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each contestant in a duel [5]")
    parser.add_argument("--steps", type=int, metavar="N", help="training steps a turn [1; on CUDA 20]")
    parser.add_argument("--batch-size", type=int, metavar="N", help="entries a step [8]")
    parser.add_argument("--prompts", type=int, metavar="N", help="prompts decoded together [110]")
    parser.add_argument("--seed", type=int, metavar="N", help="of the entries drawn [123]")
    parser.add_argument("--quick", action="store_true", help="gpt2-tiny, small, in one process: a test of the harness")
    defaults = argparse.Namespace(
        json=Path("out/benchmark.json"), peers=False, growth=False, speedrun=False, device="cpu", model="gpt2",
        only=[], rounds=5, steps=None, batch_size=8, prompts=110, seed=123, quick=False,
    )  # fmt: skip
    args = parser.parse_args(argv, defaults)
    for name in ("rounds", "steps", "batch_size", "prompts"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}: use 1 or more")
    missing = [name for name in ("transformers", "trl") if args.peers and not importlib.util.find_spec(name)]
    if missing:
        raise ValueError(f"--peers needs {' and '.join(missing)}: pip install -c constraints.txt -e '.[peers]'")
    for name, value in QUICK.items() if args.quick else ():
        setattr(args, name, value)
    return args


def prepare(args: argparse.Namespace, device: str, scratch: Path) -> tuple[list[benchmark.Duel], dict]:
    """The duels, with the files that contestants read, and what the report says of all of them."""
    is_random = benchmark.write_model(args.model, scratch / "model")
    config, entries = load_model(scratch / "model").config, load_entries(ENTRIES)
    drawn = benchmark.draw_entries(entries, N_TRAINED + args.prompts, args.seed)
    means = benchmark.write_data(scratch / "data.json", drawn, args.batch_size, args.prompts)
    benchmark.write_one(scratch / "data.json", scratch / "one.json")
    settings = {
        "model": args.model, "is_random": is_random, "config": vars(config), "machine": machine(device),
        "entries_sha256": entries_sha256(drawn), "batch_size": args.batch_size, "n_prompts": args.prompts,
        "means": means,
    }  # fmt: skip
    task = Task("ours", "train", str(scratch / "model"), str(scratch / "data.json"), device=device)
    if args.growth:
        sizes = growth.LIGHT if args.quick else growth.ALL
        settings["no_room"] = growth.without_room(sizes, scratch)
        return growth.make_growth(task, config, entries, scratch, args.rounds, sizes), settings
    if args.speedrun:
        target = QUICK_TARGET if args.quick else TARGET
        return benchmark.make_speedrun(task, scratch / "run.json", entries, target, args.rounds), settings
    return benchmark.make_duels(task, str(scratch / "one.json"), args.rounds, args.peers), settings


def measure(args: argparse.Namespace, device: str, scratch: Path) -> None:
    """Fight the duels that are asked for or missing, and write after each round."""
    duels, settings = prepare(args, device, scratch)
    report = begun(args.json, settings)
    results = report["growth" if args.growth else "speedrun" if args.speedrun else "duels"]
    todo = [duel for duel in duels if benchmark.is_wanted(duel.name, args.only, results)]
    if args.only and not todo:
        raise ValueError(f"no name has {' or '.join(map(repr, args.only))} in it: {'; '.join(d.name for d in duels)}")
    start, steps = growth.with_models(Here if args.quick else Process), args.steps or (20 if device != "cpu" else 1)
    report.setdefault("n_busy", n_busy())
    with tqdm(total=sum(duel.rounds for duel in todo), unit="round", dynamic_ncols=True) as bar:
        if results is report["duels"] and "limits" not in report:
            bar.set_description("the machine's limits")
            report["limits"] = machine_limits(GPTConfig(**report["config"]), args.batch_size, report["means"], device)
        known = report.setdefault("agreement", {})
        for duel, result in benchmark.fight_all(todo, start, steps):
            results[duel.name], form = result, duel.ours.precision
            if duel.ours.work == "decode" and form in PACKED and form not in known:
                known[form] = agreement(form, load_entries(ENTRIES))
            bar.set_description(duel.name)
            bar.set_postfix_str(f"{result['ratio']:.2f} times as fast")
            bar.update()
            write_report(args.json, report)
    print(results_page(report))


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    device = str(choose_device(args.device)[0])
    with TemporaryDirectory(prefix="gpt-benchmark-") as scratch:
        measure(args, device, Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
