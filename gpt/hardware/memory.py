"""Memory: how much is held, and what happens where it does not suffice: fewer entries at a time, and the same step."""

import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from gpt.hardware.processes import everyone

try:
    import resource
except ImportError:  # Windows
    resource = None

Result = TypeVar("Result")


def halve_until_it_fits(work: Callable[[int], Result], size: int) -> tuple[Result, int]:
    """`work(size)`, begun again with half the size as often as the device's memory does not suffice for it; and the
    size that did, the least of all processes. `work` must not wait for other processes: each finds its size alone.

    Only CUDA says in time that memory is full; on a CPU the system ends the process. Raises torch.OutOfMemoryError, in
    all processes, if one of them has no room for even 1.
    """
    result = None
    while size:
        try:
            result = work(size)
            break
        except torch.OutOfMemoryError:
            size //= 2
        if torch.cuda.is_available():  # needs CUDA; not above: the exception holds on to the tensors until it is gone
            torch.cuda.empty_cache()
    if not (least := int(min(everyone(size)))):
        raise torch.OutOfMemoryError("one entry at a time does not fit into memory")
    return result, least


def peak_bytes(device: torch.device) -> int:
    """The most memory this process has held so far: the device's on CUDA, else its own; 0 where nobody counts."""
    if device.type == "cuda":  # needs CUDA
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
