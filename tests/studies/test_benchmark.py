"""The benchmark's harness: it measures what it says, and refuses to measure what does other work."""

import json
import random
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from gpt.model.gpt2 import GPT, GPTConfig
from gpt.studies import arena, benchmark, chores, contestants, decoders, growth, speedrun
from gpt.studies.arena import Here, Process
from gpt.studies.benchmark import (
    MEAN_RESPONSE,
    MEAN_TOKENS,
    WrongWork,
    check_losses,
    draw_entries,
    make_duels,
    n_response,
    right_losses,
)
from gpt.studies.contestants import Done, Task, textbook_logits
from gpt.studies.growth import make_growth
from gpt.studies.speed_report import calibrate, needed_flops, results_page, shown_ratio
from gpt.text.dataset import Example, InstructionDataset
from gpt.text.entries import Entry, load_entries, split_entries
from gpt.text.tokenizer import Tokenizer, load_tokenizer
from gpt.training.loss import evaluate_loss
from gpt.weights.checkpoint import SIZES, TINY_FOLDER, load_model, save_model
from scripts import benchmark as script
from scripts.new_run import ENTRIES
from tests.reference import random_model

ENTRY = {"instruction": "Say a.", "input": "", "output": "a"}
QUICK = ["--quick", "--only", "response float32 vs textbook", "decode many float32 vs textbook"]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Training with the bundled model, two entries a step, and three prompts."""
    folder = tmp_path_factory.mktemp("benchmark")
    short = sorted(load_entries(ENTRIES), key=lambda entry: len(str(entry)))[:90:10]
    benchmark.write_data(folder / "data.json", short, batch_size=2, n_prompts=3)
    return Task("ours", "train", str(TINY_FOLDER), str(folder / "data.json"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measured") / "speed.json"
    assert script.main([*QUICK, "--json", str(path)]) == 0
    return path


@pytest.mark.long
def test_the_harness_writes_what_it_measured(measured: Path) -> None:
    report = json.loads(measured.read_text())
    assert report["means"]["mean_tokens"] == pytest.approx(MEAN_TOKENS, rel=0.02)
    assert report["n_busy"] >= 0 and report["machine"]["threads"] >= 1 and report["machine"]["versions"]["torch"]
    assert list(report["duels"]) == [
        "train response float32 vs textbook float32", "decode many float32 vs textbook float32"
    ]  # fmt: skip
    for result in report["duels"].values():
        ours, peer = ([n / s for n, s in zip(result[side]["amount"], result[side]["seconds"], strict=True)]
                      for side in ("ours", "peer"))  # fmt: skip
        ratios = [a / b for a, b in zip(ours, peer, strict=True)]
        assert result["ratios"] == pytest.approx(ratios)
        assert result["ratio"] == pytest.approx(statistics.median(ratios))
        assert result["low"] <= result["ratio"] <= result["high"]
    trained = report["duels"]["train response float32 vs textbook float32"]
    assert trained["losses_checked_with"] == "transformers"
    assert trained["ours"]["amount"] == trained["peer"]["amount"]  # the same batches
    assert report["limits"]["products"]["blocks float32"]["flops_per_second"] > 1e8
    page = measured.with_suffix(".md").read_text()
    for said in ("times as fast", report["machine"]["name"], f"torch {torch.__version__}", "On CUDA: not measured."):
        assert said in page
    assert measured.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_a_second_call_measures_what_is_missing_alone(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fought = []

    def fight(duel: benchmark.Duel, *others: object) -> Iterator[dict]:
        fought.append(duel.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "fight", fight)
    before = json.loads(measured.read_text())
    assert script.main(["--quick", "--json", str(measured)]) == 130
    assert fought == ["train response bf16 vs textbook bf16"]  # the one before it is measured
    assert json.loads(measured.read_text()) == before


@pytest.mark.long
def test_a_file_of_another_measurement_is_not_mixed_with(measured: Path, capsys: pytest.CaptureFixture) -> None:
    assert script.main(["--quick", "--seed", "5", "--json", str(measured)]) == 2
    assert "was measured with another entries_sha256" in capsys.readouterr().err


@pytest.mark.long
def test_a_contestant_with_a_wrong_loss_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def trains_on_all(task: Task) -> Iterator[Done | None]:
        yield from contestants.train_textbook(replace(task, loss_on="all"))

    monkeypatch.setitem(contestants.TRAINERS, "textbook", trains_on_all)
    assert script.main([*QUICK, "--json", str(tmp_path / "speed.json")]) == 2
    assert "in step 1 where" in capsys.readouterr().err
    assert not (tmp_path / "speed.json").exists()  # no speed was measured


@pytest.mark.long
def test_a_contestant_that_does_not_learn_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    right, _ = right_losses(task, Here)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    idle = Here(replace(task, way="textbook")).turn(2)["losses"]
    check_losses(task, idle[:1], right[:1])
    with pytest.raises(WrongWork, match="in step 2"):
        check_losses(task, idle, right)


@pytest.mark.long
def test_losses_of_all_ways_agree(task: Task) -> None:
    for loss_on in ("response", "all"):  # transformers' by its own loss function
        asked = replace(task, loss_on=loss_on)
        right, way = right_losses(asked, Here)
        assert way == "transformers"
        for way in ("ours", "textbook"):
            check_losses(asked, Here(replace(asked, way=way)).turn(2)["losses"], right)


def test_all_ways_decode_the_same_ids(task: Task) -> None:
    ways = ("ours", "textbook", "transformers")
    found = {way: Here(replace(task, work="decode", way=way)).turn(1)["ids"] for way in ways}
    assert found["ours"] == found["textbook"] == found["transformers"]
    assert len({len(ids) for ids in found["ours"]}) > 1  # ragged


def test_a_decoder_that_ends_early_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, said = decoders.generate, Here(replace(task, work="decode")).turn(1)["ids"]
    end = next(ids for ids in said if len(ids) > 1)[0]  # as if this were the end of text
    monkeypatch.setattr(decoders, "generate", lambda *given, **more: generate(*given, **more | {"eot_id": end}))
    with pytest.raises(ValueError, match=r"prompt \d got 0 new tokens where \d+ were asked for"):
        Here(replace(task, work="decode")).turn(1)


def test_a_decoder_that_reads_half_a_prompt_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads_half(task: Task) -> Iterator[Done | None]:
        yield None
        model, data = decoders.decoding_model(task), contestants.read_data(task)
        prompts = [prompt[len(prompt) // 2 :] for prompt in data.prompts]
        while True:
            found = decoders.generate(model, prompts, max_new_tokens=data.limits, eot_id=-1)
            yield Done(None, sum(data.limits), [one.ids for one in found])

    decode = replace(task, work="decode")
    duel = benchmark.Duel("a duel", decode, replace(decode, way="textbook"), rounds=1)
    assert next(benchmark.fight(duel, Here, steps=1))["same_ids"] == 1
    monkeypatch.setitem(decoders.DECODERS, "textbook", reads_half)
    with pytest.raises(WrongWork, match="of the ids that are right, so it does other work"):
        next(benchmark.fight(duel, Here, steps=1))


@pytest.mark.long
def test_a_contestant_that_leaves_entries_out_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later than the losses are looked at: the third batch is half empty."""
    all_batches = contestants.batches_of

    def fewer(task: Task) -> list[list[Example]]:
        return [*all_batches(task)[:2], all_batches(task)[2][:1]]

    duel = benchmark.Duel("a duel", task, replace(task, way="textbook"), rounds=1)
    right = right_losses(task, Here)
    assert next(benchmark.fight(duel, Here, 1, right))["rounds"] == 1
    monkeypatch.setattr(contestants, "batches_of", fewer)
    with pytest.raises(WrongWork, match=r"a duel: in one turn ours did \d+ tokens and the peer \d+ of the same work"):
        next(benchmark.fight(duel, Here, 1, right))


