"""Several processes train one model, one for each GPU, as `torchrun` starts them.

Each has the whole model, takes every n-th entry of a step, and the gradients of all are added up before the update. So
every process applies the same update, and the step is that of one process, up to the rounding of sums in another order.

PyTorch's DistributedDataParallel adds the gradients up while they are still being computed, layer by layer. Here they
are added up once, after the step's last micro-batch, because that leaves each process free in between: it may have no
entry of a short last batch, and it may cut its share smaller when its memory is full. The result is the same (a test
compares), and PyTorch's collective operations do the work in both.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn


def rank() -> int:
    """The number of this process, 0 if it is alone. Process 0 writes, prints and draws; the others only compute."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU; known before the processes have met."""
    return int(os.environ.get("LOCAL_RANK", 0)) if dist.is_torchelastic_launched() else 0


def n_local_processes() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if dist.is_torchelastic_launched() else 1


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Meet the other processes, if torchrun has started several, and part at the end.

    Gradients travel from GPU to GPU (NCCL), a few numbers and everything on CPUs through gloo.
    Raises ValueError for a device that PyTorch has no way between.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        yield
        return
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"several processes work on cuda or cpu, not on {device.type}")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def first_alone() -> Iterator[None]:
    """Process 0 goes through the block first and the others follow together: what it fetched, they find."""
    if rank() > 0:
        everyone(0)
    try:
        yield
    finally:
        if rank() == 0:
            everyone(0)
        everyone(0)  # nobody changes anything before all have looked


def share(rows: Sequence) -> Sequence:
    """Every n-th, so that rows sorted by length fall evenly; none if there are fewer rows than processes."""
    return rows[rank() :: n_processes()]


def everyone(number: float) -> list[float]:
    """The number that each process comes with, in their order. All must call this, and all get the same."""
    if not dist.is_initialized():
        return [number]
    numbers = torch.zeros(n_processes(), dtype=torch.float64)  # on the CPU: no GPU has to be waited for
    numbers[rank()] = number
    dist.all_reduce(numbers)
    return numbers.tolist()


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by the sum over the processes, which has the same bits in all of them."""
    if not dist.is_initialized():
        return
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        if p.grad is None:
            p.grad = torch.zeros_like(p)  # this process had no entry in this step
    for sum_to_come in [dist.all_reduce(p.grad, async_op=True) for p in trained]:
        sum_to_come.wait()


def seed_dropout(seed: int, step: int) -> None:
    """Dropout follows from seed, step and process: with one seed for all, their entries would lose the same units."""
    torch.manual_seed(seed * 1_000_003 + step + (rank() << 52))
