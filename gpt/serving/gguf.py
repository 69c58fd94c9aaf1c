"""A GPT as one GGUF file, for llama.cpp and what is built on it, and the Modelfile with which Ollama takes that file.

    ours           GGUF             ours           GGUF
    wte            token_embd       ln_1           attn_norm
    wpe            position_embd    ln_2           ffn_norm
    h.0            blk.0            ln_f           output_norm
    attn.c_attn    attn_qkv         mlp.c_fc       ffn_up
    attn.c_proj    attn_output      mlp.c_proj     ffn_down

A tied output layer is not written: llama.cpp takes token_embd where there is no `output`.
GGUF lists sizes from the innermost on, so the (out, in) of PyTorch's Linear is what llama.cpp calls {in, out}: nothing
is turned. Prompts go through the tokenizer inside the file, so it holds the merges and the chat template as well.

Source: the GGUF specification in ggml's repository (docs/gguf.md).
"""

import re
from pathlib import Path

import gguf
from gguf import GGMLQuantizationType as Quantization
from torch import Tensor

from gpt.model.gpt2 import GPT
from gpt.text.prompts import Template, get_template
from gpt.text.tokenizer import END_OF_TEXT, load_tokenizer, read_merges
from gpt.weights.checkpoint import write_atomically

TYPES = {  # of the matrices, and how the header calls a file of them
    "f32": (Quantization.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Quantization.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Quantization.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),  # 32 weights in 34 bytes: int8 and a scale in float16
}
NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "ln_f": "output_norm",
    "lm_head": "output",
}
MODELFILE_TITLE = "# Written by scripts.export."


def gguf_name(ours: str) -> str:
    """`h.0.attn.c_attn.weight` -> `blk.0.attn_qkv.weight`"""
    block, layer, kind = re.fullmatch(r"(h\.\d+\.)?(.+)\.(weight|bias)", ours).groups("")
    return f"{block.replace('h.', 'blk.')}{NAMES[layer]}.{kind}"


def save_gguf(model: GPT, path: Path, *, name: str, template: str = "alpaca", dtype: str = "f16") -> None:
    """Write the model, its tokenizer and the template as its chat template. Raises ValueError for an unknown dtype, a
    path that does not end in .gguf, and a model of another vocabulary."""
    if dtype not in TYPES:
        raise ValueError(f"type {dtype!r} is not known: use {', '.join(TYPES)}")
    if path.suffix != ".gguf":
        raise ValueError(f"{path} does not end in .gguf, by which llama.cpp and Ollama know these files")
    load_tokenizer().check_fits(model.config.vocab_size)

    def write(part: Path) -> None:
        writer = gguf.GGUFWriter(part, "gpt2")
        add_header(writer, model, name, TYPES[dtype][1])
        add_tokenizer(writer, get_template(template))
        for ours, tensor in model.state_dict().items():
            kind = tensor_type(ours, tensor, TYPES[dtype][0])
            array = gguf.quants.quantize(tensor.detach().float().cpu().contiguous().numpy(), kind)
            writer.add_tensor(gguf_name(ours.removeprefix("_orig_mod.")), array, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def add_header(writer: gguf.GGUFWriter, model: GPT, name: str, file_type: gguf.LlamaFileType) -> None:
    config = model.config
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(model.ln_f.eps)


def add_tokenizer(writer: gguf.GGUFWriter, template: Template) -> None:
    """Tokens by id, merges by rank, the one special token in its four parts; no token is put before a prompt."""
    tokenizer, vocab = load_tokenizer(), load_tokenizer().vocab()
    kinds = [gguf.TokenType.NORMAL] * len(vocab)
    kinds[vocab[END_OF_TEXT]] = gguf.TokenType.CONTROL  # ends a response, and is never shown
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")  # how text is split into words before merging
    writer.add_token_list(sorted(vocab, key=vocab.get))
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in read_merges()])
    for add_id in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id, writer.add_pad_token_id):
        add_id(tokenizer.eot_id)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(template.chat_template)


def tensor_type(ours: str, tensor: Tensor, wanted: Quantization) -> Quantization:
    """What llama.cpp's own converter takes: vectors and positions stay float32, as its kernels read them; rows that do
    not divide into the blocks of a quantization are float16."""
    if tensor.dim() == 1 or ours.endswith("wpe.weight"):
        return Quantization.F32
    return wanted if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0 else Quantization.F16


def modelfile(gguf_path: Path, context_length: int, template: str = "alpaca", max_new_tokens: int = 256) -> str:
    """The text of an Ollama Modelfile. Its TEMPLATE is Go's, not Jinja: Ollama does not read the one in the file.

    Ollama's messages have no `input` of their own, so the preamble is that without one; a system message, which the
    model has never seen, is left out. Source: docs/modelfile.mdx in Ollama's repository.
    """
    t = get_template(template)
    turn = f"{t.preamble_without_input}{t.instruction_header}{{{{ .Content }}}}\n\n{t.header}"
    stops = "".join(f'PARAMETER stop """{stop}"""\n' for stop in t.stop_strings)
    return f'''{MODELFILE_TITLE} Use it with: ollama create NAME -f Modelfile
FROM ./{gguf_path.name}
TEMPLATE """{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{turn}\
{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{END_OF_TEXT}{{{{ end }}}}{{{{ end }}}}"""
PARAMETER temperature 0
PARAMETER repeat_penalty 1
PARAMETER num_ctx {context_length}
PARAMETER num_predict {max_new_tokens}
{stops}'''
