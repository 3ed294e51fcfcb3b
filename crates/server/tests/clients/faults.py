"""What goes wrong around a server: slow and lost clients, ends, full disks, wrong keys and names.

    python faults.py path/to/brisk
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

brisk = sys.argv[1]
KEY = "a-key-of-this-test-0123456789abcdef"
# Takes longer than any test.
LONG = {"prompt": "cat", "steps": 100, "n": 8, "seed": 1, "size": "768x768"}
# How long anything may take on a machine that does much else.
PATIENCE = 60.0


class Server:
    def __init__(self, *arguments: str, **more):
        command = [brisk, "serve", "--listen", "127.0.0.1:0", "--requests-per-minute", "100000", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **more)
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def ask(self, method: str, path: str, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5 * PATIENCE)
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        data = response.read()
        is_json = "json" in response.headers.get("content-type", "")
        return response.status, json.loads(data) if is_json else data

    def draw(self, **fields):
        return self.ask("POST", "/v1/images/generations", {"prompt": "red heart", "steps": 2, "seed": 7, **fields})

    def send(self, path: str, body) -> socket.socket:
        """Asks and leaves the reply unread."""
        text = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        held = socket.create_connection(("127.0.0.1", self.port))
        held.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        return held

    def until(self, running: int, queued: int) -> float:
        """Seconds until so many jobs run and wait."""
        began = time.monotonic()
        while True:
            status = self.ask("GET", "/brisk/v1/status")[1]
            if (len(status["running"]), status["queued"]) == (running, queued):
                return time.monotonic() - began
            assert time.monotonic() - began < PATIENCE, status
            time.sleep(0.01)

    def idle(self) -> float:
        return self.until(running=0, queued=0)

    def end(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def test_clients_that_go_away_stop_their_jobs():
    worst = 0.0
    with Server() as server:
        server.draw()
        for body in [LONG, {**LONG, "stream": True, "partial_images": 3}]:
            for delay in [0.02, 0.2, 0.5, 1.0]:
                held = server.send("/v1/images/generations", body)
                time.sleep(delay)
                held.close()
                worst = max(worst, server.idle())
        # Those that wait leave the queue, too.
        first = server.send("/v1/images/generations", LONG)
        server.until(running=1, queued=0)
        waiting = [server.send("/v1/images/generations", LONG) for _ in range(3)]
        server.until(running=1, queued=3)
        for held in [*waiting, first]:
            held.close()
        worst = max(worst, server.idle())
        assert server.draw()[0] == 200
    assert worst < 1.0, worst
    return f"at most {worst:.2f} s"


def test_a_reader_of_a_byte_a_second_holds_up_nobody():
    with Server() as server:
        server.draw()
        slow = server.send("/v1/images/generations", {**LONG, "size": "128x128", "steps": 8, "stream": True, "partial_images": 3})
        began = time.monotonic()
        for _ in range(3):
            slow.recv(1)
            assert server.draw()[0] == 200
            time.sleep(1)
        slow.close()
        return f"three pictures in {time.monotonic() - began:.1f} s"


def test_silent_connections_end():
    with Server() as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        silent[0].sendall(b"GET /health HTTP/1.1\r\nHost: local")
        assert server.ask("GET", "/health")[0] == 200
        silent[0].settimeout(PATIENCE)
        while silent[0].recv(4096):
            pass


def test_sigterm_lets_what_runs_end():
    with Server("--grace", "600") as server:
        results = []
        ask = lambda **fields: results.append(server.draw(**fields))
        running = threading.Thread(target=ask, kwargs={"size": "256x256", "steps": 60, "n": 4})
        running.start()
        server.until(running=1, queued=0)
        waiting = threading.Thread(target=ask, kwargs={"steps": 50})
        waiting.start()
        server.until(running=1, queued=1)
        server.process.send_signal(signal.SIGTERM)
        waiting.join()
        assert results[0][0] == 503 and results[0][1]["error"]["code"] == "shutting_down", results[0]
        running.join()
        assert results[1][0] == 200 and len(results[1][1]["data"]) == 4
        assert server.process.wait(PATIENCE) == 0


def test_a_second_signal_ends_at_once():
    with Server("--grace", "600") as server:
        held = server.send("/v1/images/generations", LONG)
        server.until(running=1, queued=0)
        server.process.send_signal(signal.SIGTERM)
        while server.ask("GET", "/ready")[0] != 503:
            time.sleep(0.01)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(PATIENCE)
        held.close()


def test_a_kill_leaves_nothing_half_written():
    with tempfile.TemporaryDirectory() as folder:
        for delay in [0.6, 0.8, 1.0]:
            server = Server("--save", folder)
            held = server.send("/v1/images/generations", {**LONG, "size": "128x128", "steps": 1})
            time.sleep(delay)
            server.end()
            held.close()
            for file in Path(folder).iterdir():
                if file.suffix == ".png":
                    assert file.read_bytes()[-8:-4] == b"IEND", file
        kept = len(list(Path(folder).glob("*.png")))
        with Server("--save", folder) as server:
            assert server.draw()[1]["data"][0]["saved"] is True
            assert server.ask("GET", "/brisk/v1/jobs/0123")[0] == 404
            names = sorted(file.name for file in Path(folder).iterdir())
            assert all(name.endswith(".png") for name in names), names
            assert len(names) == kept + 1


def test_a_full_disk_fails_nothing_but_the_saving():
    if os.geteuid() != 0:
        return "needs root to mount a small disk"
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], capture_output=True)
        if mounted.returncode != 0:
            return "a small disk cannot be mounted here"
        try:
            with Server("--save", folder) as server:
                Path(folder, "filler").write_bytes(b"x" * 4096)
                status, reply = server.draw()
                assert status == 200 and reply["data"][0]["saved"] is False, reply["data"][0].keys()
        finally:
            subprocess.run(["umount", folder], check=True)


def test_an_operators_server():
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder, "keys")
        keys.write_text(f"somebody {KEY}\n")
        with Server("--api-key-file", str(keys), "--allow-host", "images.example.org",
                    "--alias", "gpt-image-1=sana-emoji", "--memory", "4GiB") as server:
            secret = {"Authorization": f"Bearer {KEY}"}
            drawing = {"prompt": "a very secret heart", "steps": 1, "model": "gpt-image-1"}
            path = "/v1/images/generations"
            assert server.ask("POST", path, drawing)[0] == 401
            assert server.ask("POST", path, drawing, Authorization="Bearer wrong")[0] == 401
            assert server.ask("POST", path, drawing, **secret)[0] == 200
            assert server.ask("POST", path, drawing, Host="images.example.org", **secret)[0] == 200
            status, refused = server.ask("POST", path, drawing, Host="evil.example.org", **secret)
            assert status == 403 and refused["error"]["code"] == "host_refused"
            status, refused = server.ask("POST", path, drawing, Origin="https://evil.example.org", **secret)
            assert status == 403 and refused["error"]["code"] == "origin_refused"
            assert b"brisk_jobs_total{" in server.ask("GET", "/metrics")[1]
            assert server.ask("GET", "/health")[0] == 200 and server.ask("GET", "/ready")[0] == 200
            log = "".join(server.log)
            assert "secret heart" not in log and KEY not in log and "somebody" in log


if __name__ == "__main__":
    tests = [(name, test) for name, test in list(globals().items()) if name.startswith("test_")]
    for name, test in tests:
        began = time.monotonic()
        told = test()
        print(f"ok {name} ({time.monotonic() - began:.1f} s){f': {told}' if told else ''}", flush=True)
    print(f"{len(tests)} passed, 0 failed")
