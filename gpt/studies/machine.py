"""What the machine is and what it can do: the limits beside which the benchmark sets a speed."""

import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from gpt.model.gpt2 import GPTConfig


def rate(work: Callable[[], object], amount: float, device: str, seconds: float = 0.3) -> float:
    """Amount per second, at best: of the runs that fit into so many seconds, at least three."""
    times, end = [], time.perf_counter() + seconds
    work()
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):  # needs CUDA
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return amount / min(times)


def machine_limits(config: GPTConfig, batch_size: int, means: dict[str, float], device: str) -> dict:
    """FLOPs per second of matrix products at the shapes of a training batch (and of one token), and bytes per second of
    memory."""
    C, V = config.n_embd, config.vocab_size
    n_tokens, n_counted = (round(batch_size * means[name]) for name in ("mean_tokens", "mean_response"))
    shapes = {"blocks": (n_tokens, C, 4 * C), "output": (n_counted, C, V), "one token": (1, C, V)}
    products = {}
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        for name, (M, K, N) in shapes.items():
            a, b = torch.randn(M, K, device=device, dtype=dtype), torch.randn(N, K, device=device, dtype=dtype)
            speed = rate(lambda a=a, b=b: F.linear(a, b), 2 * M * K * N, device)
            products[f"{name} {precision}"] = {"shape": [M, K, N], "flops_per_second": speed}
    x = torch.ones(2**26, device=device)  # 268 MB, more than any cache
    y = torch.empty_like(x)
    reads, copies = rate(x.sum, x.nbytes, device), rate(lambda: y.copy_(x), 2 * x.nbytes, device)
    return {"products": products, "bytes_per_second": max(reads, copies), "reading": reads, "copying": copies}


def machine(device: str) -> dict:
    names = ("torch", "transformers", "trl", "accelerate", "datasets")
    found = {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)}
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    name = torch.cuda.get_device_name() if device.startswith("cuda") else (models or [platform.processor()])[0]
    return {"device": device, "name": name, "threads": torch.get_num_threads(), "python": platform.python_version(),
            "system": platform.system(), "versions": found}  # fmt: skip


def n_busy() -> float | None:
    """How many processes were at work in the last minute, on average: beside others, speeds are lower than they say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