def test_the_textbook_is_gpt2() -> None:
    model, inputs = random_model(), torch.randint(0, 50257, (2, 9))
    torch.testing.assert_close(textbook_logits(model, inputs), model(inputs), rtol=1e-4, atol=1e-3)


@pytest.mark.long
def test_drawn_entries_have_the_published_lengths(tokenizer: Tokenizer) -> None:
    """A plain sample is the wrong variant: the bundled entries have longer prompts and shorter responses."""
    entries = load_entries(ENTRIES)
    drawn, sampled = draw_entries(entries, 300, seed=1), random.Random(1).sample(entries, 300)

    def distances(chosen: list[Entry]) -> list[float]:
        examples = InstructionDataset(chosen, tokenizer).examples
        means = statistics.mean(len(e.ids) for e in examples), statistics.mean(map(n_response, examples))
        return [abs(mean / wanted - 1) for mean, wanted in zip(means, (MEAN_TOKENS, MEAN_RESPONSE), strict=True)]

    assert max(distances(drawn)) < 0.02
    assert min(distances(sampled)) > 0.05
    assert len({json.dumps(entry) for entry in drawn}) == 300
    assert drawn != draw_entries(entries, 300, seed=2)


def test_needed_work_is_what_a_counter_counts() -> None:
    config = GPTConfig(vocab_size=1000, context_length=64, n_embd=64, n_layer=3, n_head=4)
    model, T = GPT(config), 48
    inputs = torch.randint(0, 1000, (1, T + 1))
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(textbook_logits(model, inputs[:, :-1])[0], inputs[0, 1:]).backward()
    means = {"mean_tokens": T + 1, "mean_response": 0, "mean_squared_tokens": T * (T + 1)}  # T positions are read
    needed = needed_flops(config, means, "all") * (T + 1) - 6 * 12 * config.n_layer * config.n_embd**2
    assert counter.get_total_flops() == pytest.approx(needed, rel=0.1)  # the counter takes attention for not causal


