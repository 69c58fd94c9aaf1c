"""Put the Chinese chapters, notebooks/zh/, together: code and outputs from the English ones, texts by translators.

A Chinese text cell says in its metadata which English text it translates, by that text's SHA-256. So a change of the
English text is seen here, and code and pictures cannot drift apart. --draft writes untranslated texts in English, for
a translator to fill in; --check writes nothing and fails if a chapter is out of date.
"""

import copy
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from gpt.weights.checkpoint import write_atomically
from scripts import run_notebooks
from scripts.command import make_parser, one_line_errors

KEY = "translates"  # of a text cell's metadata
CHINESE = re.compile(r"[\u4e00-\u9fff]")
KEPT = re.compile(r"`[^`\n]+`|\$[^$\n]+\$")  # code and formulas, which a translation takes over as they are


def text_key(source: str) -> str:
    """Whoever hosts the repository puts a name of their own in its badges: that asks for no new translation."""
    source = re.sub(r"[\w.-]+/gpt/blob/", "OWNER/gpt/blob/", source)
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def first_line(source: str) -> str:
    return repr(source.strip().split("\n")[0][:60])


def read_texts(path: Path) -> dict[str, str]:
    """The translations of a Chinese chapter, by the key of the English text; those still in English are left out."""
    cells = nbformat.read(path, as_version=4).cells if path.exists() else []
    return {c.metadata[KEY]: c.source for c in cells if c.cell_type == "markdown" and CHINESE.search(c.source)}


def is_faithful(english: str, chinese: str) -> bool:
    """Whether code and formulas are the same, in whatever order the sentence puts them."""
    return sorted(KEPT.findall(english)) == sorted(KEPT.findall(chinese))


def translated(path: Path, english: NotebookNode, texts: dict[str, str], is_draft: bool = False) -> NotebookNode:
    """The English chapter with Chinese texts. Raises ValueError for a text that has none, or one that lost its code,
    and for a translation whose English text is gone: nobody's work is dropped silently."""
    chapter, used = copy.deepcopy(english), set()
    for number, cell in enumerate(chapter.cells, start=1):
        if cell.cell_type != "markdown":
            continue
        key, where = text_key(cell.source), f"{path.stem}, cell {number} ({first_line(cell.source)})"
        if key in texts and not is_draft and not is_faithful(cell.source, texts[key]):
            raise ValueError(f"{where}: code or formulas of the Chinese text are not those of the English one")
        if key not in texts and not is_draft:
            raise ValueError(
                f"{where} has no Chinese text: python -m scripts.chinese_notebooks --draft, then translate"
            )
        used.add(key)
        cell.source, cell.metadata[KEY] = texts.get(key, cell.source), key
    if gone := [texts[key] for key in texts if key not in used]:
        if not is_draft:
            raise ValueError(f"{path.stem}: the English text of {first_line(gone[0])} has changed: translate it anew")
        chapter.cells += [nbformat.v4.new_markdown_cell(f"<!-- its English text has changed -->\n{t}") for t in gone]
    return chapter


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", default=False, help="write nothing; fail if one is out of date")
    mode.add_argument("--draft", action="store_true", default=False, help="leave in English what is not translated")
    args = parser.parse_args(argv)
    chinese = run_notebooks.NOTEBOOKS / "zh"
    chinese.mkdir(exist_ok=True)
    paths = sorted(run_notebooks.NOTEBOOKS.glob("*.ipynb"))
    if extra := sorted({path.name for path in chinese.glob("*.ipynb")} - {path.name for path in paths}):
        raise ValueError(f"{chinese / extra[0]} translates a chapter that is not there: remove or rename it")
    for path in paths:
        english, target = nbformat.read(path, as_version=4), chinese / path.name
        chapter = translated(path, english, read_texts(target), args.draft)
        if not args.check:
            write_atomically(target, lambda part, chapter=chapter: nbformat.write(chapter, part))
        elif not target.exists() or nbformat.read(target, as_version=4) != chapter:
            raise ValueError(f"{target} is out of date: python -m scripts.chinese_notebooks")
    print(f"{len(paths)} chapters in {chinese}" + (" are up to date" if args.check else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
