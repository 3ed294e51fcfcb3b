"""What `brisk serve` does beside and within a 1024 px picture of a published shape.

    python bench/serve_published.py target/release/brisk MODEL [--steps 4] [--rounds 2]

MODEL is a folder that draws 1024 px (bench/checkpoints.py writes one with random weights). Measured are the seconds
from a wish to stop, or a connection that closes, to an idle server, in every stage, with the memory that stays; and
the seconds to the first text of a chat, alone and beside the picture. Needs nothing but Python.
"""

import argparse
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

QUESTION = ("Mia has 34 beads. Monday: finds 7 more. Tuesday: gives 5 to Tom. Wednesday: doubles the number. "
            "How many beads does Mia have now?")
# Stages of a request, whether a network is being read, and how long into them a job is stopped.
STAGES = [("text encoder", "loading", [0.05, 0.5]), ("text", "running", [0.0, 0.3]),
          ("transformer", "loading", [0.02, 0.2]), ("denoise", "running", [0.1, 0.9, 2.5]),
          ("decode", "running", [0.1, 2.0, 5.0])]


class Server:
    def __init__(self, brisk, *models):
        command = [brisk, "serve", "--listen", "127.0.0.1:0", "--requests-per-minute", "1000000"]
        for model in models:
            command += ["--model", model]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        reply = json.loads(connection.getresponse().read())
        assert "error" not in reply or reply["error"] is None, reply
        return reply

    def memory(self):
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024

    def running(self):
        return self.ask("GET", "/brisk/v1/status")["running"]

    def idle(self):
        began = time.monotonic()
        while self.running():
            time.sleep(0.002)
        return time.monotonic() - began

    def chat(self):
        """Seconds to the first text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        body = {"model": "llada-arithmetic", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 128,
                "stream": True, "seed": 0}
        began = time.monotonic()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        first = None
        for line in connection.getresponse():
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                first = first or time.monotonic() - began
        return first


def share(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def begin(server, request, way):
    """Begins a picture; gives what stops it. Whichever way, the server tells of the one job that runs."""
    if way == "cancel":
        job = server.ask("POST", "/brisk/v1/jobs", {"kind": "image", "request": request})
        return lambda: server.ask("POST", job["links"]["cancel"], {})
    text = json.dumps(request).encode()
    held = socket.create_connection(("127.0.0.1", server.port))
    head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    held.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
    return held.close


def reached(server, stage):
    """Waits until the job that runs is there; false where it ended before."""
    seen = False
    while True:
        jobs = server.running()
        if any(job["stage"] == stage for job in jobs):
            return True
        if seen and not jobs:
            return False
        seen = seen or bool(jobs)
        time.sleep(0.002)


def stops(brisk, model, request, rounds):
    took, rows = [], []
    for stage, status, delays in STAGES:
        if status == "loading":
            continue
        server = Server(brisk, f"drawer={model}")
        try:
            server.ask("POST", "/v1/images/generations", request)
            time.sleep(1)
            before = server.memory()
            row, after = [], []
            for delay in delays * rounds:
                for way in ["cancel", "disconnect"]:
                    stop = begin(server, request, way)
                    assert reached(server, stage), stage
                    time.sleep(delay)
                    stop()
                    row.append(server.idle())
                    time.sleep(0.5)
                    after.append(server.memory())
            rows.append((stage, status, row, before, max(after)))
            took += row
        finally:
            server.process.kill()
            server.process.wait()
    for stage, status, delays in STAGES:
        if status != "loading":
            continue
        row, before, after = [], 0, 0
        for delay in delays * rounds:
            for way in ["cancel", "disconnect"]:
                server = Server(brisk, f"drawer={model}")
                try:
                    before = max(before, server.memory())
                    stop = begin(server, request, way)
                    assert reached(server, stage), stage
                    time.sleep(delay)
                    stop()
                    row.append(server.idle())
                    time.sleep(0.5)
                    after = max(after, server.memory())
                finally:
                    server.process.kill()
                    server.process.wait()
        rows.append((stage, status, row, before, after))
        took += row
    print(f"{'stage':14} {'':8} {'stops':>5} {'p95':>7} {'most':>7} {'MiB before':>11} {'after':>7}")
    for stage, status, row, before, after in rows:
        print(f"{stage:14} {status:8} {len(row):5} {share(row, 0.95):7.3f} {max(row):7.3f} {before:11.0f} {after:7.0f}")
    print(f"{'all':14} {'':8} {len(took):5} {share(took, 0.95):7.3f} {max(took):7.3f}", flush=True)
    return share(took, 0.95)


def beside(brisk, model, request):
    server = Server(brisk, f"drawer={model}", "llada-arithmetic")
    try:
        server.chat()
        alone = [server.chat() for _ in range(20)]
        done = threading.Event()
        threading.Thread(target=lambda: (server.ask("POST", "/v1/images/generations", request), done.set())).start()
        found = {}
        while not done.is_set():
            stages = [job["stage"] for job in server.running() if job["kind"] == "image"]
            found.setdefault(stages[0] or "between" if stages else "before", []).append(server.chat())
    finally:
        server.process.kill()
        server.process.wait()
    idle = share(alone, 0.5)
    print(f"\nfirst text of a chat alone: median {idle:.3f} s; allowed beside a picture: {2 * idle + 1:.3f} s")
    print(f"{'beside':24} {'chats':>5} {'median':>7} {'p95':>7} {'most':>7}")
    for stage, row in found.items():
        print(f"{stage:24} {len(row):5} {share(row, 0.5):7.3f} {share(row, 0.95):7.3f} {max(row):7.3f}")
    return max(max(row) for row in found.values()) <= 2 * idle + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("brisk", help="the binary")
    parser.add_argument("model", help="a folder that draws 1024 px")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    request = {"model": "drawer", "prompt": "a red heart", "size": "1024x1024", "steps": asked.steps, "seed": 1}
    quiet = beside(asked.brisk, asked.model, request)
    return 0 if stops(asked.brisk, asked.model, request, asked.rounds) <= 1 and quiet else 1


if __name__ == "__main__":
    sys.exit(main())
