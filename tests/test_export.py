"""scripts.export as a user starts it, in-process."""

import sys
from pathlib import Path

import pytest

from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.prompts import TEMPLATES
from gpt.training.run import RunSettings, save_settings
from gpt.training.train import TrainConfig
from gpt.weights.checkpoint import save_model
from scripts import export


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder trained with the template `short`."""
    folder = tmp_path / "a-run"
    save_model(GPT(GPTConfig(context_length=64, n_embd=32, n_layer=1, n_head=1)), folder, "short")
    save_settings(folder, RunSettings("gpt2-tiny", "x.json", "0" * 64, "short", "grouped", TrainConfig()), {})
    return folder


@pytest.mark.long
def test_a_run_leaves_with_its_own_template_and_a_modelfile(run: Path, capsys: pytest.CaptureFixture) -> None:
    path = run.parent / "out" / "m.gguf"
    assert export.main([str(run), "--gguf", str(path), "--type", "q8_0"]) == 0
    assert TEMPLATES["short"].chat_template.encode() in path.read_bytes()
    assert b"general.name\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00a-run" in path.read_bytes()  # 8: a string
    text = (path.parent / "Modelfile").read_text(encoding="utf-8")
    assert "FROM ./m.gguf\n" in text
    assert "\nPARAMETER num_ctx 64\n" in text
    assert "Below is an instruction" not in text  # of another template
    out = capsys.readouterr().out
    assert f"ollama create NAME -f {path.parent / 'Modelfile'}" in out
    assert "q8_0" in out
    assert {p.name for p in path.parent.iterdir()} == {"m.gguf", "Modelfile"}  # nothing half written is left
    assert export.main([str(run), "--gguf", str(path)]) == 0  # its own files are written anew


def test_somebody_elses_modelfile_is_not_overwritten(run: Path, capsys: pytest.CaptureFixture) -> None:
    (run / "Modelfile").write_text("FROM llama3\n")
    assert export.main([str(run), "--gguf", str(run / "m.gguf")]) == 2
    assert "was not written by this script" in capsys.readouterr().err
    assert (run / "Modelfile").read_text() == "FROM llama3\n"
    assert not (run / "m.gguf").exists()


WRONG = {
    "no such run": (["nowhere", "--gguf", "m.gguf"], "'nowhere' is neither a folder nor one of"),
    "an unknown type": (["RUN", "--gguf", "m.gguf", "--type", "q2"], "type 'q2' is not known: use f32, f16, q8_0"),
    "another ending": (["RUN", "--gguf", "m.bin"], "m.bin does not end in .gguf"),
    "an unknown template": (["RUN", "--gguf", "m.gguf", "--template", "x"], "template 'x' is not known"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_user_can_mend_is_one_line(
    case: str, run: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    flags, message = WRONG[case]
    assert export.main([str(run) if flag == "RUN" else flag for flag in flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in run.parent.iterdir()] == ["a-run"]


def test_without_the_library_the_command_to_type_is_said(
    run: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(sys.modules, "gpt.serving.gguf", raising=False)
    assert export.main([str(run), "--gguf", str(run / "m.gguf")]) == 2
    assert "pip install -c constraints.txt -e '.[gguf]'" in capsys.readouterr().err


def test_a_model_that_is_no_run_takes_the_template_asked_for(run: Path) -> None:
    (run / "training.json").unlink()
    assert export.main([str(run), "--gguf", str(run / "m.gguf"), "--template", "zh"]) == 0
    assert "### 指令：\n{{ .Content }}" in (run / "Modelfile").read_text(encoding="utf-8")
