"""Text <-> ids: GPT-2's byte-level BPE, built from the merge table that lies beside this file.

The whole tokenizer follows from `vocab.bpe`: ids 0..255 are the bytes, id 256 + r is the pair that merge r joins,
and the last id is end of text. tiktoken does the merging; nothing is fetched.

Source: Radford et al. 2019, section 2.2, and the `vocab.bpe` that OpenAI published with it (modified MIT licence).
"""

from functools import cache
from pathlib import Path

import tiktoken

MERGES_PATH = Path(__file__).with_name("vocab.bpe")
END_OF_TEXT = "<|endoftext|>"
# A word takes the space before it along; runs of letters, digits and signs are never merged with each other.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def byte_alphabet() -> dict[int, str]:
    """byte -> the printable character that stands for it in vocab.bpe, in order of ids.

    Bytes that are white space or control codes are shown as the characters from U+0100 on: a space is "Ġ".
    """
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


@cache
def read_merges(path: Path = MERGES_PATH) -> list[tuple[str, str]]:
    """The pairs to join, the earliest first; 50,000 of them for GPT-2."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [tuple(line.split(" ")) for line in lines[1:] if line]  # line 0 is a version comment


class Tokenizer:
    """GPT-2's tokenizer. `encode` reads all text as plain text, `<|endoftext|>` too: the id cannot be injected."""

    def __init__(self) -> None:
        byte_of = {character: byte for byte, character in byte_alphabet().items()}
        ranks = {bytes([byte]): rank for rank, byte in enumerate(byte_alphabet())}
        for first, second in read_merges():
            ranks[bytes(byte_of[character] for character in first + second)] = len(ranks)
        self.eot_id = len(ranks)  # 50256, after all merges
        self.vocab_size = self.eot_id + 1
        self.bpe = tiktoken.Encoding(
            "gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: self.eot_id}
        )

    def encode(self, text: str) -> list[int]:
        return self.bpe.encode_ordinary(text)

    def decode(self, ids: list[int]) -> str:
        """Bytes that are not UTF-8, such as half a character at the end, become U+FFFD."""
        return self.bpe.decode(ids)

    def check_fits(self, vocab_size: int) -> None:
        """Raises ValueError for a model of another vocabulary: a padded one could sample ids that mean nothing."""
        if vocab_size != self.vocab_size:
            raise ValueError(f"the model has {vocab_size} tokens and GPT-2 {self.vocab_size}: cut or pad its embedding")

    def vocab(self) -> dict[str, int]:
        """token -> id, written as in OpenAI's encoder.json and Hugging Face's vocab.json."""
        shown = byte_alphabet()
        tokens = {"".join(shown[b] for b in self.bpe.decode_single_token_bytes(i)): i for i in range(self.eot_id)}
        return tokens | {END_OF_TEXT: self.eot_id}


@cache
def load_tokenizer() -> Tokenizer:
    """The one tokenizer of a process: building it takes about a quarter of a second."""
    return Tokenizer()
