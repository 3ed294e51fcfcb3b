"""brisk beside its peers: same inputs, same weights, same threads, in alternating runs.

    python bench/peers.py dcae-decode-512 gemm            # some cases
    python bench/peers.py --all --compile --openvino      # everything
    python bench/peers.py --all --tiny --rounds 1         # does the harness work?

Each round runs every peer once after a warm-up of its own (A B C A B C ...); medians are over all
runs of all rounds. Outputs are compared with PyTorch's by relative L2. A table goes to stdout, and
one line of JSON per case after it.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
# Components of Segment Anything, whose peer is the authors' package.
MASKS = ["image_encoder", "mask_decoder"]
PROMPT = "a red heart on a white table"
# As long as the published instruction: a word-level tokenizer makes about 210 tokens of it.
INSTRUCTION = " ".join(["describe what can be seen in one picture , its light and its colours :"] * 14)
TOLERANCE = 1e-3
# What keeps each library to AVX2 and FMA.
AVX2_ONLY = {
    "BRISK_SIMD": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
}


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    component: str
    config: str | None = None
    size: int = 0
    tokens: int = 0
    prefix: int = 0
    block: int = 0
    # Further runs of brisk with quantized weights.
    quantize: tuple = ()
    # A further run of brisk with made-up weights of 4 bits at the same shapes.
    int4: bool = False
    steps: int = 0
    shape: tuple = ()
    # Prompts of a picture, boxes.
    prompts: int = 0
    # What of a model that draws code by code: sides of HART's scales; VILA-U's layers and the side of its grid.
    scales: tuple = ()
    layers: int = 0
    grid: int = 0
    # Frames of a clip.
    frames: int = 0
    # PyTorch in bfloat16 as well.
    bf16: bool = False
    # Several copies of the weights don't fit in memory: peers run one after the other.
    alone: bool = False

    @property
    def parts(self):
        folders = {"vae.encode": ["vae"], "vae.decode": ["vae"]}
        everything = ["transformer", "vae", "text_encoder"]
        return folders.get(self.component, everything if self.component == "image" else [self.component])

    @property
    def fixture(self):
        others = {"language_model": "language_models/a2d_qwen3_0"} | dict.fromkeys(MASKS, "sam/base")
        if self.frames:
            return "pipelines/hunyuan_video_replace"
        others["generate"] = "hart/base" if self.scales else "vila_u/base"
        return others.get(self.component, "pipelines/sprint")

    def tiny(self):
        """The same work at sizes that only show that the harness works."""
        return dataclasses.replace(
            self,
            config=self.config and str(ROOT / "fixtures" / self.fixture),
            size=self.size and (32 if self.frames else 64),
            frames=self.frames and 5,
            tokens=self.tokens and 12,
            prefix=self.prefix and 5,
            block=self.block and 4,
            prompts=self.prompts and 3,
            shape=self.shape and (16, 24, 8),
            scales=self.scales and (1, 2, 4),
            layers=self.layers and 1,
            grid=self.grid and 2,
        )


CASES = [
    Case("dcae-decode-512", "vae.decode", "sana-0.6b", size=512),
    Case("dcae-encode-512", "vae.encode", "sana-0.6b", size=512),
    Case("sana-0.6b-step-1024", "transformer", "sana-0.6b", size=1024, tokens=300, int4=True),
    Case("sana-1.6b-step-1024", "transformer", "sana-1.6b", size=1024, tokens=300, int4=True),
    Case("gemma2-2b-encode-300", "text_encoder", "sana-0.6b", tokens=300, alone=True),
    Case("gemma2-2b-encode-300-prefix-220", "text_encoder", "sana-0.6b", tokens=300, prefix=220, alone=True),
    Case("qwen3-0.6b-block-32-of-512", "language_model", "qwen3-0.6b-diffusion", tokens=512, block=32, quantize=("8bit", "4bit")),
    Case("sam-vit-b-encode-1024", "image_encoder", "sam-vit-b", alone=True),
    Case("sam-vit-b-100-boxes", "mask_decoder", "sam-vit-b", prompts=100, alone=True),
    Case("sam-vit-h-encode-1024", "image_encoder", "sam-vit-h", alone=True),
    Case("hart-0.7b-to-16x16", "generate", "hart-0.7b-1024px", scales=(1, 2, 3, 4, 5, 7, 9, 12, 16), alone=True),
    Case("hart-0.7b-scale-64x64", "generate", "hart-0.7b-1024px", scales=(1, 64), alone=True),
    Case("vila-u-7b-4-layers", "generate", "vila-u-7b-256", tokens=60, layers=4, grid=6, quantize=("8bit", "4bit"), bf16=True, alone=True),
    Case("vila-u-7b-12-layers", "generate", "vila-u-7b-256", tokens=60, layers=12, grid=6, quantize=("8bit", "4bit"), bf16=True, alone=True),
    Case("hunyuan-video-decode-17x256", "vae.decode", "hunyuan-video-i2v-33ch", size=256, frames=17, alone=True),
    Case("gemm", "gemm", shape=(1024, 1152, 5760)),
    Case("depthwise-5760-32x32", "depthwise", shape=(5760, 32, 32)),
    Case("sprint-0.6b-1024-2-steps", "image", "sana-sprint-0.6b", size=1024, steps=2, int4=True, alone=True),
]


class Failed(Exception):
    """A peer that can't run this case, and why."""


