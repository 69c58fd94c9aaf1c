"""Scores of responses against references, each in 0..1, with intervals and the floors that a model has to beat.

ROUGE-L and BLEU come from their libraries (rouge-score, sacrebleu), so that figures compare with other people's.
Text in scripts without spaces is counted by character throughout (`text.entries.words`).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from gpt.text.entries import Entry, jaccard, words

N_BOOTSTRAP = 2000
RAREST = 10  # words of a prompt by which its nearest training prompts are looked up


class _Words:
    """rouge-score's own tokenizer throws away every character that is not a-z or 0-9; ours keeps them."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


ROUGE = RougeScorer(["rougeL"], tokenizer=_Words())
BLEU_BY_WORD = BLEU(effective_order=True)  # of one sentence: orders that a short reference cannot have are left out
BLEU_BY_CHARACTER = BLEU(effective_order=True, tokenize="zh")


def exact_match(response: str, reference: str) -> float:
    """1 if they are the same but for white space."""
    return float(response.split() == reference.split())


def token_f1(response: str, reference: str) -> float:
    """The harmonic mean of precision and recall of the words, each counted as often as it stands."""
    found, wanted = Counter(words(response)), Counter(words(reference))
    shared = (found & wanted).total()
    if not found or not wanted:
        return exact_match(response, reference)  # signs only
    return 2 * shared / (found.total() + wanted.total())


def rouge_l(response: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004)."""
    if not words(response) or not words(reference):
        return exact_match(response, reference)
    return ROUGE.score(reference, response)["rougeL"].fmeasure


def bleu(response: str, reference: str) -> float:
    """BLEU of one sentence, with sacrebleu's smoothing; a set's score is the mean of its rows."""
    by_character = any(len(word) == 1 and ord(word) >= 0x3040 for word in words(reference))
    scorer = BLEU_BY_CHARACTER if by_character else BLEU_BY_WORD
    return scorer.sentence_score(response, [reference]).score / 100


METRICS: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "bleu": bleu,
}


def bootstrap_interval(values: Sequence[float], seed: int = 123) -> dict[str, float]:
    """The mean with its 95% interval: the middle 95% of the means of 2,000 samples of the rows with replacement."""
    if not len(values):
        raise ValueError("no values: there is nothing to average")
    rows = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = [rows[rng.integers(0, len(rows), len(rows))].mean() for _ in range(N_BOOTSTRAP)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(rows.mean()), "low": float(low), "high": float(high)}


def score_responses(responses: Sequence[str], references: Sequence[str]) -> dict[str, dict[str, float]]:
    """Every metric's mean and 95% interval over the rows."""
    pairs = list(zip(responses, references, strict=True))
    return {name: bootstrap_interval([metric(a, b) for a, b in pairs]) for name, metric in METRICS.items()}


# ---- floors: what is reached without any model ----


def copied_input(entry: Entry) -> str:
    """The input as the answer, or the instruction where there is none."""
    return entry["input"] if entry["input"].strip() else entry["instruction"]


def nearest_responses(train: Sequence[Entry], test: Sequence[Entry]) -> list[str]:
    """For each test entry the output of the training entry whose prompt shares most of its words (Jaccard).

    Only training prompts that hold one of the prompt's ten rarest words are compared, so this is about linear.
    """
    sets = [frozenset(words(entry["instruction"] + "\n" + entry["input"])) for entry in train]
    holders: dict[str, list[int]] = defaultdict(list)
    for i, s in enumerate(sets):
        for word in s:
            holders[word].append(i)
    nearest = []
    for entry in test:
        prompt = frozenset(words(entry["instruction"] + "\n" + entry["input"]))
        rarest = sorted((word for word in prompt if word in holders), key=lambda word: (len(holders[word]), word))
        candidates = {i for word in rarest[:RAREST] for i in holders[word]} or {0}
        best = max(sorted(candidates), key=lambda i: jaccard(sets[i], prompt))
        nearest.append(train[best]["output"])
    return nearest


def score_floors(train: Sequence[Entry], test: Sequence[Entry]) -> dict[str, dict[str, dict[str, float]]]:
    """The metrics of answers that take no model: a model that does not beat them has learned nothing of use."""
    references = [entry["output"] for entry in test]
    answers = {"copied_input": [copied_input(entry) for entry in test]}
    if train:
        answers["nearest_training_answer"] = nearest_responses(train, test)
    return {name: score_responses(rows, references) for name, rows in answers.items()}
