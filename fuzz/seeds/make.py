"""Makes the bad files under seeds/<target>/. Every one must be refused; a test of store reads them all."""
import io
import json
import pickle
import struct
import zipfile
import zlib

from kit import chunk, clear, end, entry, here, pixel, png, put, safetensors, tensors

clear("safetensors", "index", "pickle", "tokenizer", "sentencepiece", "chat_template", "quantized", "picture", "clip")

good = safetensors({"a": entry()}, bytes(8))
put("safetensors", "empty", b"")
put("safetensors", "seven_bytes", bytes(7))
put("safetensors", "no_header", bytes(8))
put("safetensors", "huge_header_length", struct.pack("<Q", 2**64 - 1) + b"{}")
put("safetensors", "header_longer_than_file", safetensors({"a": entry()}, bytes(8), 90_000_000))
put("safetensors", "header_cut", good[:30])
put("safetensors", "data_cut", good[:-1])
put("safetensors", "data_too_long", good + b"x")
put("safetensors", "not_json", safetensors(b"{nonsense"))
put("safetensors", "not_an_object", safetensors(b"[1, 2]"))
put("safetensors", "not_utf8", safetensors(b'{"\xff\xfe": 1}'))
put("safetensors", "deep_json", safetensors(b'{"a":' + b"[" * 400))
put("safetensors", "overlap", safetensors({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)))
put("safetensors", "same_bytes", safetensors({"a": entry(), "b": entry()}, bytes(8)))
put("safetensors", "gap", safetensors({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)))
put("safetensors", "gap_at_start", safetensors({"a": entry(offsets=(4, 12))}, bytes(12)))
put("safetensors", "misaligned",
    safetensors({"a": entry("U8", (1,), (0, 1)), "b": entry(offsets=(1, 9))}, bytes(9)))
put("safetensors", "backwards", safetensors({"a": entry(offsets=(8, 0))}, bytes(8)))
put("safetensors", "wrong_size", safetensors({"a": entry(shape=(3,))}, bytes(8)))
put("safetensors", "shape_overflow", safetensors({"a": entry(shape=(2**40, 2**40))}, bytes(8)))
put("safetensors", "shape_overflow_zero", safetensors({"a": entry(shape=(0, 2**40, 2**40), offsets=(0, 0))}))
put("safetensors", "offset_overflow",
    safetensors({"a": entry("U8", (8,), (2**64 - 9, 2**64 - 1))}, bytes(8)))
put("safetensors", "negative_size", safetensors({"a": entry(shape=(-1,))}, bytes(8)))
put("safetensors", "unknown_type", safetensors({"a": entry("Q7")}, bytes(8)))
put("safetensors", "float8", safetensors({"a": entry("F8_E5M2", (8,))}, bytes(8)))
put("safetensors", "missing_offsets", safetensors({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)))
put("safetensors", "metadata_not_text", safetensors({"__metadata__": {"a": 1}}))
one = json.dumps(entry())
put("safetensors", "duplicate_name", safetensors(f'{{"a": {one}, "a": {one}}}'.encode(), bytes(8)))

put("index", "empty", b"")
put("index", "not_json", b"{")
put("index", "no_weight_map", b'{"metadata": {}}')
put("index", "empty_weight_map", b'{"weight_map": {}}')
put("index", "weight_map_list", b'{"weight_map": ["a"]}')
put("index", "number_as_shard", b'{"weight_map": {"a": 1}}')
put("index", "duplicate_name", b'{"weight_map": {"a": "x", "a": "y"}}')
for name, shard in {
    "traversal": "../secret.safetensors",
    "traversal_inside": "a/../../secret.safetensors",
    "absolute": "/etc/passwd",
    "subfolder": "sub/model.safetensors",
    "backslash": "..\\secret.safetensors",
    "drive": "C:secret.safetensors",
    "dot_dot": "..",
    "dot": ".",
    "nothing": "",
    "control": "a\u0000b",
    "long": "a" * 300,
}.items():
    put("index", f"shard_{name}", json.dumps({"weight_map": {"a": shard}}).encode())
put("index", "shard_absent", b'{"weight_map": {"a": "model-1.safetensors"}}')


