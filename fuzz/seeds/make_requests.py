"""Makes requests, files of them and messages of the queue under seeds/<target>/; names that begin with good_ are of requests that are understood."""
import base64
import json
import zlib

from kit import chunk, clear, end, png, put

clear("image_request", "edit_request", "chat_request", "completion_request", "segment_request", "job_request",
      "batch_file", "queue_message")

rows = b"".join(b"\0" + bytes((x * 9 + y * 7) % 256 for x in range(8) for _ in range(3)) for y in range(8))
picture = png(8, 8, chunk(b"IDAT", zlib.compress(rows)), end)
bomb = png(60000, 60000, chunk(b"IDAT", zlib.compress(rows)), end)


def url(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def body(target, name, fields):
    put(target, name, json.dumps(fields).encode())


def form(*parts):
    text = b""
    for name, value in parts:
        file = b'; filename="f"' if value.startswith(b"\x89PNG") else b""
        text += b'--b\r\ncontent-disposition: form-data; name="' + name.encode() + b'"' + file
        text += b"\r\n\r\n" + value + b"\r\n"
    return text + b"--b--\r\n"


images = "image_request"
body(images, "good_plain", {"prompt": "red heart", "seed": 7, "steps": 3})
body(images, "good_many", {
    "prompt": "x", "n": 2, "size": "128x128", "guidance": 4.5, "negative_prompt": "y", "scheduler": "euler", "shift": 3,
    "pag_scale": 2, "pag_layers": [1], "decode": "strips", "instruction": "none", "output_format": "jpeg",
    "output_compression": 50, "stream": True, "partial_images": 3, "user": "u",
})
put(images, "deep", b'{"prompt":' + b"[" * 2000)
body(images, "size_huge", {"prompt": "x", "size": "99999999999999999999x1"})
body(images, "seed_last", {"prompt": "x", "seed": 2**53 - 1, "n": 8})
put(images, "number_huge", b'{"prompt":"x","guidance":1e400}')
body(images, "nul", {"prompt": "a\0b"})
put(images, "not_json", b"\xff\xfe")
body(images, "unknown", {"prompt": "x", "stpes": 3})

edits = "edit_request"
prompt = ("prompt", b"x")
put(edits, "good_form", form(prompt, ("image", picture), ("strength", b"0.5"), ("n", b"2")))
put(edits, "bomb", form(prompt, ("image[]", bomb)))
put(edits, "cut", form(prompt, ("image", picture))[:-30])
put(edits, "no_name", b"--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n--b--\r\n")
put(edits, "mask", form(prompt, ("image", picture), ("mask", picture)))
put(edits, "two", form(prompt, ("image", picture), ("image", picture)))
put(edits, "twice", form(prompt, prompt, ("image", picture)))


def said(content, **fields):
    return {"messages": [{"role": "user", "content": content}], **fields}


chats = "chat_request"
turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Mia has 3 beads."}]
body(chats, "good_turns", {"messages": turns, "max_tokens": 32, "temperature": 0.5, "n": 2, "stop": ["\n"]})
body(chats, "good_parts", said([{"type": "text", "text": "hello"}]))
body(chats, "picture", said([{"type": "image_url", "image_url": {"url": url(picture)}}]))
body(chats, "bomb", said([{"type": "image_url", "image_url": {"url": url(bomb)}}]))
body(chats, "forged", said("a<|eot_id|>b"))
body(chats, "rules", said("x", threshold=0.9, factor=1.0))
body(chats, "blocks", said("x", max_tokens=4096, block_length=1 << 20))

texts = "completion_request"
body(texts, "good_text", {"prompt": "Mia has 3 beads.", "max_tokens": 32})
body(texts, "good_between", {"prompt": "3 + 4 = ", "suffix": "\n", "max_tokens": 4})
body(texts, "mask", {"prompt": "a <|mdm_mask|> b"})
body(texts, "many", {"prompt": ["x"] * 17})
body(texts, "empty", {"prompt": [""]})

masks = "segment_request"
corners = [[1, 1], [7, 1], [7, 7], [1, 7]]
body(masks, "good_box", {"image": url(picture), "box": [1, 1, 7, 7], "mask_format": "polygons"})
body(masks, "good_boxes", {"images": [{"image_url": url(picture)}], "boxes": [[1, 1, 7, 7], {"points": [[2, 2]]}]})
body(masks, "good_words", {"image": url(picture), "words": [{"polygon": corners, "text": "ab"}], "prompt": "cbr"})
body(masks, "good_everything", {"image": url(picture), "everything": True, "points_per_side": 2})
body(masks, "bomb", {"image": url(bomb), "box": [1, 1, 7, 7]})
body(masks, "nothing", {"image": url(picture)})
body(masks, "outside", {"image": url(picture), "point": [1e9, 2]})
body(masks, "odd", {"image": url(picture), "point": [1, 2, 3]})
body(masks, "no_detector", {"image": url(picture), "words": "auto"})
body(masks, "both", {"image": url(picture), "words": [{"polygon": corners}], "box": [1, 1, 7, 7]})
body(masks, "polygon", {"image": url(picture), "words": [{"polygon": [[1, 1], [1e308, -1e308], [3, 3]]}]})

jobs = "job_request"
body(jobs, "good_masks", {"kind": "masks", "request": {"image": url(picture), "box": [1, 1, 7, 7]}})
body(jobs, "good_image", {"kind": "image", "request": {"prompt": "x"}, "channel": "c"})
body(jobs, "good_text", {"kind": "text", "request": said("x")})
body(jobs, "kind", {"kind": "video", "request": {}})
body(jobs, "stream", {"kind": "image", "request": {"prompt": "x", "stream": True}})

files = "batch_file"


def line(url, fields, **more):
    return json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": fields, **more}).encode() + b"\n"


generations, chat = "/v1/images/generations", "/v1/chat/completions"
put(files, "good_prompts", b"\xef\xbb\xbfred heart\r\n\n  blue star  ")
put(files, "good_lines", line(generations, {"prompt": "x", "n": 2}) + line(chat, said("x"), custom_id="b"))
put(files, "good_masks", line("/brisk/v1/segment", {"image": url(picture), "box": [1, 1, 7, 7]}))
put(files, "twice", 2 * line(generations, {"prompt": "x"}))
# Both results would be called eb/a38-0.png.
put(files, "one_file", line(generations, {"prompt": "x", "n": 2}, custom_id="a38")
    + line(generations, {"prompt": "x"}, custom_id="a38-0"))
put(files, "up", line(generations, {"prompt": "x"}, custom_id="../x"))
put(files, "stream", line(generations, {"prompt": "x", "stream": True}))
put(files, "latin", b"caf\xe9\n")

messages = "queue_message"
job = {
    "v": 1, "id": "0123456789abcdef", "class": "batch", "batch": "00ff", "model": "m-01234567", "kind": "image",
    "out": "/out", "items": [{"name": "a", "request": {"prompt": "x", "seed": 7}}],
}
tried = {"crashes": 2, "errors": 1, "handed": 3, "retried": 1}
body(messages, "good_plain", job)
body(messages, "good_tried", {**job, "class": "live", "kind": "text", "deadline": 1, "tries": tried})
body(messages, "many_tries", {**job, "tries": {"crashes": 2**64 - 1, "errors": 1}})
body(messages, "up", {**job, "batch": "../x"})
body(messages, "model", {**job, "model": "a b.>"})
body(messages, "none", {**job, "items": []})
body(messages, "version", {**job, "v": 2})
