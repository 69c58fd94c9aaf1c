"""Questions that readers of the field ask, answered with the bundled model and entries.

unseen-templates: what is reached on templates that were not trained on, and on written entries?
loss-on: which tokens should count?  left-out: does tuning reach kinds of task that it has not seen?
one-task: is a kind learned better alone or among others?
Writes a table, a picture and all responses. Ctrl-C loses one arm at most: the same command goes on.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from gpt.evaluation.constraints import format_followed
from gpt.evaluation.metrics import METRICS, bootstrap_interval
from gpt.evaluation.plots import plot_scores, save_figure
from gpt.evaluation.report import shown_score, table
from gpt.studies import experiments
from gpt.studies.agreement import paired_difference
from gpt.studies.experiments import Experiment, run_arm, runs, score_rows
from gpt.text.entries import entries_sha256, load_entries, split_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.training.train import TrainConfig
from gpt.weights.checkpoint import load_model, write_atomically, write_json
from scripts.choices import choose_device
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors
from scripts.new_run import ENTRIES, TINY_SETTINGS

KINDS = ["spelling", "extraction"]  # left out, or trained on alone, one by one
SCORES = {
    "exact match": lambda response, entry: METRICS["exact_match"](response, entry["output"]),
    "ROUGE-L": lambda response, entry: METRICS["rouge_l"](response, entry["output"]),
    "format followed": format_followed,
}


def read_answers(path: Path, settings: dict) -> list[dict]:
    """What an earlier call has done. Raises ValueError where it was asked for something else."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    if rows and rows[0] != settings:
        changed = [name for name in settings if rows[0].get(name) != settings[name]]
        raise ValueError(f"{path} holds answers with other settings ({', '.join(changed)}): choose another --out")
    return rows[1:]


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


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("question", choices=["unseen-templates", "loss-on", "left-out", "one-task"])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--model", default="gpt2-tiny", metavar="X", help="a name or a folder [gpt2-tiny]")
    parser.add_argument("--data", type=Path, default=ENTRIES, metavar="FILE", help="entries [data/instructions.json]")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="repetitions [3]")
    parser.add_argument("--device", default="auto", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    add_config_flags(parser, TrainConfig, ["epochs", "batch_size", "micro_batch", "lr", "precision"])
    args = parser.parse_args(argv)
    device, _ = choose_device(args.device)
    config = config_from(args, TrainConfig, **(TINY_SETTINGS if args.model == "gpt2-tiny" else {}))
    entries = load_entries(args.data)
    more = (KINDS,) if args.question in ("left-out", "one-task") else ()
    experiment = getattr(experiments, args.question.replace("-", "_"))(split_entries(entries), config, *more)
    settings = {"model": args.model, "entries": entries_sha256(entries), "config": asdict(config)}
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
