"""Weights: a folder on disk <-> a GPT. Three layouts hold the same numbers under different names.

    ours                        OpenAI (TensorFlow)         Hugging Face
    wte.weight                  model/wte                   transformer.wte.weight
    h.0.ln_1.weight             model/h0/ln_1/g             transformer.h.0.ln_1.weight
    h.0.attn.c_attn.weight  ^T  model/h0/attn/c_attn/w   ^T transformer.h.0.attn.c_attn.weight

^T: both store the matrices of the blocks as (in, out), PyTorch's Linear as (out, in). The square `attn.c_proj` fits
either way round and is wrong one way round: no shape check would find it.

A run folder is a Hugging Face folder, so what was trained here is read by transformers, vLLM and llama.cpp as it is.
"""

import dataclasses
import difflib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.prompts import get_template
from gpt.text.tokenizer import END_OF_TEXT, MERGES_PATH, load_tokenizer
from gpt.weights.download import find_model, missing_message
from gpt.weights.sources import OPENAI_NAMES
from gpt.weights.tf_checkpoint import CheckpointError, read_tf_tensors

SIZES = {
    "gpt2": GPTConfig(),  # 124,439,808 parameters
    "gpt2-medium": GPTConfig(n_embd=1024, n_layer=24, n_head=16),  # 354,823,168
    "gpt2-large": GPTConfig(n_embd=1280, n_layer=36, n_head=20),  # 774,030,080
    "gpt2-xl": GPTConfig(n_embd=1600, n_layer=48, n_head=25),  # 1,557,611,200
    "gpt2-tiny": GPTConfig(context_length=512, n_embd=128, n_layer=8, n_head=4),  # 8,084,864, bundled
}
TINY_FOLDER = Path(__file__).parents[2] / "data" / "gpt2-tiny"
# Matrices that both releases store as (in, out).
TURNED = re.compile(r"h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
# What GPT-2 as we build it has fixed; another value would compute something else without any error.
FIXED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "n_inner": None,
    "add_cross_attention": False,
}


# ---- loading ----


def load_model(name_or_path: str | Path, device: str | torch.device = "cpu", dropout: float = 0.0) -> GPT:
    """A GPT in float32: by name (`gpt2-medium`, or OpenAI's `355M`), or from a folder in OpenAI's layout, in Hugging
    Face's, or of a run.

    Raises FileNotFoundError with the command to type if the weights are not here, CheckpointError if they are damaged
    or of another model.
    """
    folder = find_folder(name_or_path)
    if (folder / "hparams.json").exists():
        config, named = _openai_config(folder, dropout), _openai_tensors(folder)
    else:
        config, named = _huggingface_config(folder, dropout), _huggingface_tensors(folder)
    return _build(config, named, folder).to(device)


def is_model_folder(path: Path) -> bool:
    return (path / "config.json").exists() or (path / "hparams.json").exists()


def find_folder(name_or_path: str | Path) -> Path:
    """Where the weights of a name or path lie."""
    path = Path(name_or_path)
    if is_model_folder(path):
        return path
    name = OPENAI_NAMES.get(str(name_or_path), str(name_or_path))
    if name == "gpt2-tiny":
        if not (TINY_FOLDER / "config.json").exists():
            raise FileNotFoundError(f"gpt2-tiny lies in the repository, at {TINY_FOLDER}, which is not here: clone it")
        return TINY_FOLDER
    if name in SIZES:
        folder = find_model(name)
        if folder is None:
            raise FileNotFoundError(missing_message(name))
        return folder
    if (path / "training.json").exists():
        raise FileNotFoundError(f"{path} is a run without a model yet: go on with scripts.finetune --resume {path}")
    if path.is_dir():
        raise FileNotFoundError(f"{path} has neither config.json nor hparams.json: it is no folder of a GPT-2")
    near = "".join(f"; did you mean {size}?" for size in difflib.get_close_matches(name, SIZES, 1))
    raise FileNotFoundError(f"{str(name_or_path)!r} is neither a folder nor one of {', '.join(SIZES)}{near}")


