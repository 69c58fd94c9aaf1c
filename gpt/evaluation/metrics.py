"""Scores of responses against references, each in 0..1, with intervals and the floors that a model has to beat.

ROUGE-L and BLEU come from their libraries (rouge-score, sacrebleu), so that figures compare with other people's.
Text in scripts without spaces is counted by character throughout (`text.entries.words`).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import regex
from sacrebleu.metrics import BLEU

from gpt.text.entries import SPACELESS, Entry, words

N_BOOTSTRAP = 2000
SPACELESS_CHARACTER = regex.compile(rf"[{SPACELESS}]\p{{M}}*")


class _Words:
    """rouge-score's own tokenizer throws away every character that is not a-z or 0-9; ours keeps them."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def _rouge_score() -> Callable[[str, str], dict]:
    from rouge_score.rouge_scorer import RougeScorer  # with NLTK behind it, as slow to import as PyTorch: when needed

    return RougeScorer(["rougeL"], tokenizer=_Words()).score


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
    return _rouge_score()(reference, response)["rougeL"].fmeasure


def bleu(response: str, reference: str) -> float:
    """BLEU of one sentence, with sacrebleu's smoothing; a set's score is the mean of its rows."""
    scorer = BLEU_BY_WORD
    if not response.strip():
        return exact_match(response, reference)
    if SPACELESS_CHARACTER.search(reference):
        scorer = BLEU_BY_CHARACTER
        # Set apart here: its tokenizer does so with Chinese characters, but takes a run of kana for one word.
        response, reference = (SPACELESS_CHARACTER.sub(r" \g<0> ", text) for text in (response, reference))
    return min(1.0, scorer.sentence_score(response, [reference]).score / 100)  # equal texts give 100.00000000000004


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
    # A hundred samples at a time: all at once would take 32 kB of memory a row.
    means = [rows[rng.integers(0, len(rows), (100, len(rows)))].mean(1) for _ in range(N_BOOTSTRAP // 100)]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return {"value": float(rows.mean()), "low": float(low), "high": float(high)}


def score_each(responses: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """Every metric's score of each row."""
    pairs = list(zip(responses, references, strict=True))
    return {name: [metric(a, b) for a, b in pairs] for name, metric in METRICS.items()}


def score_responses(responses: Sequence[str], references: Sequence[str]) -> dict[str, dict[str, float]]:
    """Every metric's mean and 95% interval over the rows."""
    return {name: bootstrap_interval(values) for name, values in score_each(responses, references).items()}


# ---- floors: what is reached without any model ----


def copied_input(entry: Entry) -> str:
    """The input as the answer, or the instruction where there is none."""
    return entry["input"] if entry["input"].strip() else entry["instruction"]


def nearest_responses(train: Sequence[Entry], test: Sequence[Entry]) -> list[str]:
    """For each test entry the output of the training entry whose prompt shares most of its words (Jaccard).

    An index from each word to the training prompts that hold it counts the shared words; of equals, the first is taken.
    """
    sets = [frozenset(words(entry["instruction"] + "\n" + entry["input"])) for entry in train]
    sizes = np.array([len(s) for s in sets])
    holders: dict[str, list[int]] = defaultdict(list)
    for i, s in enumerate(sets):
        for word in s:
            holders[word].append(i)
    arrays = {word: np.array(rows) for word, rows in holders.items()}
    nearest = []
    for entry in test:
        prompt = frozenset(words(entry["instruction"] + "\n" + entry["input"]))
        found = [arrays[word] for word in prompt if word in arrays]
        shared = np.bincount(np.concatenate(found), minlength=len(train)) if found else np.zeros(len(train))
        either = np.maximum(sizes + len(prompt) - shared, 1)  # 1: neither prompt has a word
        nearest.append(train[int(np.argmax(shared / either))]["output"])
    return nearest


def floor_answers(train: Sequence[Entry], test: Sequence[Entry]) -> dict[str, list[str]]:
    """Answers that take no model: one that does not beat them has learned nothing of use."""
    copied = {"copied_input": [copied_input(entry) for entry in test]}
    return copied | ({"nearest_training_answer": nearest_responses(train, test)} if train else {})


def score_floors(train: Sequence[Entry], test: Sequence[Entry]) -> dict[str, dict[str, dict[str, float]]]:
    references = [entry["output"] for entry in test]
    return {name: score_responses(texts, references) for name, texts in floor_answers(train, test).items()}
