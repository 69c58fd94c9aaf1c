"""The Chinese chapters: every text has its counterpart, code and outputs are those of the English chapters."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from scripts import chinese_notebooks, run_notebooks
from scripts.chinese_notebooks import CHINESE, KEY, text_key

TEXTS = ["# A row\n\nA row has `ids`.", "The loss is $-\\ln p$."]
TRANSLATED = ["# 一行\n\n一行有若干 `ids`。", "损失是 $-\\ln p$。"]


@pytest.fixture
def chapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chapter of two texts and a cell with an output."""
    monkeypatch.setattr(run_notebooks, "NOTEBOOKS", tmp_path)
    write(tmp_path, TEXTS)
    return tmp_path


def write(folder: Path, texts: list[str], code: str = "print(1)") -> None:
    printed = new_code_cell(code, outputs=[new_output("stream", text="1\n")])
    cells = [new_markdown_cell(texts[0]), printed, *map(new_markdown_cell, texts[1:])]
    nbformat.write(new_notebook(cells=cells), folder / "01-row.ipynb")


def translate(folder: Path, texts: dict[str, str]) -> None:
    """What a translator does: fill the draft in."""
    path = folder / "zh" / "01-row.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = texts.get(cell.source, cell.source)
    nbformat.write(notebook, path)


def failure(capsys: pytest.CaptureFixture, *flags: str) -> str:
    capsys.readouterr()
    assert chinese_notebooks.main(flags) == 2
    return capsys.readouterr().err


def test_the_chinese_chapters_are_whole_and_up_to_date() -> None:
    assert chinese_notebooks.main(["--check"]) == 0
    for path in (run_notebooks.NOTEBOOKS / "zh").glob("*.ipynb"):
        texts = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]
        assert texts and all(CHINESE.search(text) for text in texts), path


def test_a_draft_is_filled_in_and_follows_the_english_code(chapters: Path, capsys: pytest.CaptureFixture) -> None:
    assert "has no Chinese text" in failure(capsys)
    assert chinese_notebooks.main(["--draft"]) == 0
    assert "has no Chinese text" in failure(capsys, "--check")
    translate(chapters, dict(zip(TEXTS, TRANSLATED, strict=True)))
    assert chinese_notebooks.main([]) == 0 and chinese_notebooks.main(["--check"]) == 0

    write(chapters, TEXTS, "print(1)  # changed")
    assert "out of date" in failure(capsys, "--check")
    assert chinese_notebooks.main([]) == 0
    cells = nbformat.read(chapters / "zh" / "01-row.ipynb", as_version=4).cells
    assert cells[1].source == "print(1)  # changed" and cells[1].outputs[0].text == "1\n"
    assert [cell.source for cell in cells[::2]] == TRANSLATED
    assert [cell.metadata[KEY] for cell in cells[::2]] == list(map(text_key, TEXTS))


def test_a_changed_english_text_wants_a_translator_and_loses_nothing(
    chapters: Path, capsys: pytest.CaptureFixture
) -> None:
    chinese_notebooks.main(["--draft"])
    translate(chapters, dict(zip(TEXTS, TRANSLATED, strict=True)))
    write(chapters, [TEXTS[0], "The loss is $-\\ln q$."])
    assert "01-row, cell 3 ('The loss is $-\\\\ln q$.') has no Chinese text" in failure(capsys)
    write(chapters, TEXTS[:1])
    assert "has changed: translate it anew" in failure(capsys)
    assert chinese_notebooks.main(["--draft"]) == 0
    assert TRANSLATED[1] in json.loads((chapters / "zh" / "01-row.ipynb").read_text("utf-8"))["cells"][-1]["source"][-1]


def test_a_translation_that_lost_its_code_is_refused(chapters: Path, capsys: pytest.CaptureFixture) -> None:
    chinese_notebooks.main(["--draft"])
    translate(chapters, {TEXTS[0]: "# 一行\n\n一行有若干编号。", TEXTS[1]: TRANSLATED[1]})
    assert "code or formulas of the Chinese text are not those" in failure(capsys)


def test_a_translation_of_no_chapter_is_named(chapters: Path, capsys: pytest.CaptureFixture) -> None:
    (chapters / "zh").mkdir()
    nbformat.write(new_notebook(), chapters / "zh" / "02-gone.ipynb")
    assert "02-gone.ipynb translates a chapter that is not there" in failure(capsys)
