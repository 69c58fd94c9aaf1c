"""Three questions that readers of the field ask, answered with the bundled model and entries.

loss-on: which tokens should count? left-out: does tuning reach kinds of task that it has not seen?
one-task: is a kind learned better alone or among others? Writes a table, a picture and all responses.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from gpt.evaluation.metrics import bootstrap_interval
from gpt.evaluation.plots import plot_scores, save_figure
from gpt.evaluation.report import shown_score, table
from gpt.studies.experiments import (
    Arm,
    left_out_arms,
    loss_on_arms,
    one_task_arms,
    paired_difference,
    run_arms,
    score_rows,
)  # fmt: skip
from gpt.text.entries import Entry, load_entries, split_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.training.train import TrainConfig
from gpt.weights.checkpoint import load_model, write_atomically, write_json
from scripts.choices import choose_device
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors
from scripts.new_run import ENTRIES, TINY_SETTINGS

KINDS = ["spelling", "format_conversion", "extraction", "classification"]  # left out, or trained on alone, one by one


def of_kind(kind: str) -> Callable[[Entry], bool]:
    return lambda entry: entry.get("kind") == kind


def plan(
    question: str, sides: tuple[list[Entry], ...], config: TrainConfig
) -> list[tuple[str, list[Arm], list[Entry]]]:
    """(part, arms, test entries) for each part of an experiment."""
    train, val, test = sides
    if question == "loss-on":
        return [("all kinds", loss_on_arms(train, val, config), test)]
    make = {"left-out": left_out_arms, "one-task": one_task_arms}[question]
    return [(kind, make(train, val, config, of_kind(kind)), list(filter(of_kind(kind), test))) for kind in KINDS]


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("question", choices=["loss-on", "left-out", "one-task"])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--model", default="gpt2-tiny", metavar="X", help="a name or a folder [gpt2-tiny]")
    parser.add_argument("--data", type=Path, default=ENTRIES, metavar="FILE", help="entries [data/instructions.json]")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="repetitions [3]")
    parser.add_argument("--device", default="auto", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    add_config_flags(parser, TrainConfig, ["epochs", "batch_size", "micro_batch", "lr"])
    args = parser.parse_args(argv)
    device, _ = choose_device(args.device)
    config = config_from(args, TrainConfig, **(TINY_SETTINGS if args.model == "gpt2-tiny" else {}))
    parts = plan(args.question, split_entries(load_entries(args.data)), config)
    seeds = [config.seed + i for i in range(args.seeds)]
    bar = tqdm(total=sum(len(arms) for _, arms, _ in parts) * args.seeds, unit="run", dynamic_ncols=True)
    rows, lines, answers = {}, [], []
    for part, arms, test in parts:
        if not test:
            raise ValueError(f"{args.data} has no test entry of the kind {part!r}: nothing could be measured")
        found: dict[str, list[list[str]]] = {arm.name: [] for arm in arms}
        load = lambda seeded: load_model(args.model, device, seeded.dropout)  # noqa: E731
        for name, seed, texts in run_arms(arms, test, load, load_tokenizer(), seeds):
            found[name].append(texts)
            answers += [{"part": part, "arm": name, "seed": seed, "responses": texts}]
            bar.update()
        scores = {name: score_rows(texts, test) for name, texts in found.items()}
        last = list(scores.values())[-1]
        for name, values in scores.items():
            rows[f"{part}, {name}"] = {"rouge_l": bootstrap_interval(values)}
            difference = "-" if values is last else shown_score(paired_difference(values, last))
            lines.append([part, name, str(len(test)), shown_score(rows[f"{part}, {name}"]["rouge_l"]), difference])
    bar.close()
    page = table(["part", "arm", "rows", "ROUGE-L", f"minus {arms[-1].name!r}"], lines, numbers_from=2)
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / f"{args.question}.json", {"scores": rows, "answers": answers, "seeds": seeds})
    write_atomically(args.out / f"{args.question}.md", lambda part: part.write_text(page + "\n", encoding="utf-8"))
    write_atomically(args.out / f"{args.question}.png", lambda part: save_figure(plot_scores(rows), part))
    print(page)
    print(f"means over {args.seeds} seeds; an interval of a difference that holds 0 means that none was seen")
    return 0


if __name__ == "__main__":
    sys.exit(main())
