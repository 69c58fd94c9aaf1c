"""Three ways of fine-tuning on the same entries, compared: the whole model, LoRA, the last blocks only.

Each is a run of its own in DIR, by scripts.finetune in a process of its own, so that its memory can be told; flags
that do not stand below go to all three (--model gpt2 --epochs 1). Writes variants.json and variants.md. What is
finished is not run again: the same command goes on after a stop.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt.evaluation.metrics import METRICS
from gpt.evaluation.report import METRIC_NAMES, shown_score, table
from gpt.studies.agreement import paired_difference
from gpt.training.run import load_settings
from gpt.weights.checkpoint import read_json, write_atomically, write_json
from scripts.command import make_parser, one_line_errors

COLUMNS = ("trained parameters", "learning rate", *METRIC_NAMES.values(), "ROUGE-L minus full", "seconds", "memory")


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the three runs and the table go")
    parser.add_argument("--rank", default="8", metavar="X", help="LoRA's rank [8]")
    parser.add_argument("--blocks", default="2", metavar="X", help="how many last blocks learn in the third way [2]")
    return parser.parse_known_args(argv, argparse.Namespace(rank="8", blocks="2"))


def ways(rank: str, blocks: str) -> dict[str, list[str]]:
    """Folder of each way -> the flags that make it."""
    return {"full": [], "lora": ["--lora-rank", rank], "last-blocks": ["--freeze", f"all-but:{blocks}"]}


def finish(folder: Path, flags: Sequence[str]) -> None:
    """Run, or go on with, one way of fine-tuning. ValueError if it did not come to its end."""
    if (folder / "metrics.json").exists():
        return
    begun = (folder / "training.json").exists()
    flags = ["--resume", str(folder)] if begun else ["--out", str(folder), *flags]
    print(f"\n---- {folder.name}: {' '.join(flags)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "scripts.finetune", *flags], check=False).returncode
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise ValueError(f"the run {folder} ended with exit code {code}: see above")


def rows(folders: Sequence[Path]) -> list[dict]:
    """What the runs know of themselves; the first is what the others are compared with, row by row."""
    found, scores = [], []
    for folder in folders:
        settings, facts = load_settings(folder)
        answers = read_json(folder / "responses.json", list)
        scores.append([METRICS["rouge_l"](row["model_response"], row["output"]) for row in answers])
        found.append({
            "way": folder.name, "trained": facts["trained"], "lr": settings.config.lr,
            "scores": read_json(folder / "metrics.json")["after"], "seconds": facts["seconds"],
            "peak_bytes": facts["peak_bytes"], "difference": paired_difference(scores[-1], scores[0]),
            "entries_sha256": settings.entries_sha256, "model": settings.model, "n": len(answers),
        })  # fmt: skip
    for name in ("entries_sha256", "model", "n"):
        if len(of_runs := {row[name] for row in found}) > 1:
            raise ValueError(f"these runs differ in {name}: {', '.join(map(str, of_runs))}: choose another --out")
    return found


def page(found: Sequence[dict]) -> str:
    lines = [
        [row["way"], f"{row['trained']:,}", f"{row['lr']:g}", *(shown_score(row["scores"][m]) for m in METRIC_NAMES),
         shown_score(row["difference"]) if row is not found[0] else "-", f"{row['seconds']:.0f}",
         f"{row['peak_bytes'] / 1e9:.2f} GB"] for row in found
    ]  # fmt: skip
    notes = (
        f"{found[0]['model']}, {found[0]['n']} test entries; scores in 0 to 1 with 95% bootstrap intervals; a"
        " difference whose interval holds 0 was not seen. Seconds are those of training with its evaluations, memory"
        " the most that the process had held by then."
    )
    return f"{table(['', *COLUMNS], lines)}\n\n{notes}\n"


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args, shared = parse(argv)
    folders = []
    for name, flags in ways(args.rank, args.blocks).items():
        folders.append(args.out / name)
        finish(folders[-1], [*shared, *flags])
    found = rows(folders)
    write_json(args.out / "variants.json", found)
    write_atomically(args.out / "variants.md", lambda part: part.write_text(page(found), encoding="utf-8"))
    print(f"\n{page(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
