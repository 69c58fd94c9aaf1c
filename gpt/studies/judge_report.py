"""What a judge's verdicts on a run come to: the numbers of judge.json and the page judge.md.

`rows` are those of responses.json: entries with their "model_response". `found` is what `judge.verdicts_by_sample`
gives, {(sample, aspect): {row: verdict}}; a row that could not be asked is not in it.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from gpt.evaluation.judge import ASPECTS, SCALES, Verdict
from gpt.evaluation.metrics import bootstrap_interval, rouge_l
from gpt.evaluation.report import quoted, table
from gpt.studies.agreement import (
    Score,
    agreement,
    calibrate,
    is_shown,
    pair_counts,
    paired,
    paired_difference,
    spearman,
)
from gpt.studies.figures import plot_agreement, plot_paired_differences, plot_score_histograms
from gpt.text.entries import words

Found = dict[tuple[str, str], dict[int, Verdict]]
SAMPLES = ("reference", "empty", "copied input", "shuffled reference")  # of the calibration
BOTH = ("response", "other")
FEWEST = 5  # scores from which an interval is told: fewer seem more certain than they are
N_SHOWN = 20  # unreadable replies on the page; judge.json lists all


def summarise(verdicts: Sequence[Verdict]) -> dict[str, object]:
    """The mean of the scores with its interval; replies that could not be read are counted, left out, and as 0."""
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    mean = bootstrap_interval(scores) if scores else {"value": None, "low": None, "high": None}
    return {
        "n": len(verdicts),
        "scored": len(scores),
        "unreadable": len(verdicts) - len(scores),
        "mean": mean["value"],
        "low": mean["low"],
        "high": mean["high"],
        "mean_unreadable_as_zero": sum(scores) / len(verdicts) if verdicts else None,
    }


def column(found: Found, sample: str, aspect: str, rows: Sequence[int]) -> list[Score]:
    """The scores of these rows; None where one is missing or could not be read."""
    verdicts = found.get((sample, aspect), {})
    return [verdicts[row].score if row in verdicts else None for row in rows]


def judge_summary(
    rows: Sequence[dict], others: dict[int, str], found: Found, other_judges: dict[str, Found]
) -> dict[str, object]:
    """Everything in judge.json but the names. `others`: another model's responses by row; `other_judges`: their
    verdicts on the same questions, by name."""
    verdicts, scores = found["response", "overall"], column(found, "response", "overall", range(len(rows)))
    lengths = [len(words(row["model_response"])) for row in rows]
    kinds = sorted({rows[i]["kind"] for i in verdicts if rows[i].get("kind")})
    by_kind = {kind: [verdict for i, verdict in verdicts.items() if rows[i].get("kind") == kind] for kind in kinds}
    beside = {"ROUGE-L": rouge_scores(rows)}
    beside |= {name: column(theirs, "response", "overall", range(len(rows))) for name, theirs in other_judges.items()}
    tried = sorted(found.get(("reference", "overall"), {}))
    samples = {name: column(found, name, "overall", tried) for name in SAMPLES}
    return {
        **summarise(list(verdicts.values())),
        "unreadable_rows": [i for i, verdict in sorted(verdicts.items()) if verdict.score is None],
        "aspects": {
            aspect: summarise(list(members.values()))
            for (sample, aspect), members in found.items()
            if sample == "response" and aspect != "overall"
        },
        "by_kind": {kind: summarise(members) for kind, members in by_kind.items()},
        "length": {
            "mean_words": float(np.mean(lengths)),
            "mean_words_of_reference": float(np.mean([len(words(row["output"])) for row in rows])),
            "spearman_with_score": spearman(*paired(lengths, scores)),
        },
        "agreement": {name: agreement(scores, theirs) for name, theirs in beside.items() if paired(scores, theirs)[0]},
        "calibration": calibrate(samples) if tried else None,
    } | ({"against": compare(rows, others, found)} if others else {})


def rouge_scores(rows: Sequence[dict]) -> list[float]:
    return [rouge_l(row["model_response"], row["output"]) for row in rows]


def compare(rows: Sequence[dict], others: dict[int, str], found: Found) -> dict[str, object]:
    """Two models on the rows that both answered: the paired difference of their scores, and the pairs in both orders.

    Equal responses were not asked as a pair: they are a tie.
    """
    ours = {i: rows[i]["model_response"] for i in others}
    orders = [found.get(("pair", order), {}) for order in ("in order", "swapped")]
    asked = [i for i in others if all(i in order for order in orders)]
    equal = [i for i in others if ours[i] == others[i]]
    first, second = ([order[i].score for i in asked] + ["tie"] * len(equal) for order in orders)
    return {
        "scores": paired_difference(*(column(found, sample, "overall", list(others)) for sample in BOTH)),
        "pairs": pair_counts(first, second) | {"equal": len(equal)},
        "mean_words": float(np.mean([len(words(text)) for text in ours.values()])),
        "other_mean_words": float(np.mean([len(words(text)) for text in others.values()])),
    }


# ---- the page ----


def judge_figures(summary: dict, rows: Sequence[dict], others: dict[int, str], found: Found) -> dict[str, Axes]:
    """The page's pictures by file name."""
    scores = {name: column(found, name, "overall", range(len(rows))) for name in (*BOTH, *SAMPLES)}
    known = {name: [score for score in values if score is not None] for name, values in scores.items()}
    given = {name: values for name, values in known.items() if values or name == "response"}
    both = paired(scores["response"], rouge_scores(rows))
    figures = {
        "judge-scores.png": plot_score_histograms(given, *SCALES[summary["scale"]]),
        "judge-agreement.png": plot_agreement(*both, f"score by {summary['judge']}", "ROUGE-L"),
    }
    if others and summary["against"]["scores"]["n"]:
        ours, theirs = paired(*(column(found, sample, "overall", list(others)) for sample in BOTH))
        differences = [a - b for a, b in zip(ours, theirs, strict=True)]
        figures["judge-difference.png"] = plot_paired_differences(differences, summary["against"]["scores"])
    return figures


