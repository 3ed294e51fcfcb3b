"""What `brisk serve` costs over the bare pipeline, on the models in the box.

    python bench/serve_overhead.py target/release/brisk [--rounds 5]

A picture's time, and pictures a second, beside `brisk bench image`, which draws to the bytes of a PNG too; what three
previews take; eight chats that begin together beside a closed batch of eight, `brisk text`. All in turn, so that a
machine that changes its speed does so for both. Where it changes from one picture to the next, what a request takes
outside of its own stages and the PNG says more than a difference of medians. Needs nothing but Python.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import threading
import time

from serve_load import LENGTH, Server, chats, known_texts, question


def bare(brisk, steps, size, runs):
    """Seconds of the pipeline, a picture each, and the median of those that write the PNG."""
    command = [brisk, "bench", "image", "--model", "sana-emoji", "--steps", str(steps), "--size", str(size),
               "--runs", str(runs), "--no-ceilings", "--json"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    png = next(stage for stage in told["stages"] if stage["name"] == "png")
    return told["stages"][0]["seconds"], statistics.median(png["seconds"])


def draw(connection, steps, size, seed):
    """Seconds of the stages of a request."""
    body = {"prompt": "a red heart on a white table", "size": f"{size}x{size}", "steps": steps, "seed": seed,
            "file_metadata": False}
    connection.request("POST", "/v1/images/generations", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    body = reply.read()
    assert reply.status == 200, body
    return sum(json.loads(body)["brisk"]["seconds"]["stages"].values())


def alone(server, steps, size, runs):
    """Seconds of requests, one after another, as the client sees them, and those outside of their stages."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    took, outside = [], []
    for seed in range(runs):
        began = time.monotonic()
        stages = draw(connection, steps, size, seed)
        took.append(time.monotonic() - began)
        outside.append(took[-1] - stages)
    return took, outside


def streamed(server, steps, size, seed, previews):
    """Seconds of a picture that streams, and the previews that came."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    body = {"prompt": "a red heart on a white table", "size": f"{size}x{size}", "steps": steps, "seed": seed,
            "stream": True, "partial_images": previews}
    began = time.monotonic()
    connection.request("POST", "/v1/images/generations", json.dumps(body), {"Content-Type": "application/json"})
    came = sum(line.startswith(b"event: image_generation.partial_image") for line in connection.getresponse())
    return time.monotonic() - began, came


def together(server, steps, size, runs, clients=4):
    """Seconds a picture with several clients."""
    def work():
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        for seed in range(runs):
            draw(connection, steps, size, seed)
    threads = [threading.Thread(target=work) for _ in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.monotonic() - began) / (runs * clients)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("brisk", help="the binary")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    server = Server(asked.brisk)
    try:
        for steps, size, runs in [(20, 128, 20), (20, 512, 2)]:
            alone(server, steps, size, 1)
            rows = []
            for _ in range(asked.rounds):
                own, png = bare(asked.brisk, steps, size, runs)
                own = statistics.median(own)
                # The bare pipeline has run once, too: memory that was handed back meanwhile is taken again.
                alone(server, steps, size, 1)
                took, outside = alone(server, steps, size, runs)
                rows.append((own, statistics.median(took), together(server, steps, size, max(1, runs // 4)),
                             statistics.median(outside) - png))
            added = statistics.median(row[1] - row[0] for row in rows)
            rate = statistics.median(row[0] / row[2] for row in rows)
            own, one, several, outside = (statistics.median(row[at] for row in rows) for at in range(4))
            print(f"{size} px, {steps} steps: pipeline {1000 * own:.1f} ms; a request {1000 * one:.1f} ms "
                  f"({1000 * added:+.1f}), {1000 * outside:.1f} ms outside of its stages and the PNG; "
                  f"with four clients {1000 * several:.1f} ms a picture, {100 * rate:.1f} % of the pipeline's pictures a second")
        for size, count in [(128, 20), (512, 3)]:
            took, came = {0: [], 3: []}, 0
            streamed(server, 20, size, 0, 3)
            for seed in range(asked.rounds * count):
                for previews in [(0, 3), (3, 0)][seed % 2]:
                    seconds, shown = streamed(server, 20, size, seed, previews)
                    took[previews].append(seconds)
                    came = max(came, shown)
            none, three = (statistics.median(took[previews]) for previews in (0, 3))
            print(f"{size} px, 20 steps, streamed: {1000 * none:.1f} ms, with {came} previews {1000 * three:.1f} ms "
                  f"({100 * (three / none - 1):+.1f} %)")
        questions = [question(number) for number in range(8)]
        chats(server, questions)
        closed, opened = [], []
        for _ in range(asked.rounds):
            closed.append(known_texts(asked.brisk, questions)[2]["seconds"])
            opened.append(min(chats(server, questions) for _ in range(3)))
        closed, opened = statistics.median(closed), statistics.median(opened)
        print(f"eight texts of {LENGTH} tokens: a closed batch {closed:.3f} s, eight clients {opened:.3f} s, "
              f"{closed / opened:.2f} of its speed")
    finally:
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main()