class Python:
    """A worker process that stays, so that loading is not timed."""

    def __init__(self, name, flags, case, files, arguments):
        self.name = name
        command = [sys.executable, str(HERE / "worker.py"), "--component", case.component]
        command += flags + ["--threads", str(arguments.threads), "--inputs", str(files["inputs"])]
        if files["model"]:
            command += ["--model", str(files["model"])]
        if case.component in MASKS:
            command += ["--config", str(files["source"] / "config.json")]
        if case.component == "generate":
            command += ["--hart", arguments.hart, "--vila-u", arguments.vila_u]
        if case.component == "image":
            command += ["--prompt", PROMPT, "--instruction", str(files["instruction"])]
            command += ["--size", str(case.size), "--steps", str(case.steps)]
        self.command = command + ["--prefix", str(case.prefix), "--block", str(case.block)]
        self.output = files["folder"] / f"{name}.{'png' if case.component == 'image' else 'safetensors'}"
        self.log = files["folder"] / f"{name}.log"
        self.environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        self.process = None
        self.peak = 0
        self.tolerance = None if "--bf16" in flags else TOLERANCE

    def ask(self, line):
        if line:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            self.process = None
            last = self.log.read_text().strip().splitlines()[-1:] or ["no message"]
            raise Failed(last[0][:200])
        return json.loads(answer)

    def round(self, runs, warm_up):
        if self.process is None:
            with open(self.log, "w") as log:
                self.process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=self.environment,
                )
            self.ask("")
        if warm_up:
            self.ask(f"run {warm_up}")
        seconds = self.ask(f"run {runs}")["seconds"]
        self.ask(f"save {self.output}")
        return {self.name: seconds}

    def end(self):
        if self.process is not None:
            answer = self.ask("quit")
            self.peak = max(self.peak, answer["peak_memory_bytes"] or 0)
            self.process.wait()
            self.process = None


