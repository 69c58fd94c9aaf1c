"""Authorities for the model tests: GPT-2 once more in NumPy, sharing no line with the model; and random weights."""

import numpy as np
import torch

from gpt.model.gpt2 import GPT, GPTConfig

SMALL = GPTConfig(vocab_size=50257, context_length=128, n_embd=48, n_layer=3, n_head=4)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def numpy_logits(weights: dict[str, np.ndarray], ids: list[int], n_head: int) -> np.ndarray:
    """(T,) ids -> (T, V), one row, one head at a time; `weights` under our names, matrices as (out, in)."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    T, C = len(ids), w["wte.weight"].shape[1]
    D = C // n_head
    x = w["wte.weight"][ids] + w["wpe.weight"][:T]
    n_layer = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("h."))
    for layer in range(n_layer):
        b = {name.removeprefix(f"h.{layer}."): value for name, value in w.items() if name.startswith(f"h.{layer}.")}
        normed = layer_norm(x, b["ln_1.weight"], b["ln_1.bias"])
        qkv = normed @ b["attn.c_attn.weight"].T + b["attn.c_attn.bias"]
        heads = []
        for head in range(n_head):
            q, k, v = (qkv[:, part * C + head * D : part * C + (head + 1) * D] for part in range(3))
            scores = q @ k.T / np.sqrt(D)
            scores[np.triu_indices(T, k=1)] = -np.inf
            heads.append(softmax(scores) @ v)
        x = x + np.concatenate(heads, -1) @ b["attn.c_proj.weight"].T + b["attn.c_proj.bias"]
        normed = layer_norm(x, b["ln_2.weight"], b["ln_2.bias"])
        x = (
            x
            + gelu(normed @ b["mlp.c_fc.weight"].T + b["mlp.c_fc.bias"]) @ b["mlp.c_proj.weight"].T
            + b["mlp.c_proj.bias"]
        )
    return layer_norm(x, w["ln_f.weight"], w["ln_f.bias"]) @ w["wte.weight"].T


def random_model(config: GPTConfig = SMALL, seed: int = 0, scale: float = 4.0) -> GPT:
    """A model whose every parameter is random and large enough that a wrong one shows."""
    torch.manual_seed(seed)
    model = GPT(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.mul_(5 if name.startswith("w") else scale)
    return model
