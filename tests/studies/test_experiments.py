import json
from pathlib import Path

import pytest

from gpt.model.gpt2 import GPTConfig
from gpt.studies.experiments import (
    fine_tune,
    left_out,
    loss_on,
    one_task,
    runs,
    score_rows,
    template_of,
    unseen_templates,
)  # fmt: skip
from gpt.text.dataset import InstructionDataset
from gpt.text.entries import load_entries, split_entries, split_report
from gpt.text.tokenizer import Tokenizer
from gpt.training.loss import evaluate_loss
from gpt.training.train import TrainConfig
from scripts import experiment as script
from tests.reference import random_model

CONFIG = TrainConfig(epochs=2, batch_size=4, lr=1e-2)


def entries(kind: str, n: int) -> list[dict]:
    return [{"instruction": f"{kind} {i}", "input": "", "output": f"{kind}", "kind": kind} for i in range(n)]


TRAIN, VAL = entries("copy", 12) + entries("sort", 4), entries("copy", 3) + entries("sort", 1)


TEST = entries("copy", 3) + entries("sort", 2)
SIDES = (TRAIN, VAL, TEST)


def test_the_three_ways_of_counting_differ_in_nothing_else() -> None:
    experiment = loss_on(SIDES, CONFIG)
    assert [arm.config.loss_on for arm in experiment.arms] == ["all", "header", "response"]
    assert all(arm.train is TRAIN and arm.val is VAL for arm in experiment.arms)
    assert experiment.views[0].rows == [0, 1, 2, 3, 4]


def test_a_left_out_kind_is_in_neither_side_and_all_arms_have_as_many_entries() -> None:
    experiment = left_out(SIDES, CONFIG, ["sort", "copy"])
    arms = {arm.name: arm for arm in experiment.arms}
    assert {name: len(arm.train) for name, arm in arms.items()} == {
        "before": 0, "all kinds": 4, "without sort": 4, "without copy": 4
    }  # fmt: skip
    assert not any(e["kind"] == "sort" for e in arms["without sort"].train + arms["without sort"].val)
    rows = {view.name: view.rows for view in experiment.views}
    assert rows == {"sort": [3, 4], "copy": [0, 1, 2]}


def test_a_kind_without_a_test_entry_is_an_error() -> None:
    with pytest.raises(ValueError, match="no test entry is of the kind 'grammar'"):
        left_out(SIDES, CONFIG, ["grammar"])


def test_one_task_alone_gets_as_many_steps_as_all_tasks() -> None:
    together, alone = one_task(SIDES, CONFIG, ["sort"]).arms
    assert alone.config.epochs * len(alone.train) == together.config.epochs * len(together.train)
    assert {e["kind"] for e in alone.train} == {"sort"}


@pytest.mark.long
def test_templates_kept_out_are_in_no_training_entry_and_are_tested_apart() -> None:
    entries = load_entries(Path(__file__).parents[2] / "data" / "instructions.json")
    experiment = unseen_templates(split_entries(entries), CONFIG)
    after = next(arm for arm in experiment.arms if arm.train)
    trained = {template_of(entry) for entry in after.train + after.val}
    rows = {view.name: [experiment.test[i] for i in view.rows] for view in experiment.views}
    assert {template_of(e) for e in rows["templates seen"]} <= trained
    assert not {template_of(e) for e in rows["templates unseen"]} & trained
    assert {template_of(e) for e in rows["written"]} == {""}
    assert len({template_of(e) for e in rows["templates unseen"]}) >= 10
    assert split_report(after.train, experiment.test)["near"] == 0
    assert all(len(texts) == len(experiment.test) for texts in experiment.floors.values())


def test_the_base_model_answers_once_and_every_other_arm_for_each_seed() -> None:
    experiment = left_out(SIDES, CONFIG, ["sort"])
    assert runs(experiment, [1, 2]) == [
        ("before", 1), ("all kinds", 1), ("without sort", 1), ("all kinds", 2), ("without sort", 2)
    ]  # fmt: skip


def test_a_rows_score_is_the_mean_over_the_seeds() -> None:
    same = lambda response, entry: float(response == entry["output"])  # noqa: E731
    assert score_rows([["copy", "x"], ["x", "x"]], entries("copy", 2), same) == [0.5, 0.0]
    assert score_rows([["copy", "x"]], entries("copy", 2), lambda response, _: None) == []


def test_fine_tuning_leaves_the_base_as_it_is_and_keeps_the_best(tokenizer: Tokenizer) -> None:
    base = random_model(GPTConfig(context_length=64, n_embd=16, n_layer=1, n_head=2), scale=1.0)
    before = base.wte.weight.clone()
    arm = loss_on(SIDES, CONFIG).arms[2]
    tuned = fine_tune(base, arm, tokenizer, "short")
    assert base.wte.weight.equal(before)
    examples = InstructionDataset(VAL, tokenizer, "short", 64).examples
    assert evaluate_loss(tuned, examples)["response"] < evaluate_loss(base, examples)["response"] - 1


def test_the_script_goes_on_where_it_stopped_and_refuses_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "entries.json"
    data.write_text(
        json.dumps([{"instruction": f"Say {i * 7919} now", "input": "", "output": "yes"} for i in range(40)])
    )
    flags = ["loss-on", "--out", str(tmp_path), "--data", str(data), "--seeds", "1", "--epochs", "1"]
    n_runs = []

    def stop_at_the_second(*args: object) -> list[str]:
        n_runs.append(args[1])
        if len(n_runs) == 2:
            raise KeyboardInterrupt
        return ["yes"] * 4

    monkeypatch.setattr(script, "run_arm", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        script.main.__wrapped__(flags)
    assert script.main(flags) == 0
    assert n_runs == ["loss on all", "loss on header", "loss on header", "loss on response"]
    assert "| loss on all" in capsys.readouterr().out
    assert {path.suffix for path in tmp_path.glob("loss-on.*")} == {".json", ".jsonl", ".md", ".png"}
    assert script.main([*flags, "--lr", "0.5"]) == 2
    assert "other settings (config)" in capsys.readouterr().err


def test_answers_with_any_sign_are_found_again(tmp_path: Path) -> None:
    rows = [{"arm": "before", "seed": 1, "texts": ["one\u2028two\x85"]}, {"arm": "after", "seed": 1, "texts": ["\n"]}]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [{"a": 1}, *rows]), encoding="utf-8")
    assert script.read_answers(path, {"a": 1}) == rows
    with pytest.raises(ValueError, match="Unterminated"):
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
