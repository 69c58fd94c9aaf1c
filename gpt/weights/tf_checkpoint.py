"""OpenAI's TensorFlow checkpoint, read without TensorFlow.

A checkpoint is a small index and one or more data files, the shards. Their names begin with the same prefix:

    model.ckpt.index               | data block | trailer | ... | metaindex | trailer | index block | trailer | footer |
    model.ckpt.data-00000-of-00001 | first tensor     | second tensor       | third tensor     | ...

A data file is nothing but numbers, lowest byte first. The index is a sorted table of LevelDB, read from its end:

    footer     48 bytes: handles of the metaindex block and of the index block, zeros, magic number
    handle     offset and size of a block: two varints, which are groups of 7 bits, the lowest first
    block      entries; then the offsets of those with a whole key, to search by: 4 bytes each; then their number
    entry      n_shared, n_new, n_value: three varints; then the last n_new bytes of the key; then the value
    trailer    5 bytes: compression, and the masked CRC-32C of the block and the compression byte

In the index block, a value is the handle of a data block. In a data block, a key is the name of a tensor, which takes
its first n_shared bytes from the key before, and a value is a protocol buffer. OpenAI's 124M begins, after a header:

    00 16 11 "model/h0/attn/c_attn/b" | 08 01 | 12 05 12 03 08 80 12    |             | 28 80 48       | 35 74 3d 27 8c
    15 01 1f "w"                      | 08 01 | 12 0e 12 02 08 01 12 .. | 20 80 48    | 28 80 80 b0 03 | 35 0d 71 3d 86
                                      | dtype | shape: (2304,), (1, ..  | offset 9216 | size in bytes  | masked CRC-32C

Sources: https://github.com/google/leveldb/blob/main/doc/table_format.md; TensorFlow's tensor_bundle.proto,
tensor_shape.proto and types.proto; https://protobuf.dev/programming-guides/encoding; RFC 3720, section 12.1 (CRC-32C).
"""

