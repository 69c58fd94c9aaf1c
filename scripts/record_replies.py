"""Ask a teacher for what chapter 11 asks, and keep its replies for the chapter to play: data/replies.json.

Works with any server that speaks OpenAI's protocol: python -m scripts.record_replies --base-url URL --model NAME. The
cells of the chapter are run, with the server in the place of the recorded teacher; what the file has of the same
teacher and settings is not asked again.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
from tqdm import tqdm

from gpt.curation.replay import Replies
from gpt.evaluation.chat_client import ChatClient
from scripts.choices import key_from_environment
from scripts.command import make_parser, one_line_errors
from scripts.run_notebooks import NOTEBOOKS, ROOT, code_cells

CHAPTER = NOTEBOOKS / "11-making-data.ipynb"
OUT = ROOT / "data" / "replies.json"


def cells_up_to_the_check(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(where it stands, source, tags) of the cells that ask; the exercises ask for nothing."""
    for where, cell in code_cells(path, nbformat.read(path, as_version=4)):
        tags = cell.metadata.get("tags", [])
        if "check" in tags:
            return
        if "colab" not in tags:
            yield where, cell.source, tags


def run_chapter(path: Path, teacher: Replies) -> None:
    """Run the cells; the one tagged `teacher` sets the name `teacher`, which is ours from then on."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    found = False
    for where, source, tags in cells_up_to_the_check(path):
        exec(compile(source, where, "exec"), namespace)
        if "teacher" in tags:
            namespace["teacher"], found = teacher, True
        plt.close("all")
    if not found:
        raise ValueError(f"{path}: no cell is tagged `teacher`: tag the one that sets it")


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--base-url", required=True, metavar="URL", help="such as http://localhost:8080")
    parser.add_argument("--model", required=True, metavar="NAME", help="its name on the server")
    parser.add_argument("--name", metavar="NAME", help="what the file calls it [the last part of --model]")
    parser.add_argument("--server", metavar="TEXT", help="what serves it, and its version, for the file")
    parser.add_argument("--temperature", type=float, default=0.7, metavar="X", help="0: the likeliest reply [0.7]")
    parser.add_argument("--max-tokens", type=int, default=160, metavar="N", help="of a reply, at most [160]")
    parser.add_argument("--seed", type=int, default=123, metavar="N", help="for servers that have one [123]")
    parser.add_argument("--key-env", metavar="X", help="environment variable that holds the key [OPENAI_API_KEY]")
    parser.add_argument("--chapter", type=Path, default=CHAPTER, metavar="FILE", help="the notebook [chapter 11]")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="[data/replies.json]")
    args = parser.parse_args(argv)
    client = ChatClient(args.base_url, args.model, key_from_environment(args.base_url, getattr(args, "key_env", None)),
                        temperature=args.temperature, seed=args.seed, max_tokens=args.max_tokens)  # fmt: skip
    client.check()
    about = {"teacher": getattr(args, "name", args.model.split("/")[-1].removesuffix(".gguf"))}
    about |= {"server": getattr(args, "server", "not named"), "recorded_by": "python -m scripts.record_replies"}
    about |= {name: getattr(args, name) for name in ("temperature", "seed", "max_tokens")}
    with tqdm(desc="replies", unit="reply") as bar:

        def live(prompt: str) -> str:
            bar.update()
            return client.ask(prompt)

        teacher = Replies(args.out, live, about)
        run_chapter(args.chapter, teacher)
    teacher.save(teacher.asked)
    print(f"{len(teacher.asked)} replies of {about['teacher']} in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