def _build(config: GPTConfig, named: Iterable[tuple[str, Tensor]], folder: Path) -> GPT:
    """A model whose parameters are the given tensors: no random weights are made first, nothing is held twice."""
    state = dict(named)
    head = state.pop("lm_head.weight", None) if config.tied else None
    # First what decides how much is built: a configuration of a billion blocks must not build them.
    n_layer = len({name.split(".")[1] for name in state if re.match(r"h\.\d+\.", name)})
    if n_layer != config.n_layer:
        raise CheckpointError(f"{folder}: the weights have {n_layer} blocks, the configuration says {config.n_layer}")
    sizes = {"wte.weight": (config.vocab_size, config.n_embd), "wpe.weight": (config.context_length, config.n_embd)}
    _check_shapes({name: tensor for name, tensor in state.items() if name in sizes}, sizes, folder)
    model = GPT.without_weights(config)
    _check_shapes(state, {name: tuple(p.shape) for name, p in model.named_parameters()}, folder)
    if head is not None and not torch.equal(head, state["wte.weight"]):
        raise CheckpointError(
            f'{folder}: lm_head.weight is not wte.weight: say "tie_word_embeddings": false in config.json'
        )
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(True)


def _check_shapes(state: dict[str, Tensor], expected: dict[str, tuple[int, ...]], folder: Path) -> None:
    for name, tensor in state.items():
        if name not in expected:
            raise CheckpointError(f"{folder}: the tensor {name!r} is none of GPT-2's")
        if tuple(tensor.shape) != expected[name]:
            raise CheckpointError(f"{folder}: {name} has the shape {tuple(tensor.shape)}, expected {expected[name]}")
    if missing := sorted(set(expected) - set(state)):
        raise CheckpointError(f"{folder}: {len(missing)} tensors are missing, the first is {missing[0]}")


def untie(model: GPT) -> GPT:
    """The same model with an output layer of its own, which starts as a copy of the embedding; the rest is shared."""
    untied = GPT.without_weights(dataclasses.replace(model.config, tied=False))
    state = model.state_dict()
    untied.load_state_dict(state | {"lm_head.weight": state["wte.weight"].clone()}, assign=True)
    return untied.requires_grad_(True).train(model.training)


def _to_ours(name: str, tensor: Tensor) -> Tensor:
    """float32, with the matrices of the blocks turned to (out, in)."""
    tensor = tensor.t() if TURNED.fullmatch(name) else tensor
    # A copy of its own: the array may be a view of the file, which somebody could cut off underneath.
    return tensor.to(torch.float32).clone(memory_format=torch.contiguous_format)


def read_json(path: Path, kind: type = dict) -> dict | list:
    """The object (or list, as `kind` says) in a JSON file; CheckpointError if it holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, kind):
        raise CheckpointError(f"{path}: expected a {kind.__name__}, found a {type(value).__name__}")
    return value


def _make_config(found: dict, names: dict[str, str], path: Path, **others: object) -> GPTConfig:
    """A GPTConfig out of a JSON object that calls its fields `names`."""
    sizes = {}
    for ours, theirs in names.items():
        if type(found.get(theirs)) is not int or found[theirs] < 1:
            raise CheckpointError(f"{path}: {theirs} must be a positive number, found {found.get(theirs)!r}")
        sizes[ours] = found[theirs]
    try:
        return GPTConfig(**sizes, **others)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


# ---- OpenAI's layout ----


def _openai_config(folder: Path, dropout: float) -> GPTConfig:
    path = folder / "hparams.json"
    names = {"vocab_size": "n_vocab", "context_length": "n_ctx", "n_embd": "n_embd"}
    return _make_config(read_json(path), names | {"n_layer": "n_layer", "n_head": "n_head"}, path, dropout=dropout)


def _openai_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for theirs, array in read_tf_tensors(folder / "model.ckpt"):
        name = openai_name(theirs)
        tensor = torch.from_numpy(array)
        if tensor.dim() == 3:  # (1, in, out): OpenAI wrote its linear layers as convolutions of width 1
            tensor = tensor[0]
        yield name, _to_ours(name, tensor)


def openai_name(theirs: str) -> str:
    """`model/h0/attn/c_attn/w` -> `h.0.attn.c_attn.weight`"""
    name = re.sub(r"^h(\d+)\.", r"h.\1.", theirs.removeprefix("model/").replace("/", "."))
    if name in ("wte", "wpe"):
        return name + ".weight"
    return re.sub(r"\.b$", ".bias", re.sub(r"\.[gw]$", ".weight", name))


# ---- Hugging Face's layout ----


def _huggingface_config(folder: Path, dropout: float) -> GPTConfig:
    path = folder / "config.json"
    found = read_json(path)
    for key, value in FIXED.items():
        if found.get(key, value) != value:
            raise CheckpointError(f"{path}: {key} is {found[key]!r}; only GPT-2 itself is built here, with {value!r}")
    names = {"vocab_size": "vocab_size", "context_length": "n_positions", "n_embd": "n_embd"}
    names |= {"n_layer": "n_layer", "n_head": "n_head"}
    return _make_config(found, names, path, dropout=dropout, tied=found.get("tie_word_embeddings", True))


def _huggingface_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in _safetensors_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for theirs in file.keys():  # noqa: SIM118 - safe_open is no dict
                    name = theirs.removeprefix("transformer.")
                    if re.fullmatch(r"h\.\d+\.attn\.(bias|masked_bias)", name):
                        continue  # the causal mask, saved as a buffer by older versions; not attn.c_attn.bias
                    yield name, _to_ours(name, file.get_tensor(theirs))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: damaged, {error}: delete it and download or save it again") from None


def _safetensors_files(folder: Path) -> list[Path]:
    """model.safetensors, or the parts that model.safetensors.index.json names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if not index.exists():
        raise CheckpointError(f"{folder}: neither model.safetensors nor model.safetensors.index.json is there")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index}: no weight_map that gives a file for each tensor")
    paths = [folder / name for name in sorted(set(weight_map.values()))]
    for path in paths:
        if path.parent != folder or not path.exists():
            raise CheckpointError(f"{index}: it names the file {path.name!r}, which is not in the folder")
    return paths