def archive(files, method=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            file.writestr(info, data)
    return out.getvalue()


def checkpoint(stream, storage=bytes(8), method=zipfile.ZIP_STORED):
    return archive([("a/data.pkl", stream), ("a/data/0", storage)], method)


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def tensor(shape=(2,), strides=(1,), offset=0, elements=2, key="0", storage="FloatStorage"):
    """{"a": tensor} as torch writes it."""
    sizes = b"(" + b"".join(number(size) for size in shape) + b"t"
    steps = b"(" + b"".join(number(step) for step in strides) + b"t"
    return (
        b"\x80\x02}" + text("a") + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage") + b"ctorch\n" + storage.encode() + b"\n" + text(key) + text("cpu")
        + number(elements) + b"tQ" + number(offset) + sizes + steps + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


class System:
    def __reduce__(self):
        import os
        return os.system, ("echo no",)


class Evaluate:
    def __reduce__(self):
        return eval, ("1",)


good = checkpoint(tensor())
put("pickle", "empty", b"")
put("pickle", "not_a_zip", b"hello, this is text")
put("pickle", "only_signature", b"PK\x05\x06")
put("pickle", "legacy", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
for protocol in (0, 2, 4, 5):
    put("pickle", f"system_{protocol}", checkpoint(pickle.dumps(System(), protocol)))
    put("pickle", f"eval_{protocol}", checkpoint(pickle.dumps({"a": Evaluate()}, protocol)))
put("pickle", "inst", checkpoint(b"(S'echo no'\nios\nsystem\n."))
put("pickle", "getattr", checkpoint(b"\x80\x02cbuiltins\ngetattr\n."))
put("pickle", "torch_load", checkpoint(b"\x80\x02ctorch\nload\n."))
put("pickle", "dotted_name", checkpoint(b"\x80\x04" + text("collections") + text("OrderedDict.fromkeys") + b"\x93."))
put("pickle", "cut_zip", good[:-30])
put("pickle", "cut_at_start", good[20:])
put("pickle", "no_pickle", archive([("a/readme", b"x")]))
put("pickle", "two_pickles", archive([("a/data.pkl", tensor()), ("b/data.pkl", tensor())]))
put("pickle", "compressed", checkpoint(tensor(), method=zipfile.ZIP_DEFLATED))
put("pickle", "bomb", checkpoint(b"\x80\x02}." + bytes(100_000), method=zipfile.ZIP_DEFLATED))
put("pickle", "not_a_dict", checkpoint(b"\x80\x02N."))
put("pickle", "no_stop", checkpoint(b"\x80\x02}"))
put("pickle", "nothing", checkpoint(b""))
put("pickle", "stack_underflow", checkpoint(b"\x80\x02s."))
put("pickle", "mark_underflow", checkpoint(b"\x80\x02t."))
put("pickle", "memo_empty", checkpoint(b"\x80\x02h\x05."))
put("pickle", "odd_items", checkpoint(b"\x80\x02}(Nu."))
put("pickle", "long_string_claim", checkpoint(b"\x80\x02X\xff\xff\xff\xff."))
put("pickle", "longer_string_claim", checkpoint(b"\x80\x04\x8d" + b"\xff" * 8 + b"."))
put("pickle", "protocol_9", checkpoint(b"\x80\x09}."))
put("pickle", "self_reference", checkpoint(b"\x80\x02}q\x00" + text("a") + b"h\x00s."))
put("pickle", "call_none", checkpoint(b"\x80\x02N)R."))
put("pickle", "build_list", checkpoint(b"\x80\x02]}b."))
put("pickle", "persistent_text", checkpoint(b"\x80\x02" + text("storage") + b"Q."))
put("pickle", "absent_storage", checkpoint(tensor(key="7")))
put("pickle", "storage_traversal", checkpoint(tensor(key="../../x")))
put("pickle", "storage_too_short", checkpoint(tensor(), storage=bytes(7)))
put("pickle", "storage_overflow", checkpoint(tensor(elements=2**62)))
put("pickle", "shape_outside", checkpoint(tensor(shape=(3,))))
put("pickle", "stride_outside", checkpoint(tensor(strides=(2,))))
put("pickle", "offset_outside", checkpoint(tensor(offset=1)))
put("pickle", "offset_overflow", checkpoint(tensor(offset=2**63 - 1)))
put("pickle", "shape_overflow", checkpoint(tensor(shape=(2**40, 2**40), strides=(0, 0))))
put("pickle", "expanded_bomb", checkpoint(tensor(shape=(2**40,), strides=(0,))))
put("pickle", "negative_stride", checkpoint(tensor(strides=(-1,), offset=1)))
put("pickle", "shape_rank", checkpoint(tensor(shape=(2, 1))))
put("pickle", "complex", checkpoint(tensor(storage="ComplexFloatStorage", elements=1)))
put("pickle", "big_endian", archive([("a/data.pkl", tensor()), ("a/data/0", bytes(8)), ("a/byteorder", b"big")]))
put("pickle", "torchscript", archive([("a/data.pkl", tensor()), ("a/code/x.py", b""), ("a/data/0", bytes(8))]))


def patched(data, signature, offset, value, last=False):
    at = (data.rindex if last else data.index)(signature) + offset
    return data[:at] + value + data[at + len(value):]


directory, finish, local = b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04"
large = struct.pack("<I", 2**31 - 1)
put("pickle", "lying_size", patched(patched(good, directory, 20, large, True), directory, 24, large, True))
put("pickle", "lying_stored_size", patched(good, directory, 20, struct.pack("<I", 4), True))
put("pickle", "lying_offset", patched(good, directory, 42, large, True))
put("pickle", "overlapping_entries", patched(good, directory, 42, struct.pack("<I", 0), True))
put("pickle", "zip64_without_field", patched(good, directory, 42, b"\xff" * 4, True))
put("pickle", "encrypted", patched(good, directory, 8, b"\x01\x00"))
put("pickle", "directory_outside", patched(good, finish, 16, large))
put("pickle", "directory_size", patched(good, finish, 12, large))
put("pickle", "entry_count", patched(good, finish, 10, struct.pack("<H", 9)))
put("pickle", "no_local_header", patched(good, local, 0, b"XXXX"))
put("pickle", "other_local_name", patched(good, local, 30, b"b/data.pkl"))
locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 2**64 - 1, 1)
put("pickle", "zip64_locator", good[: good.index(finish)] + locator + good[good.index(finish):])

def tokenizer(**changes):
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
    return json.dumps(base | changes).encode()


def field(number, data):
    """A field of a message of protocol buffers: a message, text or bytes; a whole number below 128; or a float."""
    key = lambda wire: bytes([number << 3 | wire]) if number < 16 else bytes([(number << 3 | wire) & 127 | 128, number >> 4])
    if isinstance(data, float):
        return key(5) + struct.pack("<f", data)
    if isinstance(data, int):
        return key(0) + bytes([data])
    length = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return key(2) + length + data


def piece(text, score=0.0, kind=1):
    return field(1, field(1, text.encode()) + field(2, score) + field(3, kind))


def sentencepiece(*pieces, unknown=piece("<unk>", kind=2), trainer=field(3, 2), normalizer=field(4, 0)):
    return unknown + b"".join(pieces) + field(2, trainer) + field(3, normalizer)


words = [piece(text, score) for text, score in [("\u2581", -9.0), ("a", -9.0), ("r", -9.0), ("\u2581a", -1.0), ("ar", -2.0)]]
put("sentencepiece", "good_small", sentencepiece(*words))
put("sentencepiece", "good_kinds", sentencepiece(*words, piece("<s>", kind=3), piece("red", kind=4), piece("<0x41>", kind=6)))
put("sentencepiece", "good_beginning", sentencepiece(*words, piece("<s>", kind=3), trainer=field(3, 2) + field(41, 6)))
put("sentencepiece", "empty", b"")
put("sentencepiece", "text", b"a red heart")
put("sentencepiece", "no_pieces", sentencepiece(unknown=b""))
put("sentencepiece", "two_unknown", sentencepiece(piece("<other>", kind=2)))
put("sentencepiece", "same_piece", sentencepiece(*words, piece("a")))
put("sentencepiece", "empty_piece", sentencepiece(piece("")))
put("sentencepiece", "long_piece", sentencepiece(piece("a" * 1025)))
put("sentencepiece", "not_utf8", sentencepiece(field(1, field(1, b"\xff\xfe"))))
put("sentencepiece", "unused_piece", sentencepiece(piece("a", kind=5)))
put("sentencepiece", "score_nan", sentencepiece(piece("a", float("nan"))))
put("sentencepiece", "score_infinite", sentencepiece(piece("a", float("inf"))))
put("sentencepiece", "byte_of_three", sentencepiece(piece("<0x041>", kind=6)))
put("sentencepiece", "byte_signed", sentencepiece(piece("<0x+1>", kind=6)))
put("sentencepiece", "missing_bytes", sentencepiece(*words, trainer=field(3, 2) + field(35, 1)))
put("sentencepiece", "unigram", sentencepiece(*words, trainer=b""))
put("sentencepiece", "characters", sentencepiece(*words, trainer=field(3, 4)))
put("sentencepiece", "changes_characters", sentencepiece(*words, normalizer=field(1, b"nmt_nfkc") + field(2, b"map") + field(4, 0)))
put("sentencepiece", "folds_spaces", sentencepiece(*words, normalizer=b""))
put("sentencepiece", "keeps_spaces", sentencepiece(*words, normalizer=field(4, 0) + field(5, 0)))
put("sentencepiece", "cut", sentencepiece(*words)[:-3])
put("sentencepiece", "length_beyond", b"\x0a\xff\xff\xff\xff\x0f")
put("sentencepiece", "length_overflow", b"\x0a" + b"\xff" * 9 + b"\x01")
put("sentencepiece", "endless_number", b"\x08" + b"\xff" * 20)
put("sentencepiece", "group", b"\x0b\x0c")

put("tokenizer", "empty", b"")
put("tokenizer", "brace", b"{")
put("tokenizer", "null", b"null")
put("tokenizer", "cut", tokenizer()[:-20])
put("tokenizer", "decoder_not_json", tokenizer().replace(b'"decoder": null', b'"decoder": +'))
put("tokenizer", "decoder_unknown", tokenizer(decoder={"type": "Nothing"}))
put("tokenizer", "precompiled", tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}))
put("tokenizer", "precompiled_claim",
    tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAontentAAA"}))
put("tokenizer", "model_unknown", tokenizer(model={"type": "Nothing"}))
put("tokenizer", "no_vocabulary", tokenizer(model={"type": "WordLevel", "vocab": {}, "unk_token": "a"}))
put("tokenizer", "negative_id", tokenizer(model={"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}))
put("tokenizer", "merges", tokenizer(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}))
put("tokenizer", "bad_pattern", tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}))
byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
# A fuzzer's find: two halves of a file in one object.
put("tokenizer", "key_twice", b'{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAontentAAA"}'
    b', "pre_tokenizer": null, "post_processor": null, "decoderd_tokens": [], "normalizer": {"type": "Precompiled", "precompilae_hdrcsmap": "AAAontentAAA"}, "pre_tokenizer": null, "post_proces": null, "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}')
put("tokenizer", "many_pre_tokenizers", tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": [byte_level] * 3}))
put("tokenizer", "cubic_word", tokenizer(model={"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 2**63, "vocab": {"a": 0}}))
put("chat_template", "doubled", b"{% set n = namespace(s='x') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s|length }}")
put("chat_template", "replaced", b"{{ ('x' * 1000000)|replace('x', 'y' * 10000)|length }}")
put("chat_template", "open_block", b"{% for m in messages %}")
put("chat_template", "open_text", b"{{ messages")
put("chat_template", "unknown_tag", b"{% import os %}")
put("chat_template", "unknown_filter", b"{{ messages | shell }}")
put("chat_template", "attribute", b"{{ messages.__class__.__mro__ }}")
put("chat_template", "endless", b"{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}")
put("chat_template", "recursion", b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")
put("chat_template", "deep", b"{{ " + b"(" * 400 + b"1" + b")" * 400 + b" }}")
put("chat_template", "refused", b"{{ raise_exception('no') }}")


def quantized(metadata=None, **changes):
    """One layer of 4 outputs and 64 inputs, 4-bit weights alone; a change gives (type, shape, bytes) or None."""
    layer = {"qweight": ("I32", (1, 32), bytes(128)), "wscales": ("BF16", (1, 4), bytes(8)),
             "wzeros": ("BF16", (1, 4), bytes(8))} | changes
    return tensors(metadata, **{"layer." + name: found for name, found in layer.items()})


nan = struct.pack("<H", 0x7FC0)
infinite = struct.pack("<H", 0x7F80)
put("quantized", "no_scales", quantized(wscales=None))
put("quantized", "no_zeros", quantized(wzeros=None))
put("quantized", "group_128", quantized(qweight=("I32", (1, 64), bytes(256))))
put("quantized", "group_32", quantized(wscales=("BF16", (17, 4), bytes(136))))
put("quantized", "nan_scale", quantized(wscales=("BF16", (1, 4), bytes(6) + nan)))
put("quantized", "infinite_zero", quantized(wzeros=("BF16", (1, 4), infinite + bytes(6))))
put("quantized", "odd_inputs", quantized(qweight=("I32", (1, 16), bytes(64))))
put("quantized", "flat", quantized(qweight=("I32", (32,), bytes(128))))
put("quantized", "no_outputs", quantized(qweight=("I32", (0, 32), b"")))
put("quantized", "scales_f32", quantized(wscales=("F32", (1, 4), bytes(16))))
put("quantized", "zeros_f16", quantized(wzeros=("F16", (1, 4), bytes(8))))
put("quantized", "more_outputs", quantized(wscales=("BF16", (1, 8), bytes(16)), wzeros=("BF16", (1, 8), bytes(16))))
put("quantized", "long_bias", quantized(bias=("BF16", (6,), bytes(12))))
put("quantized", "lying_shape", quantized(qweight=("I32", (2**40, 32), bytes(128))))
put("quantized", "codes_i16", quantized(qweight=("I16", (1, 32), bytes(64))))
put("quantized", "not_a_tile", quantized(qweight=("I8", (8, 32), bytes(256))))
put("quantized", "empty_record", quantized(qweight=("I8", (0, 64), b"")))
put("quantized", "no_layers", quantized(qweight=None))
put("quantized", "truncated", quantized()[:-1])
put("quantized", "claims_gptq", quantized(metadata={"quantization_config": json.dumps({"method": "gptq"})}))
put("quantized", "claims_nothing", quantized(metadata={"quantization_config": "{"}))

# Pictures: cut, of absurd sizes, with a text that inflates without end.
formats = here.parent.parent / "fixtures/media/formats"
jpeg = (formats / "baseline.jpg").read_bytes()
webp = (formats / "lossy.webp").read_bytes()
frame = jpeg.index(b"\xff\xc0")
put("picture", "cut_jpeg", jpeg[: len(jpeg) * 2 // 3])
put("picture", "cut_webp", webp[: len(webp) * 2 // 3])
put("picture", "wide_png", png(65535, 1, pixel, end))
put("picture", "no_pixels_png", png(1, 1, end))
put("picture", "wide_jpeg", jpeg[: frame + 5] + struct.pack(">HH", 65500, 65500) + jpeg[frame + 9 :])
damaged_text = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"x" * 4000)[:-8])
put("picture", "damaged_text", png(1, 1, damaged_text, pixel))
put("picture", "gif", (formats / "refused.gif").read_bytes()[:800])
put("picture", "empty", b"")

# Two frames of one pixel in each format.
control = b"\x21\xf9\x04\x00\x0a\x00\x00\x00"
image = b"\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00" + b"\x02\x02\x44\x01\x00"
gif_head = b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + b"\xff\x00\x00\x00\x00\xff"
loop = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
gif = gif_head + loop + (control + image) * 2 + b"\x3b"
put("clip", "good_gif", gif)
put("clip", "cut_gif", gif[: len(gif_head) + len(loop) + 12])
put("clip", "no_frames_gif", gif_head + loop + b"\x3b")
put("clip", "wide_gif", gif_head[:6] + b"\xff\xff\xff\xff" + gif_head[10:] + control + image + b"\x3b")


def frame(number, width=1, height=1, left=0):
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, left, 0, 1, 10, 0, 0))


def animation(frames, *chunks):
    return png(1, 1, chunk(b"acTL", struct.pack(">II", frames, 0)), frame(0), pixel, *chunks, end)


second = chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(4)))
put("clip", "good_apng", animation(2, frame(1), second))
put("clip", "missing_frames_apng", animation(2**31 - 1, frame(1), second))
put("clip", "outside_apng", animation(2, frame(1, left=7), second))
put("clip", "wide_frame_apng", animation(2, frame(1, width=65535, height=65535), second))


def riff(kind, data):
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def webp_clip(*frames, side=1):
    canvas = struct.pack("<I", 2) + struct.pack("<I", side - 1)[:3] + struct.pack("<I", side - 1)[:3]
    body = b"WEBP" + riff(b"VP8X", canvas) + riff(b"ANIM", bytes(6)) + b"".join(frames)
    return riff(b"RIFF", body)


# A lossless picture of one black pixel.
lossless = riff(b"VP8L", bytes.fromhex("2f00000000071011fd0f4444ff03"))
webp_frame = riff(b"ANMF", bytes(12) + b"\x64\x00\x00\x00" + lossless)
put("clip", "good_webp", webp_clip(webp_frame, webp_frame))
put("clip", "wide_webp", webp_clip(webp_frame, side=2**24))
put("clip", "no_frames_webp", webp_clip())
put("clip", "cut_webp", webp_clip(webp_frame, webp_frame)[:-9])
put("clip", "empty", b"")
