"""The scores of a run, and the run as one page of Markdown: settings, losses, scores, what was cut, and examples."""

from collections.abc import Sequence
from pathlib import Path

from gpt.evaluation.constraints import score_format
from gpt.evaluation.metrics import bootstrap_interval, floor_answers, score_each, score_responses
from gpt.text.entries import Entry
from gpt.training.run import RunSettings, best_step, tokens_per_second

METRIC_NAMES = {"exact_match": "exact match", "token_f1": "token F1", "rouge_l": "ROUGE-L", "bleu": "BLEU"}
MODEL_ROWS = ("before", "before_few_shot", "after")  # of metrics.json; the middle one only if it was asked for
N_EXAMPLES = 10
PREFERENCE = "![Loss, reward margin and reward accuracy by step](preference.png)"


def score_run(test: list[Entry], answers: dict[str, list[str]], train: list[Entry]) -> dict:
    """What metrics.json holds: scores of each model's answers with intervals, floors, checkable demands, kinds."""
    references = [entry["output"] for entry in test]
    floors = floor_answers(train, test)
    values = {name: score_each(texts, references) for name, texts in answers.items()}
    by_kind = {}
    for kind in sorted({entry["kind"] for entry in test if entry.get("kind")}):
        rows = [i for i, entry in enumerate(test) if entry.get("kind") == kind]
        by_kind[kind] = {"n": len(rows)} | {
            name: {metric: bootstrap_interval([column[i] for i in rows]) for metric, column in values[name].items()}
            | {"format_followed": score_format([texts[i] for i in rows], [test[i] for i in rows])}
            for name, texts in answers.items()
        }
    return {
        "n": len(test),
        **{name: {m: bootstrap_interval(column) for m, column in columns.items()} for name, columns in values.items()},
        "floors": {name: score_responses(texts, references) for name, texts in floors.items()},
        "format_followed": {name: score_format(texts, test) for name, texts in (answers | floors).items()},
        "by_kind": by_kind,
    }


def score_rows(metrics: dict) -> dict[str, dict]:
    """The rows of the table and the picture, by the names that readers see: the model's, then the floors."""
    rows = {name: metrics[name] for name in MODEL_ROWS if name in metrics} | metrics["floors"]
    return {row_label(name): row for name, row in rows.items()}


def row_label(name: str) -> str:
    return "before, few-shot" if name == "before_few_shot" else name.replace("_", " ")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    """A Markdown table, padded so that it reads as plain text too; columns from `numbers_from` on to the right."""
    header, *rows = ([" ".join(cell.replace("|", r"\|").splitlines()) for cell in row] for row in [header, *rows])
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i >= numbers_from else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (width - 1) + ":" if i >= numbers_from else "-" * width for i, width in enumerate(widths)]
    return "\n".join([line(header), "| " + " | ".join(rule) + " |", *map(line, rows)])


def shown_score(score: dict[str, float]) -> str:
    """`0.41 [0.36, 0.46]`: the mean with its 95% interval."""
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def score_table(metrics: dict) -> str:
    """Before and after beside the floors, as `metrics.json` holds them."""
    cells = [
        [label, *(shown_score(row[metric]) for metric in METRIC_NAMES)] for label, row in score_rows(metrics).items()
    ]
    return table(["", *METRIC_NAMES.values()], cells)


def format_sentence(metrics: dict) -> str:
    """How many of the checkable demands (n items, upper case, valid JSON ...) were followed."""
    found = metrics["format_followed"]
    if not found["after"]["n"]:
        return "No entry carries a demand that a program can check."
    shown = "; ".join(f"{row_label(name)} {shown_score(score)}" for name, score in found.items())
    return f"Checkable demands followed, in {found['after']['n']} entries that carry some: {shown}."


def few_shot_sentence(metrics: dict) -> str:
    """What the few-shot row is, and how many prompts had no room for all examples."""
    found = metrics["few_shot"]
    return (
        f"Few-shot is the base model with {found['k']} training entries, drawn with seed {found['seed']}, as worked "
        f"examples before each prompt; {found['n_fewer']} of {metrics['n']} prompts had room for fewer."
    )


def kind_table(metrics: dict) -> str:
    """Each kind of task: rows, ROUGE-L before and after, exact matches after, demands followed after."""
    rows = []
    for kind, found in metrics["by_kind"].items():
        followed = found["after"]["format_followed"]
        shown = f"{followed['value']:.2f} of {followed['n']}" if followed["n"] else "-"
        scores = [shown_score(found[when]["rouge_l"]) for when in ("before", "after")]
        rows.append(
            [kind.replace("_", " "), str(found["n"]), *scores, f"{found['after']['exact_match']['value']:.2f}", shown]
        )
    return table(["kind", "rows", "ROUGE-L before", "ROUGE-L after", "exact after", "demands followed"], rows)


