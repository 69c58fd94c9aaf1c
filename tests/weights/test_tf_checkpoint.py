"""The reader of TensorFlow checkpoints against files of OpenAI and of TensorFlow, and against damage of every kind."""

import json
import lzma
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from os.path import commonprefix
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt.weights import tf_checkpoint
from gpt.weights.tf_checkpoint import CheckpointError, TensorEntry, read_tf_index, read_tf_tensor, read_tf_tensors

FIXTURES = Path(__file__).parent.parent / "fixtures"
GENUINE = FIXTURES / "openai-124M" / "model.ckpt"
SMALL = FIXTURES / "openai-small" / "model.ckpt"
SHARDS = FIXTURES / "tf-shards" / "model.ckpt"
BLOCKS = FIXTURES / "tf-blocks" / "model.ckpt"
SCALAR = TensorEntry("float32", (), shard=0, offset=0, size=4, crc32c=0)
TF_NUMBERS = {name: number for number, name in tf_checkpoint.DTYPES.items()}


# A writer of the format, to make files that TensorFlow would not. That it writes OpenAI's own index byte for byte is
# the first thing tested with it.


def mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def crc_bytes(data: bytes) -> bytes:
    return mask(google_crc32c.value(data)).to_bytes(4, "little")


def varint(number: int) -> bytes:
    low, rest = number % 128, number // 128
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer; a 0 is left out, as protocol buffers do."""
    if isinstance(value, bytes):
        return varint(number * 8 + 2) + varint(len(value)) + value
    return varint(number * 8) + varint(value) if value else b""


def header(n_shards: int, *, endianness: int = 0, min_reader: int = 0) -> bytes:
    return field(1, n_shards) + field(2, endianness) + field(3, field(1, 1) + field(2, min_reader))


def bundle_entry(entry: TensorEntry, *, number: int = 0) -> bytes:
    shape = b"".join(field(2, field(1, n)) for n in entry.shape)
    numbers = field(3, entry.shard) + field(4, entry.offset) + field(5, entry.size)
    crc = b"\x35" + entry.crc32c.to_bytes(4, "little")
    return field(1, number or TF_NUMBERS[entry.dtype]) + field(2, shape) + numbers + crc


def block(rows: list[tuple[bytes, bytes]], *, restart_every: int = 16) -> bytes:
    body, restarts, previous = b"", [], b""
    for i, (key, value) in enumerate(rows):
        if i % restart_every == 0:
            restarts.append(len(body))
            previous = b""
        n_shared = len(commonprefix([previous, key]))  # noqa: RUF071, byte by byte is meant
        body += varint(n_shared) + varint(len(key) - n_shared) + varint(len(value)) + key[n_shared:] + value
        previous = key
    return body + b"".join(n.to_bytes(4, "little") for n in [*(restarts or [0]), len(restarts) or 1])


def handle(offset: int, body: bytes) -> bytes:
    return varint(offset) + varint(len(body))


def sealed(body: bytes, compression: int = 0) -> bytes:
    return body + bytes([compression]) + crc_bytes(body + bytes([compression]))


def table(blocks: dict[bytes, bytes], *, compression: int = 0, edit: Callable[[bytes], bytes] = bytes) -> bytes:
    """A whole index from its data blocks, each under a key not less than its last one; `edit` gets the index block."""
    data, handles = b"", []
    for key, body in blocks.items():
        handles.append((key, handle(len(data), body)))
        data += sealed(body, compression)
    metaindex, index = block([]), edit(block(handles, restart_every=1))
    footer = handle(len(data), metaindex) + handle(len(data + sealed(metaindex)), index)
    return data + sealed(metaindex) + sealed(index) + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def rows_of(index: dict[str, TensorEntry], n_shards: int = 1) -> list[tuple[bytes, bytes]]:
    return [(b"", header(n_shards)), *((name.encode(), bundle_entry(entry)) for name, entry in index.items())]


def write_index(folder: Path, content: bytes) -> Path:
    (folder / "model.ckpt.index").write_bytes(content)
    return folder / "model.ckpt"


def write_rows(folder: Path, rows: list[tuple[bytes, bytes]]) -> Path:
    return write_index(folder, table({b"z": block(rows)}))


def copy_of(prefix: Path, folder: Path) -> Path:
    shutil.copytree(prefix.parent, folder, dirs_exist_ok=True)
    return folder / prefix.name


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def unpacked_blocks(folder: Path) -> Path:
    prefix = copy_of(BLOCKS, folder)
    return write_index(folder, lzma.decompress(Path(f"{prefix}.index.xz").read_bytes()))


# OpenAI's own index


def test_openai_index_lists_148_float32_tensors_that_fill_the_data_file():
    index = read_tf_index(GENUINE)
    assert len(index) == 148
    assert {(entry.dtype, entry.shard) for entry in index.values()} == {("float32", 0)}
    position = 0
    for entry in index.values():
        assert entry.offset == position
        position += entry.size
    assert position == 497_759_232
    assert sum(np.prod(entry.shape) for entry in index.values()) == 124_439_808


def test_openai_index_has_the_shapes_of_gpt2():
    hparams = json.loads((GENUINE.parent / "hparams.json").read_text())
    n_embd = hparams["n_embd"]
    expected = {"model/wte": (hparams["n_vocab"], n_embd), "model/wpe": (hparams["n_ctx"], n_embd)}
    expected |= {"model/ln_f/g": (n_embd,), "model/ln_f/b": (n_embd,)}
    for i in range(hparams["n_layer"]):
        for norm in ("ln_1/g", "ln_1/b", "ln_2/g", "ln_2/b"):
            expected[f"model/h{i}/{norm}"] = (n_embd,)
        layers = ("attn/c_attn", 1, 3), ("attn/c_proj", 1, 1), ("mlp/c_fc", 1, 4), ("mlp/c_proj", 4, 1)
        for name, n_in, n_out in layers:
            expected[f"model/h{i}/{name}/w"] = (1, n_in * n_embd, n_out * n_embd)
            expected[f"model/h{i}/{name}/b"] = (n_out * n_embd,)
    assert {name: entry.shape for name, entry in read_tf_index(GENUINE).items()} == expected


def test_the_docstring_shows_the_bytes_of_openai_index():
    content = Path(f"{GENUINE}.index").read_bytes()
    first = bytes.fromhex("00 16 11") + b"model/h0/attn/c_attn/b"
    first += bytes.fromhex("08 01 12 05 12 03 08 80 12 28 80 48 35 74 3d 27 8c")
    second = bytes.fromhex("15 01 1f") + b"w" + bytes.fromhex("08 01 12 0e 12 02 08 01 12 03 08 80 06 12 03 08 80 12")
    second += bytes.fromhex("20 80 48 28 80 80 b0 03 35 0d 71 3d 86")
    assert content[9:].startswith(first + second)


def test_index_is_found_by_its_name_and_by_the_prefix():
    for path in (GENUINE, str(GENUINE), Path(f"{GENUINE}.index"), f"{GENUINE}.index"):
        assert len(read_tf_index(path)) == 148


@pytest.mark.parametrize(
    ("prefix", "n_shards", "last_key"),
    [(GENUINE, 1, b"n"), (SMALL, 1, b"n"), (SHARDS, 2, b"j")],
    ids=["openai-124M", "openai-small", "tf-shards"],
)
def test_an_index_written_back_is_the_same_file_byte_for_byte(prefix, n_shards, last_key):
    written = table({last_key: block(rows_of(read_tf_index(prefix), n_shards))})
    assert written == Path(f"{prefix}.index").read_bytes()


# The values


@pytest.mark.parametrize("prefix", [SMALL, SHARDS], ids=lambda prefix: prefix.parent.name)
def test_values_equal_tensorflows_bit_for_bit(prefix):
    expected = np.load(prefix.parent / "expected.npz")
    tensors = dict(read_tf_tensors(prefix))
    assert list(tensors) == sorted(expected.files)
    for name, tensor in tensors.items():
        for read in (tensor, read_tf_tensor(prefix, name)):
            assert (read.dtype, read.shape) == (expected[name].dtype, expected[name].shape)
            assert read.tobytes() == expected[name].tobytes()


def test_tensors_come_from_all_shards():
    index = read_tf_index(SHARDS)
    assert {entry.shard for entry in index.values()} == {0, 1}
    assert {entry.dtype for entry in index.values()} >= {"float32", "float16", "bfloat16", "int64"}
    assert read_tf_tensor(SHARDS, "global_step") == 12_345_678_901


def test_dtypes_have_the_numbers_of_tensorflow():
    types = pytest.importorskip("tensorboard.compat.proto.types_pb2").DataType  # TensorBoard brings TensorFlow's own
    names = {types.Name(number): name for number, name in tf_checkpoint.DTYPES.items()}
    others = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}
    assert names == {theirs: others.get(theirs, theirs.removeprefix("DT_").lower()) for theirs in names}
    assert len(names) == 13


def test_bfloat16_is_widened_exactly():
    expected = np.load(SHARDS.parent / "expected.npz")["d/bfloat16_edges"]
    tensor = read_tf_tensor(SHARDS, "d/bfloat16_edges")
    assert tensor.dtype == np.float32
    assert tensor.view(np.uint32).tolist() == expected.view(np.uint32).tolist()
    assert np.isnan(tensor).any() and np.isinf(tensor).any() and np.signbit(tensor[tensor == 0]).any()

    # The other 16-bit float would read the same bytes without complaint.
    entry = read_tf_index(SHARDS)["d/bfloat16_edges"]
    wrong = tf_checkpoint._read_tensor("x", f"{SHARDS}.data-00001-of-00002", replace(entry, dtype="float16"))
    assert not np.array_equal(wrong.astype(np.float32), expected, equal_nan=True)


def test_arrays_are_plain_and_aligned_wherever_the_file_puts_them():
    assert {entry.offset % 4 for entry in read_tf_index(SHARDS).values()} > {0}
    for _, tensor in read_tf_tensors(SHARDS):
        assert type(tensor) is np.ndarray and tensor.flags.aligned


def test_an_empty_tensor_needs_no_data(tmp_path):
    prefix = write_rows(tmp_path, rows_of({"x": replace(SCALAR, shape=(0, 4), size=0, crc32c=mask(0))}))
    assert read_tf_tensor(prefix, "x").shape == (0, 4)
    (tmp_path / "model.ckpt.data-00000-of-00001").touch()
    assert read_tf_tensor(prefix, "x").shape == (0, 4)


def test_index_of_several_blocks_from_tensorflow(tmp_path):
    prefix = unpacked_blocks(tmp_path)
    tensors = list(read_tf_tensors(prefix))
    assert Path(f"{prefix}.index").stat().st_size > 2 * 262_144  # TensorFlow's block size
    assert [name[:9] for name, _ in tensors] == [f"model/{i:03d}" for i in range(800)]
    assert [float(value) for _, value in tensors] == [float(np.float32(i / 7)) for i in range(800)]


@pytest.mark.parametrize("n_rows", [1, 2, 17, 64])
def test_index_in_many_small_blocks_reads_like_openais(tmp_path, n_rows):
    index = read_tf_index(GENUINE)
    rows = rows_of(index)
    parts = [rows[i : i + n_rows] for i in range(0, len(rows), n_rows)]
    prefix = write_index(tmp_path, table({part[-1][0]: block(part, restart_every=3) for part in parts}))
    assert read_tf_index(prefix) == index


def test_arrays_become_tensors_without_a_warning_and_never_write_to_the_file(tmp_path, recwarn):
    prefix = copy_of(SMALL, tmp_path)
    before = Path(f"{prefix}.data-00000-of-00001").read_bytes()
    tensor = torch.from_numpy(read_tf_tensor(prefix, "model/wte"))
    tensor.zero_()
    assert not recwarn.list
    assert Path(f"{prefix}.data-00000-of-00001").read_bytes() == before


def test_reading_makes_no_copy_of_the_data(tmp_path):
    size = 64 * 2**20
    entry = replace(SCALAR, shape=(size // 4,), size=size, crc32c=mask(google_crc32c.value(bytes(size))))
    prefix = write_rows(tmp_path, rows_of({"x": entry}))
    with open(f"{prefix}.data-00000-of-00001", "wb") as file:
        file.truncate(size)
    tracemalloc.start()
    tensor = read_tf_tensor(prefix, "x")
    _, peak = tracemalloc.get_traced_memory()
    np.fromfile(f"{prefix}.data-00000-of-00001", np.float32)  # reads a copy, to show that a copy is seen
    _, peak_of_a_copy = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tensor.nbytes == size and not tensor.any()
    assert peak < 2**20 < size <= peak_of_a_copy


def test_the_iterator_reads_the_index_once(tmp_path):
    prefix = copy_of(SMALL, tmp_path)
    tensors = read_tf_tensors(prefix)
    next(tensors)
    Path(f"{prefix}.index").unlink()
    assert len(list(tensors)) == 27


# Damaged data


def test_a_flipped_byte_of_the_data_is_found_in_its_tensor_and_only_there(tmp_path):
    prefix = copy_of(SMALL, tmp_path)
    index = read_tf_index(prefix)
    data = Path(f"{prefix}.data-00000-of-00001")
    for k, (damaged, entry) in enumerate(index.items()):
        position = entry.offset + [0, entry.size // 2, entry.size - 1][k % 3]
        flip(data, position)
        for name in index:
            if name == damaged:
                with pytest.raises(CheckpointError, match=f"{data.name}, tensor '{name}' .*checksum 0x.*download"):
                    read_tf_tensor(prefix, name)
            else:
                read_tf_tensor(prefix, name)
        flip(data, position)


def test_two_tensors_of_one_size_exchanged_are_found(tmp_path):
    """Neither file length nor shapes would tell: the checksum is the only witness."""
    index = read_tf_index(SMALL)
    g, b = index["model/ln_f/g"], index["model/ln_f/b"]
    index["model/ln_f/g"], index["model/ln_f/b"] = replace(g, offset=b.offset), replace(b, offset=g.offset)
    prefix = write_rows(copy_of(SMALL, tmp_path).parent, rows_of(index))
    with pytest.raises(CheckpointError, match="model/ln_f/b"):
        dict(read_tf_tensors(prefix))


def test_data_cut_short_gives_the_tensors_before_the_cut(tmp_path):
    prefix = copy_of(SMALL, tmp_path)
    index = read_tf_index(prefix)
    data = Path(f"{prefix}.data-00000-of-00001")
    for n_bytes in (data.stat().st_size - 1, 40_000, index["model/h0/attn/c_attn/b"].size, 1, 0):
        with data.open("r+b") as file:
            file.truncate(n_bytes)
        for name, entry in index.items():
            if entry.offset + entry.size <= n_bytes:
                read_tf_tensor(prefix, name)
            else:
                message = f"tensor '{name}' at byte {entry.offset}: {entry.size} bytes expected"
                with pytest.raises(CheckpointError, match=message):
                    read_tf_tensor(prefix, name)


def test_a_missing_data_file_is_named():
    with pytest.raises(CheckpointError, match=r"model\.ckpt\.data-00000-of-00001.*no such file.*python -m scripts"):
        read_tf_tensor(GENUINE, "model/wte")


def test_checksums_without_the_mask_would_refuse_openais_files(monkeypatch):
    monkeypatch.setattr(tf_checkpoint, "_check_crc", unmasked_check)
    with pytest.raises(CheckpointError, match="block at byte"):
        read_tf_index(GENUINE)


def unmasked_check(data: bytes, stored: int, where: str) -> None:
    if google_crc32c.value(data) != stored:
        raise CheckpointError(where)


@given(st.binary(), st.binary())
def test_bytes_followed_by_their_crc_all_have_one_crc_unless_it_is_masked(one, other):
    bare = {google_crc32c.value(data + google_crc32c.value(data).to_bytes(4, "little")) for data in (one, other)}
    assert bare == {0x48674BC7}
    masked = {google_crc32c.value(data + crc_bytes(data)) for data in (one, other)}
    assert len(masked) == len({one, other})


# Damaged indexes


def test_every_flipped_byte_of_an_index_is_found_or_never_read(tmp_path):
    prefix = copy_of(SMALL, tmp_path)
    path, expected = Path(f"{prefix}.index"), read_tf_index(prefix)
    content = path.read_bytes()
    found = set()
    for position in range(len(content)):
        flip(path, position)
        try:
            assert read_tf_index(prefix) == expected
        except CheckpointError as error:
            assert str(path) in str(error)
            found.add(position)
        flip(path, position)
    # Nothing in the metaindex matters, nor where it lies, nor what fills the footer.
    metaindex, footer = content.index(sealed(block([]))), len(content) - 48
    unread = {*range(metaindex, metaindex + 13), *range(footer, footer + 3), *range(footer + 6, footer + 40)}
    assert found == set(range(len(content))) - unread


def test_an_index_cut_anywhere_is_refused(tmp_path):
    content = Path(f"{SMALL}.index").read_bytes()
    for n_bytes in range(len(content)):
        with pytest.raises(CheckpointError, match=rf"\.index: its {n_bytes} bytes have .*python -m scripts"):
            read_tf_index(write_index(tmp_path, content[:n_bytes]))


def test_an_index_that_lacks_its_beginning_is_refused(tmp_path):
    content = Path(f"{SMALL}.index").read_bytes()
    for n_bytes in range(len(content)):
        with pytest.raises(CheckpointError, match="bytes have" if n_bytes < 48 else r"bytes expected|checksum"):
            read_tf_index(write_index(tmp_path, content[-n_bytes:] if n_bytes else b""))


def test_a_web_page_in_place_of_the_index_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"its 234 bytes have .* where a table has 57fb808b247547db"):
        read_tf_index(write_index(tmp_path, b"<html>404 Not Found</html>" * 9))


def test_a_missing_index_is_a_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"124M\.index"):
        read_tf_index(tmp_path / "124M")


# What is not read, and says so


def test_snappy_is_refused_by_name(tmp_path):
    body = block(rows_of(read_tf_index(SMALL)))
    snappy = varint(len(body)) + b"\xf4" + (len(body) - 1).to_bytes(2, "little") + body  # one literal
    with pytest.raises(CheckpointError, match=r"block at byte 0: compressed \(snappy\), not read here"):
        read_tf_index(write_index(tmp_path, table({b"n": snappy}, compression=1)))
    with pytest.raises(CheckpointError, match=r"compressed \(7\), not read here"):
        read_tf_index(write_index(tmp_path, table({b"n": snappy}, compression=7)))


def test_big_endian_and_later_versions_are_refused(tmp_path):
    tensors = rows_of(read_tf_index(SMALL))[1:]
    with pytest.raises(CheckpointError, match="big-endian numbers, not read here"):
        read_tf_index(write_rows(tmp_path, [(b"", header(1, endianness=1)), *tensors]))
    with pytest.raises(CheckpointError, match="for readers of version 2, not read here"):
        read_tf_index(write_rows(tmp_path, [(b"", header(1, min_reader=2)), *tensors]))
    assert len(read_tf_index(write_rows(tmp_path, [(b"", header(1, min_reader=1)), *tensors]))) == 28


def test_a_variable_in_slices_is_refused():
    with pytest.raises(CheckpointError, match=r"'embedding': .*partitioned variable"):
        read_tf_index(FIXTURES / "tf-partitioned" / "model.ckpt")


def test_strings_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="'x': TensorFlow's dtype 7 not read here"):
        read_tf_index(write_rows(tmp_path, [(b"", header(1)), (b"x", bundle_entry(SCALAR, number=7))]))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(CheckpointError, match=r"no tensor '.*/c_atn/w' among its 28; near it: model/h0/attn/c_attn/w"):
        read_tf_tensor(SMALL, "model/h0/attn/c_atn/w")
    with pytest.raises(CheckpointError, match=r"near it: model/h0/attn/c_attn/b(, model/h0/attn/[^,]*){2}$"):
        read_tf_tensor(SMALL, "")


# Hostile indexes: sealed with right checksums, wrong inside


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 8}, r"'x': 8 bytes of shard 0 of 1 as float32, \(\)"),
        ({"shape": (3, 5), "size": 64}, r"64 bytes .* float32, \(3, 5\)"),
        ({"shape": (2**64 - 1,), "size": 2**64 - 4}, "as float32"),  # the axis is -1
        ({"shape": (2**31, 2**31), "size": 2**64}, "as float32"),
        ({"shape": (0, 2**62), "size": 0}, "as float32"),
        ({"shape": (1,) * 33}, "as float32"),
        ({"shard": 1}, "of shard 1 of 1"),
        ({"shard": 2**64 - 1}, "of shard 18446744073709551615 of 1"),
    ],
    ids=str,
)
def test_an_impossible_entry_is_refused_with_the_index(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        read_tf_index(write_rows(tmp_path, rows_of({"x": replace(SCALAR, **changes)})))


@pytest.mark.parametrize("changes", [{"offset": 1}, {"offset": 2**64 - 1}, {"shape": (2**60,), "size": 2**62}], ids=str)
def test_an_entry_beyond_the_data_is_refused_before_anything_is_allocated(tmp_path, changes):
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(bytes(4))
    prefix = write_rows(tmp_path, rows_of({"x": replace(SCALAR, **changes)}))
    assert list(read_tf_index(prefix)) == ["x"]
    with pytest.raises(CheckpointError, match="bytes expected, but the file ends at byte 4"):
        read_tf_tensor(prefix, "x")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "0 restart points do not fit into 0 bytes"),
        (b"\0\0\0\0" + b"\xff" * 4, "4294967295 restart points do not fit into 8 bytes"),
        (b"\x05\0\0" + b"\0" * 4, "a key of 5 shared and 0 new bytes follows one of 0"),
        (b"\0\x05\0abc" + b"\0" * 4, "5 bytes expected at byte 3, 3 found"),
        (b"\0\0" + varint(2**63) + b"\0" * 4, "9223372036854775808 bytes expected at byte 12, 0 found"),
        (b"\xff" * 100 + b"\0" * 4, "more than 64 bits in the number before byte 10"),
        (b"\x80" + b"\0" * 4, "1 bytes expected at byte 1, 0 found"),
        (block([(b"x", bundle_entry(TensorEntry("int64", (), 0, 0, 8, 0)))]), "first key is b'x'"),
        (block([]), "first key is None"),
        (block([(b"", b"\x0b")]), "field 1 has wire type 3"),
        (block([(b"", header(1)), (b"x", b"\x12\x7f")]), "'x': 127 bytes expected at byte 2, 0 found"),
    ],
)
def test_a_block_that_contradicts_itself_is_refused(tmp_path, body, message):
    with pytest.raises(CheckpointError, match=message):
        read_tf_index(write_index(tmp_path, table({b"z": body})))


@pytest.mark.long
def test_a_small_index_cannot_unfold_to_gigabytes(tmp_path, monkeypatch):
    """1,000 entries, each with the 20,000 bytes of the first key but for the last four."""
    keys = [b"x" * 20_000 + b"%04d" % i for i in range(1000)]
    rows = [(b"", header(1)), *((key, bundle_entry(SCALAR)) for key in keys)]
    prefix = write_index(tmp_path, table({b"z": block(rows, restart_every=1001)}))
    with pytest.raises(CheckpointError, match="a key of 0 shared and 20004 new bytes"):
        read_tf_index(prefix)
    # Without a limit, each byte of the file becomes hundreds, and more in a bigger file.
    monkeypatch.setattr(tf_checkpoint, "MAX_KEY_SIZE", 2**64)
    assert sum(len(name) for name in read_tf_index(prefix)) > 300 * Path(f"{prefix}.index").stat().st_size


def test_a_name_may_have_1024_bytes(tmp_path):
    def index_of(n_bytes: int) -> Path:
        return write_rows(tmp_path, [(b"", header(1)), (b"x" * n_bytes, bundle_entry(SCALAR))])

    assert list(read_tf_index(index_of(1024))) == ["x" * 1024]
    with pytest.raises(CheckpointError, match="a key of 0 shared and 1025 new bytes"):
        read_tf_index(index_of(1025))


def test_a_block_is_not_read_twice(tmp_path):
    handles = [(b"%06d" % i, handle(0, block(rows_of({})))) for i in range(10_000)]
    content = table({b"z": block(rows_of({}))}, edit=lambda _: block(handles))
    with pytest.raises(CheckpointError, match="a block begins at byte 0, before the end of the last one at byte 17"):
        read_tf_index(write_index(tmp_path, content))


@st.composite
def mutations(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with one to four bytes or stretches changed, inserted or cut."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.sampled_from([0, 1, 1, 1, 2, 5, 40]))
        data[start:end] = draw(st.binary(max_size=12)) if end != start + 1 else bytes([draw(st.integers(0, 255))])
    return bytes(data)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """A copy of tf-shards whose index is written anew by each example."""
    return copy_of(SHARDS, tmp_path_factory.mktemp("scratch")).parent


SHARDS_BLOCK = block(rows_of(read_tf_index(SHARDS), n_shards=2))


@settings(max_examples=300, deadline=5000)
@given(content=mutations(Path(f"{SHARDS}.index").read_bytes()))
def test_a_damaged_index_is_refused_or_read_rightly(scratch, content):
    prefix = write_index(scratch, content)
    try:
        assert read_tf_index(prefix) == read_tf_index(SHARDS)
    except CheckpointError as error:
        assert str(prefix) in str(error)


@pytest.mark.long
@settings(max_examples=300, deadline=5000)
@given(body=mutations(SHARDS_BLOCK))
def test_a_forged_data_block_never_leads_out_of_the_files(scratch, body):
    check_forged(write_index(scratch, table({b"j": body})))


@pytest.mark.long
@settings(max_examples=300, deadline=5000)
@given(handles=mutations(block([(b"j", handle(0, SHARDS_BLOCK))])))
def test_a_forged_index_block_never_leads_out_of_the_files(scratch, handles):
    check_forged(write_index(scratch, table({b"j": SHARDS_BLOCK}, edit=lambda _: handles)))


def check_forged(prefix: Path) -> None:
    """All checksums of the index are right, so only the reader's own checks stand between it and the forger."""
    try:
        names = list(read_tf_index(prefix))
    except CheckpointError:
        return
    for name in names:
        try:
            tensor = read_tf_tensor(prefix, name)
        except CheckpointError as error:
            assert str(prefix) in str(error)
        else:
            assert tensor.nbytes <= 2 * 199  # the bigger shard, if it were all bfloat16
