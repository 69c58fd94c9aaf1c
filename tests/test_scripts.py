"""The scripts as a user starts them, in-process, on the bundled model and a few entries."""

import dataclasses
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt.hardware.locks import alone_with
from gpt.model.generate import respond
from gpt.model.gpt2 import GPT
from gpt.studies import recipe
from gpt.text.entries import entries_sha256, load_entries, split_entries
from gpt.text.prompts import encode_prompt, format_prompt
from gpt.text.tokenizer import load_tokenizer
from gpt.training.run import load_settings
from gpt.weights.checkpoint import SIZES, find_folder, load_model
from scripts import drive, evaluate, finetune, make_entries, new_run, tour
from scripts import recipe as recipe_script
from scripts import respond as respond_script

SCRIPTS = sorted(p.stem for p in Path(finetune.__file__).parent.glob("*.py") if "def main(" in p.read_text())
FAST = ["--epochs", "2", "--batch-size", "16", "--device", "cpu"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 25th of the bundled entries: about eighty."""
    path = tmp_path_factory.mktemp("data") / "some.json"
    path.write_text(json.dumps(load_entries(finetune.ENTRIES)[::50]), encoding="utf-8")
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


@pytest.mark.long
def test_the_run_folder_holds_everything(finished: Path, data: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "vocab.json", "merges.txt",
        "tokenizer_config.json", "training.json", "history.json", "metrics.json", "responses.json", "report.md",
        "loss.png", "scores.png", "last", "history.csv", "answers",
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


@pytest.mark.long
def test_ctrl_c_saves_and_resume_ends_at_the_same_weights(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class PressesCtrlC(drive.tqdm):
        def update(self, n: int) -> None:
            super().update(n)
            if self.n == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(drive, "tqdm", PressesCtrlC)
        assert finetune.main(["--data", str(data), "--out", str(tmp_path / "run"), *FAST]) == 130
    said = capsys.readouterr().out
    assert f"python -m scripts.finetune --resume {tmp_path / 'run'}" in said
    assert f"run        {tmp_path / 'run'}, new\n" in said
    n_steps = (last := read(tmp_path / "run" / "history.json")[-1])["n_steps"]
    assert last["step"] == 4  # the step after the one that drew the bar
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert finetune.main(["--resume", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert f"{tmp_path / 'run'}, goes on after step 4 of {n_steps}\n" in capsys.readouterr().out
    config = load_settings(tmp_path / "run")[0].config
    assert "trained to its end before" in drive.where_it_stands(tmp_path / "run", config)
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


@pytest.mark.long
def test_the_run_may_be_the_folder_one_stands_in(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    assert finetune.main(["--data", str(data), "--out", ".", "--dry-run", *FAST]) == 0
    assert "Traceback" not in "".join(capsys.readouterr())
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


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


@pytest.mark.long
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


def test_a_run_that_another_process_works_on_is_left_alone(finished: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with alone_with(finished):
        assert finetune.main(["--resume", str(finished)]) == 2
    assert capsys.readouterr().err.startswith(f"error: another process is writing to {finished}: wait for it")
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


@pytest.mark.long
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--epoch 3", "unrecognized arguments: --epoch 3; did you mean --epochs? (--help shows what there is)"),
        ("--data data/instrction.json", "No such file or directory; did you mean data/instructions.json?"),
        ("--model gpt2-medum", "gpt2-tiny; did you mean gpt2-medium?"),
        ("--zzz", "unrecognized arguments: --zzz (--help shows what there is)"),
    ],
)
def test_what_is_not_known_gets_the_nearest_name_in_one_line(
    flags: str, expected: str, capsys: pytest.CaptureFixture
) -> None:
    try:
        code = finetune.main(flags.split())
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("error: ") and error.endswith(f"{expected}\n") and error.count("\n") == 1


def test_ctrl_c_while_modules_are_imported_is_no_traceback() -> None:
    command = [sys.executable, "-c", "import scripts; raise KeyboardInterrupt"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "stopped\n")


@pytest.mark.long
def test_beside_a_clone_that_is_called_gpt_the_library_is_found(tmp_path: Path) -> None:
    (tmp_path / "gpt").mkdir()  # without __init__.py: for Python an empty namespace, if nothing better comes
    command = [sys.executable, "-c", "import gpt; print(gpt.load_model)"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_a_folder_with_a_run_in_it_is_not_overwritten(
    finished: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    assert finetune.main(["--data", str(data), "--out", str(finished), *FAST]) == 2
    assert f"already holds a run: choose another --out, or go on with --resume {finished}" in capsys.readouterr().err


def test_a_folder_with_a_model_in_it_is_not_overwritten(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert finetune.main(["--data", str(data), "--out", str(tmp_path / "model"), *FAST]) == 2
    assert "already holds a model (config.json): choose another --out" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]


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


def test_an_empty_folder_of_the_same_name_does_not_hide_a_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from scripts import choices

    (tmp_path / "gpt2-tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert choices.choose_model("gpt2-tiny", torch.device("cpu"))[0] == "gpt2-tiny"
    shutil.copy(find_folder("gpt2-tiny") / "config.json", tmp_path / "gpt2-tiny")
    assert choices.choose_model("gpt2-tiny", torch.device("cpu"))[0] == str(tmp_path / "gpt2-tiny")


# ---- the other scripts ----


def test_respond_answers_from_a_run_with_the_runs_template(finished: Path, capsys: pytest.CaptureFixture) -> None:
    flags = [str(finished), "Write the word in capital letters.", "--input", "lamp", "--device", "cpu"]
    assert respond_script.main([*flags, "--max-new-tokens", "20"]) == 0
    first = capsys.readouterr().out
    assert first.strip()
    assert respond_script.main([*flags, "--max-new-tokens", "20", "--temperature", "1.5", "--top-k", "50"]) == 0
    assert capsys.readouterr().out != first


@pytest.mark.long
def test_evaluate_scores_a_run_on_other_entries(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("\n".join(json.dumps(e) for e in load_entries(finetune.ENTRIES)[3:300:60]))
    flags = ["--data", str(path), "--out", str(tmp_path / "scores"), "--device", "cpu", "--max-new-tokens", "20"]
    assert evaluate.main([str(finished), *flags]) == 0
    metrics = read(tmp_path / "scores" / "metrics.json")
    assert metrics["n"] == 5
    assert len(read(tmp_path / "scores" / "responses.json")) == 5
    assert "ROUGE-L" in capsys.readouterr().out


@pytest.mark.long
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


# ---- training: how it ends ----


@pytest.fixture
def without_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes longest and is tested above: the responses and their scores."""
    monkeypatch.setattr(finetune, "evaluate_run", lambda folder, device: None)


@pytest.mark.long
@pytest.mark.usefixtures("without_answers")
def test_patience_is_said_and_written_down(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu", "--batch-size", "16"]
    assert finetune.main([*flags, "--epochs", "9", "--lr", "0.1", "--eval-every", "1", "--patience", "2"]) == 0
    training, history = read(tmp_path / "run" / "training.json"), read(tmp_path / "run" / "history.json")
    assert history[-1]["step"] < history[-1]["n_steps"]
    ended = re.fullmatch(
        r"best validation at step (\d+); ended at step (\d+) of \d+: 2 validations without a better loss than that of"
        r" step \1", training["facts"]["ended"],
    )  # fmt: skip
    assert int(ended[2]) == int(ended[1]) + 2 == history[-1]["step"]
    assert training["facts"]["ended"] in capsys.readouterr().err  # the bar's last line
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert finetune.main(["--resume", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert read(tmp_path / "run" / "history.json") == history
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_fp16_is_refused_on_the_cpu_before_anything_is_begun(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--out", str(tmp_path / "run"), "--device", "cpu", "--precision", "fp16"]
    assert finetune.main(flags) == 2
    assert capsys.readouterr().err.startswith("error: precision fp16 is for CUDA, this is cpu: use float32")
    assert not (tmp_path / "run").exists()


def test_the_precision_is_the_best_that_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts import choices

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert choices.default_precision(torch.device("cuda"))[0] == "bf16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert choices.default_precision(torch.device("cuda"))[0] == "fp16"
    assert {choices.default_precision(torch.device(name))[0] for name in ("cpu", "mps")} == {"float32"}


# ---- the self-check ----


def test_a_model_that_computes_wrong_is_not_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def with_turned_matrices(*args: object) -> object:
        model = load_model(*args)
        for block in model.h:
            block.attn.c_proj.weight.data = block.attn.c_proj.weight.data.t().contiguous()
        return model

    monkeypatch.setattr(finetune, "load_model", with_turned_matrices)
    flags = ["--data", str(data), "--out", str(tmp_path / "run"), *FAST]
    assert finetune.main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: self-check: gpt2-tiny has a loss of ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(finetune, "drive", lambda *args: 130)
    assert finetune.main([*flags, "--no-self-check"]) == 130
    assert "self-check left out" in capsys.readouterr().out
    assert read(tmp_path / "run" / "training.json")["facts"]["self_check"] == "left out"


def test_what_the_self_check_saw_is_said_and_written_down(finished: Path) -> None:
    assert "a loss of " in read(finished / "training.json")["facts"]["self_check"]


# ---- the published recipe ----


def published_like(path: Path) -> Path:
    """Entries in the published file's form: 51 to train, 6 to test, 3 for validation."""
    words = "river teacher garden window market doctor bridge candle forest kitchen".split()
    entries = [
        {
            "instruction": f"Write the word number {i} in capital letters.",
            "input": words[i % 10] if i % 3 else "",
            "output": words[i % 10].upper(),
        }
        for i in range(60)
    ]
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's whole way, on other entries and the bundled model, with an output layer of its own."""
    folder = tmp_path_factory.mktemp("recipe")
    flags = ["--recipe", "book", "--model", "gpt2-tiny", "--data", str(published_like(folder / "entries.json"))]
    assert finetune.main([*flags, "--untie", "--out", str(folder / "run"), "--device", "cpu"]) == 0
    return folder / "run"


@pytest.mark.long
def test_the_recipe_trains_with_the_published_settings(repeated: Path) -> None:
    training = read(repeated / "training.json")
    assert (training["recipe"], training["untie"], training["split"], training["template"]) == (
        "book", True, "ordered", "book",
    )  # fmt: skip
    settings = training["config"]
    assert (settings["lr"], settings["schedule"], settings["weight_decay"], settings["decay_all"]) == (
        5e-5, "constant", 0.1, True,
    )  # fmt: skip
    assert (settings["batch_size"], settings["epochs"], settings["loss_on"], settings["clip"]) == (8, 2, "all", 0.0)
    assert training["facts"]["entries"] == {"train": 51, "val": 3, "test": 6}
    history = read(repeated / "history.json")
    assert history[-1]["n_steps"] == 12  # 3 of 51 entries are dropped in each epoch
    assert {report["lr"] for report in history[1:]} == {5e-5}
    assert read(repeated / "config.json")["tie_word_embeddings"] is False


@pytest.mark.long
def test_the_recipe_compares_with_the_published_log_and_says_when_it_does_not_apply(repeated: Path) -> None:
    found = read(repeated / "recipe.json")
    assert found["verdict"] == (
        "the published figures do not apply to this run: model is gpt2-tiny, not gpt2-medium; other entries"
    )
    rows = {row["label"]: row for row in found["rows"]}
    assert list(rows) == ["before", "step 0", "step 10", "step 50", "step 100", "step 115", "step 230"]
    assert rows["before"]["published"] == {"train": 3.826, "val": 3.762}
    assert [label for label, row in rows.items() if row["ours"]] == ["before", "step 0", "step 10"]
    assert {row["is_within"] for row in rows.values()} == {None}
    losses = [rows[label]["ours"]["val"] for label in ("before", "step 0", "step 10")]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(rows["before"]["ours"]["by_token"]["val"]["all"], abs=0.3)  # one batch of five
    page = (repeated / "recipe.md").read_text(encoding="utf-8")
    for part in ("| before   | 3.826 / 3.762 |", "not reached", "The output layer is a copy", found["verdict"],
                 "Order of shuffling: the published one"):  # fmt: skip
        assert part in page, part


def test_a_setting_of_the_recipe_gives_way_to_its_flag_and_is_named(tmp_path: Path) -> None:
    flags = ["--recipe", "book", "--model", "gpt2-tiny", "--data", str(published_like(tmp_path / "entries.json"))]
    others = ["--epochs", "1", "--no-decay-all", "--lr", "1e-3", "--clip", "1", "--max-length", "200"]
    folder, settings, _ = new_run.new_run(finetune.parse([*flags, *others]), torch.device("cpu"))
    assert folder == Path("runs/book-gpt2-tiny")
    assert recipe.changes(dataclasses.asdict(settings) | vars(settings.config)) == [
        "model is gpt2-tiny, not gpt2-medium", "other entries", "epochs is 1, not 2", "lr is 0.001, not 5e-05",
        "decay_all is False, not True", "clip is 1.0, not 0.0", "max_length is 200, not 1024",
    ]  # fmt: skip


def test_the_page_judges_line_by_line_and_names_the_one_difference() -> None:
    log = [
        {"step": p.n_updates, "published_way": {"train": p.train, "val": p.val + (p.n_updates == 11), "by_token": {
            side: dict.fromkeys(("all", "header", "response"), 1.0) for side in ("train", "val")
        }}} for p in recipe.LOG[:-1]
    ]  # fmt: skip
    page = recipe_script.comparison_page(recipe.compare(log, is_tied=True), [], is_tied=True)
    first_table = page.partition("Verdict:")[0]
    lines = {line.split("|")[1].strip(): line for line in first_table.splitlines() if line.startswith("|")}
    assert lines["step 0"].endswith("|      within |")
    assert lines["step 10"].endswith("|     OUTSIDE |")
    assert lines["step 230"].endswith("| not reached |")
    assert "+0.000 / +1.000" in lines["step 10"]
    assert "**The output layer is the one difference in the model**" in page
    assert "Verdict: no verdict: the run did not get to step 230." in page


def test_the_recipe_fetches_its_entries_and_its_model_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fetched: list[str] = []

    def fetch_entries(name: str) -> Path:
        fetched.append(name)
        return published_like(tmp_path / "entries.json")

    def choose_model(name: str, device: torch.device) -> tuple[str, str]:
        raise OSError(f"{name} is not here")

    monkeypatch.setattr(new_run, "fetch_entries", fetch_entries)
    monkeypatch.setattr(new_run, "choose_model", choose_model)
    assert finetune.main(["--recipe", "book", "--device", "cpu"]) == 2
    assert fetched == ["book"]
    assert capsys.readouterr().err == "error: gpt2-medium is not here\n"


def test_an_offline_recipe_names_the_file_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("GPT_CACHE", str(tmp_path))
    monkeypatch.setenv("GPT_MIRROR_GITHUB", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert finetune.main(["--recipe", "book", "--device", "cpu"]) == 2
    assert "instruction-data.json, not found in" in (error := capsys.readouterr().err.splitlines()[-1])
    assert "python -m scripts.download book" in error


def test_an_unknown_recipe_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert finetune.main(["--recipe", "cook"]) == 2
    assert capsys.readouterr().err == "error: recipe 'cook' is not known: use book\n"


def test_a_folder_with_a_released_shape_counts_as_that_model() -> None:
    with torch.device("meta"):
        model = GPT(dataclasses.replace(SIZES["gpt2-medium"], dropout=0.1, tied=False))
    assert recipe_script.released_name(model, "/some/folder") == "gpt2-medium"
    assert recipe_script.released_name(load_model("gpt2-tiny"), "gpt2-tiny") == "gpt2-tiny"
