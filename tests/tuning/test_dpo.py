"""DPO against its formula in NumPy, against TRL on the same rows, and as a run; and pairs out of every public form."""

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt.model.gpt2 import GPT
from gpt.studies.preference import prefer_run
from gpt.text.dataset import Kind, encode_entry
from gpt.text.entries import EntryError, load_entries
from gpt.text.tokenizer import Tokenizer
from gpt.tuning.dpo import (
    PreferenceDataset,
    dpo_loss,
    encode_pair,
    pair_log_probs,
    preference_scores,
    reference_log_probs,
    response_log_probs,
)
from gpt.tuning.lora import add_lora
from gpt.tuning.pairs import read_pairs, record_to_pair
from gpt.weights.checkpoint import load_model, save_model
from scripts import finetune, make_pairs, prefer
from tests.reference import numpy_logits, random_model

PAIR = {"instruction": "Name the colour.", "input": "The sky is blue.", "output": "Blue.", "rejected": "It is a sky."}
PAIRS = [
    PAIR,
    PAIR | {"instruction": "Say yes.", "input": "", "output": "Yes, of course it is so.", "rejected": "No."},
    PAIR | {"instruction": "Count.", "input": "", "output": "One, two.", "rejected": "Two, one, three."},
]


def bits_of(model: GPT) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


# ---- the loss ----


def test_log_probabilities_are_those_of_numpy_over_the_response_and_its_end(model: GPT, tokenizer: Tokenizer) -> None:
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    rows = [row for entry in PAIRS for row in encode_pair(entry, tokenizer, "short")]
    found = response_log_probs(model, rows).detach()
    for row, value in zip(rows, found.tolist(), strict=True):
        logits = numpy_logits(weights, row.ids[:-1], model.config.n_head)
        log_probs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        log_probs -= logits.max(-1, keepdims=True)
        places = [place for place, kind in enumerate(row.kinds) if kind >= Kind.RESPONSE]
        assert value == pytest.approx(sum(log_probs[place - 1, row.ids[place]] for place in places), abs=2e-3)
        whole = sum(log_probs[place - 1, row.ids[place]] for place in range(1, len(row.ids)))
        assert abs(whole - value) > 1  # the wrong variant: the prompt's probability, which is the same for both
        without_end = sum(log_probs[place - 1, row.ids[place]] for place in places[:-1])
        assert abs(without_end - value) > 1e-2  # or an answer that need not end


def test_the_loss_is_the_papers_formula() -> None:
    policy = np.array([[-10.0, -14.0], [-30.0, -21.0], [-5.0, -5.0]])
    reference = np.array([[-12.0, -13.0], [-31.0, -24.0], [-5.0, -5.0]])
    for beta in (0.05, 0.1, 1.0):
        rewards = beta * (policy - reference)
        margins = rewards[:, 0] - rewards[:, 1]
        losses, found = dpo_loss(torch.tensor(policy), torch.tensor(reference), beta)
        assert losses.numpy() == pytest.approx(np.log1p(np.exp(-margins)))
        assert found.numpy() == pytest.approx(rewards)
        scores = preference_scores(torch.tensor(policy), torch.tensor(reference), beta)
        assert scores["margin"] == pytest.approx(margins.mean())
        assert scores["accuracy"] == pytest.approx(1 / 3)  # a tie is no success
        assert scores["likelier"] == pytest.approx(1 / 3)
    swapped, _ = dpo_loss(torch.tensor(policy[:, ::-1].copy()), torch.tensor(reference[:, ::-1].copy()), 0.1)
    assert not np.allclose(swapped.numpy(), dpo_loss(torch.tensor(policy), torch.tensor(reference), 0.1)[0].numpy())
    no_reference, _ = dpo_loss(torch.tensor(policy), torch.zeros(3, 2, dtype=torch.float64), 0.1)
    assert abs(no_reference.mean() - dpo_loss(torch.tensor(policy), torch.tensor(reference), 0.1)[0].mean()) > 0.01


