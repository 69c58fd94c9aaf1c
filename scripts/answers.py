"""For `evaluate`: models' answers to test entries, kept in the folder `answers` of what is written.

Each file is named by all that its answers depend on (weights, entries, template, examples, length), so what is there
is not generated again: an evaluation that was stopped goes on with the next model, and a comparison has the run's and
its base model's answers already.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from gpt.model.generate import respond
from gpt.model.gpt2 import GPT
from gpt.text.entries import Entry
from gpt.text.tokenizer import load_tokenizer
from gpt.weights.checkpoint import read_json, write_json

BATCH_SIZE = 32  # prompts without shots
KEPT = ("text", "stopped_by", "n_shots", "is_cut")  # of a Response


def room_for(test: Sequence[Entry]) -> int:
    """New tokens an answer may take where nobody has said: twice those of the longest reference, 32 to 256.

    A base model goes on to any limit; at 256 that was a third of the main job's time.
    """
    tokenizer = load_tokenizer()
    return min(256, max(32, 2 * max(len(tokenizer.encode(entry["output"])) for entry in test)))


def answer(
    model: Path, test: Sequence[Entry], template: str, max_new_tokens: int, load: Callable[[], GPT], *, keep: Path,
    label: str, shots: Sequence[Entry] = (),
) -> list[dict]:  # fmt: skip
    """Greedy answers of the model in a folder, a row of KEPT for each entry; from `keep`/answers if they are there.
    load: gives the model, and is not called if its answers are there; label: what the bar says."""
    depends = json.dumps([weights_sha256(model), test, shots, template, max_new_tokens])
    path = keep / "answers" / f"{model.resolve().name}-{hashlib.sha256(depends.encode()).hexdigest()[:16]}.json"
    if path.exists():
        print(f"{label:17} there already: {path}")
        return read_json(path, list)
    responses = respond(
        load(), load_tokenizer(), test, template=template, max_new_tokens=max_new_tokens,
        shots=shots, batch_size=max(1, BATCH_SIZE // (1 + len(shots))),
    )  # fmt: skip
    bar = tqdm(responses, label, total=len(test), unit="response", dynamic_ncols=True)
    rows = [{name: getattr(response, name) for name in KEPT} for response in bar]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, rows)
    return rows


def weights_sha256(folder: Path) -> str:
    """A fingerprint of a model's files: sizes and weights."""
    digest = hashlib.sha256()
    for pattern in ("*config.json", "hparams.json", "*.safetensors", "model.ckpt.*"):
        for path in sorted(folder.glob(pattern)):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
