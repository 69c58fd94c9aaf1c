"""The scripts as a user starts them, in-process, on the bundled model and a few entries."""

import importlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt.model.generate import respond
from gpt.text.entries import entries_sha256, load_entries, split_entries
from gpt.text.prompts import encode_prompt, format_prompt
from gpt.text.tokenizer import load_tokenizer
from gpt.weights.checkpoint import load_model
from scripts import evaluate, finetune, make_entries, tour
from scripts import respond as respond_script

SCRIPTS = sorted(p.stem for p in Path(finetune.__file__).parent.glob("*.py") if "def main(" in p.read_text())
FAST = ["--epochs", "2", "--batch-size", "16", "--device", "cpu"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 25th of the bundled entries: about eighty."""
    path = tmp_path_factory.mktemp("data") / "some.json"
    path.write_text(json.dumps(load_entries(finetune.ENTRIES)[::25]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run that went through without a stop."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert finetune.main(["--data", str(data), "--out", str(folder), *FAST]) == 0
    return folder


def read(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


# ---- the run folder ----


def test_the_run_folder_holds_everything(finished: Path, data: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "vocab.json", "merges.txt",
        "tokenizer_config.json", "training.json", "history.json", "metrics.json", "responses.json", "report.md",
        "loss.png", "scores.png", "last",
    }  # fmt: skip
    training = read(finished / "training.json")
    assert training["template"] == "alpaca"
    assert training["entries_sha256"] == entries_sha256(load_entries(data))
    assert training["config"]["seed"] == 123
    assert {"python", "torch"} <= set(training["versions"])
    history = read(finished / "history.json")
    assert history[0]["step"] == 0
    assert history[-1]["step"] == history[-1]["n_steps"]
    assert all(set(h["val"]) == {"all", "header", "response"} for h in (history[0], history[-1]))
    assert history[-1]["val"]["response"] < history[0]["val"]["response"]


def test_transformers_reads_the_run_as_it_is(finished: Path) -> None:
    theirs, ours = AutoModelForCausalLM.from_pretrained(finished), load_model(finished)
    tokenizer, their_tokenizer = load_tokenizer(), AutoTokenizer.from_pretrained(finished)
    entry = {"instruction": "Name three colors.", "input": "", "output": ""}
    message = [{"role": "user", "content": entry["instruction"]}]
    assert their_tokenizer.apply_chat_template(message, tokenize=False) == format_prompt(entry)
    ids = torch.tensor([encode_prompt(entry, tokenizer)])
    assert their_tokenizer.apply_chat_template(message, return_tensors="pt", return_dict=True)["input_ids"].equal(ids)
    with torch.no_grad():
        assert (theirs(ids).logits - ours(ids)).abs().max() < 1e-4
    greedy = theirs.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
    response = next(respond(ours, tokenizer, [entry], max_new_tokens=12))
    assert tokenizer.decode([i for i in greedy if i != 50256]).strip() == response.text


def test_responses_hold_one_object_for_each_test_entry(finished: Path, data: Path) -> None:
    test = split_entries(load_entries(data))[2]
    responses = read(finished / "responses.json")
    assert len(responses) == len(test) > 5
    for row, entry in zip(responses, test, strict=True):
        assert {name: row[name] for name in entry} == entry
        assert set(row) - set(entry) == {"model_response", "base_response", "stopped_by"}


def test_metrics_stand_before_after_and_beside_the_floors(finished: Path) -> None:
    metrics = read(finished / "metrics.json")
    rows = [metrics["before"], metrics["after"], *metrics["floors"].values()]
    assert set(metrics["floors"]) == {"copied_input", "nearest_training_answer"}
    for row in rows:
        assert set(row) >= {"exact_match", "token_f1", "rouge_l", "bleu"}
        for score in row.values():
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1


def test_the_report_shows_settings_losses_scores_counts_and_examples(finished: Path) -> None:
    report = (finished / "report.md").read_text(encoding="utf-8")
    for part in ("## Losses", "(loss.png)", "## Scores", "copied input", "## What was cut or dropped", "### 1. ",
                 "**Before**", "**After**", "## Settings", "| loss_on", "tokens/s"):  # fmt: skip
        assert part in report, part
    assert report.count("\n**Instruction**\n") == min(10, len(read(finished / "responses.json")))


# ---- stopping and going on ----


def test_ctrl_c_saves_and_resume_ends_at_the_same_weights(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class PressesCtrlC(finetune.tqdm):
        def set_postfix_str(self, *args: object, **kwargs: object) -> None:
            super().set_postfix_str(*args, **kwargs)
            if self.n == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "tqdm", PressesCtrlC)
        assert finetune.main(["--data", str(data), "--out", str(tmp_path / "run"), *FAST]) == 130
    assert f"python -m scripts.finetune --resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert read(tmp_path / "run" / "history.json")[-1]["step"] == 4  # the step after the one that drew the bar
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert finetune.main(["--resume", str(tmp_path / "run"), "--device", "cpu"]) == 0
    for name, tensor in load_file(finished / "model.safetensors").items():
        assert torch.equal(tensor, load_file(tmp_path / "run" / "model.safetensors")[name]), name
    losses = [[h["loss"] for h in read(folder / "history.json")] for folder in (finished, tmp_path / "run")]
    assert losses[0] == losses[1]
    assert read(tmp_path / "run" / "responses.json") == read(finished / "responses.json")


def test_a_run_whose_entries_have_changed_is_not_resumed(
    finished: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    training = read(finished / "training.json")
    training["data"] = str(tmp_path / "other.json")  # a file of the same name, with other data in it
    entries = load_entries(data)
    (tmp_path / "other.json").write_text(json.dumps([entries[0] | {"output": "changed"}, *entries[1:]]))
    (tmp_path / "training.json").write_text(json.dumps(training))
    assert finetune.main(["--resume", str(tmp_path), "--device", "cpu"]) == 2
    assert "has changed since the run began" in capsys.readouterr().err


# ---- errors ----

WRONG = {
    "a missing file": (["--data", "nowhere.json"], "nowhere.json"),
    "an unknown model": (["--model", "gpt3"], "'gpt3' is neither a folder nor one of"),
    "an unknown template": (["--template", "alpacca"], "template 'alpacca' is not known: use one of alpaca"),
    "an unknown split": (["--split", "random"], "split 'random' is not known"),
    "an impossible setting": (["--lr", "-1"], "lr is -1.0: it must be more than 0"),
    "an unknown device": (["--device", "gpu9"], "device 'gpu9' cannot be used"),
    "a resume with other settings": (["--resume", "x", "--lr", "1"], "--resume takes all settings from the run"),
    "a resume of nothing": (["--resume", "nowhere"], "nowhere holds no run"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags, message = WRONG[case]
    assert finetune.main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))  # nothing was begun


def test_a_folder_with_a_run_in_it_is_not_overwritten(
    finished: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    assert finetune.main(["--data", str(data), "--out", str(finished), *FAST]) == 2
    assert f"already holds a run: choose another --out, or go on with --resume {finished}" in capsys.readouterr().err


def test_too_few_entries_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = [{"instruction": f"say {i}", "input": "", "output": "x"} for i in range(5)]
    (tmp_path / "few.json").write_text(json.dumps(few))
    assert finetune.main(["--data", str(tmp_path / "few.json"), "--out", str(tmp_path / "run"), *FAST]) == 2
    assert "leaves none for validation: use 20 or more" in capsys.readouterr().err


def test_without_cuda_or_weights_the_bundled_model_is_used_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from scripts import choices

    assert choices.choose_model(None, torch.device("cpu"))[0] == "gpt2-tiny"
    monkeypatch.setenv("GPT_CACHE", str(tmp_path))
    for variable in ("GPT_MIRROR", "GPT_MIRROR_OPENAI"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert choices.choose_model(None, torch.device("cuda"))[0] == "gpt2-tiny"
    assert "gpt2-medium cannot be had, so gpt2-tiny is used" in capsys.readouterr().out


# ---- the other scripts ----


def test_respond_answers_from_a_run_with_the_runs_template(finished: Path, capsys: pytest.CaptureFixture) -> None:
    flags = [str(finished), "Write the word in capital letters.", "--input", "lamp", "--device", "cpu"]
    assert respond_script.main([*flags, "--max-new-tokens", "20"]) == 0
    first = capsys.readouterr().out
    assert first.strip()
    assert respond_script.main([*flags, "--max-new-tokens", "20", "--temperature", "1.5", "--top-k", "50"]) == 0
    assert capsys.readouterr().out != first


def test_evaluate_scores_a_run_on_other_entries(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("\n".join(json.dumps(e) for e in load_entries(finetune.ENTRIES)[3:300:60]))
    flags = ["--data", str(path), "--out", str(tmp_path / "scores"), "--device", "cpu", "--max-new-tokens", "20"]
    assert evaluate.main([str(finished), *flags]) == 0
    metrics = read(tmp_path / "scores" / "metrics.json")
    assert metrics["n"] == 5
    assert len(read(tmp_path / "scores" / "responses.json")) == 5
    assert "ROUGE-L" in capsys.readouterr().out


def test_the_tour_walks_through_every_station(capsys: pytest.CaptureFixture) -> None:
    assert tour.main([]) == 0
    shown = capsys.readouterr().out
    for number in range(1, 10):
        assert f"\033[1m{number}. " in shown
    assert "'exact_match': 1.0" in shown  # two entries learned by heart


def test_make_entries_gives_the_bundled_file_again(tmp_path: Path) -> None:
    path = tmp_path / "instructions.json"
    path.write_bytes(finetune.ENTRIES.read_bytes())
    assert make_entries.main(["--file", str(path)]) == 0
    assert path.read_bytes() == finetune.ENTRIES.read_bytes()


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_fits_a_screen(name: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"scripts.{name}").main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 120
