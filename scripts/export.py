"""Write a run as one GGUF file, for llama.cpp and Ollama, with a Modelfile for Ollama beside it.

transformers and vLLM need no export: they read the run folder as it is.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from gpt.text.prompts import TEMPLATES
from gpt.training.run import load_settings
from gpt.weights.checkpoint import find_folder, load_model, write_atomically
from scripts.command import make_parser, one_line_errors


def export_gguf(name_or_path: str, path: Path, template: str | None, dtype: str) -> Path:
    """Write the file and the Modelfile, and return where the latter lies. Raises ValueError where one stands already
    that was not written here."""
    try:
        from gpt.serving.gguf import MODELFILE_TITLE, modelfile, save_gguf
    except ModuleNotFoundError as error:
        raise ValueError(f"no module {error.name}: pip install -c constraints.txt -e '.[gguf]'") from None
    folder, beside = find_folder(name_or_path), path.with_name("Modelfile")
    if beside.exists() and not beside.read_text(encoding="utf-8").startswith(MODELFILE_TITLE):
        raise ValueError(f"{beside} was not written by this script: give --gguf a path in another folder")
    if template is None:
        template = load_settings(folder)[0].template if (folder / "training.json").exists() else "alpaca"
    model = load_model(folder)
    save_gguf(model, path, name=folder.resolve().name, template=template, dtype=dtype)
    text = modelfile(path, model.config.context_length, template)
    write_atomically(beside, lambda part: part.write_text(text, encoding="utf-8"))
    return beside


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="a run folder, or the name or folder of a model")
    parser.add_argument("--gguf", type=Path, required=True, metavar="FILE", help="where it goes; ends in .gguf")
    parser.add_argument("--type", default="f16", metavar="X", help="of the matrices: f32, f16 or q8_0 [f16]")
    parser.add_argument("--template", default=None, metavar="X",
                        help=f"{', '.join(TEMPLATES)} [the run's; alpaca for other models]")  # fmt: skip
    args = parser.parse_args(argv)
    beside = export_gguf(args.run, args.gguf, args.template, args.type)
    print(f"{args.gguf}: {args.gguf.stat().st_size / 1e6:.1f} MB, {args.type}, with tokenizer and chat template")
    print(f"llama.cpp  llama-server -m {args.gguf}")
    print(f"Ollama     ollama create NAME -f {beside}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