def duel_of(way: str, ratio: float, precision: str = "float32", ours: str = "float32") -> dict:
    side = {"work": "train", "loss_on": "response"}
    return {"ratio": ratio, "low": ratio, "high": ratio, "note": "", "losses_checked_with": "transformers",
            "ours": side | {"precision": ours}, "peer": side | {"way": way, "precision": precision}}  # fmt: skip


def test_a_yardstick_that_is_off_is_not_quoted() -> None:
    good = {"a": duel_of("textbook", 2.0), "b": duel_of("transformers", 1.9)}
    calibrate(good)
    assert good["a"]["textbook_over_transformers"] == pytest.approx(0.95)
    assert shown_ratio(good["a"]).startswith("2.00 [")
    slow = {"a": duel_of("textbook", 2.6), "b": duel_of("transformers", 1.9), "c": duel_of("textbook", 3, ours="bf16")}
    calibrate(slow)
    assert shown_ratio(slow["a"]) == "not quoted: the textbook runs at 0.73 of transformers' loop"
    assert slow["c"]["is_quoted"] is False  # the same yardstick
    alone = {"a": duel_of("textbook", 2.0)}
    calibrate(alone)
    assert alone["a"]["is_quoted"] is None


def test_the_duels_have_names_of_their_own(task: Task, tmp_path: Path) -> None:
    for has_peers in (False, True):
        names = [duel.name for duel in make_duels(task, "one.json", 5, has_peers)]
        assert len(set(names)) == len(names)
    duels = make_growth(task, SIZES["gpt2"], [ENTRY], tmp_path, 1, replace(growth.ALL, entries=(1, 2)))
    assert len({duel.name for duel in duels}) == len(duels)
    assert not any(duel.is_between_ways for duel in duels)


@pytest.mark.slow
def test_a_growth_is_measured_and_a_cost_that_is_not_linear_is_seen(tmp_path: Path) -> None:
    """The wrong variant does every entry's work as often as there are entries."""
    path = tmp_path / "speed.json"
    flags = ["--quick", "--growth", "--only", "collate", "--json", str(path)]
    assert script.main(flags) == 0
    [result] = json.loads(path.read_text())["growth"].values()
    assert (result["first"], result["size"], result["expected"]) == ("50", "500", 1)
    assert result["ours"]["amount"] == [500, 500] and result["peer"]["amount"] == [50, 50]
    assert 0.3 < 1 / result["ratio"] < 3
    page = path.with_suffix(".md").read_text()
    assert "cost of one entry, times the first's" in page and "| 500 " in page
    assert path.with_suffix(".growth.png").read_bytes().startswith(b"\x89PNG")

    right = chores.CHORES["collate"]

    def squared(task: Task) -> Iterator[Done | None]:
        work = right(task)
        yield next(work)
        while True:
            for _ in range(len(contestants.read_data(task).entries) // 50):
                done = next(work)
            yield done

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(arena.WORKS["collate"], "ours", squared)
        assert script.main(flags) == 0
    [result] = json.loads(path.read_text())["growth"].values()
    assert 1 / result["ratio"] > 3


def test_rows_have_the_length_asked_for(tokenizer: Tokenizer) -> None:
    for n in (48, 64, 1024):
        assert len(InstructionDataset([growth.entry_of(n)], tokenizer).examples[0].ids) == n
    with pytest.raises(ValueError, match="no entry is as short as 3 tokens"):
        growth.entry_of(3)


def test_models_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth.os, "sysconf", lambda name: 4e9 if name == "SC_PHYS_PAGES" else 1)
    monkeypatch.setattr(growth.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e12))
    assert growth.without_room(growth.ALL, tmp_path) == ["gpt2-medium", "gpt2-large", "gpt2-xl"]
    duels = make_growth(Task("ours", "train", "", ""), SIZES["gpt2"], [ENTRY], tmp_path, 1, growth.ALL)
    assert [duel.name for duel in duels if duel.ours.work == "load"] == ["load: gpt2 vs gpt2-tiny"]


