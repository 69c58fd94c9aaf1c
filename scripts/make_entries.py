"""Put data/instructions.json together: the written entries in it stay, the template entries are made anew.

Left out are template entries that the bundled model may know from its pretraining, because a sentence of theirs, or a
question with its answer, stood in its task-like text. The result depends on the written entries, the templates, that
list and the seed alone.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gpt.curation.templates import make_entries
from gpt.text.entries import load_entries
from gpt.weights.checkpoint import read_json, write_json
from scripts.command import make_parser, one_line_errors
from scripts.finetune import ENTRIES

SEEN = ENTRIES.parent / "gpt2-tiny" / "seen.json"  # digests of prompts


def digest(entry: dict) -> str:
    return hashlib.sha256(f"{entry['instruction']}\n{entry['input']}".encode()).hexdigest()[:10]


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--file", type=Path, default=ENTRIES, metavar="FILE", help="[data/instructions.json]")
    parser.add_argument("--per-template", type=int, default=90, metavar="N", help="entries of each, at most [90]")
    parser.add_argument("--seed", type=int, default=123, metavar="N", help="[123]")
    args = parser.parse_args(argv)
    written = [entry for entry in load_entries(args.file) if not entry.get("source", "").startswith("template:")]
    prompts = {(entry["instruction"], entry["input"]) for entry in written}
    seen = set(read_json(SEEN, list))
    made = make_entries(args.per_template, args.seed)
    made = [e for e in made if (e["instruction"], e["input"]) not in prompts and digest(e) not in seen]
    write_json(args.file, written + made)
    kinds = Counter(entry["kind"] for entry in written + made)
    print(f"{args.file}: {len(written)} written and {len(made)} template entries")
    print(", ".join(f"{kind} {n}" for kind, n in kinds.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
