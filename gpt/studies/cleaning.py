"""Does cleaning matter? The same model trained on a set as it came, on what cleaning leaves of it, and on a random part
as large as that: if cleaned is no better than random, it was the rows' number that counted, and not their soundness.

Sets differ in how much there is to clean, so junk can be added: copies, near copies, and answers such as the filters of
`curation/` are made for, in equal shares, made from rows of the training side. What that shows is that such junk does
harm and is found; how much of it a set of yours has is another question.
"""

import random
from collections.abc import Callable, Sequence

from gpt.curation.dedup import make_dedup
from gpt.curation.filters import first_reason, make_filters
from gpt.evaluation.metrics import nearest_responses
from gpt.studies.experiments import Arm, Experiment, Sides, View
from gpt.text.entries import Entry, near_duplicates
from gpt.training.train import TrainConfig

REFUSALS = (
    "As an AI language model, I cannot answer that.",
    "I'm sorry, but I can't help with that.",
    "I am unable to answer this question.",
    "I'm sorry, I do not have access to that information.",
)


def _near_copy(entry: Entry, rng: random.Random) -> Entry:
    """A letter of the question is doubled, as in a typing error."""
    place = rng.randrange(len(entry["instruction"]))
    text = entry["instruction"]
    return entry | {"instruction": text[:place] + text[place : place + 1] + text[place:]}


JUNK: dict[str, Callable[[Entry, random.Random], Entry]] = {
    "copy": lambda entry, rng: dict(entry),
    "near copy": _near_copy,
    "refusal": lambda entry, rng: entry | {"output": rng.choice(REFUSALS)},
    "placeholder": lambda entry, rng: entry | {"output": rng.choice(("N/A", "[Your answer here]", "TODO"))},
    "question over again": lambda entry, rng: entry | {"output": entry["instruction"]},
    "loop": lambda entry, rng: entry | {"output": " ".join([entry["output"]] * rng.randint(20, 30))},
    "wrong encoding": lambda entry, rng: entry | {"output": f"â€œ{entry['output']}â€\x9d"},
}


def with_junk(entries: Sequence[Entry], share: float, seed: int) -> list[Entry]:
    """The entries with junk made from them in between, so that `share` of all is junk. ValueError for no such share."""
    if not 0 <= share < 1:
        raise ValueError(f"junk is a share of the set, at least 0 and below 1: found {share}")
    rng, kinds = random.Random(seed), list(JUNK)
    n_junk = round(len(entries) * share / (1 - share))
    junk = [JUNK[kinds[i % len(kinds)]](rng.choice(entries), rng) for i in range(n_junk)]
    mixed = [*entries, *junk]
    rng.shuffle(mixed)
    return mixed


def cleaned(entries: Sequence[Entry]) -> list[Entry]:
    """What the rule filters and deduplication leave, with their defaults."""
    filters, duplicate = make_filters(), make_dedup()
    sound = (entry for entry in entries if first_reason(entry, filters) is None)
    return [entry for number, entry in enumerate(sound, start=1) if duplicate(number, entry) is None]


def cleaning(sides: Sides, config: TrainConfig, junk: float = 0.0) -> Experiment:
    """Three ways to train, judged on sound rows that are near to no row of any of them."""
    train_side, val, test = sides
    raw = with_junk(train_side, junk, config.seed)
    clean, val, test = cleaned(raw), cleaned(val), cleaned(test)
    drawn = random.Random(config.seed).sample(raw, len(clean))
    crossing = {j for i, j in near_duplicates(raw + test) if i < len(raw) <= j}
    test = [entry for j, entry in enumerate(test, len(raw)) if j not in crossing]
    if not test:
        raise ValueError("no sound test entry is left that is far from all training entries: take more rows")
    first = [entry["input"].split("\n")[0] for entry in test]
    floors = {"first line of the input": first, "nearest answer": nearest_responses(clean, test)}
    sizes = {f"raw ({len(raw):,} rows)": raw, f"random ({len(drawn):,})": drawn, f"cleaned ({len(clean):,})": clean}
    arms = [Arm("before", [], [], config), *(Arm(name, rows, val, config) for name, rows in sizes.items())]
    view = View("sound rows", list(range(len(test))), ["before", *floors, *sizes])
    return Experiment(arms, test, [view], floors)
