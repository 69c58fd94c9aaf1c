"""Rating by hand: the responses of two runs to the same entries, side by side, without saying whose is whose.

    RUN/responses.json + OTHER/responses.json -> pairs -> a person -> RUN/ratings.jsonl -> summary, beside the judge's

The order of the pairs and which response stands on the left are shuffled with a seed. A rating is a line that is
appended when it is given: a session that breaks off loses nothing, the next goes on with what is open, and of two
ratings of one pair the later counts. A pair's key is a hash of its texts, so ratings of older responses do not count.
"""

import dataclasses
import hashlib
import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from gpt.evaluation.judge import SCALES, score_question
from gpt.evaluation.metrics import bootstrap_interval
from gpt.studies.agreement import agreement
from gpt.weights.checkpoint import read_json

DIMENSIONS = ("relevance", "accuracy", "fluency", "completeness")
FIELDS = ("instruction", "input", "output", "model_response")
SIDES = ("left", "right")
WHO = ("run", "other")


class Scores(BaseModel):
    """How good one response is: 1 is bad, 5 is very good."""

    model_config = ConfigDict(strict=True, extra="forbid")

    relevance: int = Field(ge=1, le=5)
    accuracy: int = Field(ge=1, le=5)
    fluency: int = Field(ge=1, le=5)
    completeness: int = Field(ge=1, le=5)


class RatingBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    left: Scores
    right: Scores
    preference: Literal["left", "right", "tie"]


@dataclass(frozen=True)
class Pair:
    rows: dict[str, int]  # where it stands in the responses.json of "run" and of "other"
    entry: dict[str, str]  # instruction, input, output
    responses: dict[str, str]  # of "run" and of "other"
    left: str  # which of them stands on the left

    @property
    def key(self) -> str:
        texts = [*self.entry.values(), self.responses["run"], self.responses["other"]]
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]

    def on(self, side: str) -> str:
        """Whose response stands on a side: "run" or "other"."""
        return self.left if side == "left" else {"run": "other", "other": "run"}[self.left]


@dataclass
class Rating:
    """The pairs of two runs in the order of rating, and what is rated so far."""

    run: Path
    other: Path
    seed: int = 123  # of the order and the sides
    pairs: list[Pair] = field(init=False)
    ratings: dict[str, dict] = field(init=False)  # key of a pair -> its newest line in ratings.jsonl
    n_unreadable: int = field(init=False)  # lines of that file

    def __post_init__(self) -> None:
        if self.run.resolve() == self.other.resolve():
            raise ValueError(f"{self.other} is the run itself: name another run to compare it with")
        self.pairs = make_pairs(read_responses(self.run), read_responses(self.other), self.seed)
        if not self.pairs:
            raise ValueError(f"{self.run} and {self.other} have answered no entry in common: nothing can be compared")
        lines, self.n_unreadable = read_lines(self.path)
        keys = {pair.key for pair in self.pairs}
        self.ratings = {line["key"]: line for line in lines if line.get("key") in keys and is_rating(line)}

    @property
    def path(self) -> Path:
        return self.run / "ratings.jsonl"

    def first_open(self) -> int | None:
        """The place of the first pair without a rating."""
        return next((place for place, pair in enumerate(self.pairs) if pair.key not in self.ratings), None)

    def pair(self, place: int | None) -> dict[str, object]:
        """What the page shows at a place, with the rating it has; None is the place after the last."""
        state = {"place": place, "n": len(self.pairs), "n_rated": len(self.ratings)}
        if place is None:
            return state
        pair = self.pairs[place]
        shown = {side: pair.responses[pair.on(side)] for side in SIDES}
        entry = {"instruction": pair.entry["instruction"], "input": pair.entry["input"]}
        return state | entry | {"reference": pair.entry["output"], "rating": self.shown_rating(pair)} | shown

    def shown_rating(self, pair: Pair) -> dict[str, object] | None:
        if (line := self.ratings.get(pair.key)) is None:
            return None
        preferred = next((side for side in SIDES if pair.on(side) == line["preference"]), "tie")
        return {side: line["scores"][pair.on(side)] for side in SIDES} | {"preference": preferred}

    def save(self, place: int, body: RatingBody) -> dict[str, object]:
        """Append a rating to ratings.jsonl; it is on the disk when this returns."""
        pair = self.pairs[place]
        line = {
            "row": pair.rows["run"],
            "other_row": pair.rows["other"],
            "key": pair.key,
            "run": self.run.resolve().name,
            "other": self.other.resolve().name,
            "left": pair.left,
            "scores": {pair.on(side): getattr(body, side).model_dump() for side in SIDES},
            "preference": "tie" if body.preference == "tie" else pair.on(body.preference),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        append_line(self.path, line)
        self.ratings[pair.key] = line
        return {"n": len(self.pairs), "n_rated": len(self.ratings), "next": self.first_open()}

    # ---- what came out ----

    def summary(self) -> dict[str, object]:
        """Means with 95% intervals, preferences, and how far they agree with the judge's scores."""
        rated = [(pair, self.ratings[pair.key]) for pair in self.pairs if pair.key in self.ratings]
        means = {
            name: {who: bootstrap_interval([line["scores"][who][name] for _, line in rated]) for who in WHO}
            for name in (DIMENSIONS if rated else ())
        }
        chosen = Counter(line["preference"] for _, line in rated)
        n_left = sum(line["preference"] == line.get("left") for _, line in rated)
        return {
            "n": len(self.pairs),
            "n_rated": len(rated),
            "run": self.run.resolve().name,
            "other": self.other.resolve().name,
            "means": means,
            "preference": {who: chosen[who] for who in ("run", "other", "tie")},
            "left_preferred": n_left,  # of those that are no tie; far from half of them, the side has mattered
            "unreadable_lines": self.n_unreadable,
            "judge": self.compare_with_judge(rated),
        }

    def compare_with_judge(self, rated: list[tuple[Pair, dict]]) -> dict[str, object] | None:
        """Correlation of a rating's mean with the judge's score, run by run, and how often both prefer the same
        response; None if RUN/verdicts.jsonl is not there."""
        verdicts = {who: judge_scores(folder) for who, folder in zip(WHO, (self.run, self.other), strict=True)}
        if not verdicts["run"]:
            return None
        judged = {who: [verdicts[who].get(pair.rows[who]) for pair, _ in rated] for who in WHO}
        by_hand = {who: [float(np.mean(list(line["scores"][who].values()))) for _, line in rated] for who in WHO}
        found = {who: agreement(by_hand[who], judged[who]) for who in WHO}
        prefers = [{"run": 1, "other": -1, "tie": 0}[line["preference"]] for _, line in rated]
        differences = [a - b if None not in (a, b) else 0 for a, b in zip(*judged.values(), strict=True)]
        same = [hand * judge > 0 for hand, judge in zip(prefers, differences, strict=True) if hand and judge]
        return found | {"preference": {"n": len(same), "same": sum(same)}}  # rows in which both have a favourite


# ---- files ----


def read_responses(folder: Path) -> list[dict]:
    """The rows of a run's responses.json. Raises FileNotFoundError, or ValueError for a row that is none."""
    path = folder / "responses.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: python -m scripts.evaluate {folder} writes it")
    rows = read_json(path, list)
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in FIELDS):
            raise ValueError(f"{path}: row {number} has no {', '.join(FIELDS)}: run scripts.evaluate again")
    return rows


