"""Questions that readers of the field ask, answered with the bundled model and entries.

unseen-templates: what is reached on templates that were not trained on, and on written entries?
loss-on: which tokens should count?  left-out: does tuning reach kinds of task that it has not seen?
one-task: is a kind learned better alone or among others?
cleaning: does it matter whether a set was cleaned? (--data, a set of yours; --junk adds what there is to clean)
Writes a table, a picture and all responses. Ctrl-C loses one arm at most: the same command goes on.
"""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from gpt.evaluation.plots import plot_scores, save_figure
from gpt.evaluation.report import table
from gpt.studies import cleaning, experiments
from gpt.studies.experiments import SCORES, run_arm, runs, score_views
from gpt.text.entries import entries_sha256, load_entries, split_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.training.train import TrainConfig
from gpt.weights.checkpoint import load_model, write_atomically, write_json
from scripts.choices import choose_device
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors
from scripts.new_run import ENTRIES, TINY_SETTINGS, settings_of

QUESTIONS = {
    "unseen-templates": experiments.unseen_templates,
    "loss-on": experiments.loss_on,
    "left-out": experiments.left_out,
    "one-task": experiments.one_task,
    "cleaning": cleaning.cleaning,
}
KINDS = ["spelling", "extraction"]  # left out, or trained on alone, one by one


def read_answers(path: Path, settings: dict) -> list[dict]:
    """What an earlier call has done. Raises ValueError where it was asked for something else."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    rows = [json.loads(line) for line in text.split("\n") if line]  # not splitlines(): an answer may hold U+2028
    if rows and rows[0] != settings:
        changed = [name for name in settings | rows[0] if rows[0].get(name) != settings.get(name)]
        raise ValueError(f"{path} holds answers with other settings ({', '.join(changed)}): choose another --out")
    return rows[1:]


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--model", default="gpt2-tiny", metavar="X", help="a name or a folder [gpt2-tiny]")
    parser.add_argument("--data", type=Path, default=ENTRIES, metavar="FILE", help="entries [data/instructions.json]")
    parser.add_argument("--rows", type=int, metavar="N", help="entries to draw [all]")
    parser.add_argument("--junk", type=float, metavar="X", help="share of the raw set, for cleaning [0]")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="repetitions [3]")
    parser.add_argument("--device", default="auto", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    flags = ["epochs", "batch_size", "micro_batch", "lr", "precision"]
    add_config_flags(parser, TrainConfig, flags, TINY_SETTINGS)
    args = parser.parse_args(argv)
    device, _ = choose_device(args.device)
    config = config_from(args, TrainConfig, **settings_of(args.model))
    entries, given = load_entries(args.data), {name: value for name, value in vars(args).items() if name == "junk"}
    if "rows" in args:
        entries = random.Random(config.seed).sample(entries, min(args.rows, len(entries)))
    if given and args.question != "cleaning":
        raise ValueError(f"--junk is for the question cleaning: {args.question} has none")
    more = {"kinds": KINDS} if args.question in ("left-out", "one-task") else given
    experiment = QUESTIONS[args.question](split_entries(entries), config, **more)
    settings = {"model": args.model, "entries": entries_sha256(entries), "config": asdict(config)} | given
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / f"{args.question}.jsonl"
    answers = read_answers(log, settings)
    seeds = [config.seed + i for i in range(args.seeds)]
    todo = [one for one in runs(experiment, seeds) if one not in {(row["arm"], row["seed"]) for row in answers}]
    load = lambda seeded: load_model(args.model, device, seeded.dropout)  # noqa: E731
    for arm, seed in tqdm(todo, args.question, unit="run", dynamic_ncols=True):
        texts = run_arm(experiment, arm, seed, load, load_tokenizer())
        answers.append({"arm": arm, "seed": seed, "responses": texts})
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [settings, *answers])
        write_atomically(log, lambda part, lines=lines: part.write_text(lines, encoding="utf-8"))
    found = {name: [texts] for name, texts in experiment.floors.items()}
    for row in answers:
        if row["seed"] in seeds:
            found.setdefault(row["arm"], []).append(row["responses"])
    lines, bars = score_views(experiment, found)
    page = table(["rows of", "arm", "rows", *SCORES, "ROUGE-L minus last arm's"], lines, numbers_from=2)
    last = [f"{view.name}, {view.arms[-1]}" for view in experiment.views]
    write_json(args.out / f"{args.question}.json", {"settings": settings, "seeds": seeds, "table": lines})
    write_atomically(args.out / f"{args.question}.md", lambda part: part.write_text(page + "\n", encoding="utf-8"))
    write_atomically(args.out / f"{args.question}.png", lambda part: save_figure(plot_scores(bars, strong=last), part))
    print(page)
    print(f"Means over {len(seeds)} seeds. A difference whose interval holds 0 was not seen.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
