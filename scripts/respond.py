"""Ask a model: python -m scripts.respond RUN "Rewrite in the past tense." --input "I go home."

A model that was not fine-tuned answers better after examples (--shots FILE). --interactive asks line by line.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gpt.model.generate import Sampling, stream_response
from gpt.speed.decoding import FORMS
from gpt.text.entries import Entry, load_entries
from gpt.text.prompts import TEMPLATES
from gpt.text.tokenizer import load_tokenizer
from gpt.training.run import load_settings
from gpt.tuning.turns import stream_turn
from gpt.weights.checkpoint import find_folder
from scripts.chat import Chat, ChatSampling, note, note_remarks
from scripts.choices import choose_device, load_packed
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="a run folder, or the name or folder of a model")
    parser.add_argument("instruction", nargs="?", default="", help="what is to be done")
    parser.add_argument("--input", default="", metavar="TEXT", help="the text it is to be done with")
    parser.add_argument("--interactive", action="store_true", default=False, help="a chat in the terminal")
    parser.add_argument("--shots", type=Path, metavar="FILE", help="entries whose first k stand before the prompt")
    parser.add_argument("-k", type=int, metavar="X", help="how many of them [3]")
    parser.add_argument("--past-context", default="stop", metavar="X", help="when the context is full: stop or slide"
                        " (drop its older half and go on) [stop]")  # fmt: skip
    parser.add_argument("--max-new-tokens", type=int, metavar="X", help="at most [256]")
    parser.add_argument("--template", metavar="X", help=f"{', '.join(TEMPLATES)} [the run's; alpaca for other models]")
    parser.add_argument("--device", default="auto", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    parser.add_argument("--weights", default="float32", metavar="X", help=f"on a CPU: {', '.join(FORMS)}; smaller is"
                        " faster and less exact [float32]")  # fmt: skip
    add_config_flags(parser, Sampling, ["temperature", "top_k", "top_p", "seed"])
    args = parser.parse_args(argv)
    if args.interactive == bool(args.instruction.strip()):
        raise ValueError("give either an instruction, or --interactive and none")
    if args.interactive and args.input:
        raise ValueError("--input belongs to an instruction: in the chat it is /input")
    if "k" in args and "shots" not in args:
        raise ValueError(f"-k {args.k} counts examples: name their file with --shots FILE")
    return args


def load_shots(path: Path, k: int) -> list[Entry]:
    """The first k entries of the file that have a response."""
    if k < 0:
        raise ValueError(f"-k {k}: use 0 for no examples, or more")
    usable = [entry for entry in load_entries(path) if entry["output"].strip()]
    if len(usable) < k:
        note(f"{path} has {len(usable)} examples with a response, not {k}")
    return usable[:k]


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    sampling = config_from(args, ChatSampling)
    device, _ = choose_device(args.device)
    folder = find_folder(args.run)
    settings = load_settings(folder)[0] if (folder / "training.json").exists() else None
    template = getattr(args, "template", None) or (settings.template if settings else "alpaca")
    shots = load_shots(args.shots, getattr(args, "k", 3)) if "shots" in args else []
    turns = bool(args.interactive and settings and settings.turns and not shots)  # examples and turns would mix
    stream = partial(
        stream_turn if turns else stream_response, load_packed(folder, device, args.weights, is_one=True),
        load_tokenizer(), template=template, past_context=args.past_context, shots=shots,
    )  # fmt: skip
    if args.interactive:
        Chat(stream, sampling, len(shots), turns).run(f"{args.run}, template {template}.")
        return 0
    entry = {"instruction": args.instruction, "input": args.input, "output": ""}
    *_, response = stream(entry, sampling=sampling, max_new_tokens=sampling.max_new_tokens)
    print(response.text)
    note_remarks(response, len(shots))
    return 0


if __name__ == "__main__":
    sys.exit(main())
