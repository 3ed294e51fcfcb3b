#!/usr/bin/env python3
"""Sends `brisk serve` small files that are, or claim to be, large pictures, and watches its resident memory.

    python bench/serve_bombs.py target/release/brisk

Each goes to an edit, a chat and a search for masks, one after another, then eight edits and eight searches of the
largest picture that is taken come at once. Prints the most that was resident during each, in megabytes (10^6 bytes):
of the process's own memory, and with the pages of its file (the models in the box), which the system can drop at any
time. Ends with 1 where the first is more than --most, or where something else than a result or a refusal of the
request came back.
Needs nothing but Python.
"""

import argparse
import base64
import json
import re
import struct
import sys
import threading
import time
import zlib
from pathlib import Path

from serve_load import Server, post

SIDE = 4096
GREY, COLOUR, ALPHA = (0, 1), (2, 3), (6, 4)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data=None, extra=b"", depth=8, colours=ALPHA):
    """A PNG of black pixels, or of the compressed data that is given."""
    kind, channels = colours
    if data is None:
        packed = zlib.compressobj(9)
        row = bytes(1 + width * channels * depth // 8)
        data = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def bombs():
    unfolding = b"a\0\0" + zlib.compress(bytes(200_000_000), 9)
    return {
        "60000x60000 claimed": png(60_000, 60_000, zlib.compress(bytes(1000))),
        "4095x4097": png(SIDE - 1, SIDE + 1),
        "4096x4096": png(SIDE, SIDE),
        "4096x4096, 16 bits": png(SIDE, SIDE, depth=16),
        "4096x4096, grey": png(SIDE, SIDE, colours=GREY),
        "4097x4097": png(SIDE + 1, SIDE + 1, colours=COLOUR),
        "200 MB of text": png(64, 64, extra=chunk(b"zTXt", unfolding)),
        "200 MB of profile": png(64, 64, extra=chunk(b"iCCP", unfolding)),
        "1 GB of rows for 8x8": png(8, 8, zlib.compress(bytes(1_000_000_000), 9)),
    }


def edit(url):
    return "/v1/images/edits", {"prompt": "x", "image": url, "steps": 1, "size": "64x64", "strength": 0.1}


def chat(url):
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}


def masks(url):
    return "/brisk/v1/segment", {"image": url, "box": [1, 1, 5, 5]}


class Memory(threading.Thread):
    """The most that was resident since it was last asked, in MB: its own, and with its file's pages."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.status, self.most = Path(f"/proc/{server.process.pid}/status"), (0.0, 0.0)

    def run(self):
        while True:
            try:
                text = self.status.read_text()
                own, all_of_it = (int(re.search(name + r":\s+(\d+)", text)[1]) * 1024 / 1e6
                                  for name in ("RssAnon", "VmRSS"))
            except (OSError, TypeError):
                return
            self.most = max(self.most[0], own), max(self.most[1], all_of_it)
            time.sleep(0.002)

    def take(self):
        most, self.most = self.most, (0.0, 0.0)
        return most


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("brisk", help="the binary")
    parser.add_argument("--most", type=float, default=300, help="MB of its own that may be resident")
    asked = parser.parse_args()
    server = Server(asked.brisk)
    memory = Memory(server)
    memory.start()
    held = True

    def send(ask, url, codes):
        path, body = ask(url)
        response = post(server.connect(), path, body)
        response.read()
        codes.append(response.status)

    def tell(what, codes):
        nonlocal held
        most, whole = memory.take()
        held &= most <= asked.most and all(code in (200, 400) for code in codes)
        print(f"{what:44} {sorted(codes)}  {most:4.0f} MB, {whole:4.0f} with its file", flush=True)

    try:
        time.sleep(0.2)
        print("at the start {:.0f} MB, {:.0f} with its file".format(*memory.take()))
        for name, file in bombs().items():
            url = "data:image/png;base64," + base64.b64encode(file).decode()
            for ask in (edit, chat, masks):
                codes = []
                for _ in range(2):
                    send(ask, url, codes)
                tell(f"{name}: {ask.__name__}, twice", codes)
        url = "data:image/png;base64," + base64.b64encode(bombs()["4096x4096"]).decode()
        for ask in (edit, masks):
            codes = []
            threads = [threading.Thread(target=send, args=(ask, url, codes)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            tell(f"eight at once: {ask.__name__}", codes)
    finally:
        server.process.terminate()
        server.process.wait()
    print("HOLDS" if held else f"FAILED: more than {asked.most:.0f} MB, or another answer")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
