"""Several models on the same test entries: which is better, is the difference real, and where does it lie.

Answers are rows `{"text", "stopped_by"}`, one for each entry, as `model.generate.respond` gives them. Two models are
compared row by row: the difficulty of a row, which both share, then cancels out, so the interval of the mean difference
is far narrower than two intervals side by side suggest. ROUGE-L decides; the other measures stand beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from gpt.evaluation.constraints import format_followed
from gpt.evaluation.metrics import METRICS, bootstrap_interval, floor_answers
from gpt.evaluation.report import METRIC_NAMES, quoted, row_label, table
from gpt.studies.agreement import Score, is_shown, paired_difference
from gpt.text.entries import Entry, words
from gpt.text.tokenizer import load_tokenizer

Row = Mapping[str, str | None]
Measured = dict[str, list[Score]]  # measure -> a value for each entry, None where there is none
DECIDING = "rouge_l"
N_APART = 20  # rows shown side by side
LIMITS = ("max_new_tokens", "context")
SCORES = METRIC_NAMES | {"format_followed": "format followed"}
BEHAVIOUR = {"stop_rate": "stop rate", "limit_rate": "limit rate", "repetition": "repetition", "length": "tokens"}
METHOD = (
    "ROUGE-L decides. A difference is called one if the 95% bootstrap interval of its mean over the same rows leaves 0 "
    "out, and if swapping the two models row by row at random gives as much in less than 5% of the tries (p). Of "
    "twenty comparisons of equals, one passes by luck."
)


def repetition(text: str, n: int = 4) -> float:
    """The share of a text's runs of n words that stood in it before (seq-rep-n of Welleck et al. 2020)."""
    found = words(text)
    runs = list(zip(*(found[i:] for i in range(n)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


MEASURES: dict[str, Callable[[Entry, Row], Score]] = {
    **{name: lambda entry, row, score=score: score(row["text"], entry["output"]) for name, score in METRICS.items()},
    "format_followed": lambda entry, row: format_followed(row["text"], entry),
    "stop_rate": lambda entry, row: row["stopped_by"] and float(row["stopped_by"] == "end_of_text"),
    "limit_rate": lambda entry, row: row["stopped_by"] and float(row["stopped_by"] in LIMITS),
    "repetition": lambda entry, row: repetition(row["text"]),
    "length": lambda entry, row: float(len(load_tokenizer().encode(row["text"]))),
}


def measure(test: Sequence[Entry], rows: Sequence[Row]) -> Measured:
    pairs = list(zip(test, rows, strict=True))
    return {name: [value(entry, row) for entry, row in pairs] for name, value in MEASURES.items()}


def floor_rows(train: Sequence[Entry], test: Sequence[Entry]) -> dict[str, list[Row]]:
    """Answers that take no model, and the references, as rows that nothing stopped."""
    texts = {row_label(name): column for name, column in floor_answers(train, test).items()}
    texts["reference"] = [entry["output"] for entry in test]
    return {name: [{"text": text, "stopped_by": None} for text in column] for name, column in texts.items()}


def mean(values: Sequence[Score]) -> dict[str, float | None]:
    """The mean of the rows that have a value, with its interval, and how many these are."""
    known = [value for value in values if value is not None]
    return {"n": len(known)} | (bootstrap_interval(known) if known else dict.fromkeys(("value", "low", "high")))


def compare_models(
    test: Sequence[Entry], answers: Mapping[str, Sequence[Row]], train: Sequence[Entry]
) -> dict[str, object]:
    """What comparison.json holds: every measure of each model and floor, each pair of models, kinds, rows apart."""
    models = {name: measure(test, rows) for name, rows in answers.items()}
    floors = {name: measure(test, rows) for name, rows in floor_rows(train, test).items()}
    deciding = {name: columns[DECIDING] for name, columns in models.items()}
    kinds: dict[str, list[int]] = {}
    for i, entry in enumerate(test):
        kinds.setdefault(entry.get("kind") or "other", []).append(i)
    spread = np.ptp(list(deciding.values()), axis=0)  # (rows,)
    return {
        "n": len(test),
        "models": {name: {m: mean(values) for m, values in columns.items()} for name, columns in models.items()},
        "floors": {name: {m: mean(values) for m, values in columns.items()} for name, columns in floors.items()},
        "pairs": [
            {"first": a, "second": b} | {m: paired_difference(models[a][m], models[b][m]) for m in MEASURES}
            for a, b in combinations(models, 2)
        ],
        "not_above": {
            name: [f for f in floors if f != "reference" and leader(paired_difference(values, floors[f][DECIDING])) < 1]
            for name, values in deciding.items()
        },
        "by_kind": {kind: compare_rows(deciding, kinds[kind]) for kind in sorted(kinds)},
        "row_scores": deciding,
        "most_apart": [int(i) for i in np.argsort(-spread, kind="stable")[:N_APART] if spread[i] > 0],
    }


def compare_rows(deciding: Mapping[str, Sequence[float]], rows: Sequence[int]) -> dict[str, object]:
    """The deciding score on some of the rows: each model's mean, and what the first has more than each other."""
    chosen = {name: np.array(values)[rows] for name, values in deciding.items()}
    first, *others = chosen.values()
    return {
        "n": len(rows),
        "models": {name: bootstrap_interval(values) for name, values in chosen.items()},
        "first_less_others": [bootstrap_interval(first - values) for values in others],
    }


def leader(difference: dict[str, float]) -> int:
    """1 if the first of a pair is shown to score more, -1 if the second is, 0 if the rows do not tell."""
    return int(np.sign(difference["value"])) if is_shown(difference) else 0


# ---- in words ----


def verdict(pair: dict, n: int) -> str:
    """Whether one of a pair beats the other, with the interval of the difference, and what the other scores say."""
    d, (a, b) = pair[DECIDING], (inline(pair["first"]), inline(pair["second"]))
    leads = leader(d)
    sign, better, worse = (-1, b, a) if leads < 0 else (1, a, b)
    low, high = sorted((sign * d["low"], sign * d["high"]))
    claim = f"**{better} beats {worse}.**" if leads else f"**{a} and {b} cannot be told apart.**"
    found = {name: sign * leader(pair[m]) for m, name in SCORES.items() if m != DECIDING and pair[m]["n"]}
    said = {
        f"for {better}": [name for name, side in found.items() if side > 0],
        f"for {worse}": [name for name, side in found.items() if side < 0],
        "undecided": [name for name, side in found.items() if side == 0],
    }
    others = " ".join(f"Other scores {say}: {', '.join(names)}." for say, names in said.items() if names)
    return (
        f"{claim} ROUGE-L over the same {n} entries, {better} less {worse}: {sign * d['value']:+.3f} (95% interval "
        f"{low:+.3f} to {high:+.3f}, p {shown_p(d['p'])}). {others}"
    )


def floor_sentence(comparison: dict) -> str:
    """Which models are not shown to score more than an answer that takes no model."""
    below = {inline(name): floors for name, floors in comparison["not_above"].items() if floors}
    if not below:
        return "Every model scores more than the floors, which take no model."
    shown = "; ".join(f"{name} ({', '.join(floors)})" for name, floors in below.items())
    return f"Not shown to score more than a floor, which takes no model: {shown}."


def shown_p(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def inline(text: str) -> str:
    """A name as it can stand in a heading or a table."""
    return " ".join(text.replace("|", "/").split())


def shown_mean(found: dict, digits: int = 3, sign: str = "") -> str:
    """`0.41 [0.36, 0.46]`, or `-` where no row has a value."""
    if found["value"] is None:
        return "-"
    value, low, high = (f"{found[key]:{sign}.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def measures_table(rows: Mapping[str, dict], columns: Mapping[str, str], sign: str = "") -> str:
    cells = [
        [inline(name), *(shown_mean(row[m], 1 if m == "length" else 3, sign) for m in columns)]
        for name, row in rows.items()
    ]
    return table(["", *columns.values()], cells)


def kind_table(comparison: dict) -> str:
    """Each kind of task: rows, ROUGE-L of each model, and the paired differences from the first."""
    first, *others = map(inline, comparison["models"])
    rows = [
        [inline(kind).replace("_", " "), str(found["n"]), *map(shown_mean, found["models"].values())]
        + [shown_mean(difference, sign="+") for difference in found["first_less_others"]]
        for kind, found in comparison["by_kind"].items()
    ]
    return table(["kind", "rows", first, *others, *(f"{first} less {other}" for other in others)], rows)


def side_by_side(comparison: dict, test: Sequence[Entry], answers: Mapping[str, Sequence[Row]], i: int) -> list[str]:
    """An entry with its reference and every model's response and score, as blocks of the page."""
    entry, scores = test[i], comparison["row_scores"]
    shown = {"Instruction": entry["instruction"], "Input": entry["input"], "Reference": entry["output"]}
    blocks = [f"### Row {i}: {inline(entry.get('kind') or 'other').replace('_', ' ')}"]
    for label, text in shown.items():
        blocks += [f"**{label}**", quoted(text)] if text.strip() or label != "Input" else []
    blocks += ["Responses, with their ROUGE-L and what stopped them:"]
    for name, rows in answers.items():
        ended = inline(rows[i]["stopped_by"]).replace("_", " ")
        blocks += [f"**{inline(name)}: {scores[name][i]:.2f}, {ended}**", quoted(rows[i]["text"])]
    return blocks


def comparison_page(
    comparison: dict,
    test: Sequence[Entry],
    answers: Mapping[str, Sequence[Row]],
    data: str,
    pictures: Mapping[str, str],
) -> str:
    """The comparison in Markdown. `pictures`: file name -> what it shows."""
    n, names = comparison["n"], list(map(inline, comparison["models"]))
    everyone = comparison["models"] | comparison["floors"]
    differences = {f"{pair['first']} less {pair['second']}": pair for pair in comparison["pairs"]}
    parts = [
        f"# {', '.join(names[:-1])} and {names[-1]} compared",
        "\n".join(f"- {verdict(pair, n)}" for pair in comparison["pairs"]),
        floor_sentence(comparison),
        METHOD,
        "## Scores",
        f"On {n} entries of {inline(data)}, in 0 to 1, with 95% bootstrap intervals. *Format followed* is the share of "
        "demands that a program can check, in the entries that carry some. The floors take no model: the input copied "
        "(the instruction where there is none), and the answer of the training entry whose prompt is nearest.",
        measures_table({name: row for name, row in everyone.items() if name != "reference"}, SCORES),
        *(f"![{alt}]({name})" for name, alt in pictures.items()),
        "## Behaviour",
        "*Stop rate*: responses that ended by themselves, with the end of text. *Limit rate*: those cut off at the "
        "length allowed or at the end of the context. The rest had begun to write the next instruction. *Repetition*: "
        "the share of a response's runs of four words that stood in it before.",
        measures_table(everyone, BEHAVIOUR),
        "## Differences on the same rows",
        "Means of the row by row differences, with 95% intervals: one that holds 0 means that no difference was seen.",
        measures_table(differences, SCORES, "+"),
        measures_table(differences, BEHAVIOUR, "+"),
        "## By kind, in ROUGE-L",
        "The intervals of a handful of rows are narrower than what is known of them.",
        kind_table(comparison),
        "## The rows that differ most",
        f"The {len(comparison['most_apart'])} rows whose ROUGE-L differs most between the models.",
        *(block for i in comparison["most_apart"] for block in side_by_side(comparison, test, answers, i)),
    ]
    return "\n\n".join(parts) + "\n"
