"""The chapters, and the script that executes them: what a chapter must have, and that its check cell can fail."""

import base64
import dataclasses
import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from gpt.model.gpt2 import GPT
from gpt.text.entries import words
from gpt.tuning.lora import lora_layers
from scripts import run_notebooks
from scripts.run_notebooks import check_cells, check_same, code_cells, colab_cell

CHAPTERS = sorted(run_notebooks.NOTEBOOKS.glob("*.ipynb"))
QUICK = {"02-tokens-and-prompts", "07-batches-and-masks"}  # the check cells of the others run with -m slow
NUMBERED = re.compile(r"[ \t>*#]*(Task )?\d")  # how a list begins that has no introduction
LONGEST_LINE = 200  # characters of prose, so that a change shows as a line and not as a paragraph


def stem(path: Path) -> str:
    return path.stem


each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


# ---- the script ----

PICTURE = """
from PIL import Image
def plot_nothing():  # without Matplotlib, which takes two seconds to import
    display(Image.new("L", (2, 1)))
"""
GOOD = [PICTURE + "plot_nothing()", "plot_nothing()", "plot_nothing()", "plot_nothing()", "print('one')\nprint('two')"]


def write_chapter(folder: Path, sources: list[str], tags: dict[int, str] | None = None) -> Path:
    """A chapter with a cell of text and these cells of code; `tags` gives the tag of a code cell."""
    cells = [new_code_cell(source) for source in sources]
    for i, tag in (tags or {}).items():
        cells[i].metadata["tags"] = [tag]
    path = folder / "01-small.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 1 Small"), *cells]), str(path))
    return path


def run(path: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setattr(run_notebooks, "NOTEBOOKS", path.parent)
    return run_notebooks.main(flags)


@pytest.mark.long
def test_a_chapter_is_executed_written_and_then_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = write_chapter(tmp_path, [*GOOD, "import random; print(random.random())"], {5: "timing"})
    assert run(path, monkeypatch, "1") == 0
    assert re.search(r"^01-small +\d+\.\d s$", capsys.readouterr().out, re.MULTILINE)
    first, cells = path.read_text(encoding="utf-8"), read(path).cells
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2, 3, 4, 5, 6]
    assert [cell.id for cell in cells] == [f"cell-{n}" for n in range(1, 8)]
    assert cells[5].outputs[0].text == "one\ntwo\n"
    assert str(tmp_path) not in first and list(tmp_path.iterdir()) == [path]

    assert run(path, monkeypatch, "--check") == 0  # the random number of the timing cell is spared
    assert path.read_text(encoding="utf-8") == first


@pytest.mark.slow
def test_an_output_that_is_out_of_date_fails_the_check_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = write_chapter(tmp_path, GOOD)
    assert run(path, monkeypatch) == 0
    first = path.read_text(encoding="utf-8")
    path.write_text(first.replace("two\\n", "three\\n"), encoding="utf-8")
    changed = path.read_text(encoding="utf-8")
    assert run(path, monkeypatch, "--check") == 2
    assert "01-small, cell 6" in capsys.readouterr().err and path.read_text(encoding="utf-8") == changed


def test_an_error_names_chapter_and_cell_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = write_chapter(tmp_path, ["x = 1", "assert x == 2, 'x is not two'"])
    before = path.read_bytes()
    assert run(path, monkeypatch) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert all(part in error for part in ("01-small, cell 3", "AssertionError", "x is not two"))
    assert path.read_bytes() == before


def test_a_number_that_no_chapter_has_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run(write_chapter(tmp_path, GOOD), monkeypatch, "1", "7") == 2
    assert "has 1 of the chapters 01 07" in capsys.readouterr().err


def picture(width: int = 2) -> NotebookNode:
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + width.to_bytes(4, "big") + (1).to_bytes(4, "big")
    data = {"image/png": base64.b64encode(header).decode()}
    return nbformat.v4.new_output("display_data", data=data)


def text(value: str, name: str = "stdout") -> NotebookNode:
    return nbformat.v4.new_output("stream", text=value, name=name)


def executed(*cells: tuple[str, list[NotebookNode]], tag: str = "") -> NotebookNode:
    """A notebook as it is after execution: (source, outputs) of each code cell; the last one has the tag."""
    notebook = new_notebook(cells=[new_code_cell(source, outputs=outputs) for source, outputs in cells])
    notebook.cells[-1].metadata["tags"] = [tag]
    return notebook


FOUR = ("plot_lines(x)", [picture()] * 4)


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (("plot_bars(x);", [text("no picture")]), "no picture came out"),
        (("f()", [text("UserWarning: ...", "stderr")]), "wrote to stderr"),
        (("x = '" + 84 * "x" + "'", []), "90 characters"),
    ],
    ids=["a cell that plots without a picture", "a warning", "a long line"],
)
def test_a_cell_is_refused_for(cell: tuple[str, list[NotebookNode]], complaint: str) -> None:
    check_cells(Path("01-x.ipynb"), executed(FOUR))
    with pytest.raises(ValueError, match=f"01-x, cell 2.*{complaint}"):
        check_cells(Path("01-x.ipynb"), executed(FOUR, cell))


