"""Pairs for scripts.prefer out of what a run gets wrong: python -m scripts.make_pairs RUN --out pairs.jsonl

Chosen is an entry's reference, rejected the run's own response to it. The entries are those the run was trained on, or
FILE's; its test entries stay out, so that they can still tell what the pairs did. Lines are written as they come, and
the same command goes on after a stop.
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from gpt.hardware.locks import alone_with
from gpt.model.generate import respond
from gpt.text.entries import Entry, load_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.training.run import load_settings, load_split
from gpt.weights.checkpoint import find_folder, load_model
from scripts.choices import choose_device
from scripts.command import make_parser, one_line_errors

BATCH_SIZE = 32


def read_done(path: Path) -> set[tuple[str, str]]:
    """The prompts that the file has already; a last line that was cut off in writing is taken out."""
    if not path.exists():
        return set()
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1]:
        path.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    records = [json.loads(line) for line in lines[:-1]]
    return {(record["instruction"], record["input"]) for record in records}


def draw(entries: list[Entry], n: int, seed: int) -> list[Entry]:
    """n entries with a reference, or all of them, in an order that follows from the seed."""
    usable = [entry for entry in entries if entry["output"].strip()]
    if n < 1:
        raise ValueError(f"-n {n}: use 1 or more")
    return random.Random(seed).sample(usable, min(n, len(usable)))


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
    drawn, done = draw(entries, args.n, args.seed), read_done(args.out)
    left = [entry for entry in drawn if (entry["instruction"], entry["input"]) not in done]
    model, n_same = load_model(find_folder(str(args.run)), device), 0
    responses = respond(
        model, load_tokenizer(), left, template=settings.template, max_new_tokens=args.max_new_tokens,
        batch_size=BATCH_SIZE,
    )  # fmt: skip
    with alone_with(args.out), args.out.open("a", encoding="utf-8") as file:
        for entry, response in zip(left, tqdm(responses, total=len(left), unit="response"), strict=True):
            if response.text.strip() == entry["output"].strip() or not response.text.strip():
                n_same += 1
                continue
            pair = {name: entry[name] for name in ("instruction", "input", "kind") if name in entry}
            pair |= {"chosen": entry["output"], "rejected": response.text}
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")
            file.flush()
    print(f"{args.out}: {len(left) - n_same} pairs written to {len(done)} that were there; {n_same} responses were the"
          " reference itself, or empty")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
