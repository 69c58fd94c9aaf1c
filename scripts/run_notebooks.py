"""Execute the chapters in notebooks/ and write their outputs, or check with --check that the committed ones are up to
date. A chapter with an error, a warning, a missing picture or a line too wide for a page fails."""

import math
import os
import re
import struct
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm import tqdm

from gpt.weights.checkpoint import write_atomically
from scripts.command import make_parser, one_line_errors

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
LEAST_PICTURES, MOST_CHARACTERS, MOST_SECONDS = 4, 88, 60  # of a chapter, of a line of code, of a chapter
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}  # as written, whoever executed it
# glibc gives large tensors back to the system and fetches them anew in every step, which took a tenth to a fifth of a
# chapter's time. Other systems do not read these.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
COLAB = """import sys

if "google.colab" in sys.modules:
    !git clone -q https://github.com/OWNER/gpt
    !pip install -q -c gpt/constraints.txt -e {package}
    %cd gpt"""  # the cell tagged `colab` of every chapter
EXTRAS = {"12-cleaning-data": "curate"}  # chapters that need more packages than the others


def colab_cell(chapter: str) -> str:
    """The cell that installs the package on Colab, with the extra that this chapter needs."""
    return COLAB.format(package=f"'gpt[{EXTRAS[chapter]}]'" if chapter in EXTRAS else "gpt")


def code_cells(path: Path, notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """(where it stands, in words, cell) of each code cell."""
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and cell.source.strip():
            yield f"{path.stem}, cell {number} ({cell.source.strip().splitlines()[0][:50]!r})", cell


def execute(notebook: NotebookNode, chapter: str = "") -> float:
    """Run all cells in a kernel of their own in the repository's root, and return the seconds it worked: on a busy
    machine less than it took. What changes from run to run without a reason, such as random ids, is made the same."""
    start, others = time.perf_counter(), sum(os.times()[2:4])  # processor time of kernels that have ended
    client = NotebookClient(
        notebook, timeout=10 * MOST_SECONDS, kernel_name="python3", record_timing=False, coalesce_streams=True,
        allow_errors=True,  # they stand among the outputs, where check_cells finds their place
        resources={"metadata": {"path": str(ROOT)}}, extra_arguments=["--log-level=ERROR"],
    )  # fmt: skip
    backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    threads = {"OMP_NUM_THREADS": "1"}  # sums come out the same on any number of cores
    client.execute(env=os.environ | backend | threads | KEEP_MEMORY)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number}"
        cell.source = colab_cell(chapter) if "colab" in cell.metadata.get("tags", []) else cell.source
    return min(time.perf_counter() - start, sum(os.times()[2:4]) - others or math.inf)  # Windows counts none: 0


def picture_size(output: NotebookNode) -> tuple[int, int] | None:
    """(width, height) of a PNG output in pixels, from its header; None for other outputs."""
    png = output.get("data", {}).get("image/png")
    return struct.unpack(">II", b64decode(png)[16:24]) if png else None


def check_cells(path: Path, notebook: NotebookNode) -> None:
    """ValueError for an error, something on stderr, a line too wide, or a picture that is missing."""
    n_pictures = 0
    for where, cell in code_cells(path, notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                raise ValueError(f"{where}: {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                raise ValueError(f"{where}: it wrote to stderr: {output.text.strip()[:300]}")
        if wide := [line for line in cell.source.splitlines() if len(line) > MOST_CHARACTERS]:
            raise ValueError(f"{where}: {len(wide[0])} characters, at most {MOST_CHARACTERS}: {wide[0].strip()!r}")
        n_here = sum(picture_size(output) is not None for output in cell.outputs)
        if re.search(r"\bplot_\w+\(", cell.source) and not n_here:
            raise ValueError(f"{where}: it plots, and no picture came out")
        n_pictures += n_here
    if n_pictures < LEAST_PICTURES:
        raise ValueError(f"{path.stem}: {n_pictures} pictures, at least {LEAST_PICTURES} are wanted")


def is_near(was: object, found: object) -> bool:
    """Whether outputs say the same: the same words, numbers within 5%, as training differs a little between kinds of
    processor; of a picture its size."""
    if isinstance(was, tuple) and isinstance(found, tuple):
        return all(abs(a - b) <= 0.05 * a for a, b in zip(was, found, strict=True))
    texts = [re.split(r"(\d+(?:\.\d+)?)", str(value)) for value in (was, found)]  # words, number, words ...
    return texts[0][::2] == texts[1][::2] and all(
        math.isclose(float(a), float(b), rel_tol=0.05) for a, b in zip(texts[0][1::2], texts[1][1::2], strict=True)
    )


def check_same(path: Path, committed: NotebookNode, executed: NotebookNode) -> None:
    """ValueError if a cell shows something else than the committed one does. Cells tagged `timing` may."""
    for (where, old), (_, new) in zip(code_cells(path, committed), code_cells(path, executed), strict=True):
        was, found = (
            [out.get("text") or picture_size(out) or sorted(out.get("data", {}).items()) for out in cell.outputs]
            for cell in (old, new)
        )
        same = len(was) == len(found) and all(map(is_near, was, found))
        if "timing" not in new.metadata.get("tags", []) and not same:
            raise ValueError(f"{where}: the output is out of date: it was {str(was)[:200]} and is {str(found)[:200]}")


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("chapters", nargs="*", default=[], metavar="CHAPTER", help="numbers such as 3 or 03 [all]")
    parser.add_argument("--check", action="store_true", default=False, help="compare with the outputs, write nothing")
    args = parser.parse_args(argv)
    numbers = {number.zfill(2) for number in args.chapters}
    paths = [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if not numbers or path.name[:2] in numbers]
    if len(paths) < max(1, len(numbers)):
        raise ValueError(f"{NOTEBOOKS} has {len(paths)} of the chapters {' '.join(sorted(numbers))}: use other numbers")
    total = 0.0
    for path in (bar := tqdm(paths, unit="chapter")):
        bar.set_description(path.stem)
        committed, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
        total += (seconds := execute(notebook, path.stem))
        check_cells(path, notebook)
        if seconds > MOST_SECONDS:
            raise ValueError(f"{path.stem}: {seconds:.0f} seconds, at most {MOST_SECONDS}")
        if args.check:
            check_same(path, committed, notebook)
        else:
            write_atomically(path, lambda part, notebook=notebook: nbformat.write(notebook, part))
        bar.write(f"{path.stem:<24}{seconds:6.1f} s")
    print(f"{'total':<24}{total:6.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
