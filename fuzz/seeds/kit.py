"""What the scripts that make seeds share."""
import json
import pathlib
import shutil
import struct
import zlib

here = pathlib.Path(__file__).parent


def clear(*targets):
    for target in targets:
        shutil.rmtree(here / target, ignore_errors=True)


def put(target, name, data):
    assert len(data) < 3072, (name, len(data))
    folder = here / target
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def tensors(metadata=None, **found):
    """A safetensors file; each tensor is (type, shape, bytes), or None for none."""
    header, data = {}, b""
    for name, tensor in sorted(found.items()):
        if tensor is not None:
            dtype, shape, content = tensor
            header[name] = entry(dtype, shape, (len(data), len(data) + len(content)))
            data += content
    if metadata is not None:
        header["__metadata__"] = metadata
    return safetensors(header, data)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks)


pixel = chunk(b"IDAT", zlib.compress(bytes(4)))
end = chunk(b"IEND", b"")