def preference_table(found: dict) -> str:
    """The held-out pairs of a run on preferences, as its preference.json holds them."""
    rows = [[name, shown_score(score)] for name, score in found.items() if isinstance(score, dict)]
    return table([f"{found['n']} held-out pairs, beta {found['beta']:g}", ""], rows)


def loss_table(history: Sequence[dict], loss_on: str) -> str:
    """The three validation losses at the start, at the step whose model was kept, and at the end."""
    evaluated = {report["step"]: report for report in history if report["val"]}
    kept, last = best_step(history, loss_on), max(evaluated)
    rows = {"before": evaluated[min(evaluated)]}
    if kept:
        rows |= {f"kept, step {kept}": evaluated[kept], f"last, step {last}": evaluated[last]}
    names = {"all": "all tokens", "header": "response and header", "response": "response only"}
    cells = [[label, *(f"{report['val'][name]:.3f}" for name in names)] for label, report in rows.items()]
    return table(["validation loss, nats per token", *names.values()], cells)


def quoted(text: str) -> str:
    """Text as a Markdown block that shows it as it is, whatever it holds."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def example_section(row: dict, number: int) -> str:
    """One row of responses.json, before and after."""
    parts = [f"### {number}. {row.get('kind', 'example')}", "**Instruction**", quoted(row["instruction"])]
    if row["input"].strip():
        parts += ["**Input**", quoted(row["input"])]
    parts += ["**Reference**", quoted(row["output"])]
    if "base_response" in row:
        parts += ["**Before**", quoted(row["base_response"])]
    if "few_shot_response" in row:
        parts += ["**Before, few-shot**", quoted(row["few_shot_response"])]
    parts += [f"**After** (stopped by {row['stopped_by'].replace('_', ' ')})", quoted(row["model_response"])]
    return "\n\n".join(parts)


def run_report(
    settings: RunSettings, facts: dict, history: Sequence[dict], metrics: dict, responses: Sequence[dict]
) -> str:
    """The page of a run out of what its folder holds."""
    seconds = sum(report["seconds"] for report in history)
    overview = [
        ["base model", f"{settings.model}, {facts['parameters']:,} parameters"],
        ["entries", f"{settings.data}, {settings.split} split, SHA-256 {settings.entries_sha256[:16]}..."],
        ["template", settings.template + (", all turns of a conversation" if settings.turns else "")],
        ["device, precision", f"{facts['device']}; {facts['precision']}"],
        ["training", f"{seconds:.0f} s with evaluation, {tokens_per_second(history):,.0f} real tokens/s"],
    ]
    columns = list(next(iter(facts["counts"].values()), []))
    counts = [[side, *(str(found[name]) for name in columns)] for side, found in facts["counts"].items()]
    duplicates, step = facts["split_report"], max(1, len(responses) // N_EXAMPLES)
    examples = [example_section(row, n) for n, row in enumerate(responses[::step][:N_EXAMPLES], start=1)]
    parts = [
        f"# {Path(settings.model).name}, fine-tuned on {Path(settings.data).name}",
        table(["run", ""], overview, numbers_from=2),
        "## Losses",
        loss_table(history, settings.config.loss_on),
        "![Training and validation loss by step](loss.png)",
        "## Scores",
        f"On {len(responses)} entries of {Path(metrics['data']).name}, in 0 to 1, with 95% bootstrap intervals; "
        f"an answer could take {metrics['max_new_tokens']} tokens. The "
        "floors take no model: the input copied (the instruction where there is none), and the answer of the training "
        "entry whose prompt is nearest.",
        score_table(metrics),
        *([few_shot_sentence(metrics)] if "few_shot" in metrics else []),
        "![ROUGE-L before and after beside the floors](scores.png)",
        format_sentence(metrics),
        *(["### By kind", kind_table(metrics)] if metrics["by_kind"] else []),
        f"Of these {duplicates['entries']} prompts {duplicates['exact']} stand in the training entries word for word "
        f"and {duplicates['near']} nearly.",
        *(["## Preference", preference_table(metrics["preference"]), PREFERENCE] if "preference" in metrics else []),
        "## What was cut or dropped",
        table(["", *(name.replace("_", " ") for name in columns)], counts),
        f"Of the test prompts {metrics['n_cut']} lost the end of their input to leave room for the answer.",
        "## Examples",
        f"Every {ordinal(step)} row of `responses.json`, the first {len(examples)} of them.",
        *examples,
        "## Settings",
        table(["setting", "value"], [[name, str(value)] for name, value in vars(settings.config).items()]),
    ]
    return "\n\n".join(parts) + "\n"


def ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st ..."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
