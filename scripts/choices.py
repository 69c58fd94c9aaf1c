"""Device, precision, model and key: what is used, and why, where nobody has said."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import torch

from gpt.evaluation.chat_client import LOCAL
from gpt.hardware.processes import local_rank, n_local_processes
from gpt.model.gpt2 import GPT
from gpt.speed.decoding import pack_weights
from gpt.weights.checkpoint import is_model_folder, load_model
from gpt.weights.download import download, find_model
from gpt.weights.sources import BESIDE, OPENAI_NAMES, SOURCES
from scripts.download import Bars


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device of a name (`auto`: CUDA, then MPS, then CPU) and a line that says which and why."""
    if name == "auto":
        if torch.cuda.is_available():
            name, why = own_gpu(), "CUDA was found"
        elif torch.backends.mps.is_available():
            name, why = "mps", "no CUDA, but Apple's GPU was found"
        else:
            name, why = "cpu", "neither CUDA nor Apple's GPU was found"
    else:
        name, why = own_gpu() if name == "cuda" else name, "as asked"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        return device, f"{name}, {torch.cuda.get_device_name(device)} ({why})"
    return device, f"{name}, {torch.get_num_threads()} threads ({why})" if name == "cpu" else f"{name} ({why})"


def own_gpu() -> str:
    """`cuda`, and under torchrun the GPU of this process's number."""
    return f"cuda:{local_rank()}" if n_local_processes() > 1 else "cuda"


def default_precision(device: torch.device) -> tuple[str, str]:
    """bf16 where the hardware is made for it, fp16 on older CUDA devices, else float32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "this GPU multiplies bf16 fast; weights, softmax and loss stay float32"
    if device.type == "cuda":
        return "fp16", "this GPU is older than bf16; the loss is scaled, weights, softmax and loss stay float32"
    return "float32", "the safe choice on this device"


def choose_model(name: str | None, device: torch.device) -> tuple[str, str]:
    """The model's name or folder, fetched if need be, and why this one; None stands for the default of the device."""
    if name is not None:
        fetch_model(name)
        return str(Path(name).resolve()) if is_model_folder(Path(name)) else name, "as asked"
    if device.type != "cuda":
        return "gpt2-tiny", "bundled with this repository; on CUDA the default is gpt2-medium"
    try:
        fetch_model("gpt2-medium")
        return "gpt2-medium", "the default on CUDA"
    except OSError as error:
        print(f"note       gpt2-medium cannot be had, so gpt2-tiny is used: {error}")
        return "gpt2-tiny", "bundled with this repository"


def load_packed(folder: Path, device: torch.device, form: str, is_one: bool = False) -> GPT:
    """A model to answer with, its weights in this form. is_one: prompts come one by one, for which float32 is packed
    too, on a CPU. Raises ValueError for other forms elsewhere."""
    model = load_model(folder, device)
    return pack_weights(model, form) if form != "float32" or (is_one and device.type == "cpu") else model


def fetch_model(name: str) -> None:
    """Download a model of the release that is not in the cache yet, with a bar; a folder that only has its name does
    not hide it."""
    released = OPENAI_NAMES.get(name, name) in {source.name for source in SOURCES if source.format in BESIDE}
    if released and not is_model_folder(Path(name)) and find_model(name) is None:
        bars = Bars()
        try:
            download(name, on_progress=bars.show)
        finally:
            bars.bar.close()


def key_from_environment(base_url: str, name: str | None = None) -> str:
    """The key in the environment variable `name`; without a name OPENAI_API_KEY, which is not sent in the clear.

    Raises ValueError if a named variable is not set.
    """
    if name:
        if not os.environ.get(name):
            raise ValueError(f"the environment variable {name} is not set: it should hold the server's key")
        return os.environ[name].strip()
    parts = urlsplit(base_url)
    return os.environ.get("OPENAI_API_KEY", "").strip() if parts.scheme == "https" or parts.hostname in LOCAL else ""