import difflib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE, TRAILER_SIZE = 48, 5  # bytes, as every size here
MAX_KEY_SIZE = 1024  # an entry of 10 bytes can repeat a key of any size: unlimited, 1 MB could unfold to 20 GB
DTYPES = {  # by TensorFlow's numbers
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool",
    14: "bfloat16", 17: "uint16", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
# As they lie in the file; NumPy has no bfloat16.
STORED = {name: np.dtype(name.replace("bfloat", "uint")).newbyteorder("<") for name in DTYPES.values()}


class CheckpointError(ValueError):
    """The checkpoint is damaged or incomplete, or holds what is not read here; the message says what and where."""


@dataclass(frozen=True)
class TensorEntry:
    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int  # bytes from the start of the shard
    size: int  # bytes
    crc32c: int  # of these bytes; masked, as it is stored


def read_tf_index(path: str | Path) -> dict[str, TensorEntry]:
    """Name -> entry, sorted by name; `path` is the .index file or the prefix before it."""
    return {name: entry for name, (_, entry) in _read_index(path).items()}


def read_tf_tensor(prefix: str | Path, name: str) -> np.ndarray:
    """One tensor, a private view of the file; bfloat16 is exactly widened to float32. Its CRC-32C is checked."""
    index = _read_index(prefix)
    if name not in index:
        near = difflib.get_close_matches(name, index) or list(index)[:3]
        raise CheckpointError(f"{prefix}: no tensor {name!r} among its {len(index)}; near it: {', '.join(near)}")
    return _read_tensor(name, *index[name])


def read_tf_tensors(prefix: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and tensor, one pair after another, each as `read_tf_tensor` gives it; the index is read once."""
    for name, (shard_path, entry) in _read_index(prefix).items():
        yield name, _read_tensor(name, shard_path, entry)


def _read_index(path: str | Path) -> dict[str, tuple[str, TensorEntry]]:
    """Name -> path of the shard, entry."""
    prefix = str(path).removesuffix(".index")
    path = f"{prefix}.index"
    rows = _table_rows(Path(path).read_bytes(), path)
    key, header = next(rows, (None, b""))
    if key != b"":
        raise _damaged(path, f"the first key is {key!r} instead of the empty one of the header")
    numbers, parts = _message_fields(header, path)  # BundleHeaderProto
    min_reader = _message_fields(parts.get(3, [b""])[-1], path)[0].get(2, 0)
    n_shards, is_big_endian = numbers.get(1, 0), numbers.get(2, 0)  # a field that is 0 is not written
    if is_big_endian or min_reader > 1:
        kind = "of big-endian numbers" if is_big_endian else f"for readers of version {min_reader}"
        raise CheckpointError(f"{path}: {kind}, not read here; save it again with TensorFlow on a common machine")
    entries = (_tensor_entry(key, value, n_shards, path) for key, value in rows)
    return {name: (f"{prefix}.data-{entry.shard:05d}-of-{n_shards:05d}", entry) for name, entry in entries}


def _table_rows(table: bytes, path: str) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of every entry of the data blocks, in order."""
    if (magic := table[-FOOTER_SIZE:][40:]) != MAGIC:
        raise _damaged(path, f"its {len(table)} bytes have {magic.hex() or 'nothing'} where a table has {MAGIC.hex()}")
    footer = _Cursor(table, f"{path}, footer", len(table) - FOOTER_SIZE)
    _, _, offset, size = (footer.varint() for _ in range(4))
    end = 0
    for _, value in _block_rows(table, offset, size, path):
        handle = _Cursor(value, f"{path}, handle of the block after byte {end}")
        offset, size = handle.varint(), handle.varint()
        if offset < end:  # or a small file could send us through one block a million times
            raise _damaged(path, f"a block begins at byte {offset}, before the end of the last one at byte {end}")
        end = offset + size
        yield from _block_rows(table, offset, size, path)


def _block_rows(table: bytes, offset: int, size: int, path: str) -> Iterator[tuple[bytes, bytes]]:
    where = f"{path}, block at byte {offset}"
    cursor = _Cursor(table, where, offset)
    block, trailer = cursor.take(size), cursor.take(TRAILER_SIZE)
    _check_crc(block + trailer[:1], int.from_bytes(trailer[1:], "little"), where)
    if trailer[0]:  # TensorFlow writes its indexes uncompressed; LevelDB's number for snappy is 1
        raise CheckpointError(f"{where}: compressed ({'snappy' if trailer[0] == 1 else trailer[0]}), not read here")
    n_restarts = int.from_bytes(block[-4:], "little")
    rows_size = size - 4 - 4 * n_restarts  # we go through all rows, so the restart points are not needed
    if rows_size < 0:
        raise _damaged(where, f"{n_restarts} restart points do not fit into {size} bytes")
    rows, key = _Cursor(block[:rows_size], where), b""
    while rows.position < rows_size:
        n_shared, n_new, n_value = rows.varint(), rows.varint(), rows.varint()
        if n_shared > len(key) or n_shared + n_new > MAX_KEY_SIZE:
            raise _damaged(where, f"a key of {n_shared} shared and {n_new} new bytes follows one of {len(key)}")
        key = key[:n_shared] + rows.take(n_new)
        yield key, rows.take(n_value)


def _check_crc(data: bytes | np.ndarray, stored: int, where: str) -> None:
    crc = google_crc32c.value(data)
    # Stored CRCs are masked: rotated right by 15 bits, plus a constant. LevelDB's reason: bytes followed by their own
    # CRC all have one and the same CRC, so a CRC over such parts would not notice a part exchanged for another.
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    if masked != stored:
        raise _damaged(where, f"checksum {masked:#010x} instead of {stored:#010x}")


def _tensor_entry(key: bytes, value: bytes, n_shards: int, path: str) -> tuple[str, TensorEntry]:
    """BundleEntryProto: the tensor's name, and where it lies."""
    name = key.decode(errors="backslashreplace")  # a slice of a tensor has a key of binary codes
    where = f"{path}, tensor {name!r}"
    numbers, parts = _message_fields(value, where)
    if 7 in parts:  # the list of its slices
        raise CheckpointError(f"{where}: stored in slices (a partitioned variable), not read here")
    number, shard, offset, size, crc32c = (numbers.get(field, 0) for field in (1, 3, 4, 5, 6))
    if number not in DTYPES:
        raise CheckpointError(f"{where}: TensorFlow's dtype {number} not read here, only {', '.join(DTYPES.values())}")
    _, dims = _message_fields(parts.get(2, [b""])[-1], where)
    shape = tuple(_message_fields(dim, where)[0].get(1, 0) for dim in dims.get(2, []))
    itemsize = STORED[DTYPES[number]].itemsize
    # NumPy holds 32 axes, and leaves zeros out when it asks whether a shape is too big: an empty array can be.
    is_too_big = len(shape) > 32 or itemsize * math.prod(n or 1 for n in shape) >= 2**63
    if is_too_big or itemsize * math.prod(shape) != size or shard >= n_shards:
        raise _damaged(where, f"{size} bytes of shard {shard} of {n_shards} as {DTYPES[number]}, {shape[:32]}")
    return name, TensorEntry(DTYPES[number], shape, shard, offset, size, crc32c)


def _message_fields(data: bytes, where: str) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """A protocol buffer as {field: number} and {field: [bytes, ...]}, where bytes may be a message in their turn."""
    cursor, numbers, parts = _Cursor(data, where), {}, {}
    while cursor.position < len(data):
        field, wire_type = divmod(cursor.varint(), 8)
        if wire_type == 0:
            numbers[field] = cursor.varint()
        elif wire_type == 2:
            parts.setdefault(field, []).append(cursor.take(cursor.varint()))
        elif wire_type == 5:
            numbers[field] = int.from_bytes(cursor.take(4), "little")
        else:
            raise _damaged(where, f"field {field} has wire type {wire_type}, which no field here has")
    return numbers, parts


class _Cursor:
    """Takes one piece after another and never leaves the bytes, whatever lengths a damaged file claims."""

    def __init__(self, data: bytes, where: str, position: int = 0) -> None:
        self.data, self.where, self.position = data, where, position

    def take(self, n: int) -> bytes:
        piece = self.data[self.position : self.position + n]
        if len(piece) < n:
            raise _damaged(self.where, f"{n} bytes expected at byte {self.position}, {len(piece)} found")
        self.position += n
        return piece

    def varint(self) -> int:
        number = 0
        for shift in range(0, 64, 7):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:  # the top bit says that another byte follows
                return number
        raise _damaged(self.where, f"more than 64 bits in the number before byte {self.position}")


def _read_tensor(name: str, path: str, entry: TensorEntry) -> np.ndarray:
    where = f"{path}, tensor {name!r} at byte {entry.offset}"
    n_bytes = os.path.getsize(path) if os.path.isfile(path) else 0
    if n_bytes < entry.offset + entry.size:
        found = f"the file ends at byte {n_bytes}" if n_bytes else "there is no such file, or nothing in it"
        raise _damaged(where, f"{entry.size} bytes expected, but {found}")
    # Mapped, not read: the only copy is the caller's, into the model. An empty range cannot be mapped.
    data = np.memmap(path, np.uint8, "c", entry.offset, (entry.size,)) if entry.size else np.empty(0, np.uint8)
    _check_crc(data, entry.crc32c, where)
    array = np.require(data.view(STORED[entry.dtype]), requirements=["A", "E"])  # aligned, and a plain ndarray
    if entry.dtype == "bfloat16":  # the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(entry.shape)


def _damaged(where: str, what: str) -> CheckpointError:
    return CheckpointError(f"{where}: {what}. Delete it, then fetch it again: python -m scripts.download NAME")
