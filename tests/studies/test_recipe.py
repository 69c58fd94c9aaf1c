import dataclasses
import random

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from gpt.model.gpt2 import GPTConfig
from gpt.studies.recipe import (
    BOOK,
    LOG,
    Comparison,
    changes,
    compare,
    loader_batches,
    mean_of_batch_means,
    measure,
    measured_batches,
    published_batches,
    verdict,
)
from gpt.text.dataset import Example, InstructionDataset
from gpt.text.entries import entries_sha256, load_entries, split_entries
from gpt.text.tokenizer import Tokenizer
from gpt.training.loss import evaluate_loss
from gpt.training.train import TrainConfig
from gpt.weights.download import find_model
from tests.reference import random_model

FIELDS = {field.name for field in dataclasses.fields(TrainConfig)}
CONFIG = TrainConfig(**{name: value for name, value in BOOK.items() if name in FIELDS})
EOT = 50256
# What the published notebook prints: the number of columns of each training batch of the first epoch.
PUBLISHED_WIDTHS = [
    61, 76, 73, 68, 65, 72, 80, 67, 62, 75, 62, 68, 67, 77, 69, 79, 71, 66, 83, 68, 80, 71, 69, 65, 68, 60, 59, 69, 63,
    65, 76, 66, 71, 91, 65, 64, 67, 66, 64, 65, 75, 89, 59, 88, 83, 83, 70, 65, 74, 76, 67, 75, 83, 69, 67, 60, 60, 66,
    80, 71, 61, 58, 71, 67, 68, 63, 87, 68, 64, 68, 71, 68, 71, 61, 65, 67, 65, 64, 60, 72, 64, 70, 57, 72, 64, 68, 62,
    74, 80, 68, 70, 91, 61, 66, 80, 81, 74, 82, 63, 83, 68, 67, 77, 91, 64, 61, 75, 64, 66, 78, 66, 64, 83, 66, 74, 69,
]  # fmt: skip


# ---- the order ----


def published_loop(n_train: int, n_val: int, config: TrainConfig) -> tuple[list, dict]:
    """The order of PyTorch's own loaders in the published loop: an evaluation of both sides every five steps."""

    def first_five(loader: DataLoader) -> list[list[int]]:
        found = []
        for batch in loader:
            if len(found) == 5:
                break
            found.append(batch)
        return found

    options = {"batch_size": config.batch_size, "collate_fn": list}
    train_loader = DataLoader(range(n_train), shuffle=True, drop_last=config.drop_last, **options)
    val_loader = DataLoader(range(n_val), shuffle=False, drop_last=False, **options)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        measured = {0: first_five(train_loader)}
        torch.manual_seed(config.seed)
        epochs, step = [], -1
        for _ in range(config.epochs):
            epochs.append([])
            for batch in train_loader:
                epochs[-1].append(batch)
                step += 1
                if step % 5 == 0:
                    measured[step + 1] = first_five(train_loader)
                    first_five(val_loader)
    return epochs, measured


@pytest.mark.parametrize(
    ("n_train", "n_val", "others"),
    [
        (935, 55, {}),
        (935, 55, {"seed": 7, "epochs": 3}),
        (83, 5, {"drop_last": False}),
        (40, 3, {"batch_size": 4, "epochs": 4}),
    ],
)
def test_the_order_is_that_of_pytorchs_loaders_in_the_published_loop(n_train: int, n_val: int, others: dict) -> None:
    config = dataclasses.replace(CONFIG, **others)
    epochs, measured = published_loop(n_train, n_val, config)
    assert [published_batches(n_train, config, epoch) for epoch in range(config.epochs)] == epochs
    assert {n_updates: measured_batches(n_train, config, n_updates) for n_updates in measured} == measured


def test_without_the_evaluations_in_between_the_second_epoch_would_have_another_order() -> None:
    assert published_batches(935, CONFIG, 1) != loader_batches(935, CONFIG, 2)
    assert published_batches(935, CONFIG, 0) == loader_batches(935, CONFIG, 0)


