"""A folder of pictures whose run is killed at random times ends with the files of an undisturbed run.

    python bench/killed.py --pictures 200 --kills 3

Pictures of words are drawn with their outlines; `brisk masks` looks for the characters of all of them, once undisturbed
and once killed (SIGKILL) and called again as often as asked for, at random moments of the time that the first run took.
Every file of both folders is compared, byte by byte.
"""

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from PIL import Image, ImageDraw, ImageFont

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORDS = "street market hotel coffee open closed garden station bakery music books pizza grill exit museum river".split()


def draw(folder, count):
    """Pictures, and a line of JSON about each."""
    fonts = sorted((ROOT / "crates/media/fonts").glob("*.ttf"))
    rng = random.Random(0)
    pictures = folder / "pictures"
    pictures.mkdir()
    with open(folder / "words.jsonl", "w") as lines:
        for number in range(count):
            picture = Image.new("RGB", (320, 200), tuple(rng.randrange(140, 256) for _ in range(3)))
            pen, words = ImageDraw.Draw(picture), []
            for row in range(rng.randrange(1, 3)):
                font = ImageFont.truetype(str(rng.choice(fonts)), rng.randrange(28, 56))
                place, text = (rng.randrange(8, 60), 16 + 90 * row), rng.choice(WORDS)
                pen.text(place, text, font=font, fill=tuple(rng.randrange(0, 90) for _ in range(3)))
                words.append({"box": list(pen.textbbox(place, text, font=font)), "text": text})
            name = f"{number:04}.png"
            picture.save(pictures / name)
            print(json.dumps({"picture": name, "words": words}), file=lines)
    return pictures


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; another one each time by default")
    parser.add_argument("--model", default="sam-text")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--brisk", default=str(ROOT / "target/release/brisk"), help="the binary")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="brisk-killed-") as folder:
        folder = pathlib.Path(folder)
        pictures = draw(folder, arguments.pictures)

        command = [
            str(pathlib.Path(arguments.brisk).resolve()), "masks", str(pictures), "--model", arguments.model,
            "--words", str(folder / "words.jsonl"), "--parallel", str(arguments.parallel), "-o", "out",
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # Summaries name their folder: both are called the same, in places of their own.
        whole_place, killed_place = folder / "whole", folder / "killed"
        whole_place.mkdir()
        killed_place.mkdir()
        started = time.monotonic()
        subprocess.run(command, check=True, cwd=whole_place, **quiet)
        whole = time.monotonic() - started
        rng = random.Random(arguments.seed)
        moments = sorted(rng.uniform(0.05, 0.95) * whole for _ in range(arguments.kills))
        spent = 0.0
        for moment in moments:
            run = subprocess.Popen(command, cwd=killed_place, **quiet)
            try:
                run.wait(max(moment - spent, 0.1))
                print(f"over before it could be killed after {moment - spent:.1f} s")
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
            spent = moment
            done = len(list((killed_place / "out").glob("*/summary.json")))
            print(f"killed after {moment:.1f} of {whole:.1f} s, {done} of {arguments.pictures} pictures done")
        subprocess.run(command, check=True, cwd=killed_place, **quiet)
        one, other = files(whole_place), files(killed_place)
        different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        print(f"{len(one)} files, {len(other)} after {arguments.kills} kills, {len(different)} of them different")
        for name in different[:10]:
            print(f"  {name}")
        sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