# ---- saving ----


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside the path and put it in place in one move: a reader, or a run that is killed, finds
    the old file or the new one and never half of one."""
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        with part.open("rb+") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        part.chmod(0o666 & ~current_umask())  # safetensors makes its files private to their owner
        os.replace(part, path)
    except (OSError, SafetensorError, RuntimeError) as error:  # the last two: of safetensors and torch
        is_full = part.exists() and shutil.disk_usage(part).free < 2**16
        what = "the disk is full" if is_full else (str(error) or repr(error)).splitlines()[0]
        raise OSError(f"cannot write {path}: {what}") from error
    finally:
        part.unlink(missing_ok=True)


def current_umask() -> int:
    """The permissions that new files do not get; it can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_json(path: Path, value: object) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    # Half a character, for which UTF-8 has no bytes, becomes its escape, the same text to whoever reads the JSON.
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8", errors="backslashreplace"))


def save_model(model: GPT, folder: Path, template: str = "alpaca", dtype: torch.dtype = torch.float32) -> None:
    """Write a Hugging Face model folder: configuration, weights, tokenizer, and the template as its chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", huggingface_config(model.config, dtype))
    eot = eot_id(model.config)
    write_json(folder / "generation_config.json", dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), eot))
    write_json(folder / "vocab.json", load_tokenizer().vocab())
    write_atomically(folder / "merges.txt", lambda part: shutil.copyfile(MERGES_PATH, part))
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), END_OF_TEXT)
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": model.config.context_length,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": get_template(template).chat_template,
    }
    write_json(folder / "tokenizer_config.json", settings | special)
    write_atomically(folder / "model.safetensors", lambda part: save_weights(model, part, dtype))


def save_weights(model: GPT, path: Path, dtype: torch.dtype) -> None:
    """The parameters as Hugging Face names and turns them; a tied output layer is not written a second time."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("_orig_mod.")  # torch.compile wraps the model and renames everything in it
        theirs = name if name.startswith("lm_head.") else f"transformer.{name}"
        tensor = tensor.t() if TURNED.fullmatch(name) else tensor
        tensors[theirs] = tensor.detach().to("cpu", dtype).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


def eot_id(config: GPTConfig) -> int:
    """The end of text: 50256 also where somebody has padded the vocabulary to a round number."""
    return min(load_tokenizer().eot_id, config.vocab_size - 1)


def huggingface_config(config: GPTConfig, dtype: torch.dtype) -> dict[str, object]:
    return FIXED | {
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_ctx": config.context_length,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "tie_word_embeddings": config.tied,
        "bos_token_id": eot_id(config),
        "eos_token_id": eot_id(config),
        "dtype": str(dtype).removeprefix("torch."),
    }
