"""Few-shot through the scripts: examples for a base model in `respond`, and its row in `evaluate`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt.evaluation.report import few_shot_sentence
from gpt.model.generate import Response, respond
from gpt.text.entries import Entry, entries_sha256, load_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.training.run import RunSettings, load_split, save_settings
from gpt.training.train import TrainConfig
from gpt.weights.checkpoint import load_model, save_model, write_json
from scripts import answers, evaluate
from scripts import respond as respond_script
from tests.reference import random_model

ENTRIES = Path(__file__).parents[1] / "data" / "instructions.json"
SHORT = ["--device", "cpu", "--max-new-tokens", "8"]


def read(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that took no step: what was trained is not what is tested here."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = folder.parent / "some.json"
    entries = load_entries(ENTRIES)[::50]
    write_json(data, entries)
    settings = RunSettings("gpt2-tiny", str(data), entries_sha256(entries), "alpaca", "grouped", TrainConfig(seed=7))
    facts = {
        "parameters": 1,
        "device": "cpu",
        "precision": "float32",
        "seconds": 1,
        "tokens_per_second": 1,
        "counts": {},
    }
    save_settings(folder, settings, facts)
    save_model(load_model("gpt2-tiny"), folder, "alpaca")
    write_json(
        folder / "history.json",
        [{"step": 0, "loss": None, "val": {"all": 3.0, "header": 3.0, "response": 3.0}, "n_tokens": 0, "seconds": 1.0}],
    )
    return folder


@pytest.fixture(scope="module")
def split(run: Path) -> dict[str, list[Entry]]:
    return load_split(evaluate.load_settings(run)[0])


@pytest.fixture(scope="module")
def scored(run: Path) -> Path:
    assert evaluate.main([str(run), "--out", str(run.parent / "scored"), *SHORT]) == 0
    return run.parent / "scored"


# ---- evaluate ----


@pytest.mark.long
def test_the_few_shot_row_stands_in_every_place(scored: Path, capsys: pytest.CaptureFixture) -> None:
    metrics, report = read(scored / "metrics.json"), (scored / "report.md").read_text(encoding="utf-8")
    for name, score in metrics["before_few_shot"].items():
        assert set(score) == {"value", "low", "high"}, name
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    assert set(metrics["before_few_shot"]) == set(metrics["before"]) == set(metrics["after"])
    assert "before_few_shot" in metrics["format_followed"]
    assert all("before_few_shot" in found for found in metrics["by_kind"].values())
    labels = [line.split("|")[1].strip() for line in report.split("## Scores")[1].splitlines() if line.startswith("|")]
    assert labels[2:7] == ["before", "before, few-shot", "after", "copied input", "nearest training answer"]
    assert "**Before, few-shot**" in report
    assert few_shot_sentence(metrics) in report
    assert "with 3 training entries, drawn with seed 7" in report


def test_the_few_shot_responses_are_the_base_models_after_the_shots(scored: Path, split: dict) -> None:
    shots, responses = read(scored / "metrics.json")["few_shot"]["shots"], read(scored / "responses.json")
    options = {"max_new_tokens": 8}
    base, tokenizer = load_model("gpt2-tiny"), load_tokenizer()
    wanted = [r.text for r in respond(base, tokenizer, split["test"], shots=shots, **options)]
    assert [row["few_shot_response"] for row in responses] == wanted
    without = [r.text for r in respond(base, tokenizer, split["test"], **options)]
    assert [row["base_response"] for row in responses] == without != wanted


def test_shots_are_training_entries_and_follow_the_seed(split: dict) -> None:
    train, test = split["train"], split["test"]
    shots = evaluate.draw_shots(train, test, 3, seed=7)
    assert len(shots) == 3
    assert all(shot in train and shot not in test for shot in shots)
    assert evaluate.draw_shots(train, test, 3, seed=7) == shots != evaluate.draw_shots(train, test, 3, seed=8)


def test_a_test_entry_and_an_entry_without_a_response_are_never_shots(
    split: dict, capsys: pytest.CaptureFixture
) -> None:
    train = split["train"]
    tested = [entry | {"output": "another answer"} for entry in train[2:]]  # the same prompts
    train = [train[0], train[1] | {"output": " "}, *train[2:]]
    assert evaluate.draw_shots(train, tested, 3, seed=7) == train[:1]
    assert "only 1 training entries can serve as examples, not 3" in capsys.readouterr().out
    with pytest.raises(ValueError, match="-k -1"):
        evaluate.draw_shots(train, tested, -1, seed=7)


@pytest.mark.long
def test_k_0_turns_the_few_shot_row_off_and_changes_nothing_else(run: Path, scored: Path, tmp_path: Path) -> None:
    assert evaluate.main([str(run), "--out", str(tmp_path), "-k", "0", *SHORT]) == 0
    with_row, without = read(scored / "metrics.json"), read(tmp_path / "metrics.json")
    assert set(with_row) - set(without) == {"before_few_shot", "few_shot"}
    for name in ("n", "before", "after", "floors"):
        assert with_row[name] == without[name]
    assert "few_shot_response" not in read(tmp_path / "responses.json")[0]
    assert "few-shot" not in (tmp_path / "report.md").read_text(encoding="utf-8").lower()


@pytest.mark.long
def test_a_stopped_evaluation_goes_on_with_the_next_model_and_a_comparison_finds_its_answers(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done, told = tmp_path / "out", [], answers.respond

    def stopped_in_the_third(*given: object, **options: object) -> Iterator[Response]:
        done.append(len(options["shots"]))
        if len(done) == 3:
            raise KeyboardInterrupt
        return told(*given, **options)

    monkeypatch.setattr(answers, "respond", stopped_in_the_third)
    argv = [str(run), "--out", str(out), *SHORT]
    assert evaluate.main(argv) == 130
    assert not (out / "responses.json").exists()
    assert evaluate.main(argv) == 0
    assert done == [0, 3, 0, 0]  # what was there is not asked for again
    assert evaluate.main([*argv, "--compare", "gpt2-tiny"]) == 0
    assert len(done) == 4


def test_prompts_with_room_for_fewer_shots_are_counted_and_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = tmp_path / "two.json"
    test = [
        {"instruction": "Say it.", "input": "", "output": "x"},
        {"instruction": "Say it.", "input": "it " * 300, "output": "x"},
    ]
    write_json(data, test)
    assert evaluate.main([str(run), "--data", str(data), "--out", str(tmp_path / "out"), "-k", "8", *SHORT]) == 0
    assert read(tmp_path / "out" / "metrics.json")["few_shot"]["n_fewer"] == 1
    out = capsys.readouterr().out
    assert "1 of 2 prompts had room for fewer." in out
    assert "| before, few-shot " in out


# ---- respond ----


@pytest.fixture
def shots_file(tmp_path: Path) -> Path:
    entries = [
        {"instruction": "Write the word in capital letters.", "input": word, "output": word.upper()}
        for word in ("moon", "tree", "", "fish", "bird")
    ]
    write_json(tmp_path / "shots.json", entries)  # one of them has no output
    return tmp_path / "shots.json"


def test_respond_puts_the_first_k_entries_with_a_response_before_the_prompt(
    shots_file: Path, capsys: pytest.CaptureFixture
) -> None:
    entry = {"instruction": "Write the word in capital letters.", "input": "lamp", "output": ""}
    usable = [shot for shot in load_entries(shots_file) if shot["output"]]
    flags = ["gpt2-tiny", entry["instruction"], "--input", "lamp", *SHORT, "--shots", str(shots_file)]
    for k, extra in ((3, []), (0, ["-k", "0"]), (4, ["-k", "4"])):
        assert respond_script.main([*flags, *extra]) == 0
        shots = usable[:k]
        [wanted] = respond(load_model("gpt2-tiny"), load_tokenizer(), [entry], max_new_tokens=8, shots=shots)
        out, err = capsys.readouterr()
        assert out.strip() == wanted.text
        assert "examples" not in err
    assert respond_script.main([*flags, "-k", "9"]) == 0
    assert "shots.json has 4 examples with a response, not 9)" in capsys.readouterr().err


def test_respond_says_how_many_examples_fit(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    long = {"instruction": "Go on.", "input": "", "output": "and so on " * 40}
    write_json(tmp_path / "long.json", [long] * 5)
    flags = ["gpt2-tiny", "Go on.", *SHORT, "--shots", str(tmp_path / "long.json"), "-k", "5"]
    assert respond_script.main(flags) == 0
    assert "(3 of 5 examples fit the context)" in capsys.readouterr().err


def test_respond_says_when_the_context_was_full(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_model(random_model(), tmp_path, "short")  # a context of 128, and it hardly ever stops by itself
    flags = [str(tmp_path), "Write a story.", "--device", "cpu", "--template", "short", "--max-new-tokens", "150"]
    assert respond_script.main(flags) == 0
    assert "(cut: context after " in capsys.readouterr().err
    assert respond_script.main([*flags, "--past-context", "slide"]) == 0
    err = capsys.readouterr().err
    assert "(the context was full 1 time: its older half was dropped, the instruction first)" in err
    assert "(cut: max_new_tokens after 150 tokens)" in err


WRONG = {
    "neither an instruction nor a chat": ([], "give either an instruction, or --interactive and none"),
    "both": (["Go.", "--interactive"], "give either an instruction, or --interactive and none"),
    "an input for the chat": (["--interactive", "--input", "x"], "in the chat it is /input"),
    "k without shots": (["Go.", "-k", "2"], "-k 2 counts examples: name their file with --shots FILE"),
    "shots that are not there": (["Go.", "--shots", "nowhere.json"], "nowhere.json"),
    "a negative k": (["Go.", "--shots", str(ENTRIES), "-k", "-2"], "-k -2"),
    "an unknown end of the context": (["Go.", "--past-context", "roll"], "'roll' is not known: use stop or slide"),
    "no tokens": (["Go.", "--max-new-tokens", "0"], "max_new_tokens 0 leaves nothing to generate"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_answered_is_one_line(case: str, capsys: pytest.CaptureFixture) -> None:
    flags, message = WRONG[case]
    assert respond_script.main(["gpt2-tiny", *flags, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