def test_before_the_first_step_the_loss_is_ln_2_and_nothing_is_preferred(model: GPT, tokenizer: Tokenizer) -> None:
    pairs = PreferenceDataset(PAIRS, tokenizer, "short").pairs
    reference = reference_log_probs(model, pairs, batch_size=2)
    losses, rewards = dpo_loss(pair_log_probs(model, pairs), reference)
    assert losses.detach() == pytest.approx(np.full(3, np.log(2)), abs=1e-4)
    assert rewards.abs().max() < 1e-3
    assert not reference.requires_grad


@pytest.mark.slow
def test_loss_rewards_and_accuracy_are_trls_on_the_same_rows(tokenizer: Tokenizer, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -c constraints.txt trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy, reference, beta = random_model(seed=1, scale=1.0), random_model(seed=1, scale=1.0), 0.3
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    for name, model in {"policy": policy, "reference": reference}.items():
        save_model(model, tmp_path / name)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "policy")
    theirs.pad_token = theirs.eos_token
    arguments = {"output_dir": str(tmp_path / "out"), "beta": beta, "report_to": "none", "use_cpu": True, "bf16": False}
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path / "policy"),
        ref_model=AutoModelForCausalLM.from_pretrained(tmp_path / "reference"),
        args=trl.DPOConfig(**arguments),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=theirs,
    )
    pairs = PreferenceDataset(PAIRS, tokenizer, "short").pairs
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    longest = max(len(row.ids) for row in rows)
    padding = [longest - len(row.ids) for row in rows]
    batch = {
        "input_ids": [row.ids + [50256] * n for row, n in zip(rows, padding, strict=True)],
        "attention_mask": [[1] * len(row.ids) + [0] * n for row, n in zip(rows, padding, strict=True)],
        "completion_mask": [
            [int(kind >= Kind.RESPONSE) for kind in row.kinds] + [0] * n for row, n in zip(rows, padding, strict=True)
        ],
    }
    trainer.model.eval()
    expected = trainer.compute_loss(trainer.model, {name: torch.tensor(value) for name, value in batch.items()}).item()
    logged = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    found = pair_log_probs(policy.eval(), pairs).detach(), reference_log_probs(reference, pairs)
    scores, (_, rewards) = preference_scores(*found, beta), dpo_loss(*found, beta)
    assert scores["preference"] == pytest.approx(expected, rel=1e-4)
    assert abs(expected - np.log(2)) > 1e-2
    assert rewards[:, 0].mean().item() == pytest.approx(logged["rewards/chosen"], rel=1e-3, abs=1e-4)
    assert scores["margin"] == pytest.approx(logged["rewards/margins"], rel=1e-3, abs=1e-4)
    assert scores["accuracy"] == pytest.approx(logged["rewards/accuracies"])


def test_gradients_flow_to_the_policy_alone(tokenizer: Tokenizer) -> None:
    policy, reference = random_model(seed=1), random_model(seed=1)
    pairs = PreferenceDataset(PAIRS, tokenizer, "short").pairs
    fixed = pair_log_probs(reference, pairs)  # with a graph, as a careless caller would have it
    dpo_loss(pair_log_probs(policy, pairs), fixed)[0].mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in policy.parameters())
    assert all(parameter.grad is None for parameter in reference.parameters())