@pytest.mark.slow
def test_both_run_to_the_target_and_who_does_not_get_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speedrun, "N_VAL", 4)
    monkeypatch.setattr(speedrun, "EVERY", 1)
    entries, path = load_entries(ENTRIES)[:200], tmp_path / "run.json"
    val = InstructionDataset(split_entries(entries)[1][:4], load_tokenizer()).examples
    target = 0.98 * evaluate_loss(load_model(TINY_FOLDER), val)["response"]
    [duel] = benchmark.make_speedrun(Task("ours", "train", "", ""), path, entries, target, rounds=1)
    for task in (duel.ours, duel.peer):
        assert Here(task).turn(1)["losses"][0] <= target
    monkeypatch.setattr(speedrun, "AT_MOST", 2)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    for task in (duel.ours, duel.peer):
        with pytest.raises(ValueError, match=r"has a loss of \d.* after 2 steps and did not reach the target"):
            Here(task).turn(1)


@pytest.mark.long
def test_ours_and_the_textbook_see_one_validation_loss(task: Task) -> None:
    model = load_model(TINY_FOLDER)
    examples = InstructionDataset(load_entries(ENTRIES)[:20], load_tokenizer()).examples
    ours = evaluate_loss(model, examples)["response"]
    assert speedrun.textbook_val(model, examples, task) == pytest.approx(ours, rel=1e-4)


@pytest.mark.long
def test_bad_flags_are_one_line(capsys: pytest.CaptureFixture) -> None:
    assert script.main(["--rounds", "0"]) == 2
    assert script.main(["--quick", "--only", "nobody"]) == 2
    assert "no name has 'nobody' in it: train response float32 vs textbook float32;" in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_of_its_own_tells_memory_and_errors(task: Task, tmp_path: Path) -> None:
    process = Process(task)
    try:
        answer = process.turn(1)
        assert 1e8 < answer["peak_bytes"] < 2e9  # weights, gradients and AdamW's state alone are 129 MB
        assert answer["losses"] == pytest.approx(Here(task).turn(1)["losses"], rel=1e-4)
    finally:
        process.close()
    with pytest.raises(ValueError, match=r"ours .train, float32.: FileNotFoundError"):
        broken = Process(replace(task, folder=str(tmp_path)))
        broken.turn(1)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["trl", "trl-packed"])
def test_trl_takes_part(task: Task, way: str) -> None:
    pytest.importorskip("trl")
    process = Process(replace(task, way=way))
    try:
        losses = process.turn(2)["losses"]
    finally:
        process.close()
    if way == "trl":
        check_losses(task, losses, right_losses(task, Here)[0])
    assert all(0 < loss < 12 for loss in losses)


def test_weights_that_are_not_here_are_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_nowhere(name: str) -> Path:
        raise FileNotFoundError(name)

    save_model(random_model(), tmp_path / "model")
    assert not benchmark.write_model(str(tmp_path / "model"), tmp_path / "same")
    assert torch.equal(load_model(tmp_path / "same").wte.weight, random_model().wte.weight)
    monkeypatch.setattr(benchmark, "find_folder", is_nowhere)
    assert benchmark.write_model("gpt2-tiny", tmp_path / "random")
    assert load_model(tmp_path / "random").config == SIZES["gpt2-tiny"]
    with pytest.raises(FileNotFoundError):
        benchmark.write_model("nobody", tmp_path / "nobody")


@pytest.mark.gpu
def test_cuda_quick(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    assert script.main(["--quick", "--device", "cuda", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert all(result["ours"]["per_second"] > 0 for result in report["duels"].values())
    assert "times as fast" in results_page(report)


def test_rows_share_no_more_than_the_templates_words_and_prompts_nothing(tmp_path: Path) -> None:
    """The wrong variant has one row again and again, which is computed once."""
    texts = [growth.entry_of(64, number)["instruction"] for number in range(32)]
    assert len({text[0:2] for text in texts}) == 32
    data = json.loads(Path(growth.write_rows(tmp_path / "rows.json", 32, 64)).read_text())
    assert [entry["instruction"] for entry in data["entries"]] == texts
    prompts = json.loads(Path(growth.write_prompts(tmp_path / "prompts.json", 64, 64)).read_text())["prompts"]
    assert {len(prompt) for prompt in prompts} == {64} and len({prompt[0] for prompt in prompts}) == 64
