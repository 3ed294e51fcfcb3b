"""Loads `brisk serve` with clients of pictures and chats whose every reply is known beforehand.

    python bench/serve_load.py target/release/brisk --seconds 600 --clients 64

The replies are made by the command line first, one process a picture, and each prompt and seed is asked for by
one client at a time. Ends with 1 where a reply was lost, mixed up or another; prints a table of what was measured.
Needs nothing but Python; the server is on this machine and ends with the run.
"""

import argparse
import base64
import hashlib
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PICTURES = ["red heart", "sun", "pizza", "cat face", "green apple", "hot dog", "rocket", "house with garden"]
STEPS = 4
LENGTH = 128


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("brisk", help="the binary")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def question(number):
    beads, found, given = 20 + number % 70, 2 + number % 7, 3 + number // 7 % 5
    return (f"Mia has {beads} beads. Monday: finds {found} more. Tuesday: gives {given} to Tom. "
            f"Wednesday: doubles the number. How many beads does Mia have now?")


def known_picture(brisk, folder, prompt, seed):
    file = Path(folder, f"{seed}.png")
    command = [brisk, "image", prompt, "--seed", str(seed), "--steps", str(STEPS), "-o", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def known_texts(brisk, questions):
    command = [brisk, "text", "--json", "--gen-length", str(LENGTH), *questions]
    began = time.monotonic()
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [answer["text"] for answer in told["answers"]], time.monotonic() - began, told


class Server:
    def __init__(self, brisk):
        command = [brisk, "serve", "--listen", "127.0.0.1:0", "--requests-per-minute", "1000000", "--max-jobs", "256",
                   "--max-jobs-per-caller", "256"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def memory(self):
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024


def post(connection, path, body):
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse()


class Client(threading.Thread):
    """One that draws, or one that chats, by streams every other time."""

    def __init__(self, server, number, jobs, until):
        super().__init__()
        self.server, self.number, self.jobs, self.until = server, number, jobs, until
        self.seconds, self.queued, self.first, self.wrong = [], [], [], []

    def run(self):
        connection = self.server.connect()
        turn = 0
        while time.monotonic() < self.until:
            kind, asked, known = self.jobs[turn % len(self.jobs)]
            began = time.monotonic()
            try:
                found = (self.draw if kind == "picture" else self.chat)(connection, asked, turn % 2 == 1)
            except Exception as error:  # noqa: BLE001: a lost reply is what is counted here
                found = f"{type(error).__name__}: {error}"
                connection = self.server.connect()
            self.seconds.append(time.monotonic() - began)
            if found != known:
                self.wrong.append((asked, known, found))
            turn += 1

    def draw(self, connection, asked, _stream):
        prompt, seed = asked
        response = post(connection, "/v1/images/generations", {"prompt": prompt, "seed": seed, "steps": STEPS})
        reply = json.loads(response.read())
        if response.status != 200:
            return reply
        self.queued.append(reply["brisk"]["seconds"]["queue"])
        return hashlib.sha256(base64.b64decode(reply["data"][0]["b64_json"])).hexdigest()

    def chat(self, connection, asked, stream):
        body = {"messages": [{"role": "user", "content": asked}], "max_tokens": LENGTH, "seed": 0, "stream": stream}
        began = time.monotonic()
        response = post(connection, "/v1/chat/completions", body)
        if not stream:
            reply = json.loads(response.read())
            return reply["choices"][0]["message"]["content"] if response.status == 200 else reply
        text, first = "", None
        for line in response:
            if line.startswith(b"data: {"):
                choice = json.loads(line[6:])["choices"][0]
                if choice["delta"].get("content"):
                    first = first or time.monotonic() - began
                    text += choice["delta"]["content"]
        self.first.append(first or 0.0)
        return text


class Watch(threading.Thread):
    """Asks /health all the time, and looks at the memory."""

    def __init__(self, server, until):
        super().__init__()
        self.server, self.until = server, until
        self.seconds, self.memory = [], []

    def run(self):
        connection = self.server.connect()
        start = time.monotonic()
        while time.monotonic() < self.until:
            began = time.monotonic()
            connection.request("GET", "/health")
            connection.getresponse().read()
            self.seconds.append(time.monotonic() - began)
            self.memory.append((time.monotonic() - start, self.server.memory()))
            time.sleep(0.05)


def share(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def alone(server, pictures):
    """Seconds that the server adds to a picture, and the seconds of its stages, one picture at a time."""
    connection = server.connect()
    added, stages = [], []
    for prompt, seed in [*pictures, *pictures]:
        began = time.monotonic()
        response = post(connection, "/v1/images/generations", {"prompt": prompt, "seed": seed, "steps": STEPS})
        reply = json.loads(response.read())
        took = sum(reply["brisk"]["seconds"]["stages"].values())
        stages.append(took)
        added.append(time.monotonic() - began - took)
    return statistics.median(added), statistics.median(stages)


def chats(server, questions):
    """Seconds of all questions by a client each, begun together."""
    def ask(text):
        connection = server.connect()
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": LENGTH, "seed": 0}
        post(connection, "/v1/chat/completions", body).read()
    threads = [threading.Thread(target=ask, args=(text,)) for text in questions]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - began


def main():
    asked = arguments()
    half = asked.clients // 2
    draws = [(PICTURES[number % len(PICTURES)], 1000 + number) for number in range(2 * half)]
    questions = [question(number) for number in range(2 * half)]
    with tempfile.TemporaryDirectory() as folder:
        print(f"{len(draws)} pictures and {len(questions)} texts by the command line", file=sys.stderr)
        pictures = [known_picture(asked.brisk, folder, *draw) for draw in draws]
        texts, _, _ = known_texts(asked.brisk, questions)
    server = Server(asked.brisk)
    try:
        added, stages = alone(server, draws[:8])
        # The closed batch is the server's own: one request of eight prompts.
        chats(server, questions[:8])
        together = min(chats(server, questions[:8]) for _ in range(5))
        until = time.monotonic() + asked.seconds
        clients = []
        for number in range(half):
            own = [("picture", draws[at], pictures[at]) for at in (2 * number, 2 * number + 1)]
            clients.append(Client(server, number, own, until))
            own = [("chat", questions[at], texts[at]) for at in (2 * number, 2 * number + 1)]
            clients.append(Client(server, number, own, until))
        watch = Watch(server, until)
        for thread in [*clients, watch]:
            thread.start()
        for thread in [*clients, watch]:
            thread.join()
        metrics = server.connect()
        metrics.request("GET", "/metrics")
        metrics = metrics.getresponse().read().decode()
    finally:
        server.process.terminate()
        server.process.wait()
    rows = [float(re.search(rf"brisk_batch_rows_{name} (\S+)", metrics)[1]) for name in ("sum", "count")]
    drawing, chatting = clients[0::2], clients[1::2]
    every = lambda clients, what: [value for client in clients for value in getattr(client, what)]
    early = [bytes for when, bytes in watch.memory if when >= min(120, asked.seconds / 2)]
    wrong = every(clients, "wrong")
    figures = {
        "seconds": asked.seconds, "clients": len(clients),
        "pictures": len(every(drawing, "seconds")), "texts": len(every(chatting, "seconds")), "wrong": len(wrong),
        "picture_seconds_p50_p95": [share(every(drawing, "seconds"), part) for part in (0.5, 0.95)],
        "picture_queue_seconds_p50_p95": [share(every(drawing, "queued"), part) for part in (0.5, 0.95)],
        "text_seconds_p50_p95": [share(every(chatting, "seconds"), part) for part in (0.5, 0.95)],
        "first_text_seconds_p50_p95": [share(every(chatting, "first"), part) for part in (0.5, 0.95)],
        "sequences_a_pass": rows[0] / rows[1],
        "health_seconds_p50_p99": [share(watch.seconds, part) for part in (0.5, 0.99)],
        "memory_mib_early_and_end": [early[0] / 2**20, watch.memory[-1][1] / 2**20],
        "alone_seconds_of_stages_and_added": [stages, added],
        "eight_chats_seconds": together,
    }
    if asked.json:
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            shown = value if isinstance(value, list) else [value]
            print(f"{name:36} " + "  ".join(f"{number:.4g}" for number in shown))
    for request, known, found in wrong[:5]:
        print(f"{request}: expected {known}, found {found}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
