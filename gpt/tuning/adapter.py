"""Adapters: a folder in PEFT's format <-> LoRA on a model. (A learned prompt uses the same folder.)

    adapter_config.json          {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": [...], ...}
    adapter_model.safetensors    base_model.model.transformer.h.0.attn.c_attn.lora_A.weight (rank, in) ...

PEFT names layers as Hugging Face does. lora_A and lora_B have one shape whichever way round the base's own matrix lies,
so nothing is turned here; `fan_in_fan_out` tells PEFT to turn their product for GPT-2, whose matrices are (in, out).

An adapter means nothing on another base. PEFT's format cannot say which base it was; a line in the metadata of our
files does: a digest of the base's weights, which PEFT skips.
"""

import hashlib
import json
import math
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt.model.gpt2 import GPT
from gpt.tuning.lora import add_lora, base_state, check_unmerged, lora_layers
from gpt.weights.checkpoint import read_json, write_atomically, write_json
from gpt.weights.tf_checkpoint import CheckpointError

TENSOR = re.compile(r"base_model\.model\.(?:transformer\.)?(h\.\d+\..+)\.(lora_[AB])\.weight")
# Settings of PEFT that need nothing here. Any other one that is on computes something else than Hu et al. do.
KNOWN = set(
    "peft_type peft_version task_type auto_mapping base_model_name_or_path revision inference_mode r lora_alpha "
    "lora_dropout use_rslora target_modules exclude_modules layers_to_transform layers_pattern fan_in_fan_out "
    "megatron_core qalora_group_size init_lora_weights".split()
)
OFF = (None, False, "none", {}, [])


def base_digest(model: GPT) -> str:
    """Tells one base from another: the bits of each tensor, summed, which is quick and the same on every device."""
    as_integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
    sums = {
        name: int(tensor.view(as_integers[tensor.element_size()]).sum(dtype=torch.int64))
        for name, tensor in base_state(model).items()
    }
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


# ---- the folder, whatever is in it ----


def write_folder(folder: Path, model: GPT, base: str, config: dict[str, object], tensors: dict[str, Tensor]) -> None:
    """Configuration and tensors, and which base they belong to: by its name or folder, for PEFT to find it, and by its
    digest."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    metadata = {"format": "pt", "base_digest": base_digest(model)}
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True}
    write_json(folder / "adapter_config.json", common | config)
    write_atomically(folder / "adapter_model.safetensors", lambda part: save_file(tensors, part, metadata))


def read_folder(folder: Path, model: GPT, peft_type: str, any_base: bool) -> tuple[dict, dict[str, Tensor]]:
    """Configuration and tensors. Raises CheckpointError if they are damaged, of another type, or, unless `any_base`
    allows it, of a base with other weights; a folder that PEFT wrote does not know its base's weights."""
    config, path = read_json(folder / "adapter_config.json"), folder / "adapter_model.safetensors"
    if config.get("peft_type") != peft_type:
        raise CheckpointError(f"{folder}: peft_type is {config.get('peft_type')!r}, and {peft_type!r} is read here")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - safe_open is no dict
            digest = (file.metadata() or {}).get("base_digest")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or missing, {error}") from None
    if digest and not any_base and digest != base_digest(model):
        base = config.get("base_model_name_or_path") or "that base"
        raise CheckpointError(f"{folder}: the adapter was trained on a base with other weights: load {base} for it")
    return config, tensors


# ---- LoRA ----


def save_adapter(model: GPT, folder: Path, base: str = "", name: str = "default") -> None:
    """Write the adapter of this name alone. `base` is the base model's name or folder, as PEFT looks for it."""
    check_unmerged(model)
    layers = {path: layer.adapters[name] for path, layer in lora_layers(model).items() if name in layer.adapters}
    if not layers:
        raise ValueError(f"the model has no adapter {name!r} to save")
    one = next(iter(layers.values()))
    config = {"peft_type": "LORA", "r": one.rank, "lora_alpha": one.alpha, "lora_dropout": one.dropout, "bias": "none"}
    config |= {"target_modules": short_targets(list(layers), model.config.n_layer), "fan_in_fan_out": True}
    tensors = {
        f"base_model.model.transformer.{path}.{part}.weight": getattr(adapter, part)
        for path, adapter in layers.items()
        for part in ("lora_A", "lora_B")
    }
    write_folder(folder, model, base, config, tensors)


def short_targets(paths: list[str], n_layer: int) -> list[str]:
    """`attn.c_attn` for a layer of every block, the whole paths where only some blocks have it."""
    short = sorted({path.split(".", 2)[2] for path in paths})
    return short if len(short) * n_layer == len(paths) else paths


def load_adapter(model: GPT, folder: str | Path, name: str = "default", *, any_base: bool = False) -> None:
    """Put a LoRA adapter from a folder, ours or PEFT's, on its base model, in place, and make it the active one. Raises
    CheckpointError, before the model is changed, if it is damaged, does more than is built here, or belongs to another
    base (with `any_base`: only if it does not fit)."""
    check_unmerged(model)
    folder = Path(folder)
    config, tensors = read_folder(folder, model, "LORA", any_base)
    rank, alpha, dropout = check_plain(config, folder)
    found, modules = {key: TENSOR.fullmatch(key) for key in tensors}, dict(model.named_modules())
    for key, match in found.items():
        layer = modules.get(match[1]) if match else None
        if not isinstance(layer, torch.nn.Linear):
            raise CheckpointError(f"{folder}: {key} belongs to another base: this model has no such layer")
        shape = (rank, layer.in_features) if match[2] == "lora_A" else (layer.out_features, rank)
        if tuple(tensors[key].shape) != shape:
            raise CheckpointError(f"{folder}: {key} has the shape {tuple(tensors[key].shape)}, and {shape} would fit"
                                  " this base: the adapter belongs to another one")  # fmt: skip
    paths = list(dict.fromkeys(match[1] for match in found.values()))
    if len(tensors) != 2 * len(paths) or not paths:
        raise CheckpointError(f"{folder}: {len(tensors)} tensors for {len(paths)} layers: some are missing")
    add_lora(model, rank, alpha, dropout, paths, name=name)
    with torch.no_grad():
        for key, match in found.items():
            getattr(model.get_submodule(match[1]).adapters[name], match[2]).copy_(tensors[key])


def check_plain(config: dict, folder: Path) -> tuple[int, float, float]:
    """Rank, alpha and dropout. Raises CheckpointError for settings that are more than LoRA, or no numbers."""
    rank, alpha, dropout = config.get("r", 8), config.get("lora_alpha", 8), config.get("lora_dropout", 0.0)
    on = [f"{key} {config[key]!r}" for key in config if key not in KNOWN and config[key] not in OFF]
    if config.get("init_lora_weights", True) not in (True, False, "gaussian"):  # PiSSA and its like change the base too
        on.append(f"init_lora_weights {config['init_lora_weights']!r}")
    if on:
        raise CheckpointError(f"{folder}: {', '.join(on)}: only plain LoRA is built here")
    if type(rank) is not int or rank < 1 or not all(isinstance(n, int | float) for n in (alpha, dropout)):
        raise CheckpointError(f"{folder}: r {rank!r}, lora_alpha {alpha!r}, lora_dropout {dropout!r}: give numbers")
    return rank, alpha * (math.sqrt(rank) if config.get("use_rslora") else 1), dropout  # that scales by 1 / sqrt(rank)
