"""The bundled data: what data/README.md says of them is so."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from gpt.evaluation.constraints import check_constraints, unmet
from gpt.text.dataset import InstructionDataset
from gpt.text.entries import Entry, load_entries, split_entries, split_report
from gpt.text.tokenizer import Tokenizer
from gpt.weights.checkpoint import load_model

DATA = Path(__file__).parents[1] / "data"
TINY = DATA / "gpt2-tiny"
KINDS = {
    "question_answering", "generation", "rewriting", "summarising", "translation", "classification", "extraction",
    "reasoning", "format_conversion", "spelling", "grammar", "arithmetic", "units", "synonyms", "antonyms",
}  # fmt: skip


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return load_entries(DATA / "instructions.json")


def test_there_are_enough_entries_and_most_kinds_are_written_by_hand(entries: list[Entry]) -> None:
    assert len(entries) >= 1200
    assert {entry["kind"] for entry in entries} == KINDS
    sources = Counter(entry["source"] for entry in entries)
    assert sources.pop("written") >= 700
    assert all(source.startswith("template:") for source in sources)
    assert max(sources.values()) <= 0.03 * len(entries)


def test_no_prompt_stands_twice_and_no_wording_is_worn_out(entries: list[Entry]) -> None:
    prompts = Counter((entry["instruction"].lower(), entry["input"].lower()) for entry in entries)
    assert max(prompts.values()) == 1
    written = Counter(entry["instruction"] for entry in entries if entry["source"] == "written")
    assert max(written.values()) <= 2


def test_every_reference_meets_its_own_constraints(entries: list[Entry]) -> None:
    for position, entry in enumerate(entries):
        constraints = check_constraints(entry.get("constraints", []), f"entry {position}")
        assert not unmet(entry["output"], constraints), entry


def test_entries_are_clean(entries: list[Entry]) -> None:
    for entry in entries:
        for field in ("instruction", "input", "output"):
            assert entry[field] == entry[field].strip()
            assert not re.search("[\u201c\u201d\u2018\u2019\u2013\u2014\u200b\ufffd\t]|  ", entry[field]), entry
        assert entry["output"]
        assert "###" not in str(entry)


@pytest.mark.long
def test_the_default_split_leaks_nothing(entries: list[Entry]) -> None:
    train, val, test = split_entries(entries)
    assert (len(train), len(val), len(test)) == (4557, 268, 536)
    for held_out in (val, test):
        assert split_report(train, held_out) | {"entries": 0} == {"entries": 0, "exact": 0, "near": 0}


def test_every_entry_fits_the_tiny_model(entries: list[Entry], tokenizer: Tokenizer) -> None:
    counts = InstructionDataset(entries, tokenizer, max_length=512).counts()
    assert (counts["cut_prompt"], counts["cut_response"], counts["dropped"]) == (0, 0, 0)


def test_the_readme_has_the_checksums_of_the_files() -> None:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    names = ("instructions.json", "replies.json", "dirty_entries.jsonl")
    for path in (*(DATA / name for name in names), TINY / "model.safetensors"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in readme, path


def test_the_tiny_model_is_small_and_a_gpt2() -> None:
    path = TINY / "model.safetensors"
    assert path.stat().st_size <= 16 * 2**20
    with safe_open(path, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    model = load_model("gpt2-tiny")
    assert model.config.context_length == 512
    assert model.config.vocab_size == 50257
    ids = torch.randint(0, 50257, (1, 512))
    theirs = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    with torch.no_grad():
        assert (model(ids) - theirs(ids).logits).abs().max() < 1e-3


def test_the_tiny_model_knows_some_english(tokenizer: Tokenizer) -> None:
    """Far better than chance (10.8 nats) at a plain sentence, and better at it than at its words shuffled."""
    model = load_model("gpt2-tiny")

    def loss(text: str) -> float:
        ids = torch.tensor([[tokenizer.eot_id, *tokenizer.encode(text)]])
        logits = model(ids[:, :-1])[0]
        return torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item()

    with torch.no_grad():
        told = loss("The little boy went to the river with his mother, and they saw a big fish in the water.")
        shuffled = loss("fish the went river mother boy and a saw in little water The with the to his they big.")
    assert told < 4.5
    assert told < shuffled - 1


def test_the_model_card_states_how_it_was_made() -> None:
    card = (TINY / "README.md").read_text(encoding="utf-8")
    facts = json.loads((TINY / "pretraining.json").read_text(encoding="utf-8"))
    for part in ("held-out", "tokens", "licence", "python -m scripts.pretrain", *facts["tokens"]):
        assert part in card, part
