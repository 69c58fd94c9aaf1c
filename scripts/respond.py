"""Ask a fine-tuned model: python -m scripts.respond RUN "Rewrite in the past tense." --input "I go home." """

import sys
from collections.abc import Sequence

from gpt.model.generate import Sampling, respond
from gpt.text.prompts import TEMPLATES
from gpt.text.tokenizer import load_tokenizer
from gpt.training.run import load_settings
from gpt.weights.checkpoint import find_folder, load_model
from scripts.choices import choose_device
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="a run folder, or the name or folder of a model")
    parser.add_argument("instruction", help="what is to be done")
    parser.add_argument("--input", metavar="TEXT", help="the text it is to be done with")
    parser.add_argument("--max-new-tokens", type=int, metavar="X", help="at most [256]")
    parser.add_argument("--template", metavar="X", help=f"{', '.join(TEMPLATES)} [the run's; alpaca for other models]")
    parser.add_argument("--device", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    add_config_flags(parser, Sampling, ["temperature", "top_k", "top_p", "seed"])
    args = parser.parse_args(argv)
    sampling = config_from(args, Sampling)
    device, _ = choose_device(getattr(args, "device", "auto"))
    folder = find_folder(args.run)
    is_run = (folder / "training.json").exists()
    template = getattr(args, "template", None) or (load_settings(folder)[0].template if is_run else "alpaca")
    entry = {"instruction": args.instruction, "input": getattr(args, "input", ""), "output": ""}
    response = next(respond(
        load_model(folder, device), load_tokenizer(), [entry], template=template, sampling=sampling,
        max_new_tokens=getattr(args, "max_new_tokens", 256),
    ))  # fmt: skip
    print(response.text)
    if response.stopped_by in ("max_new_tokens", "context"):
        print(f"(cut: {response.stopped_by} after {response.n_tokens} tokens)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
