"""What each of several processes does for test_processes.py: train small models in all ways, and write down what came.

python -m torch.distributed.run --nproc-per-node 2 tests/hardware/several.py OUT     (or without torchrun: one process)
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gpt.hardware import processes
from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.dataset import InstructionDataset, collate
from gpt.text.tokenizer import load_tokenizer
from gpt.training import train as module
from gpt.training.loss import supervised_loss
from gpt.training.train import TrainConfig, choose_trained, make_optimizer, make_scaler, train, train_step
from tests.reference import random_model

TINY = GPTConfig(vocab_size=50257, context_length=64, n_embd=16, n_layer=2, n_head=2)
PLAIN = {"epochs": 2, "batch_size": 8, "micro_batch": 2, "lr": 1e-2, "dropout": 0.0}
WAYS = {
    "plain": {},
    "lora": {"lora_rank": 4},
    "freeze": {"freeze": "embeddings,first:1"},
    "dropout": {"dropout": 0.2},
}
WORDS = "river teacher garden window market doctor bridge candle forest kitchen".split()


def entries() -> list[dict]:
    """17: the short batch of an epoch has one entry, and with two processes one of them has none."""
    lengths = [1, 1, 2, 3, 12, 30, 1, 20, 3, 3, 12, 1, 4, 20, 1, 9, 5]
    return [
        {"instruction": f"say {i}", "input": "", "output": " ".join(WORDS[(i + k) % 10] for k in range(n))}
        for i, n in enumerate(lengths)
    ]


def fresh(config: TrainConfig) -> GPT:
    model = random_model(GPTConfig(**{**vars(TINY), "dropout": config.dropout}), scale=1.0)
    choose_trained(model, config)
    return model


def losses(config: TrainConfig, dataset: InstructionDataset) -> dict[str, object]:
    model = fresh(config)
    reports = list(train(model, make_optimizer(model, config), dataset, dataset, config))
    weights = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    return {
        "losses": [report.loss for report in reports[1:]],
        "val": [report.val["all"] for report in reports if report.val],
        "weights": weights.abs().sum().item(),
        "same everywhere": len(set(processes.everyone(weights.sum().item()))) == 1,
        "fits": reports[-1].micro_batch,
    }


class Look(torch.optim.SGD):
    """An optimizer that only looks at what it should apply."""

    def step(self) -> None:
        self.seen = torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"]])


def our_gradient(dataset: InstructionDataset, rows: list[int]) -> torch.Tensor:
    config = TrainConfig(**PLAIN, clip=0.0)
    model = fresh(config)
    look = Look(model.parameters(), lr=0.0)
    train_step(model, look, dataset, rows, config, 0, make_scaler(model.device, "float32"))
    return look.seen


class Summed(nn.Module):
    """The loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return supervised_loss(self.model.hidden(inputs), targets, self.model.output_weight)[0]


def ddp_gradient(dataset: InstructionDataset, rows: list[int], mean_of_means: bool) -> torch.Tensor:
    """DistributedDataParallel, which takes the mean over the processes: times their number it is the sum."""
    model = fresh(TrainConfig(**PLAIN))
    mine = collate([dataset[i] for i in rows[dist.get_rank() :: 2]])
    n_mine, n_all = int((mine[1] >= 0).sum()), int((collate([dataset[i] for i in rows])[1] >= 0).sum())
    wrapped = DistributedDataParallel(Summed(model))
    loss = wrapped(*mine)
    (loss / n_mine if mean_of_means else loss * 2 / n_all).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def one_is_full(dataset: InstructionDataset) -> dict[str, object]:
    """Memory that does not suffice for two entries, in the last process only."""
    hidden = GPT.hidden

    def small_memory(self: GPT, inputs: torch.Tensor, *rest: object) -> torch.Tensor:
        if self.training and len(inputs) > 1 and processes.rank() == processes.n_processes() - 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden(self, inputs, *rest)

    GPT.hidden = small_memory
    try:
        return losses(TrainConfig(**PLAIN), dataset)
    finally:
        GPT.hidden = hidden


def wrong_losses(dataset: InstructionDataset) -> dict[str, object]:
    """Every process divides by its own number of tokens, and the means are averaged."""
    right = module.add_gradients

    def n_counted(rows: list[int]) -> int:
        return sum(kind >= 2 for i in rows for kind in dataset[i].kinds[1:])

    def mean_of_means(parameters: object) -> None:
        parameters = [p for p in parameters if p.requires_grad]
        rows = steps.pop(0)
        n_all, mine = n_counted(rows), n_counted(processes.share(rows))
        for p in parameters:
            if p.grad is not None and mine:
                p.grad *= n_all / mine / processes.n_processes()
        right(parameters)

    config = TrainConfig(**PLAIN)
    steps = [rows for epoch in range(config.epochs) for rows in module.epoch_batches(dataset, config, epoch)]
    module.add_gradients = mean_of_means
    try:
        return losses(config, dataset)
    finally:
        module.add_gradients = right


def main(out: Path) -> None:
    torch.set_num_threads(1)
    dataset = InstructionDataset(entries(), load_tokenizer(), "short", 64)
    found: dict[str, object] = {}
    with processes.together(torch.device("cpu")):
        for name, way in WAYS.items():
            found[name] = losses(TrainConfig(**PLAIN | way), dataset)
        found["one is full"] = one_is_full(dataset)
        if processes.n_processes() > 1:
            found["mean of means"] = wrong_losses(dataset)
            rows = [0, 4, 5, 8, 11, 13, 17, 20]
            ours, scale = our_gradient(dataset, rows), our_gradient(dataset, rows).abs().max().item()
            for name, is_wrong in (("to DDP", False), ("to a mean of means", True)):
                found[name] = (ours - ddp_gradient(dataset, rows, is_wrong)).abs().max().item() / scale
        found["everyone"] = processes.everyone(processes.rank() + 0.5)
        found["share"] = [list(processes.share([1, 2, 3])), list(processes.share([1]))]
        if processes.rank() == 0:
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