def test_a_chapter_with_three_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="3 pictures"):
        check_cells(Path("01-x.ipynb"), executed((FOUR[0], FOUR[1][:3])))


def test_outputs_are_compared_by_text_and_by_the_size_of_pictures() -> None:
    path, before = Path("01-x.ipynb"), executed(("f()", [text("a"), picture()]))
    check_same(path, before, executed(("f()", [text("a"), picture()])))
    loss, close, far = (executed(("f()", [text(f"the loss is {loss}")])) for loss in (4.01, 4.03, 4.4))
    check_same(path, loss, close)
    with pytest.raises(ValueError, match="out of date"):
        check_same(path, loss, far)
    for outputs in ([text("b"), picture()], [text("a")], [text("a"), picture(width=3)]):
        with pytest.raises(ValueError, match="out of date"):
            check_same(path, before, executed(("f()", outputs)))
        check_same(path, before, executed(("f()", outputs), tag="timing"))


def test_a_rich_output_is_the_same_in_whatever_order_its_forms_are_written() -> None:
    def rich(**data: str) -> NotebookNode:
        return executed(("f()", [nbformat.v4.new_output("execute_result", data=data, execution_count=1)]))

    check_same(Path("01-x.ipynb"), rich(markdown="|a|", plain="an object"), rich(plain="an object", markdown="|a|"))
    with pytest.raises(ValueError, match="out of date"):
        check_same(Path("01-x.ipynb"), rich(markdown="|a|", plain="an object"), rich(plain="an object", markdown="|b|"))


# ---- what every chapter has ----


def test_the_chapters_are_numbered_without_a_gap() -> None:
    assert [path.name[:2] for path in CHAPTERS] == [f"{n:02d}" for n in range(1, len(CHAPTERS) + 1)]


@each_chapter
def test_a_chapter_opens_with_its_title_and_its_badge_and_installs_on_colab(path: Path) -> None:
    first, colab = read(path).cells[:2]
    assert re.match(rf"# {int(path.name[:2])} [A-Z]", first.source)
    assert f"https://colab.research.google.com/github/OWNER/gpt/blob/main/notebooks/{path.name}" in first.source
    assert "After this chapter you can" in first.source and "minutes" in first.source
    assert colab.metadata.tags == ["colab"] and colab.source == colab_cell(path.stem)


@each_chapter
def test_a_chapter_shows_where_you_are_checks_itself_and_has_exercises_with_solutions(path: Path) -> None:
    notebook = read(path)
    assert "plot_way(" in [cell for _, cell in code_cells(path, notebook)][1].source
    [check] = tagged(notebook, "check")
    assert "assert" in check.source and check.metadata.get("breaks")
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for title in ("Your draft and the library", "Exercises", "What you have now"):
        assert f"\n## {title}\n" in f"\n{prose}\n"
    solutions = tagged(notebook, "solution")
    assert len(solutions) >= 3
    for cell in solutions:
        assert "assert" in cell.source and cell.metadata.jupyter.source_hidden


@each_chapter
def test_the_committed_outputs_are_whole_and_tell_nothing_of_the_machine(path: Path) -> None:
    notebook = read(path)
    check_cells(path, notebook)
    cells = [cell for _, cell in code_cells(path, notebook)]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    shown = str([output for cell in cells for output in cell.outputs if "image/png" not in output.get("data", {})])
    assert not re.search(r"/home/|/root/|/work/|/tmp/|/Users/|[A-Z]:\\\\|site-packages| at 0x[0-9a-f]{6}", shown)


