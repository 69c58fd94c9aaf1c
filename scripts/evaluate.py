"""Answer test entries with a run and with its base model, and score both beside the floors.

Writes responses.json, metrics.json, loss.png, scores.png and report.md into the run's folder, or into --out.
Without --data these are the run's own test entries.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from gpt.evaluation.constraints import check_constraints, score_format
from gpt.evaluation.metrics import copied_input, score_floors, score_responses
from gpt.evaluation.plots import plot_losses, plot_scores, save_figure
from gpt.evaluation.report import format_sentence, run_report, score_table
from gpt.model.generate import Response, respond
from gpt.text.entries import Entry, load_entries, split_report
from gpt.text.tokenizer import load_tokenizer
from gpt.training.run import load_settings, load_split
from gpt.weights.checkpoint import load_model, read_json, write_atomically, write_json
from scripts.choices import choose_device
from scripts.command import make_parser, one_line_errors

BATCH_SIZE = 32


def answer(
    name: str | Path, device: torch.device, entries: list[Entry], template: str, max_new_tokens: int, label: str
) -> list[Response]:
    """Greedy responses of a model, with a bar."""
    responses = respond(
        load_model(name, device), load_tokenizer(), entries, template=template, max_new_tokens=max_new_tokens,
        batch_size=BATCH_SIZE,
    )  # fmt: skip
    return list(tqdm(responses, label, total=len(entries), unit="response", dynamic_ncols=True))


def evaluate_run(
    folder: Path, device: torch.device, data: Path | None = None, out: Path | None = None, max_new_tokens: int = 256
) -> None:
    """Everything that is known of a run once it is trained, written as files and printed as a table."""
    settings, facts = load_settings(folder)
    split = load_split(settings)
    test, out = load_entries(data) if data else split["test"], out or folder
    for position, entry in enumerate(test):
        check_constraints(entry.get("constraints", []), f"{data or settings.data}: test entry {position}")
    out.mkdir(parents=True, exist_ok=True)
    before = answer(settings.model, device, test, settings.template, max_new_tokens, "responses before")
    after = answer(folder, device, test, settings.template, max_new_tokens, "responses after ")
    responses = [
        entry | {"model_response": new.text, "base_response": old.text, "stopped_by": new.stopped_by}
        for entry, old, new in zip(test, before, after, strict=True)
    ]
    metrics = score_run(test, [new.text for new in before], [new.text for new in after], split["train"])
    metrics["data"] = str(data or settings.data)
    facts["split_report"] = split_report(split["train"], test)
    history = read_json(folder / "history.json", list)
    write_json(out / "responses.json", responses)
    write_json(out / "metrics.json", metrics)
    rows = {name: metrics[name] for name in ("before", "after")} | metrics["floors"]
    write_atomically(out / "loss.png", lambda part: save_figure(plot_losses(history, settings.config.loss_on), part))
    write_atomically(out / "scores.png", lambda part: save_figure(plot_scores(rows), part))
    page = run_report(settings, facts, history, metrics, responses)
    write_atomically(out / "report.md", lambda part: part.write_text(page, encoding="utf-8"))
    show(responses, metrics)


def score_run(test: list[Entry], before: list[str], after: list[str], train: list[Entry]) -> dict:
    """What metrics.json holds: scores with intervals before and after, the floors, checkable demands, kinds."""
    references = [entry["output"] for entry in test]
    answers = {"before": before, "after": after}
    formats = {
        name: score_format(rows, test)
        for name, rows in (answers | {"copied_input": [copied_input(entry) for entry in test]}).items()
    }
    kinds = sorted({entry.get("kind", "") for entry in test})
    by_kind = {}
    for kind in kinds if kinds != [""] else []:
        rows = [i for i, entry in enumerate(test) if entry.get("kind", "") == kind]
        by_kind[kind] = {"n": len(rows)} | {
            name: score_responses([texts[i] for i in rows], [references[i] for i in rows])
            | {"format_followed": score_format([texts[i] for i in rows], [test[i] for i in rows])}
            for name, texts in answers.items()
        }
    return {
        "n": len(test),
        **{name: score_responses(texts, references) for name, texts in answers.items()},
        "floors": score_floors(train, test),
        "format_followed": formats,
        "by_kind": by_kind,
    }


def show(responses: list[dict], metrics: dict) -> None:
    """Three responses and the scores, as text."""
    for row in responses[:: max(1, len(responses) // 3)][:3]:
        print(f"\ninstruction  {row['instruction']}")
        for label, field in (
            ("input", "input"),
            ("reference", "output"),
            ("before", "base_response"),
            ("after", "model_response"),
        ):
            if text := " ".join(row[field].split()):
                print(f"{label:12} {text if len(text) <= 100 else text[:97] + '...'}")
    print(f"\n{metrics['n']} test entries; scores in 0 to 1 with 95% intervals\n{score_table(metrics)}")
    print(format_sentence(metrics))


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--data", type=Path, metavar="FILE", help="other entries to test on")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go [RUN]")
    parser.add_argument("--max-new-tokens", type=int, metavar="X", help="a response's tokens, at most [256]")
    parser.add_argument("--device", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    args = vars(parser.parse_args(argv))
    device, _ = choose_device(args.pop("device", "auto"))
    evaluate_run(args.pop("run"), device, **args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
