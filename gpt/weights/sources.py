"""Where the weights of GPT-2 and public instruction data can be had: address, licence, size, checksum, format.

What is not known for certain is None, and the server's own word is taken for it.
"""

import os
from dataclasses import dataclass
from difflib import get_close_matches

HOSTS = {  # host -> the environment variable that points to a mirror of it, its own address
    "huggingface": ("GPT_MIRROR", "https://huggingface.co"),
    "openai": ("GPT_MIRROR_OPENAI", "https://openaipublic.blob.core.windows.net/gpt-2/models"),
    "github": ("GPT_MIRROR_GITHUB", "https://raw.githubusercontent.com"),
}
OPENAI_NAMES = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}
TENSORS, CHECKPOINT, LINES, MIT = "safetensors", "TensorFlow checkpoint", "JSON Lines", "modified MIT"
# Small files beside the big one. They are fetched after it: where the last one lies, all lie.
BESIDE = {TENSORS: ("config.json",), CHECKPOINT: ("model.ckpt.index", "hparams.json")}


@dataclass(frozen=True)
class Source:
    """A place where a model or data set can be had."""

    name: str  # what `download` is asked for
    host: str  # a key of HOSTS
    path: str  # of the big file, on the host
    format: str
    licence: str
    size: int | None = None  # of the big file, in bytes; None: not known for certain, the server's word is taken
    sha256: str | None = None  # of the big file; None likewise

    def files(self) -> list[tuple[str, str, int | None, str | None]]:
        """(file name, address, size, SHA-256), the big file first."""
        variable, address = HOSTS[self.host]
        folder, _, name = f"{(os.environ.get(variable) or address).rstrip('/')}/{self.path}".rpartition("/")
        beside = [(other, f"{folder}/{other}", None, None) for other in BESIDE.get(self.format, ())]
        return [(name, f"{folder}/{name}", self.size, self.sha256), *beside]


# Those of one name are tried from top to bottom. OpenAI's index files hold a checksum for each tensor.
# fmt: off
SOURCES = (
    Source("gpt2", "huggingface", "openai-community/gpt2/resolve/main/model.safetensors", TENSORS, MIT,
           548_105_171, "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"),
    Source("gpt2", "openai", "124M/model.ckpt.data-00000-of-00001", CHECKPOINT, MIT,
           497_759_232, "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118"),
    Source("gpt2-medium", "huggingface", "openai-community/gpt2-medium/resolve/main/model.safetensors", TENSORS, MIT,
           1_519_984_962, "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd"),
    Source("gpt2-medium", "openai", "355M/model.ckpt.data-00000-of-00001", CHECKPOINT, MIT, 1_419_292_672),
    Source("gpt2-large", "huggingface", "openai-community/gpt2-large/resolve/main/model.safetensors", TENSORS, MIT,
           3_247_159_078, "5f47f3e12f91cd33b662ce7e433b6150ad5512b5884a2cee961b50e9c3bbebce"),
    Source("gpt2-large", "openai", "774M/model.ckpt.data-00000-of-00001", CHECKPOINT, MIT),
    Source("gpt2-xl", "huggingface", "openai-community/gpt2-xl/resolve/main/model.safetensors", TENSORS, MIT,
           None, "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a"),
    Source("gpt2-xl", "openai", "1558M/model.ckpt.data-00000-of-00001", CHECKPOINT, MIT),
    Source("book", "github", "rasbt/LLMs-from-scratch/main/ch07/01_main-chapter-code/instruction-data.json", "JSON",
           "Apache-2.0", 203_524, "7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944"),
    Source("alpaca", "github", "tatsu-lab/stanford_alpaca/main/alpaca_data.json", "JSON",
           "CC BY-NC 4.0", 22_773_992, "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419"),
    Source("alpaca", "huggingface", "datasets/QingyiSi/Alpaca-CoT/resolve/main/alpaca/alpaca_data.json", "JSON",
           "CC BY-NC 4.0", 22_773_992, "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419"),
    Source("alpaca-cleaned", "github", "gururise/AlpacaDataCleaned/main/alpaca_data_cleaned.json", "JSON",
           "CC BY-NC 4.0", 44_307_561, "bd844b8247a0f543804b6ce0882b0aaec4bbf5e8d66167df6213a0f1e4fe878b"),
    Source("alpaca-cleaned", "huggingface", "datasets/unsloth/alpaca-cleaned/resolve/main/alpaca_data_cleaned.json",
           "JSON", "CC BY-NC 4.0", 44_307_561, "bd844b8247a0f543804b6ce0882b0aaec4bbf5e8d66167df6213a0f1e4fe878b"),
    Source("dolly", "huggingface", "datasets/databricks/databricks-dolly-15k/resolve/main/databricks-dolly-15k.jsonl",
           LINES, "CC BY-SA 3.0", 13_085_339, "2df9083338b4abd6bceb5635764dab5d833b393b55759dffb0959b6fcbf794ec"),
    Source("self-instruct", "github",
           "yizhongw/self-instruct/main/data/gpt3_generations/batch_221203/all_instances_82K.jsonl",
           LINES, "Apache-2.0"),
    Source("flan", "huggingface", "datasets/hamishivi/tulu_mix_store/resolve/main/flan_v2_resampled_50k.jsonl", LINES,
           "ODC-BY", 123_625_934, "387bba1794ffe05fc9a5280321784a5fb5d4989c4b56cf261ce4a7eae388bb7f"),
    Source("sharegpt", "huggingface", "datasets/anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main/"
           "ShareGPT_V3_unfiltered_cleaned_split.json", "JSON", "Apache-2.0",
           672_837_942, "35f0e213ce091ed9b9af2a1f0755e9d39f9ccec34ab281cd4ca60d70f6479ba4"),
    Source("wizardlm-evol", "huggingface",
           "datasets/WizardLMTeam/WizardLM_evol_instruct_70k/resolve/main/alpaca_evol_instruct_70k.json", "JSON",
           "MIT", 136_750_331, "27177e5b710e34e947be6d50fa8d35f18fad15b20f1eef7c050b0393b7c8b7b6"),
)
# fmt: on


def find_sources(name: str, host: str | None = None) -> list[Source]:
    """The rows of SOURCES for a name, which may be OpenAI's; ValueError if there are none."""
    rows = [source for source in SOURCES if host in (None, source.host)]
    found = [source for source in rows if source.name == OPENAI_NAMES.get(name, name)]
    if not found:
        known = list(dict.fromkeys(source.name for source in rows))
        hint = "".join(f"Did you mean {near!r}? " for near in get_close_matches(name, [*known, *OPENAI_NAMES], n=1))
        raise ValueError(f"nothing is called {name!r} at {host or 'any source'}. {hint}There are: {', '.join(known)}")
    return found