class Brisk:
    """`brisk bench`, a process a round."""

    def __init__(self, case, files, arguments, quantize=None, int4=False):
        self.name = f"brisk, {quantize or 'int4'}" if quantize or int4 else "brisk"
        self.case = case
        # Quantized weights are other weights: that they are near is all that can be asked, and of
        # made-up ones, or of codes, each of which decides those after it, not even that.
        free = int4 or quantize and case.component == "generate"
        self.tolerance = None if free else 0.5 if quantize else TOLERANCE
        self.output = files["folder"] / f"{self.name}.{'png' if case.component == 'image' else 'safetensors'}"
        self.command = [arguments.brisk, "bench", case.component, "--json", "--no-ceilings"]
        self.command += ["--threads", str(arguments.threads)]
        if int4:
            self.command += ["--random", str(files["source"]), "--storage", "int4"]
            if case.component == "image":
                self.command += ["--quantize-text-encoder", "4bit"]
        elif files["model"]:
            self.command += ["--model", str(files["model"])]
        if case.component == "image":
            self.command += ["--prompt", PROMPT, "--instruction", str(files["instruction"])]
            self.command += ["--size", str(case.size), "--steps", str(case.steps)]
            self.command += ["--output", str(self.output)]
        else:
            self.command += ["--inputs", str(files["inputs"]), "--outputs", str(self.output)]
        if case.prefix:
            self.command += ["--prefix", str(case.prefix)]
        if case.block:
            self.command += ["--block", str(case.block)]
        if quantize:
            self.command += ["--quantize", quantize]
        self.peak = 0

    def round(self, runs, warm_up):
        command = self.command + ["--runs", str(runs), "--warm-up", str(warm_up)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise Failed(result.stderr.strip().splitlines()[-1][:300])
        document = json.loads(result.stdout)
        self.peak = max(self.peak, document["peak_memory_bytes"] or 0)
        self.document = document
        stages = {stage["name"]: stage["seconds"] for stage in document["stages"]}
        seconds = {self.name: stages[self.case.component]}
        if self.case.component == "generate":
            # Peers draw codes; pictures of them are made by the autoencoder.
            return {self.name: [whole - decoding for whole, decoding in zip(seconds[self.name], stages["decode"])]}
        if "caption" in stages:
            # PyTorch projects the caption at every step, brisk once a prompt.
            both = zip(stages[self.case.component], stages["caption"])
            seconds[f"{self.name}, caption included"] = [step + caption for step, caption in both]
        return seconds

    def end(self):
        pass


def difference(case, output, reference):
    """Relative L2 distance of two files of one tensor, or of two pictures; the share of codes that differ."""
    import autoregressive
    import numpy
    from PIL import Image
    from safetensors.numpy import load_file

    def values(path):
        if path.suffix == ".png":
            return numpy.asarray(Image.open(path)).astype(numpy.float64)
        tensors = load_file(path)
        return tensors.get("low_res_masks", next(iter(tensors.values()))).astype(numpy.float64)

    if case.component == "generate":
        return autoregressive.difference(output, reference)
    a, b = values(output), values(reference)
    if a.shape != b.shape:
        raise Failed(f"{output.name} has shape {a.shape}, {reference.name} {b.shape}")
    return float(numpy.linalg.norm(a - b) / max(numpy.linalg.norm(b), 1e-30))


def prepare(case, arguments, folder):
    """Weights, inputs and texts of a case."""
    import autoregressive
    import checkpoints
    from safetensors.torch import save_file

    files = {"folder": folder, "model": None, "source": None, "inputs": folder / "inputs.safetensors"}
    if case.component == "generate":
        roots = {"hart": arguments.hart, "vila_u": arguments.vila_u}
        files["source"] = autoregressive.source(case, HERE / "configs" / case.config, arguments.cache)
        files["model"] = autoregressive.folder(case, files["source"], arguments.cache, arguments.storage, roots)
    elif case.config:
        files["source"] = HERE / "configs" / case.config
        make = checkpoints.segmenter if case.component in MASKS else checkpoints.folder
        files["model"] = make(files["source"], arguments.cache, case.parts, arguments.storage)
    if case.component == "image":
        files["instruction"] = folder / "instruction.txt"
        files["instruction"].write_text(INSTRUCTION)
    else:
        make = autoregressive.inputs if case.component == "generate" else checkpoints.inputs
        tensors = make(case, files["source"] or HERE)
        save_file({name: x.contiguous() for name, x in tensors.items()}, files["inputs"])
    return files


def measure(case, arguments):
    """All peers of a case, in rounds."""
    with tempfile.TemporaryDirectory(prefix="brisk-bench-") as folder:
        files = prepare(case, arguments, pathlib.Path(folder))
        flags = {"pytorch": ["--peer", "torch"]}
        if arguments.channels_last and case.component in ["vae.decode", "vae.encode", "depthwise"]:
            flags["pytorch, channels last"] = ["--peer", "torch", "--channels-last"]
        if case.bf16:
            flags["pytorch, bf16"] = ["--peer", "torch", "--bf16"]
        if arguments.compile and case.component != "generate":
            flags["pytorch, compiled"] = ["--peer", "compile"]
        if arguments.openvino and case.component not in ["text_encoder", "image", "language_model", "generate", *MASKS]:
            flags["openvino"] = ["--peer", "openvino"]
        peers = [Brisk(case, files, arguments)]
        peers += [Brisk(case, files, arguments, kind) for kind in case.quantize]
        peers += [Brisk(case, files, arguments, int4=True)] if case.int4 else []
        peers += [Python(name, flag, case, files, arguments) for name, flag in flags.items()]
        seconds, problems = {}, {}
        for number in range(arguments.rounds):
            for peer in peers:
                if peer.name in problems:
                    continue
                try:
                    for name, taken in peer.round(arguments.runs, arguments.warm_up).items():
                        seconds.setdefault(name, []).extend(taken)
                    if case.alone:
                        peer.end()
                except Failed as problem:
                    problems[peer.name] = str(problem)
            print(f"{case.name}: round {number + 1} of {arguments.rounds}", file=sys.stderr)
        for peer in peers:
            if peer.name not in problems:
                peer.end()
        reference = next((peer for peer in peers if peer.name == "pytorch"), None)
        errors = {}
        for peer in peers:
            if peer is not reference and peer.tolerance and not {peer.name, "pytorch"} & set(problems):
                errors[peer.name] = difference(case, peer.output, reference.output)
        return report(case, peers, seconds, errors, problems, arguments)


def report(case, peers, seconds, errors, problems, arguments):
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    base = median.get("brisk")
    peaks = {peer.name: peer.peak for peer in peers}
    rows = [("peer", "median", "range", "times brisk", "share of codes that differ" if case.component == "generate" else "relative L2", "peak memory")]
    for name, taken in seconds.items():
        ratio = f"{median[name] / base:.2f}" if base else "-"
        error = f"{errors[name]:.1e}" if name in errors else "-"
        peak = f"{peaks[name] / 2**30:.2f} GiB" if peaks.get(name) else "-"
        between = f"{min(taken):.4g} to {max(taken):.4g}"
        rows.append((name, f"{median[name]:.4g} s", between, ratio, error, peak))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{case.name}: {arguments.threads} threads, {arguments.rounds} rounds of {arguments.runs}")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    for name, problem in problems.items():
        print(f"{name}: failed: {problem}")
    tolerance = {peer.name: peer.tolerance for peer in peers}
    disagree = [name for name, error in errors.items() if not error < tolerance[name]]
    for name in disagree:
        print(f"{name}: DISAGREES with pytorch")
    document = {
        "case": case.name,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "runs": arguments.runs,
        "storage": arguments.storage,
        "machine": platform.machine(),
        "instructions": "avx-vnni" if arguments.avx_vnni else "avx2" if arguments.avx2 else "all",
        "peers": {
            name: {
                "median_seconds": median[name],
                "seconds": taken,
                "relative_l2": errors.get(name),
                "peak_memory_bytes": peaks.get(name) or None,
            }
            for name, taken in seconds.items()
        },
        "problems": problems,
    }
    print(json.dumps(document), flush=True)
    return not disagree and "brisk" not in problems and "pytorch" not in problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(names))
    parser.add_argument("--all", action="store_true", help="every case")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3, help="runs of each peer in a round")
    parser.add_argument("--warm-up", type=int, default=1, help="runs before them that don't count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--storage", choices=["bf16", "f32"], default="bf16", help="type of stored weights")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--openvino", action="store_true", help="OpenVINO as well, where the export works")
    parser.add_argument("--channels-last", action="store_true", help="PyTorch in channels-last layout as well")
    parser.add_argument("--avx2", action="store_true", help="keep every peer to AVX2 and FMA")
    parser.add_argument(
        "--avx-vnni", action="store_true", help="as --avx2, but let brisk multiply bytes with AVX-VNNI, as laptops can"
    )
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the harness itself")
    parser.add_argument("--cache", default=str(ROOT / "target/bench"), help="folder for random weights")
    parser.add_argument("--hart", default="", help="checkout of mit-han-lab/hart, for its cases")
    parser.add_argument("--vila-u", default="", help="checkout of mit-han-lab/vila-u, for its cases")
    parser.add_argument("--brisk", default=str(ROOT / "target/release/brisk"), help="the binary")
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(names)
    if unknown or not (arguments.all or arguments.cases):
        parser.error(f"cases are {', '.join(names)}; not {', '.join(sorted(unknown)) or 'none'}")
    if shutil.which(arguments.brisk) is None:
        parser.error(f"--brisk {arguments.brisk}: no such program; cargo build --workspace --release")
    if arguments.avx2 or arguments.avx_vnni:
        os.environ.update(AVX2_ONLY)
    if arguments.avx_vnni:
        os.environ["BRISK_SIMD"] = "avx-vnni"
    good = True
    for case in CASES:
        if arguments.all or case.name in arguments.cases:
            good &= measure(case.tiny() if arguments.tiny else case, arguments)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
