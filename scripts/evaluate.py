"""Answer test entries with a run and with its base model, alone and after examples; score all beside the floors.

Writes responses.json, metrics.json, loss.png, scores.png and report.md into the run's folder. With --data the entries
are others than the run's own test entries, and the results go into a folder of their own. With --compare other models
answer the same entries, and RUN/comparison/comparison.html tells which is better and whether the difference is real.
"""

import random
import sys
import tempfile
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import torch

from gpt.evaluation import report
from gpt.evaluation.constraints import check_constraints
from gpt.evaluation.plots import plot_losses, plot_scores, save_figure
from gpt.text.entries import Entry, load_entries, split_report
from gpt.training.run import load_settings, load_split
from gpt.tuning.turns import exchanges
from gpt.weights.checkpoint import find_folder, load_model, read_json, write_atomically, write_json
from scripts.answers import answer, room_for
from scripts.choices import choose_device
from scripts.command import make_parser, one_line_errors
from scripts.compare import compare_run

FIELDS = {"before": "base_response", "before_few_shot": "few_shot_response", "after": "model_response"}


def draw_shots(train: list[Entry], test: list[Entry], k: int, seed: int) -> list[Entry]:
    """k training entries as examples, or all that will do: with a response, and not one of the test entries."""
    tested = {(entry["instruction"], entry["input"]) for entry in test}
    usable = [e for e in train if e["output"].strip() and (e["instruction"], e["input"]) not in tested]
    if k < 0:
        raise ValueError(f"-k {k}: use 0 for no examples, or more")
    if k > len(usable):
        print(f"note       only {len(usable)} training entries can serve as examples, not {k}")
    return random.Random(seed).sample(usable, min(k, len(usable)))


def evaluate_run(
    folder: Path, device: torch.device, data: Path | None = None, out: Path | None = None,
    max_new_tokens: int | None = None,
    k: int = 0,
) -> None:  # fmt: skip
    """Everything that is known of a run once it is trained, written as files and printed as a table.

    max_new_tokens: of an answer; None for `room_for`. k: examples before each prompt in the base model's few-shot row;
    0 leaves the row out.
    """
    settings, facts = load_settings(folder)
    split, template, seed = load_split(settings), settings.template, settings.config.seed
    test = load_entries(data) if data else split["test"]
    out = out or (folder / f"on-{data.stem}" if data else folder)  # never over the run's own results
    for position, entry in enumerate(test):
        check_constraints(entry.get("constraints", []), f"{data or settings.data}: test entry {position}")
    max_new_tokens = room_for(test) if max_new_tokens is None else max_new_tokens
    shots = draw_shots(split["train"], test, k, seed)
    out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=out).close()  # a folder that cannot be written to is better known before the work
    base = find_folder(settings.model)
    load_base = cache(partial(load_model, base, device))  # once for both of its rows
    ask = partial(answer, test=test, template=template, max_new_tokens=max_new_tokens, keep=out)
    answers = {"before": ask(base, load=load_base, label="responses before")}
    if shots:
        answers["before_few_shot"] = ask(base, load=load_base, label="before, few-shot", shots=shots)
    del load_base  # and the model with it
    answers["after"] = ask(folder, load=partial(load_model, folder, device), label="responses after ")
    responses = [
        entry
        | {FIELDS[name]: rows[i]["text"] for name, rows in answers.items()}
        | {"stopped_by": answers["after"][i]["stopped_by"]}
        for i, entry in enumerate(test)
    ]
    metrics = report.score_run(
        test, {name: [r["text"] for r in rows] for name, rows in answers.items()}, split["train"]
    )
    metrics |= {"data": str(data or settings.data), "n_cut": sum(row["is_cut"] for row in answers["after"])}
    metrics["max_new_tokens"] = max_new_tokens
    if shots:
        n_fewer = sum(row["n_shots"] < len(shots) for row in answers["before_few_shot"])
        metrics["few_shot"] = {"k": len(shots), "seed": seed, "shots": shots, "n_fewer": n_fewer}
    if out == folder and (folder / "preference.json").exists():
        metrics["preference"] = read_json(folder / "preference.json")
    taught = [e for entry in split["train"] for e in exchanges(entry)] if settings.turns else split["train"]
    facts["split_report"] = split_report(taught, test)
    history = read_json(folder / "history.json", list)
    write_json(out / "responses.json", responses)
    write_json(out / "metrics.json", metrics)
    write_atomically(out / "loss.png", lambda part: save_figure(plot_losses(history, settings.config.loss_on), part))
    write_atomically(out / "scores.png", lambda part: save_figure(plot_scores(report.score_rows(metrics)), part))
    page = report.run_report(settings, facts, history, metrics, responses)
    write_atomically(out / "report.md", lambda part: part.write_text(page, encoding="utf-8"))
    show(responses, metrics)
    if n := facts["split_report"]["exact"]:
        print(f"note       {n} of these prompts stand in the training entries word for word: it may know them by heart")
    print(f"all of it: {out / 'report.md'}")


def show(responses: list[dict], metrics: dict) -> None:
    """Three responses and the scores, as text."""
    for row in responses[:: max(1, len(responses) // 3)][:3]:
        print(f"\n{'instruction':17} {row['instruction']}")
        for label, field in ({"input": "input", "reference": "output"} | FIELDS).items():
            if text := " ".join(row.get(field, "").split()):
                print(f"{report.row_label(label):17} {text if len(text) <= 100 else text[:97] + '...'}")
    print(f"\n{metrics['n']} test entries; scores in 0 to 1 with 95% intervals\n{report.score_table(metrics)}")
    print(report.format_sentence(metrics))
    if "few_shot" in metrics:
        print(report.few_shot_sentence(metrics))


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--data", type=Path, metavar="FILE", help="other entries to test on")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go [RUN; with --data RUN/on-FILE]")
    parser.add_argument("--compare", nargs="+", metavar="MODEL", help="models to compare with: names or run folders")
    parser.add_argument("-k", type=int, metavar="X", help="examples for the base model's few-shot row [3]")
    room = "a response's tokens, at most [twice the longest reference's, 32 to 256]"
    parser.add_argument("--max-new-tokens", type=int, metavar="X", help=room)
    parser.add_argument("--device", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    args = vars(parser.parse_args(argv))
    device, _ = choose_device(args.pop("device", "auto"))
    if "compare" in args and "k" in args:
        raise ValueError("-k is for the few-shot row, which --compare has not: leave it out")
    if "compare" in args:
        compare_run(args.pop("run"), args.pop("compare"), device, **args)
    else:
        evaluate_run(args.pop("run"), device, **{"k": 3} | args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
