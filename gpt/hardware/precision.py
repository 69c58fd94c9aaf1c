"""In which numbers the matrix products are taken. Weights, gradients and the optimizer's state are float32 always."""

from contextlib import AbstractContextManager

import torch

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Scales losses for fp16, whose smallest number is 6e-8 and would lose small gradients; else it does nothing.

    Raises ValueError for fp16 without CUDA.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision fp16 is for CUDA, this is {device.type}: use float32, or bf16 to save memory")
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Matrix products in bf16 or fp16 where asked for; softmax, layer norm and loss are computed in float32.

    What a product gives is rounded before they see it: on a CPU, for rows of up to 256 tokens, attention's scores too
    (`gpt2.attend` writes the formula out there; PyTorch's fused kernel keeps them in float32).
    """
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32")