def test_a_step_of_lora_moves_the_adapters_alone_towards_the_chosen(tokenizer: Tokenizer) -> None:
    model = random_model(seed=1, scale=1.0)
    pairs = PreferenceDataset(PAIRS, tokenizer, "short").pairs
    reference = reference_log_probs(model, pairs)
    add_lora(model, 4)
    before = bits_of(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(5):
        dpo_loss(pair_log_probs(model, pairs), reference)[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    scores = preference_scores(pair_log_probs(model, pairs).detach(), reference)
    assert scores["accuracy"] == 1
    assert scores["preference"] < np.log(2)


# ---- pairs as rows ----


def test_both_rows_of_a_pair_have_the_prompt_of_an_entry(tokenizer: Tokenizer) -> None:
    pair = encode_pair(PAIR, tokenizer)
    assert pair.chosen == encode_entry(PAIR, tokenizer)
    assert pair.rejected == encode_entry(PAIR | {"output": PAIR["rejected"]}, tokenizer)


def test_a_pair_that_is_too_long_keeps_one_prompt_and_both_ends_and_is_counted(tokenizer: Tokenizer) -> None:
    long = PAIR | {"input": "The sky is blue. " * 20, "rejected": "word " * 30}
    for entry in (long, long | {"output": long["rejected"], "rejected": "Blue."}):
        dataset = PreferenceDataset([entry, PAIR], tokenizer, "short", 80)
        chosen, rejected = dataset.pairs[0]
        prompts = [[i for i, kind in zip(*row, strict=True) if kind < Kind.RESPONSE] for row in (chosen, rejected)]
        assert prompts[0] == prompts[1]
        assert all(row.ids[-1] == 50256 and len(row.ids) <= 80 for row in (chosen, rejected))
        assert dataset.counts()["cut"] == 1
    apart = [encode_entry(long | {"output": text}, tokenizer, "short", 80) for text in ("Blue.", long["rejected"])]
    kept = [sum(kind < Kind.RESPONSE for kind in row.kinds) for row in apart]
    assert kept[0] != kept[1]  # the wrong variant: each cut by itself, two different questions


# ---- public forms ----

SAID = {"instruction": "Why?", "input": "", "output": "Because.", "rejected": "No."}
HH = "\n\nHuman: Why?\n\nAssistant: "
USER, YES, NO = ({"role": role, "content": text} for role, text in
                 (("user", "Why?"), ("assistant", "Because."), ("assistant", "No.")))  # fmt: skip
FORMS = {
    "ours": {"instruction": "Why?", "chosen": "Because.", "rejected": "No."},
    "texts": {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    "a question": {"question": "Why?", "chosen": "Because.", "rejected": "No."},
    "messages": {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
    "conversations": {"prompt": "Why?", "chosen": [USER, YES], "rejected": [USER, NO]},
    "HH": {"chosen": HH + "Because.", "rejected": HH + "No."},
}
LEFT_OUT = {
    "later_turns": {"chosen": HH + "Eh?\n\nHuman: Why?\n\nAssistant: Yes", "rejected": HH + "Eh?\n\nHuman: Why?\n\n"
                    "Assistant: No"},
    "other_prompts": {"chosen": HH + "Yes", "rejected": "\n\nHuman: Who?\n\nAssistant: I"},
    "same_response": {"prompt": "Why?", "chosen": "No. ", "rejected": "No."},
    "empty_text": {"prompt": "Why?", "chosen": "No.", "rejected": " "},
}  # fmt: skip
WRONG = {
    '{"prompt": "a", "chosen": "b"}': 'a pair has the fields "chosen" and "rejected"',
    '{"chosen": "b", "rejected": "c"}': "what is asked is missing: one of instruction, prompt, question",
    '{"prompt": "a", "chosen": 3, "rejected": "c"}': '"chosen" must be text or a list of messages, found int 3',
    '{"prompt": "a", "chosen": [], "rejected": "c"}': '"chosen" must be text or a list of messages',
    '{"prompt": "a", "chosen": [{"role": "tool", "content": "b"}], "rejected": "c"}': "'tool' is not known",
    '{"prompt": "a", "input": 1, "chosen": "b", "rejected": "c"}': '"input" must be text',
    '{"prompt": "a", "chosen": "b", "rejected": "\\ud83d"}': "half a character",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pair(form: str) -> None:
    assert record_to_pair(FORMS[form]) == SAID
    assert record_to_pair(FORMS[form] | {"source": "us"}) == SAID | {"source": "us"}


def test_a_system_message_goes_along() -> None:
    system = {"role": "system", "content": "Be brief."}
    record = {"chosen": [system, USER, YES], "rejected": [system, USER, NO]}
    assert record_to_pair(record) == SAID | {"system": "Be brief."}


def test_what_gives_no_pair_is_counted_and_not_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in [*LEFT_OUT.values(), FORMS["HH"]]))
    assert read_pairs(path) == ([SAID], dict.fromkeys(LEFT_OUT, 1) | {"pairs": 1})
    path.write_text(json.dumps([LEFT_OUT["empty_text"]]))
    with pytest.raises(EntryError, match=r"no pairs: found \{'empty_text': 1\}"):
        read_pairs(path)


@pytest.mark.parametrize("text", WRONG)
def test_a_record_that_is_no_pair_is_an_error_that_says_where(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(f"[{text}]")
    with pytest.raises(EntryError, match=r"pairs\.json: entry 0: ") as caught:
        read_pairs(path)
    assert WRONG[text] in str(caught.value)


# ---- as a user starts it ----


@pytest.fixture
def start(tmp_path: Path) -> tuple[Path, Path]:
    """A small model's folder, and a file of 40 pairs: the right word is preferred to the same wrong one."""
    save_model(random_model(scale=1.0), tmp_path / "base")
    letters = [chr(ord("a") + i) * n for n in (2, 3) for i in range(20)]
    records = [
        {"prompt": f"Copy what follows here: {word} {word[::-1]} {i}", "chosen": f"yes {word}", "rejected": "no"}
        for i, word in enumerate(letters)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(records))
    return tmp_path / "base", tmp_path / "pairs.json"


FLAGS = [
    "--device",
    "cpu",
    "--template",
    "short",
    "--batch-size",
    "8",
    "--epochs",
    "3",
    "--lr",
    "1e-3",
    "--eval-every",
    "5",
]


def read(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.long
def test_a_run_on_pairs_prefers_the_chosen_and_leaves_the_folder_of_a_run(
    start: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base, pairs = start
    assert prefer.main([str(base), str(pairs), "--out", str(tmp_path / "run"), *FLAGS]) == 0
    history, scores = read(tmp_path / "run" / "history.json"), read(tmp_path / "run" / "preference.json")
    assert history[0]["val"]["preference"] == pytest.approx(np.log(2), abs=1e-3)
    assert history[-1]["val"]["preference"] < 0.6
    assert scores["reward accuracy"]["value"] == 1
    assert scores["n"] == 4
    assert set(history[-1]["scores"]) == {"preference", "margin", "accuracy", "likelier"}
    assert (tmp_path / "run" / "preference.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert "reward accuracy" in said
    assert "beta 0.1" in said
    with (tmp_path / "run" / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [report["step"] for report in history]
    assert float(rows[-1]["accuracy"]) == history[-1]["scores"]["accuracy"]
    assert float(rows[-1]["val_preference"]) == history[-1]["val"]["preference"]
    page = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "4 held-out pairs, beta 0.1" in page and "](preference.png)" in page
    entries = load_entries(tmp_path / "run" / "pairs.json")
    assert entries[0]["rejected"] == "no"
    assert load_model(tmp_path / "run").n_parameters() == load_model(base).n_parameters()
    assert finetune.main(["--resume", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "learns from pairs: go on with python -m scripts.prefer" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("lora", [[], ["--lora-rank", "2"]], ids=["whole", "lora"])
def test_ctrl_c_saves_and_resume_ends_at_the_same_weights(
    start: tuple[Path, Path], tmp_path: Path, lora: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(prefer, "evaluate_run", lambda folder, device: None)
    base, pairs = start
    flags = [str(base), str(pairs), *FLAGS, "--dropout", "0.1", *lora]
    assert prefer.main([*flags, "--out", str(tmp_path / "whole")]) == 0

    def presses_ctrl_c(*args: object) -> object:
        for report in prefer_run(*args):
            if report["step"] == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield report

    with monkeypatch.context() as patch:
        patch.setattr(prefer, "prefer_run", presses_ctrl_c)
        assert prefer.main([*flags, "--out", str(tmp_path / "run")]) == 130
    assert f"python -m scripts.prefer --resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert read(tmp_path / "run" / "history.json")[-1]["step"] == 4
    assert prefer.main(["--resume", str(tmp_path / "run"), "--device", "cpu"]) == 0
    for name, tensor in load_model(tmp_path / "whole").state_dict().items():
        assert torch.equal(tensor, load_model(tmp_path / "run").state_dict()[name]), name
    histories = [
        [report["scores"] for report in read(tmp_path / name / "history.json")[1:]] for name in ("whole", "run")
    ]
    assert histories[0] == histories[1]
    assert (tmp_path / "run" / "adapter").exists() == bool(lora)


@pytest.mark.long
def test_a_step_is_the_same_however_it_is_cut(start: tuple[Path, Path], tmp_path: Path, monkeypatch: object) -> None:
    monkeypatch.setattr(prefer, "evaluate_run", lambda folder, device: None)
    base, pairs = start
    ends = []
    for n in ("8", "3"):
        out = tmp_path / n
        assert prefer.main([str(base), str(pairs), *FLAGS, "--micro-batch", n, "--out", str(out)]) == 0
        ends.append([report["scores"]["preference"] for report in read(out / "history.json")[1:]])
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume", "nowhere"], "nowhere holds no run"),
        ([], "give the run to start from and a file of pairs"),
        (["gpt2-tiny", "nowhere.json"], "nowhere.json: No such file"),
        (["gpt2-tiny", "PAIRS", "--beta", "0"], "beta is 0.0: it must be more than 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    flags: list[str], message: str, start: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = [str(start[1]) if flag == "PAIRS" else flag for flag in flags]
    out = ["--out", str(tmp_path / "run")] if "--resume" not in flags else []
    assert prefer.main([*flags, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_file_of_pairs_loses_its_half_line_and_another_file_loses_nothing(tmp_path: Path) -> None:
    path, entry = tmp_path / "pairs.jsonl", {"instruction": "Name a bird.", "input": "", "output": "A robin."}
    pair = json.dumps(make_pairs.pair_or_reason(entry, "A fish."))
    assert make_pairs.read_done(path) == set() and not path.exists()
    for rest in ("", pair[:20], pair):
        path.write_text(f"{pair}\n{rest}", encoding="utf-8")
        assert make_pairs.read_done(path) == {("Name a bird.", "")}
        assert path.read_text(encoding="utf-8") == f"{pair}\n"
    for text in (json.dumps(entry) + "\n", f"[{pair}]", f"[\n{pair}\n]\n", f"{pair}\nhello", "7\n", '{"a": 1}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="name another --out"):
            make_pairs.read_done(path)
        assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("response", "reason"), [(" A robin.\n", "the reference itself"), (" ", "empty")])
def test_a_response_that_gives_no_pair_is_kept_with_its_reason(response: str, reason: str) -> None:
    row = make_pairs.pair_or_reason({"instruction": "Name a bird.", "input": "", "output": "A robin."}, response)
    assert reason in row["reason"] and row["response"] == response and "chosen" not in row


@pytest.mark.slow
def test_pairs_are_made_of_a_runs_own_responses_and_not_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(finetune, "evaluate_run", lambda folder, device: None)
    entries = load_entries(Path(finetune.__file__).parents[1] / "data" / "instructions.json")[::80]
    (tmp_path / "some.json").write_text(json.dumps(entries), encoding="utf-8")
    flags = ["--data", str(tmp_path / "some.json"), "--epochs", "1", "--device", "cpu", "--no-self-check"]
    assert finetune.main([*flags, "--out", str(tmp_path / "run")]) == 0
    out = tmp_path / "pairs.jsonl"
    command = [str(tmp_path / "run"), "--out", str(out), "-n", "6", "--max-new-tokens", "12", "--device", "cpu"]
    assert make_pairs.main(command) == 0
    first = out.read_text(encoding="utf-8")
    pairs, _ = read_pairs(out)
    references = {entry["instruction"] + entry["input"]: entry["output"] for entry in entries}
    assert all(references[pair["instruction"] + pair["input"]] == pair["output"] for pair in pairs)
    out.write_text(first[:-5], encoding="utf-8")  # stopped in the middle of a line
    assert make_pairs.main(command) == 0
    assert sorted(out.read_text(encoding="utf-8").splitlines()) == sorted(first.splitlines())
    own = [pair | {"output": pair["rejected"]} for pair in pairs]  # references that are the run's own responses
    (tmp_path / "own.json").write_text(json.dumps(own), encoding="utf-8")
    command = [*command, "--out", str(tmp_path / "none.jsonl"), "--data", str(tmp_path / "own.json")]
    assert make_pairs.main(command) == 0
    dropped = (tmp_path / "none.dropped.jsonl").read_text(encoding="utf-8")
    assert len(dropped.splitlines()) == len(own) and not (tmp_path / "none.jsonl").exists()
    asked = []
    monkeypatch.setattr(make_pairs, "respond", lambda model, tokenizer, left, **options: asked.extend(left) or [])
    assert make_pairs.main(command) == 0 and asked == []  # nor are they asked for again
    assert (tmp_path / "none.dropped.jsonl").read_text(encoding="utf-8") == dropped
    capsys.readouterr()