def test_drawing_an_order_leaves_pytorchs_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    published_batches(935, CONFIG, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_line_of_the_log_is_one_that_the_published_loop_evaluates() -> None:
    _, measured = published_loop(935, 55, CONFIG)
    assert {point.n_updates for point in LOG} <= set(measured)
    assert len(published_batches(935, CONFIG, 0)) == 116


def test_the_batches_have_the_published_widths(tokenizer: Tokenizer) -> None:
    folder = find_model("book")
    if folder is None:
        pytest.skip("the book's data set is not in the cache: python -m scripts.download book")
    entries = load_entries(folder / "instruction-data.json")
    assert entries_sha256(entries) == BOOK["entries_sha256"]
    train, val, test = split_entries(entries, how="ordered")
    assert (len(train), len(test), len(val)) == (935, 110, 55)
    examples = InstructionDataset(train, tokenizer, "book").examples
    batches = published_batches(935, CONFIG, 0)
    assert [max(len(examples[i].ids) for i in rows) - 1 for rows in batches] == PUBLISHED_WIDTHS
    sizes = [max(len(examples[i].ids) for i in rows) - 1 for rows in published_batches(935, CONFIG, 1)]
    assert sizes != PUBLISHED_WIDTHS


# ---- measuring ----


def entries(n: int, seed: int = 0) -> list[dict]:
    """Short rows of many words and long rows of one: a mean of batch means is not the mean over tokens here."""
    rng = random.Random(seed)
    words = "river teacher garden window market doctor bridge candle forest kitchen".split()
    return [
        {
            "instruction": rng.choice([" ".join(rng.choices(words, k=2)), "the " * rng.randint(1, 30)]),
            "input": "",
            "output": " ".join(rng.choices(words, k=3)),
        }
        for _ in range(n)
    ]


def published_batch(examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """The published collate by hand: the row, an end of text, padding of the same id, of which one counts."""
    longest = max(len(example.ids) for example in examples)
    inputs, targets = [], []
    for example in examples:
        padded = example.ids + [EOT] * (longest - len(example.ids))
        inputs.append(padded[:-1])
        targets.append([*example.ids[1:], *[-100] * (longest - len(example.ids))])
    return torch.tensor(inputs), torch.tensor(targets)


@pytest.mark.long
def test_losses_in_the_published_way_are_means_of_batch_means(tokenizer: Tokenizer) -> None:
    model = random_model(GPTConfig(context_length=64, n_embd=16, n_layer=2, n_head=2, dropout=0.5), scale=1.0).train()
    train_set = InstructionDataset(entries(61), tokenizer, "short", 64)
    val_set = InstructionDataset(entries(43, seed=1), tokenizer, "short", 64)
    with torch.no_grad():
        model.ln_f.bias.copy_(100 * model.wte.weight[tokenizer.encode(" the")[0]])  # it expects that word everywhere
    found = measure(model, train_set, val_set, CONFIG, 11)
    assert model.training
    model.eval()

    def by_hand(dataset: InstructionDataset, batches: list[list[int]]) -> float:
        means = []
        for rows in batches:
            inputs, targets = published_batch([dataset[i] for i in rows])
            means.append(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item())
        return sum(means) / len(means)

    batches = measured_batches(61, CONFIG, 11)
    assert found["train"] == pytest.approx(by_hand(train_set, batches), abs=1e-4)
    assert found["val"] == pytest.approx(by_hand(val_set, [list(range(i, i + 8)) for i in range(0, 40, 8)]), abs=1e-4)
    rows = [train_set[i] for batch in batches for i in batch]
    assert found["by_token"] == {"train": evaluate_loss(model, rows), "val": evaluate_loss(model, val_set.examples)}
    assert abs(found["train"] - found["by_token"]["train"]["all"]) > 0.1  # the other way of weighing shows


@pytest.mark.long
def test_only_the_lines_of_the_log_are_measured(tokenizer: Tokenizer) -> None:
    model = random_model(GPTConfig(context_length=64, n_embd=16, n_layer=1, n_head=2), scale=1.0)
    dataset = InstructionDataset(entries(20), tokenizer, "short", 64)
    found = [n for n in range(13) if measure(model, dataset, dataset, CONFIG, n)]
    assert found == [0, 1, 11]


def test_a_mean_over_few_rows_takes_those_there_are(tokenizer: Tokenizer) -> None:
    model = random_model(GPTConfig(context_length=64, n_embd=16, n_layer=1, n_head=2), scale=1.0)
    dataset = InstructionDataset(entries(11), tokenizer, "short", 64)
    assert len(measured_batches(11, CONFIG, 1)) == 1  # the rest of three rows is dropped
    assert mean_of_batch_means(model, dataset, [[0, 1], [2]], "all") > 0


# ---- the verdict ----


def history(train: float = 0.0, val: float = 0.0, until: int = 231) -> list[dict]:
    """A run that has the published losses, but for this much."""
    return [
        {"step": p.n_updates, "published_way": {"train": p.train + train, "val": p.val + val}}
        for p in LOG
        if p.n_updates <= until
    ] + [{"step": 5}]


def published() -> dict[str, object]:
    return BOOK | {"micro_batch": 2, "eval_every": 7}  # which change nothing of the result


def test_a_run_with_the_published_losses_is_a_reproduction() -> None:
    for is_tied in (True, False):
        assert verdict(compare(history(0.004, -0.004), is_tied), changes(published())).startswith("reproduced: all")


def test_a_loss_outside_of_the_tolerance_is_named() -> None:
    found = verdict(compare(history(val=0.008), is_tied=False), [])
    assert found == "NOT reproduced: outside of the tolerance before"
    assert "step 0, step 10, step 50" in verdict(compare(history(train=0.015), is_tied=False), [])
    assert "step 230" in verdict(compare(history(train=-0.1), is_tied=True), [])


def test_a_tied_output_layer_has_room_that_grows_with_the_fall_of_the_loss() -> None:
    tied, untied = compare(history(), is_tied=True), compare(history(), is_tied=False)
    assert tied[0].tolerance == untied[0].tolerance == 0.005  # before training there is no difference
    room = [a.tolerance - b.tolerance for a, b in zip(tied, untied, strict=True)]
    assert room[1] == pytest.approx(0.02 * (3.826 - 2.637), abs=1e-3)
    assert 0 < room[1] < room[2] < room[3] < room[4] < room[6] < 0.08


def test_a_run_that_ended_early_gets_no_verdict() -> None:
    found = compare(history(until=101), is_tied=True)
    assert verdict(found, []) == "no verdict: the run did not get to step 115, step 230"
    assert found[-1].differences is None


def test_a_loss_of_nan_is_outside() -> None:
    assert not Comparison(LOG[0], 0.1, {"train": float("nan"), "val": LOG[0].val}).is_within
    assert "NOT reproduced" in verdict(compare(history(train=float("nan")), is_tied=True), [])


def test_changed_settings_are_named_and_the_figures_do_not_apply() -> None:
    assert changes(published()) == []
    changed = changes(published() | {"model": "gpt2-tiny", "lr": 1e-4, "entries_sha256": "0" * 64})
    assert changed == ["model is gpt2-tiny, not gpt2-medium", "other entries", "lr is 0.0001, not 5e-05"]
    found = verdict(compare(history(), is_tied=True), changed)
    assert found == (
        "the published figures do not apply to this run: model is gpt2-tiny, not gpt2-medium; other entries; "
        "lr is 0.0001, not 5e-05"
    )


def test_the_recipe_sets_what_the_published_run_had() -> None:
    assert (CONFIG.schedule, CONFIG.warmup, CONFIG.clip, CONFIG.dropout) == ("constant", 0.0, 0.0, 0.0)
    assert (CONFIG.weight_decay, CONFIG.decay_all, CONFIG.drop_last, CONFIG.loss_on) == (0.1, True, True, "all")
    assert set(BOOK) - FIELDS == {"model", "entries_sha256", "split", "template"}