def make_pairs(ours: list[dict], theirs: list[dict], seed: int) -> list[Pair]:
    """The entries that both have answered, each once, in the order that the seed gives."""
    rng = random.Random(seed)
    row_of = {(row["instruction"], row["input"], row["output"]): i for i, row in reversed(list(enumerate(theirs)))}
    pairs, seen = [], set()
    for i, row in enumerate(ours):
        entry = {name: row[name] for name in FIELDS[:3]}
        j = row_of.get(tuple(entry.values()))
        if j is not None and j not in seen:
            seen.add(j)
            responses = {"run": row["model_response"], "other": theirs[j]["model_response"]}
            pairs.append(Pair({"run": i, "other": j}, entry, responses, left="run"))
    rng.shuffle(pairs)
    return [dataclasses.replace(pair, left=rng.choice(["run", "other"])) for pair in pairs]


def read_lines(path: Path) -> tuple[list[dict], int]:
    """The objects of a JSON Lines file, none if it is not there, and how many lines are no objects."""
    if not path.exists():
        return [], 0
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    objects = []
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # a line that was cut off when the machine stopped
            continue
        objects += [value] if isinstance(value, dict) else []
    return objects, len(lines) - len(objects)


def append_line(path: Path, value: dict) -> None:
    """One more line, on the disk when this returns; after half a line it begins a new one."""
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def is_rating(line: dict) -> bool:
    try:
        for who in WHO:
            Scores.model_validate(line["scores"][who])
        return line["preference"] in ("run", "other", "tie")
    except (KeyError, TypeError, ValueError):
        return False


def judge_scores(folder: Path) -> dict[int, float]:
    """row -> score of the run's response, from verdicts.jsonl: of the judge and the scale that were used last, and only
    of the responses as they are now."""
    questions = {
        score_question(row, row["model_response"], scale).digest: (i, scale)
        for i, row in enumerate(read_responses(folder))
        for scale in SCALES
    }
    lines = [line for line in read_lines(folder / "verdicts.jsonl")[0]
             if line.get("question") in questions and type(line.get("score")) is int]  # fmt: skip
    found: dict[int, float] = {}
    for line in lines:
        row, scale = questions[line["question"]]
        if (line.get("judge"), scale) == (lines[-1].get("judge"), questions[lines[-1]["question"]][1]):
            found[row] = line["score"]
    return found
