"""Statistics of scores: do two judges agree, is one model better than another, can the judge tell good from bad.

A score that could not be read is None; rows without a score on either side are left out, and `n` says how many remain.
"""

from collections.abc import Sequence

import numpy as np

from gpt.evaluation.metrics import bootstrap_interval

N_PERMUTATIONS = 10_000
MIN_WINS = 0.8  # share of rows in which a fit judge scores the reference above a bad answer; a tie is half a win
MIN_ROWS = 5  # with fewer rows luck looks like judgement
Score = float | None


def paired(a: Sequence[Score], b: Sequence[Score]) -> tuple[list[float], list[float]]:
    """The scores of the rows that have one on both sides."""
    both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    return [x for x, _ in both], [y for _, y in both]


def ranks(values: Sequence[float]) -> np.ndarray:
    """1 for the lowest; equal values share the mean of their places."""
    _, group, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


def pearson(a: Sequence[float], b: Sequence[float]) -> Score:
    """Correlation in -1..1; None where it is not defined, as one side does not vary."""
    x, y = (np.asarray(side, dtype=np.float64) - np.mean(side) if len(side) else np.zeros(0) for side in (a, b))
    scale = np.sqrt((x @ x) * (y @ y))
    return float((x @ y) / scale) if scale > 1e-12 else None


def spearman(a: Sequence[float], b: Sequence[float]) -> Score:
    """Pearson's correlation of the ranks (Spearman 1904)."""
    return pearson(ranks(a), ranks(b))


def kendall(a: Sequence[float], b: Sequence[float]) -> Score:
    """Tau-b: pairs of rows in the same order less those in opposite order, corrected for ties (Kendall 1945)."""
    x, y = (np.sign(np.subtract.outer(side, side)) for side in (np.asarray(a, float), np.asarray(b, float)))
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale else None


def agreement(a: Sequence[Score], b: Sequence[Score]) -> dict[str, Score]:
    x, y = paired(a, b)
    return {"n": len(x), "pearson": pearson(x, y), "spearman": spearman(x, y), "kendall": kendall(x, y)}


def permutation_p(differences: Sequence[float], seed: int = 123) -> float:
    """How often a mean as far from 0 arises if each row's sign is a coin's: 1 says chance, 0.01 hardly chance.

    All signs are tried where there are at most 13 rows, else 10,000 draws (Fisher 1935; Phipson and Smyth 2010).
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) <= 13:
        signs = 1 - 2 * (np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1)
        means, found = signs @ d, 0
    else:
        rng, block = np.random.default_rng(seed), (N_PERMUTATIONS // 10, len(d))  # blocks: all at once would be large
        means, found = np.concatenate([rng.choice((-1, 1), block) @ d for _ in range(10)]), 1
    as_far = (np.abs(means) >= abs(d.sum()) - 1e-9).sum()
    return float((as_far + found) / (len(means) + found))  # draws may miss the signs as found: they count as one more


def paired_difference(a: Sequence[Score], b: Sequence[Score]) -> dict[str, float]:
    """Mean of a - b over the same rows with its 95% interval, and the permutation test's p."""
    x, y = paired(a, b)
    if not x:
        return {"n": 0, "value": None, "low": None, "high": None, "p": None}
    differences = np.subtract(x, y)
    return {"n": len(x)} | bootstrap_interval(differences) | {"p": permutation_p(differences)}


def is_shown(difference: dict[str, float]) -> bool:
    """Whether the rows show a difference: its interval leaves 0 out, and chance gives as much in under 5%."""
    return bool(difference["n"]) and (difference["low"] > 0 or difference["high"] < 0) and difference["p"] < 0.05


# ---- pairs, asked in both orders ----


def pair_outcome(in_order: str | None, swapped: str | None) -> float | None:
    """1 if both replies choose ours, 0 if both choose theirs, else 0.5; None if one could not be read.

    The tie rule: a choice that changes with the order is one of the place, not of the response.
    """
    if in_order is None or swapped is None:
        return None
    return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((in_order, swapped), 0.5)


def pair_counts(in_order: Sequence[str | None], swapped: Sequence[str | None]) -> dict[str, object]:
    """Wins, ties and losses, the win rate (a tie is half a win) with its interval and p, and the pull of the place."""
    outcomes = [pair_outcome(a, b) for a, b in zip(in_order, swapped, strict=True)]
    known = [outcome for outcome in outcomes if outcome is not None]
    chosen = [choice for choice in (*in_order, *swapped) if choice in ("A", "B")]
    read = [(a, b) for a, b in zip(in_order, swapped, strict=True) if a is not None and b is not None]
    return {
        "n": len(known),
        "wins": known.count(1.0),
        "ties": known.count(0.5),
        "losses": known.count(0.0),
        "unreadable": len(outcomes) - len(known),
        "order_changed_it": sum(a == b != "tie" for a, b in read),
        "first_place_chosen": chosen.count("A") / len(chosen) if chosen else None,
        "win_rate": bootstrap_interval(known) if known else None,
        "p": permutation_p(np.subtract(known, 0.5)) if known else None,
    }


# ---- calibration ----


def calibrate(scores: dict[str, Sequence[Score]]) -> dict[str, object]:
    """Whether a judge can be believed, from its scores of answers whose worth is known: the same rows, by sample.

    `scores["reference"]` must lie above every other sample's score of the row in MIN_WINS of the rows, and the
    interval of that share above one half. A reply that could not be read decides nothing: half a win.
    """
    wins = {}
    for name, others in scores.items():
        pairs = [] if name == "reference" else list(zip(scores["reference"], others, strict=True))
        if pairs:
            shares = [0.5 if None in pair else (np.sign(pair[0] - pair[1]) + 1) / 2 for pair in pairs]
            wins[name] = {"n": len(pairs)} | bootstrap_interval(shares)
    lost = [name for name, w in wins.items() if w["value"] < MIN_WINS or w["low"] <= 0.5]
    n = min((w["n"] for w in wins.values()), default=0)
    known = {name: [s for s in found if s is not None] for name, found in scores.items()}
    means = {name: float(np.mean(found)) if found else None for name, found in known.items()}
    if n < MIN_ROWS:
        words = f"Whether the judge can be believed is not known: calibration takes {MIN_ROWS} rows or more, not {n}."
    elif lost:
        shown = "; ".join(f"{name}: {wins[name]['value']:.0%} of {wins[name]['n']} rows" for name in lost)
        words = (f"The judge is unfit: its scores say nothing of the model. It should score the reference above a bad "
                 f"answer in {MIN_WINS:.0%} of the rows, and does not ({shown}).")  # fmt: skip
    else:
        shown = "; ".join(f"{name}: {w['value']:.0%} of {w['n']} rows" for name, w in wins.items())
        words = f"The judge is fit: it scores the reference above bad answers ({shown})."
    return {"fit": n >= MIN_ROWS and not lost, "words": words, "means": means, "reference_wins": wins}
