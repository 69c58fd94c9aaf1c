"""Recorded replies: played without a server, kept as they come, and the script that records a chapter's."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from gpt.curation.replay import Replies, UnknownPrompt
from scripts import record_replies
from tests.judge_server import serving

ABOUT = {"teacher": "small", "temperature": 0.7}
DATA = Path(__file__).parents[2] / "data" / "replies.json"


def read(path: Path) -> tuple[dict, dict[str, str]]:
    """(who replied and how, prompt -> reply)"""
    record = json.loads(path.read_text(encoding="utf-8"))
    return record, {row["prompt"]: row["reply"] for row in record.pop("replies")}


def test_a_reply_is_asked_for_once_and_then_played_without_a_server(tmp_path: Path) -> None:
    path, asked = tmp_path / "r.json", []
    recording = Replies(path, lambda prompt: asked.append(prompt) or f"{prompt}!", ABOUT)
    assert [recording.ask(prompt) for prompt in ("one", "二", "one")] == ["one!", "二!", "one!"]
    assert asked == ["one", "二"] and read(path) == (ABOUT, {"one": "one!", "二": "二!"})
    assert "二" in path.read_text(encoding="utf-8") and list(tmp_path.iterdir()) == [path]

    played = Replies(path)
    assert played.about == ABOUT and played.ask("二") == "二!"


def test_a_prompt_that_nobody_recorded_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    for path in (DATA, tmp_path / "none.json"):
        with pytest.raises(
            UnknownPrompt, match=r"no reply to the prompt that ends in 'Something new\?'.*record_replies"
        ):
            Replies(path).ask("Something\nnew?")


def test_what_was_recorded_before_a_teacher_broke_down_is_not_asked_again(tmp_path: Path) -> None:
    path, asked = tmp_path / "r.json", []

    def breaks_down(prompt: str) -> str:
        if prompt == "two":
            raise OSError("gone")
        asked.append(prompt)
        return "yes"

    with pytest.raises(OSError, match="gone"):
        [Replies(path, breaks_down, ABOUT).ask(prompt) for prompt in ("one", "two")]
    assert Replies(path, breaks_down, ABOUT).ask("one") == "yes" and asked == ["one"]


def test_replies_of_another_teacher_or_of_other_settings_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    Replies(path, lambda prompt: "old", ABOUT).ask("one")
    for about in ({**ABOUT, "temperature": 0.0}, {**ABOUT, "teacher": "large"}):
        replies = Replies(path, lambda prompt: "new", about)
        assert replies.ask("one") == "new" and read(path) == (about, {"one": "new"})


def test_the_bundled_replies_say_who_made_them_and_how() -> None:
    about, replies = read(DATA)
    assert set(about) == {"teacher", "server", "recorded_by", "temperature", "seed", "max_tokens"}
    assert "SmolLM2" in about["teacher"] and "llama.cpp" in about["server"]
    assert about["recorded_by"] == "python -m scripts.record_replies" and len(replies) > 20


# ---- the script ----

CELLS = [
    ("x = 1", None),
    ("raise SystemExit('no cloning')", "colab"),
    ("teacher = None", "teacher"),
    ("said = [teacher.ask(f'{x}: {y}') for y in 'ab']", None),
    ("assert not said", "check"),
    ("teacher.ask('an exercise')", "solution"),
]


def write_chapter(folder: Path, cells: list[tuple[str, str | None]]) -> Path:
    notebook = new_notebook(cells=[new_code_cell(source) for source, _ in cells])
    for cell, (_, tag) in zip(notebook.cells, cells, strict=True):
        cell.metadata["tags"] = [tag] if tag else []
    nbformat.write(notebook, folder / "chapter.ipynb")
    return folder / "chapter.ipynb"


def record(chapter: Path, url: str, *flags: str) -> int:
    argv = ["--base-url", url, "--model", "models/small.gguf", "--chapter", str(chapter)]
    return record_replies.main([*argv, "--out", str(chapter.parent / "out.json"), *flags])


def test_the_cells_up_to_the_check_are_run_with_the_server_as_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    chapter = write_chapter(tmp_path, CELLS)
    with serving(lambda prompt: f"<{prompt}>", ["models/small.gguf"]) as server:
        assert record(chapter, server.url, "--server", "llama.cpp", "--temperature", "0") == 0
        about, replies = read(tmp_path / "out.json")
        assert (about["teacher"], about["server"], about["temperature"]) == ("small", "llama.cpp", 0.0)
        assert replies == {"1: a": "<1: a>", "1: b": "<1: b>"}
        assert {(body["temperature"], body["seed"], body["max_tokens"]) for body in server.asked} == {(0.0, 123, 160)}

        n = len(server.asked)
        write_chapter(tmp_path, [(source.replace("'ab'", "'bc'"), tag) for source, tag in CELLS])
        assert record(chapter, server.url, "--server", "llama.cpp", "--temperature", "0") == 0
        assert [body["messages"][0]["content"] for body in server.asked[n:]] == ["1: c"]
    assert read(tmp_path / "out.json")[1] == {"1: b": "<1: b>", "1: c": "<1: c>"}  # what nobody asks any more is gone
    assert "2 replies of small in" in capsys.readouterr().out


def test_a_chapter_that_names_no_teacher_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    chapter = write_chapter(tmp_path, [CELLS[0]])
    with serving(lambda prompt: "yes", ["models/small.gguf"]) as server:
        assert record(chapter, server.url) == 2
    assert "no cell is tagged `teacher`" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
