"""OpenAI's Python client against a server: only the address is another.

    python journey.py http://127.0.0.1:8420 path/to/brisk
"""

import base64
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import openai
from openai import OpenAI

address, brisk = sys.argv[1], sys.argv[2]
# Seconds in which a stream says nothing; a sign of life comes every ten.
SILENCE = float(os.environ.get("SILENCE", "15"))
client = OpenAI(base_url=f"{address}/v1", api_key="x")
QUESTION = (
    "Mia has 34 beads. Monday: finds 7 more. Tuesday: gives 5 to Tom. Wednesday: doubles the number. "
    "Thursday: loses 8. Friday: buys 3 bags of 6. Saturday: sells 9. How many beads does Mia have now?"
)
MESSAGES = [{"role": "user", "content": QUESTION}]


def command_line(*arguments: str) -> bytes:
    return subprocess.run([brisk, *arguments], check=True, capture_output=True).stdout


def picture(entry) -> bytes:
    return base64.b64decode(entry.b64_json)


def test_pictures_are_the_command_lines():
    drawn = client.images.generate(prompt="red heart", size="128x128", extra_body={"seed": 7, "steps": 4})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "heart.png")
        command_line("image", "red heart", "--width", "128", "--height", "128", "--seed", "7", "--steps", "4",
                     "-o", str(file))
        assert picture(drawn.data[0]) == file.read_bytes()
    assert drawn.usage.output_tokens == 64 and drawn.usage.input_tokens > 0
    both = client.images.generate(prompt="red heart", n=2, extra_body={"seed": 6, "steps": 4})
    assert picture(both.data[1]) == picture(drawn.data[0])


def test_an_edit_starts_from_its_picture():
    drawn = client.images.generate(prompt="red heart", extra_body={"seed": 7, "steps": 4})
    file = io.BytesIO(picture(drawn.data[0]))
    file.name = "heart.png"
    edited = client.images.edit(image=file, prompt="green heart",
                                extra_body={"strength": 0.7, "seed": 1, "steps": 4})
    assert picture(edited.data[0])[:4] == b"\x89PNG" and picture(edited.data[0]) != picture(drawn.data[0])


def test_a_picture_streams():
    events = list(client.images.generate(prompt="red heart", stream=True, partial_images=2,
                                         extra_body={"seed": 7, "steps": 8}))
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], kinds
    assert picture(events[-1])[:4] == b"\x89PNG"


def test_texts_are_the_command_lines_and_deltas_join():
    answer = client.chat.completions.create(model="llada-arithmetic", messages=MESSAGES, max_tokens=128, seed=0)
    text = answer.choices[0].message.content
    told = command_line("text", "--model", "llada-arithmetic", "--gen-length", "128", QUESTION).decode()
    assert text.strip() == told.strip(), (text, told)
    deltas = client.chat.completions.create(model="llada-arithmetic", messages=MESSAGES, max_tokens=128, seed=0,
                                            stream=True, stream_options={"include_usage": True})
    deltas = list(deltas)
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in deltas if chunk.choices)
    assert joined == text and deltas[-1].usage == answer.usage
    completion = client.completions.create(model="llada-arithmetic", prompt="Mia has 3 beads.", max_tokens=32, seed=0)
    assert completion.choices[0].text


def test_errors_are_the_clients_exceptions():
    def refused(kind, call):
        try:
            call()
        except kind as error:
            return error
        raise AssertionError(f"expected {kind.__name__}")

    error = refused(openai.BadRequestError,
                    lambda: client.images.generate(prompt="x", extra_body={"stpes": 3}))
    assert (error.code, error.param) == ("unknown_field", "stpes") and "steps" in str(error)
    error = refused(openai.NotFoundError, lambda: client.images.generate(prompt="x", model="nothing"))
    assert error.code == "model_not_found"
    error = refused(openai.BadRequestError, lambda: client.images.generate(prompt="x", quality="hd"))
    assert error.code == "unsupported_option"
    error = refused(openai.NotFoundError, lambda: client.models.retrieve("nothing"))
    assert error.code == "model_not_found"
    assert "sana-emoji" in [model.id for model in client.models.list()]


def test_a_silent_stream_stays_open():
    """A stream behind a long job hears nothing but signs of life for a while."""
    request = {"prompt": "cat", "n": 8, "size": "768x768", "steps": 100, "seed": 1}
    job = client.post("/../brisk/v1/jobs", body={"kind": "image", "request": request}, cast_to=object)
    end = threading.Timer(SILENCE, lambda: client.post(f"/..{job['links']['cancel']}", body={}, cast_to=object))
    end.start()
    began = time.monotonic()
    events = list(client.images.generate(prompt="red heart", stream=True, extra_body={"seed": 7, "steps": 2}))
    waited = time.monotonic() - began
    end.join()
    print(f"  the stream waited {waited:.0f} s")
    assert [event.type for event in events] == ["image_generation.completed"]
    assert waited > SILENCE - 5, waited


if __name__ == "__main__":
    tests = [(name, test) for name, test in list(globals().items()) if name.startswith("test_")]
    for name, test in tests:
        began = time.monotonic()
        test()
        print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(tests)} passed, 0 failed")
