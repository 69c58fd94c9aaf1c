"""Pairs for scripts.prefer out of what a run gets wrong: python -m scripts.make_pairs RUN --out pairs.jsonl

Chosen is an entry's reference, rejected the run's own response to it. The entries are those the run was trained on, or
FILE's; its test entries stay out, so that they can still tell what the pairs did. Lines are written as they come, what
gives no pair to .dropped.jsonl beside the file, and the same command goes on after a stop.
"""

import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from gpt.curation.pipeline import dropped_path
from gpt.hardware.locks import alone_with
from gpt.model.generate import respond
from gpt.text.entries import Entry, load_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.training.run import load_settings, load_split
from gpt.weights.checkpoint import find_folder, load_model
from scripts.choices import choose_device
from scripts.command import make_parser, one_line_errors

BATCH_SIZE = 32
STARTS = (b'{"instruction": ', b'{"reason": ')  # of every line that is written


def read_done(path: Path) -> set[tuple[str, str]]:
    """The prompts that a file has already; a last line that was cut off in writing is taken out, so be alone with it.

    Raises ValueError for a file that this script has not written, and leaves it as it is.
    """
    data = path.read_bytes() if path.exists() else b""
    *lines, rest = data.split(b"\n")
    try:
        records = [dict(json.loads(line)) for line in lines]
        done = {(record["instruction"], record["input"]) for record in records}
        if not all(record.keys() & {"rejected", "reason"} for record in records):
            raise ValueError("entries")
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path}: holds something else than pairs of this script: name another --out") from None
    if not any(rest[: len(start)] == start[: len(rest)] for start in STARTS):
        raise ValueError(f"{path}: its last line is none of this script: name another --out")
    if rest:
        os.truncate(path, len(data) - len(rest))
    return done


def draw(entries: list[Entry], n: int, seed: int) -> list[Entry]:
    """n entries with a reference, or all of them, in an order that follows from the seed."""
    usable = [entry for entry in entries if entry["output"].strip()]
    if n < 1:
        raise ValueError(f"-n {n}: use 1 or more")
    return random.Random(seed).sample(usable, min(n, len(usable)))


def pair_or_reason(entry: Entry, response: str) -> dict:
    """The pair, or a row that says why there is none: a response is not asked for twice."""
    row = {name: entry[name] for name in ("instruction", "input", "kind") if name in entry}
    if response.strip() and response.strip() != entry["output"].strip():
        return row | {"chosen": entry["output"], "rejected": response}
    reason = "the response is the reference itself" if response.strip() else "the response is empty"
    return {"reason": reason} | row | {"response": response}


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the pairs go, as JSON Lines")
    parser.add_argument("--data", type=Path, metavar="FILE", help="other entries to answer")
    parser.add_argument("-n", type=int, default=500, metavar="X", help="entries to answer, at most [500]")
    parser.add_argument("--seed", type=int, default=123, metavar="X", help="of the draw [123]")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="X", help="a response's tokens [128]")
    parser.add_argument("--device", default="auto", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    args = parser.parse_args(argv)
    device, _ = choose_device(args.device)
    settings, _ = load_settings(args.run)
    entries = load_entries(args.data) if "data" in args else load_split(settings)["train"]
    drawn = draw(entries, args.n, args.seed)
    with alone_with(args.out):
        done, dropped = read_done(args.out), read_done(dropped_path(args.out))
        left = [entry for entry in drawn if (entry["instruction"], entry["input"]) not in done | dropped]
        model = load_model(find_folder(str(args.run)), device)
        responses = respond(
            model, load_tokenizer(), left, template=settings.template, max_new_tokens=args.max_new_tokens,
            batch_size=BATCH_SIZE,
        )  # fmt: skip
        n_pairs = 0
        for entry, response in zip(left, tqdm(responses, total=len(left), unit="response"), strict=True):
            row = pair_or_reason(entry, response.text)
            path = dropped_path(args.out) if "reason" in row else args.out
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            n_pairs += path == args.out
    n_same = len(dropped) + len(left) - n_pairs
    print(f"{args.out}: {n_pairs} pairs written to {len(done)} that were there; {n_same} responses were the"
          f" reference itself, or empty: {dropped_path(args.out)}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
