#!/usr/bin/env python3
"""Faults and throughput of a fleet: a real nats-server, real workers, kill -9.

    python3 bench/fleet.py faults --brisk target/release/brisk --model fixtures/pipelines/sprint
    python3 bench/fleet.py throughput --brisk target/release/brisk --model fixtures/pipelines/sprint

`faults` makes COUNT outputs with WORKERS workers. At random a worker, or the queue, is killed and started again;
one worker is stopped for longer than --ack-wait and goes on; the queue loses all its files once; two submit the
same file; requests that no model takes are among the others. Half way everything is killed and started anew. In the
end there must be exactly the outputs that one machine makes, byte for byte, at most 5 % made twice, and the bad ones
dead with their reasons.

`throughput` measures requests a second of one worker and of two, a core each, and lines a second of submit.

Only Python's standard library is needed, and nats-server (Debian: apt-get install nats-server).
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Fleet:
    def __init__(self, arguments):
        self.arguments = arguments
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="brisk-fleet-", dir=arguments.scratch))
        self.port = free_port()
        self.queue = f"nats://127.0.0.1:{self.port}"
        self.out = self.folder / "out"
        self.server = None
        self.workers = {}
        self.started = 0

    def start_queue(self):
        self.server = subprocess.Popen(
            ["nats-server", "-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.folder / "queue")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            time.sleep(0.02)

    def start_worker(self, core=None):
        number = self.started
        self.started += 1
        command = [self.arguments.brisk, "work", "--queue", self.queue, "--model", self.arguments.model,
                   "--threads", "1", "--ack-wait", str(self.arguments.ack_wait)]
        if core is not None:
            command = ["taskset", "-c", str(core)] + command
        log = open(self.folder / f"worker-{number}.log", "wb")
        process = subprocess.Popen(command, stdout=log, stderr=log)
        self.workers[number] = process
        return number

    def kill_worker(self, number):
        process = self.workers.pop(number)
        process.kill()
        process.wait()

    def kill_queue(self):
        self.server.kill()
        self.server.wait()

    def end(self):
        for number in list(self.workers):
            self.kill_worker(number)
        if self.server:
            self.kill_queue()

    def command(self, *words, **more):
        return subprocess.run([self.arguments.brisk, *words], capture_output=True, text=True, **more)

    def submit(self, file, *more):
        return [self.arguments.brisk, "batch", "submit", str(file), "--out", str(self.out), "--queue", self.queue,
                *more]


def requests(path, count, poison):
    """COUNT good requests, each with its own prompt and seed, and POISON bad ones among them."""
    with open(path, "w") as file:
        for number in range(count):
            body = {"prompt": f"a red ring {number}", "seed": number}
            if number < poison:
                bad = {"prompt": "a red ring", "steps": 1000}
                line = {"custom_id": f"poison{number}", "method": "POST", "url": "/v1/images/generations", "body": bad}
                file.write(json.dumps(line) + "\n")
            line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/images/generations", "body": body}
            file.write(json.dumps(line) + "\n")


def hashes(folder):
    """Results of the only batch of a folder, by path."""
    batches = [path for path in pathlib.Path(folder).iterdir() if path.is_dir()]
    assert len(batches) == 1, batches
    found = {}
    for path in batches[0].glob("*/*"):
        found[str(path.relative_to(batches[0]))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def count_outputs(folder):
    return sum(1 for path in pathlib.Path(folder).glob("*/*/*.png"))


def alone(fleet, file):
    began = time.time()
    run = fleet.command("batch", "run", str(file), "--out", str(fleet.folder / "alone"), "--model",
                        fleet.arguments.model, "--threads", "1")
    print(f"one machine: {time.time() - began:.0f} s: {run.stderr.strip().splitlines()[-1]}")
    return hashes(fleet.folder / "alone")


def records(fleet):
    report = next(fleet.out.glob("*/results.jsonl"))
    return [json.loads(line) for line in report.read_text().splitlines()]


def faults(fleet):
    arguments = fleet.arguments
    random.seed(arguments.seed)
    file = fleet.folder / "requests.jsonl"
    requests(file, arguments.count, poison=3)
    expected = alone(fleet, file)
    assert len(expected) == arguments.count, len(expected)
    fleet.start_queue()
    for _ in range(arguments.workers):
        fleet.start_worker()
    began = time.time()
    # Two submit one file at the same time; both wait.
    submitters = [subprocess.Popen(fleet.submit(file, "--wait"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True) for _ in range(2)]
    kills = {"worker": 0, "queue": 0, "wiped": 0, "stopped": 0, "all": 0}
    next_kill = began + arguments.every
    stopped = None
    while any(submitter.poll() is None for submitter in submitters):
        time.sleep(0.2)
        now = time.time()
        there = count_outputs(fleet.out) if fleet.out.exists() else 0
        if now - began > arguments.patience:
            raise SystemExit(f"FAILED: {there} of {arguments.count} after {arguments.patience} s; see {fleet.folder}")
        if stopped and now > stopped[1]:
            os.kill(fleet.workers[stopped[0]].pid, signal.SIGCONT)
            stopped = None
        if now < next_kill or there >= arguments.count:
            continue
        next_kill = now + arguments.every * random.uniform(0.5, 1.5)
        progress = there / arguments.count
        if progress > 0.5 and kills["all"] == 0:
            kills["all"] += 1
            print(f"{now - began:5.0f} s, {there} there: everything is killed")
            for submitter in submitters:
                submitter.kill()
            fleet.end()
            stopped = None
            time.sleep(1)
            fleet.start_queue()
            for _ in range(arguments.workers):
                fleet.start_worker()
            submitters = [subprocess.Popen(fleet.submit(file, "--wait"), stdout=subprocess.DEVNULL,
                                           stderr=subprocess.PIPE, text=True) for _ in range(2)]
        elif progress > 0.7 and kills["wiped"] == 0:
            kills["wiped"] += 1
            print(f"{now - began:5.0f} s, {there} there: the queue loses everything")
            fleet.kill_queue()
            shutil.rmtree(fleet.folder / "queue")
            fleet.start_queue()
        elif kills["stopped"] == 0 and kills["worker"] > 1:
            kills["stopped"] += 1
            number = random.choice(list(fleet.workers))
            print(f"{now - began:5.0f} s, {there} there: worker {number} is stopped for {1.5 * arguments.ack_wait:.0f} s")
            os.kill(fleet.workers[number].pid, signal.SIGSTOP)
            stopped = (number, now + 1.5 * arguments.ack_wait)
        elif random.random() < 0.2:
            kills["queue"] += 1
            print(f"{now - began:5.0f} s, {there} there: the queue is killed")
            fleet.kill_queue()
            time.sleep(1)
            fleet.start_queue()
        else:
            number = random.choice([number for number in fleet.workers if not stopped or number != stopped[0]])
            kills["worker"] += 1
            fleet.kill_worker(number)
            fleet.start_worker()
    took = time.time() - began
    # What the queue knew of the dead was lost with it: submitted again, they die again, and nothing else is made.
    again = subprocess.run(fleet.submit(file, "--wait"), capture_output=True, text=True)
    # Nothing was lost, nothing is too much, and every byte is one machine's.
    made = hashes(fleet.out)
    missing = sorted(set(expected) - set(made))
    extra = sorted(set(made) - set(expected))
    differing = sorted(name for name in set(made) & set(expected) if made[name] != expected[name])
    left = [str(path) for path in fleet.out.rglob(".*") if path.is_file()]
    # Every picture that was drawn to its end is a line in a worker's log.
    done = sum(path.read_bytes().count(b'outcome="done"') for path in fleet.folder.glob("worker-*.log"))
    redone = done - len(made)
    dead = fleet.command("batch", "dead", "--queue", fleet.queue, "--json")
    poison = {name for one in json.loads(dead.stdout)["dead"] for name in one["requests"]}
    report = records(fleet)
    failed = {line["custom_id"]: line.get("error", {}).get("param") for line in report if line["status"] != "done"}
    print(f"{took:.0f} s with {arguments.workers} workers; kills: {kills}")
    print(f"{len(made)} outputs, {len(missing)} missing, {len(extra)} extra, {len(differing)} differing, "
          f"{len(left)} temporary files; {redone} made twice ({100 * redone / len(made):.2f} %)")
    print(f"dead: {sorted(poison)}; failed: {failed}; codes of submitters: {[one.returncode for one in submitters]}, "
          f"once more {again.returncode}")
    bad = {f"poison{number}" for number in range(3)}
    held = (not missing and not extra and not differing and redone <= 0.05 * len(made)
            and bad <= poison and set(failed) == bad and set(failed.values()) == {"steps"}
            and all(one.returncode == 1 for one in [*submitters, again]))
    print("HOLDS" if held else f"FAILED; see {fleet.folder}")
    return held


def throughput(fleet):
    arguments = fleet.arguments
    rates = {}
    for workers in (1, 2):
        fleet.start_queue()
        for core in range(workers):
            fleet.start_worker(core)
        file = fleet.folder / f"requests-{workers}.jsonl"
        # A file of its own each time, so that nothing is there already.
        requests(file, arguments.count + workers, poison=0)
        time.sleep(3)
        began = time.time()
        done = subprocess.run(fleet.submit(file, "--wait"), capture_output=True, text=True)
        took = time.time() - began
        assert done.returncode == 0, done.stderr
        rates[workers] = (arguments.count + workers) / took
        print(f"{workers} worker(s), a core each: {rates[workers]:.2f} requests a second, {took:.1f} s")
        fleet.end()
    print(f"two are {rates[2] / rates[1]:.2f} times one")
    fleet.start_queue()
    fleet.start_worker()
    time.sleep(3)
    for worker in fleet.workers.values():
        os.kill(worker.pid, signal.SIGSTOP)
    file = fleet.folder / "many.jsonl"
    requests(file, arguments.lines, poison=0)
    began = time.time()
    done = subprocess.run(fleet.submit(file), capture_output=True, text=True)
    took = time.time() - began
    assert done.returncode == 0, done.stderr
    print(f"submit: {arguments.lines} lines in {took:.2f} s, {arguments.lines / took:.0f} a second, the start "
          f"of the process and the check of every line with it")
    for worker in fleet.workers.values():
        os.kill(worker.pid, signal.SIGCONT)
    return rates[2] >= 1.9 * rates[1] and arguments.lines / took >= 5000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["faults", "throughput"])
    parser.add_argument("--brisk", default="target/release/brisk")
    parser.add_argument("--model", default="fixtures/pipelines/sprint")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--lines", type=int, default=50000, help="lines that submit is timed with")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--every", type=float, default=20, help="mean seconds between two kills")
    parser.add_argument("--ack-wait", type=int, default=60)
    parser.add_argument("--patience", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", default=None, help="folder for everything that is written")
    arguments = parser.parse_args()
    arguments.brisk = os.path.abspath(arguments.brisk)
    if os.path.exists(arguments.model):
        arguments.model = os.path.abspath(arguments.model)
    fleet = Fleet(arguments)
    try:
        held = {"faults": faults, "throughput": throughput}[arguments.what](fleet)
    finally:
        fleet.end()
    if held:
        shutil.rmtree(fleet.folder)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