@each_chapter
def test_the_prose_is_wrapped(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            long = [line for line in cell.source.splitlines() if len(line) > LONGEST_LINE and "](" not in line]
            assert not [line for line in long if not line.startswith("|")]  # a row of a table cannot be broken


@each_chapter
def test_the_links_of_a_chapter_lead_to_files(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", cell.source):
                assert (path.parent / target).exists() or re.match(r"[01]\d-[a-z0-9-]+\.ipynb$", target), target


@each_chapter
def test_a_chapter_names_the_library_functions_that_its_check_would_miss(path: Path) -> None:
    for name in breaks_of(path):
        owner, attribute = find(name)
        assert callable(getattr(owner, attribute)), name


# ---- the check cells ----


def breaks_of(path: Path) -> list[str]:
    """The dotted names of the library functions that a chapter's check cell compares with."""
    [check] = tagged(read(path), "check")
    names = check.metadata["breaks"]
    return [names] if isinstance(names, str) else list(names)


def find(name: str) -> tuple[object, str]:
    """`gpt.text.tokenizer.Tokenizer.encode` -> (the class, "encode")"""
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:-1]:
            owner = getattr(owner, part)
        return owner, parts[-1]
    raise ValueError(f"no module in {name!r}")


def changed(value: object) -> object:
    """The value with one small thing wrong."""
    if isinstance(value, torch.Tensor):
        wrong = value.detach().clone(memory_format=torch.contiguous_format)
        if wrong.dtype == torch.bool:
            wrong.view(-1)[-1:] ^= True
        else:
            wrong.view(-1)[-1:] += 1 if not wrong.is_floating_point() else 0.01 * (1 + wrong.view(-1)[-1:].abs())
        return wrong
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + (1 if isinstance(value, int) else 0.01)
    if isinstance(value, str):
        return value[:-1] + ("x" if value[-1:] != "x" else "y")
    if isinstance(value, list):
        return [*value[:-1], changed(value[-1])] if value and not isinstance(value[-1], str) else value[:-1] or ["x"]
    if isinstance(value, dict):
        return {key: changed(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        parts = [changed(value[0]), *value[1:]]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if hasattr(value, "__next__"):
        return iter([changed(item) for item in value])
    raise TypeError(f"no way to change a {type(value).__name__}: name a wrong variant in WRONG")


def slightly_off(right: Callable) -> Callable:
    return lambda *args, **kwargs: changed(right(*args, **kwargs))


def joined_as_text(right: Callable) -> Callable:
    """encode_entry, with prompt and response encoded as one text: BPE merges across the seam."""

    def encode_entry(entry: dict, tokenizer: object, template: str = "alpaca", max_length: int = 1024) -> object:
        example = right(entry, tokenizer, template, max_length)
        body = tokenizer.encode(tokenizer.decode(example.ids[:-1]))
        return example._replace(ids=[*body, example.ids[-1]])

    return encode_entry


def without_trailing_spaces(right: Callable) -> Callable:
    return lambda self, text: right(self, text.rstrip(" \n"))


def one_preamble_for_both(right: Callable) -> Callable:
    return lambda entry, template="alpaca": right(entry, "book" if template == "alpaca" else template)


def padding_counts(right: Callable) -> Callable:
    """collate, with the end of text that pads a row taken for a target."""

    def collate(examples: list, loss_on: str = "response", eot_id: int = 50256) -> tuple:
        inputs, targets = right(examples, loss_on, eot_id)
        return inputs, targets.masked_fill(inputs == eot_id, eot_id)

    return collate


def offset_in_the_shard(right: Callable) -> Callable:
    """read_tf_index, with the last tensor four bytes too far."""

    def read_tf_index(path: Path) -> dict:
        index = right(path)
        last = max(index)
        return index | {last: dataclasses.replace(index[last], offset=index[last].offset + 4)}

    return read_tf_index


def turned_if_square(right: Callable) -> Callable:
    """read_tf_tensor, with what fits either way round turned."""

    def read_tf_tensor(prefix: Path, name: str) -> np.ndarray:
        array = right(prefix, name)
        return array.swapaxes(-1, -2) if array.ndim > 1 and array.shape[-1] == array.shape[-2] else array

    return read_tf_tensor


def turned(right: Callable) -> Callable:
    """load_model, with a square matrix the wrong way round: no shape check would find it."""

    def load_model(*args: object, **kwargs: object) -> object:
        model = right(*args, **kwargs)
        weight = model.h[0].attn.c_proj.weight
        weight.data = weight.data.t().contiguous()
        return model

    return load_model


def as_a_set(right: Callable) -> Callable:
    """token_f1, with a word counted once however often it stands."""
    return lambda *texts: right(*(" ".join(dict.fromkeys(text.lower().split())) for text in texts))


def alpha_alone(right: Callable) -> Callable:
    """add_lora, with the division by the rank forgotten."""
    return lambda model, rank, alpha, *args, **kwargs: right(model, rank, alpha * rank, *args, **kwargs)


def last_one_only(right: Callable) -> Callable:
    """use_adapters and merge_lora, with a single adapter at work."""

    def of_one(model: GPT, names: Sequence[str] = ()) -> None:
        for layer in lora_layers(model).values():
            layer.active = layer.active[-1:]
        right(model, *([names[-1:]] if names else []))

    return of_one


def not_at_all(right: Callable) -> Callable:
    return lambda model: None


def first_number(right: Callable) -> Callable:
    """parse_score, with the first number in the reply taken for the score."""
    return lambda reply: int(found[0]) if (found := re.search(r"\d+", reply)) else None


def in_any_order(right: Callable) -> Callable:
    """rouge_l, of the words that both have, in whatever order they stand."""
    return lambda one, two: right(" ".join(sorted(words(one))), " ".join(sorted(words(two))))


def introduction_kept(right: Callable) -> Callable:
    """listed_items, with the sentence before a list taken for a task."""
    return lambda reply: right(reply if NUMBERED.match(reply) else f"1. {reply}")


def one_instance(right: Callable) -> Callable:
    """labelled_parts, with a label that comes again taken for a correction of the first."""
    return lambda reply, names: [{name: text for part in right(reply, names) for name, text in part.items()}]


def rest_guessed(right: Callable) -> Callable:
    """objects_in, with an object that was cut off closed as it stands."""
    return lambda reply: right(reply + '"}')


def a_tenth_stricter(right: Callable) -> Callable:
    """Pool.similar, with a limit of 0.6."""
    return lambda self, text, limit=0.7: right(self, text, limit - 0.1)


def only_seeds_shown(right: Callable) -> Callable:
    """propose_job, with the teacher's own tasks never shown to it."""
    return lambda tasks, made, *others: right(tasks, [], *others)


def one_example_more(right: Callable) -> Callable:
    """self_instruct, with one example more in each prompt."""
    return lambda tasks, *others, **options: right(tasks, *others, **options | {"k": options["k"] + 1})


def last_one_kept(right: Callable) -> Callable:
    """deduplicate, with the last of a group kept and not the first."""
    return lambda entries, *others: right(entries[::-1], *others)[::-1]


def shorter_shingles(right: Callable) -> Callable:
    return lambda text, size=5: right(text, size - 1)


def share_of_the_smaller(right: Callable) -> Callable:
    """jaccard_of, with what both have divided by the smaller set and not by the union."""

    def jaccard_of(a: np.ndarray, b: np.ndarray) -> float:
        return len(np.intersect1d(a, b)) / min(len(a), len(b))

    return jaccard_of


def stages_in_another_order(right: Callable) -> Callable:
    """run_stages, backwards: as many entries are dropped, for other reasons."""
    return lambda rows, stages, *others: right(rows, dict(reversed(stages.items())), *others)


# dotted name -> (the right function -> a subtly wrong one); for others, one small thing of the result is changed
WRONG: dict[str, Callable[[Callable], Callable]] = {
    "gpt.text.tokenizer.Tokenizer.encode": without_trailing_spaces,
    "gpt.text.prompts.format_prompt": one_preamble_for_both,
    "gpt.text.dataset.encode_entry": joined_as_text,
    "gpt.text.dataset.collate": padding_counts,
    "gpt.weights.tf_checkpoint.read_tf_index": offset_in_the_shard,
    "gpt.weights.tf_checkpoint.read_tf_tensor": turned_if_square,
    "gpt.weights.checkpoint.load_model": turned,
    "gpt.evaluation.metrics.token_f1": as_a_set,
    "gpt.tuning.lora.add_lora": alpha_alone,
    "gpt.tuning.lora.use_adapters": last_one_only,
    "gpt.tuning.lora.merge_lora": last_one_only,
    "gpt.tuning.lora.unmerge_lora": not_at_all,
    "gpt.evaluation.judge.parse_score": first_number,
    "gpt.evaluation.metrics.rouge_l": in_any_order,
    "gpt.curation.replies.listed_items": introduction_kept,
    "gpt.curation.replies.labelled_parts": one_instance,
    "gpt.curation.replies.objects_in": rest_guessed,
    "gpt.curation.self_instruct.Pool.similar": a_tenth_stricter,
    "gpt.curation.self_instruct.propose_job": only_seeds_shown,
    "gpt.curation.self_instruct.self_instruct": one_example_more,
    "gpt.curation.dedup.deduplicate": last_one_kept,
    "gpt.curation.dedup.shingle_hashes": shorter_shingles,
    "gpt.curation.dedup.jaccard_of": share_of_the_smaller,
    "gpt.curation.pipeline.run_stages": stages_in_another_order,
}


def run_cells(path: Path, namespace: dict[str, object]) -> str:
    """Execute the code cells before the check cell, and return the check's source."""
    for _, cell in code_cells(path, read(path)):
        tags = cell.metadata.get("tags", [])
        if "check" in tags:
            return cell.source
        if "colab" not in tags:
            exec(compile(cell.source, f"{path.stem}: {cell.id}", "exec"), namespace)
    raise ValueError(f"{path.stem} has no check cell")


@pytest.mark.long
@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=[] if p.stem in QUICK else [pytest.mark.slow]) for p in CHAPTERS],
)
def test_the_check_passes_and_fails_when_the_library_is_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    check = run_cells(path, namespace)
    exec(check, dict(namespace))
    for name in breaks_of(path):
        owner, attribute = find(name)
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, WRONG.get(name, slightly_off)(getattr(owner, attribute)))
            with pytest.raises(AssertionError):
                exec(check, dict(namespace))
    plt.close("all")
