"""scripts.evaluate --compare as a user starts it, on small models with random weights."""

import json
from pathlib import Path

import pytest

from gpt.model.gpt2 import GPTConfig
from gpt.text.entries import entries_sha256, load_entries, split_entries
from gpt.training.run import RunSettings, save_settings
from gpt.training.train import TrainConfig
from gpt.weights.checkpoint import save_model
from scripts import answers, compare, evaluate
from scripts.new_run import ENTRIES
from tests.reference import random_model

FAST = ["--device", "cpu", "--max-new-tokens", "6"]


def make_run(folder: Path, data: Path, weights: int = 0, template: str = "short", seed: int = 123) -> Path:
    """A run folder as far as a comparison reads it."""
    save_model(
        random_model(GPTConfig(context_length=128, n_embd=32, n_layer=1, n_head=2), seed=weights), folder, template
    )
    sha256 = entries_sha256(load_entries(data))
    save_settings(folder, RunSettings("gpt2-tiny", str(data), sha256, template, "grouped", TrainConfig(seed=seed)), {})
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Every 25th of the bundled entries."""
    path = tmp_path / "some.json"
    path.write_text(json.dumps(load_entries(ENTRIES)[::25]), encoding="utf-8")
    return path


@pytest.fixture
def runs(tmp_path: Path, data: Path) -> tuple[Path, Path]:
    return make_run(tmp_path / "one", data), make_run(tmp_path / "two", data, weights=1, template="alpaca")


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(template, entries) of each call that generates."""
    calls, respond = [], answers.respond

    def counted(model: object, tokenizer: object, entries: list, **settings: object) -> object:
        calls.append((settings["template"], len(entries)))
        return respond(model, tokenizer, entries, **settings)

    monkeypatch.setattr(answers, "respond", counted)
    return calls


@pytest.mark.long
def test_a_comparison_is_written_and_told_in_a_sentence(
    runs: tuple[Path, Path], data: Path, generated: list, capsys: pytest.CaptureFixture
) -> None:
    one, two = runs
    assert evaluate.main([str(one), "--compare", str(two), *FAST]) == 0
    n = len(split_entries(load_entries(data))[2])
    assert generated == [("short", n), ("alpaca", n)]  # each with the words it was trained on
    folder = one / "comparison"
    assert {path.name for path in folder.iterdir()} == {
        "comparison.md", "comparison.html", "comparison.json", "scores.png", "difference-0.png",
    }  # fmt: skip
    found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert found["n"] == n
    assert list(found["models"]) == ["one", "two"]
    out = capsys.readouterr().out
    sentence = out.splitlines()[0]
    assert sentence in (folder / "comparison.md").read_text(encoding="utf-8").replace("**", "")
    assert sentence.startswith(("one beats two.", "two beats one.", "one and two cannot be told apart."))
    assert str(folder / "comparison.html") in out
    assert not (two / "comparison").exists()


@pytest.mark.long
def test_the_same_comparison_is_not_generated_twice(runs: tuple[Path, Path], data: Path, generated: list) -> None:
    one, two = runs
    argv = [str(one), "--compare", str(two), *FAST]
    assert evaluate.main(argv) == 0
    before = {path.name: path.read_bytes() for path in (one / "comparison").glob("comparison.*")}
    assert evaluate.main(argv) == 0
    assert len(generated) == 2
    assert {path.name: path.read_bytes() for path in (one / "comparison").glob("comparison.*")} == before
    make_run(two, data, weights=2, template="alpaca")  # trained anew
    assert evaluate.main(argv) == 0
    assert len(generated) == 3
    assert evaluate.main([*argv[:-1], "7"]) == 0  # longer answers are others
    assert len(generated) == 5


@pytest.mark.long
def test_a_run_with_other_test_entries_is_refused(
    runs: tuple[Path, Path], data: Path, tmp_path: Path, generated: list, capsys: pytest.CaptureFixture
) -> None:
    one, _ = runs
    other = make_run(tmp_path / "other", data, weights=1, seed=5)
    assert evaluate.main([str(one), "--compare", str(other), *FAST]) == 2
    error = capsys.readouterr().err
    ours, theirs = (split_entries(load_entries(data), seed=seed) for seed in (123, 5))
    n_seen = sum(entry in theirs[0] for entry in ours[2])
    assert f"{other} has other test entries than {one}, and was trained on {n_seen} of its {len(ours[2])}" in error
    assert error.count("\n") == 1
    assert n_seen > 0
    assert not generated
    assert evaluate.main([str(one), "--compare", str(other), "--data", str(data), *FAST]) == 0
    assert (one / "on-some" / "comparison" / "comparison.html").exists()


WRONG = {
    "an unknown model": (["--compare", "gpt3"], "'gpt3' is neither a folder nor one of"),
    "itself": (["--compare", "RUN"], "is named twice"),
    "examples": (["--compare", "gpt2-tiny", "-k", "2"], "-k is for the few-shot row"),
}


@pytest.mark.long
@pytest.mark.parametrize("case", WRONG)
def test_what_the_user_can_mend_is_one_line(
    case: str, runs: tuple[Path, Path], generated: list, capsys: pytest.CaptureFixture
) -> None:
    flags, message = WRONG[case]
    assert evaluate.main([str(runs[0]), *(str(runs[0]) if f == "RUN" else f for f in flags), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not generated


def test_runs_of_the_same_name_and_a_base_model_are_told_apart(data: Path, tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "a" / "run", data), make_run(tmp_path / "b" / "run", data, weights=1)
    models = compare.find_models(one, [str(two), "gpt2-tiny"])
    assert list(models) == [str(one), str(two), "gpt2-tiny"]
    assert models[str(one)] == one
    named = make_run(tmp_path / "gpt2-tiny", data)
    assert list(compare.find_models(named, [str(two), "gpt2-tiny"])) == [str(named), "run", "gpt2-tiny"]
