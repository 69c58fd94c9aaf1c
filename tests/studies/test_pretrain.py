import copy
import dataclasses
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpt.model.gpt2 import GPT, GPTConfig
from gpt.studies.pretrain import (
    Mixture,
    PretrainConfig,
    curve_lines,
    lr_at,
    make_optimizer,
    pretrain,
    sampled_softmax_loss,
)
from gpt.weights.checkpoint import load_model
from scripts import pretrain as script

SMALL = GPTConfig(vocab_size=300, context_length=32, n_embd=16, n_layer=2, n_head=2)
CONFIG = PretrainConfig(tokens=256 * 12, batch_tokens=256, row_length=16, warmup=3, n_sampled=40, tasks=0.0)


def mixture(vocab_size: int = 300) -> Mixture:
    rng = np.random.default_rng(0)
    sources = {
        name: rng.zipf(1.4, n).clip(max=vocab_size - 1).astype(np.uint16) for name, n in (("a", 5000), ("b", 500))
    }
    return Mixture(sources, {"a": 1.0, "b": 2.0}, vocab_size, eot_id=vocab_size - 1)


def learned_frequencies(unigram: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Let a model that sees nothing but a constant learn how often each of the tokens comes, by the sampled loss."""
    torch.manual_seed(0)
    hidden, weight = torch.ones(16, 1), torch.zeros(len(unigram), 1, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 600)
        targets = torch.multinomial(unigram, 16, replacement=True)
        optimizer.zero_grad()
        sampled_softmax_loss(hidden, targets, weight, shown, 4).backward()
        optimizer.step()
    return weight[:, 0].softmax(0).detach()


@pytest.mark.long
def test_the_correction_of_the_sampled_softmax_makes_it_learn_the_true_frequencies() -> None:
    unigram = 1 / torch.arange(1, 41).float()
    unigram /= unigram.sum()
    right = learned_frequencies(unigram, unigram)
    assert (right / unigram).log().abs().mean() < 0.2
    flat = torch.full((40,), 1 / 40)  # the wrong variant: a correction that does not fit what is drawn
    assert (learned_frequencies(unigram, flat) / unigram).log().abs().mean() > 0.5


def test_with_every_token_a_candidate_it_is_the_full_softmax() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 8), torch.randn(20, 8)
    unigram = torch.full((20,), 1 / 20)
    targets = torch.arange(50) % 20
    sampled = sampled_softmax_loss(hidden, targets, weight, unigram, 5000)
    assert sampled.item() == pytest.approx(F.cross_entropy(hidden @ weight.t(), targets).item(), abs=1e-3)


def test_a_text_is_drawn_by_its_length_times_its_weight() -> None:
    assert mixture().shares == pytest.approx([5000 / 6000, 1000 / 6000])


def test_repeated_rows_repeat_their_pieces() -> None:
    eot, n_pieces, n_whole = 5000, 0, 0
    source = np.random.default_rng(0).integers(0, eot, 4000).astype(np.uint16)
    texts = Mixture({"a": source}, {"a": 1.0}, vocab_size=eot + 1, eot_id=eot)
    for seed in range(10):
        row = texts.repeated_row(400, np.random.default_rng(seed)).tolist()
        assert len(row) == 400
        ends = [i for i, token in enumerate(row) if token == eot]
        for start, end in zip([-1, *ends], ends, strict=False):
            piece = row[start + 1 : end]
            n_pieces += 1
            n_whole += any(len(piece) % p == 0 and piece[p:] == piece[:-p] for p in range(6, 41))
    assert n_pieces > 30
    assert n_whole >= n_pieces - 1  # the end of text is an id as well, and may have been drawn once


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    config = PretrainConfig(tokens=6144 * 1000, lr=1.0, warmup=100, flat_until=0.5)
    assert lr_at(49, config) == pytest.approx(0.5)
    assert lr_at(100, config) == lr_at(499, config) == 1.0
    assert lr_at(750, config) == pytest.approx(0.5)
    assert lr_at(1000, config) == 0.0


def run(model: GPT, config: PretrainConfig, first: int, last: int, optimizer: torch.optim.Optimizer) -> list[float]:
    losses = []
    for step, loss in pretrain(model, optimizer, mixture(), config, None, first):
        losses.append(loss)
        if step == last:
            break
    return losses


def test_a_stop_in_the_middle_changes_nothing() -> None:
    torch.manual_seed(0)
    whole, halves = GPT(SMALL), GPT(SMALL)
    halves.load_state_dict(whole.state_dict())
    straight = run(whole, CONFIG, 0, 11, make_optimizer(whole, CONFIG))
    optimizer = make_optimizer(halves, CONFIG)
    first = run(halves, CONFIG, 0, 5, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer = make_optimizer(halves, CONFIG)
    optimizer.load_state_dict(saved)
    torch.rand(7)
    assert straight == first + run(halves, CONFIG, 6, 11, optimizer)
    assert torch.equal(whole.wte.weight, halves.wte.weight)


def test_of_a_task_only_the_answers_are_learned() -> None:
    ids = np.random.default_rng(1).integers(0, 300, 17)
    is_answer = np.arange(17) >= 12

    def first_loss(counted: np.ndarray) -> tuple[float, float]:
        torch.manual_seed(0)
        model = GPT(SMALL)
        config = dataclasses.replace(CONFIG, tasks=1.0, tasks_from=0.0, full_softmax_from=0.0)
        whole = F.cross_entropy(
            model(torch.from_numpy(ids[None, :-1]))[0][counted[1:]], torch.from_numpy(ids)[1:][counted[1:]]
        )
        steps = pretrain(model, make_optimizer(model, config), mixture(), config, lambda n, rng: (ids[:n], counted[:n]))
        return next(steps)[1], whole.item()

    ours, expected = first_loss(is_answer)
    assert ours == pytest.approx(expected, abs=1e-5)
    everything, _ = first_loss(np.ones(17, dtype=bool))  # the wrong variant: what is asked about is learned as well
    assert everything != pytest.approx(expected, abs=1e-3)


def test_task_rows_mark_the_tokens_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "make_material", lambda texts, glosses: None)
    text = "Task: Shout\nText: a lantern\nAnswer: A LANTERN"
    monkeypatch.setattr(script, "rule_text", lambda rng, material, ban: (text, [slice(text.index("A L"), len(text))]))
    ids, is_answer = script.make_task_row(Path("no texts here"))(24, np.random.default_rng(0))
    tokenizer = script.load_tokenizer()
    once = [*tokenizer.encode(" A LANTERN"), tokenizer.eot_id]
    assert len(ids) == len(is_answer) == 24
    assert ids[is_answer].tolist()[: len(once)] == once
    assert 0 < is_answer[: len(tokenizer.encode(text)) + 1].sum() == len(once)


def test_the_curve_takes_points_without_a_held_out_loss_and_adds_up_the_stages() -> None:
    first = {
        "config": {"tokens": 2.5e6},
        "curve": [{"tokens": 1e6, "loss": 5.0}, {"tokens": 2e6, "loss": 4.0, "held_out": 4.5}],
    }
    second = {"config": {"tokens": 1e6}, "curve": [{"tokens": 1e6, "loss": 3.0, "held_out": 4.25}]}
    learned, held_out = curve_lines([first, second]).values()
    assert learned == ([1.0, 2.0, 3.5], [5.0, 4.0, 3.0])
    assert held_out == ([2.0, 3.5], [4.5, 4.25])


def test_the_products_are_taken_in_the_precision_asked_for() -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        torch.manual_seed(0)
        model = GPT(SMALL)
        config = dataclasses.replace(CONFIG, precision=precision)
        losses[precision] = run(model, config, 0, 5, make_optimizer(model, config))
    assert losses["float32"] != losses["bf16"]
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.02)


@pytest.mark.long
def test_the_script_makes_a_model_out_of_text_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "heldout").mkdir(parents=True)
    text = "The river is wide.\n\nThe boy sees a boat.\n<|endoftext|>\nThe boat is red.\n<|endoftext|>\n" * 60
    for folder in (corpus, corpus / "heldout"):
        with lzma.open(folder / "stories.txt.xz", "wt") as file:
            file.write(text)
    small = GPTConfig(context_length=64, n_embd=16, n_layer=1, n_head=2)
    monkeypatch.setitem(script.SIZES, "gpt2-tiny", small)
    out = tmp_path / "model"
    flags = [str(corpus), "--out", str(out), "--tokens", str(6144 * 4), "--tasks", "0", "--device", "cpu"]
    assert script.main(flags) == 0
    assert load_model(out).config == small
    facts = json.loads((out / "pretraining.json").read_text())
    (stage,) = facts["stages"]
    assert stage["config"]["tokens"] == 6144 * 4
    assert stage["config"]["precision"] == "float32"  # no CPU is trusted to be fast in bf16
    assert facts["held_out"]["stories"] < 11
    begun = [*flags[:2], str(tmp_path / "further"), *flags[3:], "--lr", "0", "--start", str(out)]
    assert script.main(begun) == 0
    assert len(json.loads((tmp_path / "further" / "pretraining.json").read_text())["stages"]) == 2
    assert torch.equal(load_model(tmp_path / "further").wte.weight, load_model(out).wte.weight)
    assert script.main([*flags, "--precision", "fp16"]) == 2
    assert "use float32 or bf16" in capsys.readouterr().err
    assert script.main([str(tmp_path), "--out", str(out)]) == 2  # no texts there