def number(value: Score, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def shown_mean(part: dict) -> str:
    """`61.2 [55.9, 66.4]`, of a few scores the mean alone, or a dash where there is none."""
    if part["mean"] is None or part["scored"] < FEWEST:
        return "-" if part["mean"] is None else f"{part['mean']:.1f}"
    return f"{part['mean']:.1f} [{part['low']:.1f}, {part['high']:.1f}]"


def headline(summary: dict) -> str:
    """The mean in a sentence, and what the judge is worth."""
    if not summary["scored"]:
        return f"None of {summary['n']} replies of {summary['judge']} could be read as a score on {summary['scale']}."
    interval = "95% bootstrap interval" if summary["scored"] >= FEWEST else "too few scores for an interval"
    text = (f"{summary['judge']} scored {summary['scored']} of {summary['n']} responses on {summary['scale']}: mean "
            f"{shown_mean(summary)} ({interval}).")  # fmt: skip
    if summary["unreadable"]:
        text += (f" Of the replies {summary['unreadable']} could not be read; counted as 0 they give a mean of "
                 f"{summary['mean_unreadable_as_zero']:.1f}.")  # fmt: skip
    if summary["failed"]:
        text += f" {summary['failed']} questions could not be asked: this is not the whole run yet."
    return text


def trust(summary: dict) -> str:
    found = summary["calibration"]
    return found["words"] if found else "The judge was not calibrated: whether it can be believed is not known."


def comparison_words(summary: dict) -> str:
    """Which of the two is better, by the scores and by the pairs, or that the rows do not show it."""
    against, name = summary["against"], summary["other"]
    difference, pairs = against["scores"], against["pairs"]
    doubt = summary["calibration"] and not summary["calibration"]["fit"]
    sentences = ["The judge is not known to be fit, so what it says here is worth little."] if doubt else []
    if difference["n"]:
        who = "this run is better" if difference["value"] > 0 else f"{name} is better"
        sentences.append(
            f"By the scores {who if is_shown(difference) else 'no difference is shown'}: this run less {name} is "
            f"{difference['value']:+.1f} [{difference['low']:+.1f}, {difference['high']:+.1f}] on {difference['n']} "
            f"rows, p = {difference['p']:.3f} (permutation test)."
        )
    if pairs["n"]:
        rate = pairs["win_rate"]
        shown = is_shown({"n": pairs["n"], "low": rate["low"] - 0.5, "high": rate["high"] - 0.5, "p": pairs["p"]})
        who = "this run is better" if rate["value"] > 0.5 else f"{name} is better"
        sentences.append(
            f"Side by side {who if shown else 'no difference is shown'}: {pairs['wins']} wins, {pairs['ties']} ties, "
            f"{pairs['losses']} losses; win rate {rate['value']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}] with a "
            f"tie as half, p = {pairs['p']:.3f}. Each pair is asked in both orders, and only a choice that stays the "
            f"same wins: the order changed it {pairs['order_changed_it']} times."
        )
    length = f"Mean length: {against['mean_words']:.1f} words here, {against['other_mean_words']:.1f} there."
    return " ".join([*sentences, length])


def calibration_table(calibration: dict) -> str:
    wins = calibration["reference_wins"]
    cells = [
        [name, number(mean), f"{wins[name]['value']:.0%} of {wins[name]['n']}" if name in wins else ""]
        for name, mean in calibration["means"].items()
    ]
    return table(["answer", "mean score", "reference above it"], cells)


def judge_page(summary: dict, rows: Sequence[dict], found: Found) -> str:
    """judge.md, out of what judge.json holds and the replies."""
    length, calibration = summary["length"], summary["calibration"]
    means = {"overall": summary} | summary["aspects"]
    mean_cells = [
        [name, ASPECTS[name], str(part["scored"]), str(part["unreadable"]), shown_mean(part)]
        for name, part in means.items()
    ]
    agreement_cells = [
        [name, str(a["n"]), *(number(a[kind], 2) for kind in ("pearson", "spearman", "kendall"))]
        for name, a in summary["agreement"].items()
    ]
    verdicts = found["response", "overall"]
    lowest = sorted((verdict.score, i) for i, verdict in verdicts.items() if verdict.score is not None)[:5]
    titles = [" ".join(row["instruction"].split()) for row in rows]
    parts = [f"# Responses as {summary['judge']} judges them", headline(summary), trust(summary)]
    if "against" in summary:
        parts += [f"## Against {summary['other']}", comparison_words(summary)]
        if summary["against"]["scores"]["n"]:
            parts.append("![Paired differences of the scores](judge-difference.png)")
    parts += ["## Scores", table(["", "judged is", "scored", "unreadable", "mean"], mean_cells, numbers_from=2)]
    if summary["by_kind"]:
        kind_cells = [[k.replace("_", " "), str(p["scored"]), shown_mean(p)] for k, p in summary["by_kind"].items()]
        parts.append(table(["kind", "scored", "mean"], kind_cells))
    parts.append("![How often each score was given](judge-scores.png)")
    if calibration:
        about = "Answers whose worth is known, judged like the responses; they are not in the mean."
        parts += ["## Calibration", about, calibration_table(calibration)]
    parts += [
        "## Length and agreement",
        f"Responses have {length['mean_words']:.1f} words in the mean, references "
        f"{length['mean_words_of_reference']:.1f}. Spearman's correlation of a response's length and its score: "
        f"{number(length['spearman_with_score'], 2)}.",
        "Correlation of the scores with others of the same rows; a dash where one side does not vary.",
        table(["with", "rows", "Pearson", "Spearman", "Kendall"], agreement_cells),
        "![Score and ROUGE-L of each row](judge-agreement.png)",
        "## Lowest scores",
    ]
    for score, i in lowest:
        parts += [f"Row {i}, score {score}: {titles[i]}", quoted(rows[i]["model_response"])]
    if unreadable := summary["unreadable_rows"]:
        parts.append(f"## Replies that could not be read, the first {len(unreadable[:N_SHOWN])} rows")
        parts.append("Where they are cut, a larger `--max-tokens` with `--again` asks for these alone.")
    for i in unreadable[:N_SHOWN]:
        parts += [f"Row {i}: {titles[i]}", *map(quoted, verdicts[i].replies)]
    return "\n\n".join(parts) + "\n"
