"""Peak memory of brisk's commands at every level of instructions that this processor has.

    python bench/memory.py                 print the table of BENCHMARKS.md, "Peak memory"
    python bench/memory.py --check         and fail where a command takes more than that table says
    python bench/memory.py --list          the commands alone

A release runs it with --check. Peak memory is the resident set as the kernel reports it for a process
that has ended; pages of mapped weight files count. It needs Python alone, and a release build of brisk.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEVELS = ("avx2", "avx512", "amx")
# What one run differs from another by.
TOLERANCE = 1.08
SANA = "--random bench/configs/sana-0.6b --runs 1 --warm-up 0"
SPRINT = "--random bench/configs/sana-sprint-0.6b --runs 1 --warm-up 0"
BOX = "--size 2048 --no-binning --steps 2 --seed 1"

# Name in the table, command line after `brisk`; those marked take minutes.
CASES = [
    ("model in the box, 2048², in strips", f"image red-heart {BOX} --decode strips -o OUT/strips.png", False),
    ("model in the box, 2048², whole", f"image red-heart {BOX} --decode whole -o OUT/whole.png", False),
    ("DC-AE decode, 512²", f"bench vae.decode {SANA} --size 512", False),
    ("DC-AE encode, 512²", f"bench vae.encode {SANA} --size 512", False),
    ("DC-AE decode, 1024², whole", f"bench vae.decode {SANA} --size 1024", False),
    ("DC-AE decode, 1024², strips of 128 rows", f"bench vae.decode {SANA} --size 1024 --strip-rows 128", False),
    ("DC-AE decode, 4096², strips of 64 rows", f"bench vae.decode {SANA} --size 4096 --strip-rows 64", True),
    ("SANA-0.6B step, 1024 px", f"bench transformer {SANA} --size 1024", False),
    ("SANA-0.6B step, 1024 px, int4", f"bench transformer {SANA} --size 1024 --storage int4", False),
    ("Gemma-2-2B, 300 tokens", f"bench text_encoder {SANA} --tokens 300", False),
    ("Sprint-0.6B, prompt to PNG, 512², 2 steps", f"bench image {SPRINT} --size 512 --steps 2", False),
    ("Sprint-0.6B, prompt to PNG, 1024², 2 steps", f"bench image {SPRINT} --size 1024 --steps 2", True),
    (
        "the same, int4 transformer, 4-bit text encoder",
        f"bench image {SPRINT} --size 1024 --steps 2 --storage int4 --quantize-text-encoder 4bit",
        True,
    ),
    (
        "LLaDA-8B's shape in 4 bits, 32 tokens",
        "bench text --random bench/configs/llada-8b --quantize 4bit --prompt-tokens 16 --gen-length 32 "
        "--steps 2 --runs 1 --warm-up 0",
        True,
    ),
]


def available(brisk):
    """The levels that this processor has: brisk refuses the others."""
    found = []
    for level in LEVELS:
        done = subprocess.run([brisk, "doctor", "--json"], env={**os.environ, "BRISK_SIMD": level}, capture_output=True)
        if done.returncode == 0:
            found.append(level)
    return found


def peak(brisk, command, level, out):
    """Peak resident set in MiB, or the end of what the command said."""
    words = [word.replace("OUT", out).replace("red-heart", "red heart") for word in command.split()]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [brisk, *words], cwd=ROOT, env={**os.environ, "BRISK_SIMD": level}, stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"brisk {command}\nfailed at {level}: {said.read().decode(errors='replace')[-500:]}")
    return usage.ru_maxrss / 1024


def documented():
    """{case: {level: MiB}} of the table in BENCHMARKS.md."""
    text = (ROOT / "BENCHMARKS.md").read_text()
    section = re.search(r"^## Peak memory$(.*?)^## ", text, re.M | re.S)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section[1].splitlines() if line.startswith("|")]
    if not rows:
        raise SystemExit('BENCHMARKS.md has no table under "Peak memory"')
    levels = rows[0][1:]
    return {
        row[0]: {level: float(cell.split()[0].replace(",", "")) for level, cell in zip(levels, row[1:]) if cell}
        for row in rows[2:]
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brisk", default=str(ROOT / "target/release/brisk"), help="the program")
    parser.add_argument("--check", action="store_true", help="fail where more is taken than BENCHMARKS.md says")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--level", choices=LEVELS, action="append", help="only this level (several times: these)")
    parser.add_argument("--list", action="store_true", help="show the commands, run none")
    parser.add_argument("cases", nargs="*", help="only cases whose name contains one of these")
    arguments = parser.parse_args()
    chosen = [
        (name, command)
        for name, command, long in CASES
        if not (long and arguments.quick)
        and (not arguments.cases or any(part in name for part in arguments.cases))
    ]
    if arguments.list:
        for name, command in chosen:
            print(f"{name}:\n    brisk {command}")
        return
    limits = documented() if arguments.check else {}
    levels = [level for level in available(arguments.brisk) if level in (arguments.level or LEVELS)]
    print("| run | " + " | ".join(levels) + " |\n|---|" + "---|" * len(levels))
    over = []
    with tempfile.TemporaryDirectory() as out:
        for name, command in chosen:
            cells = []
            for level in levels:
                found = peak(arguments.brisk, command, level, out)
                cells.append(f"{found:,.0f}")
                # A level that was not measured is held to the first.
                limit = limits.get(name, {})
                limit = limit.get(level) or next(iter(limit.values()), None)
                if limit and found > limit * TOLERANCE:
                    over.append(f"{name} at {level}: {found:,.0f} MiB, BENCHMARKS.md says {limit:,.0f}")
                elif arguments.check and limit is None:
                    over.append(f"{name}: not in the table of BENCHMARKS.md")
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if over:
        sys.exit("\n".join(over))


if __name__ == "__main__":
    main()
