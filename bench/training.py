"""Updates of brisk's trainings beside PyTorch's: same sizes, batches, optimiser and threads, in alternating runs.

    python bench/training.py --brisk target/release/brisk image autoencoder

`image` is the recipe emoji-image (SANA's transformer and a Gemma-2 text encoder, batches of 32) beside diffusers'
SanaTransformer2DModel and transformers' Gemma2Model; `autoencoder` is emoji-autoencoder (DC-AE, batches of 16) beside
diffusers' AutoencoderDC. PyTorch runs eagerly in f32 (`--compile`: by torch.compile) on latents, tokens and pixels that
are there already, with the fused AdamW, a bound on gradients and a moving average; brisk's samples a second are those of
its log, in which the first lines do not count. Medians are over all runs.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECIPES = ROOT / "crates/train/recipes"
NAMES = {"image": "emoji-image", "autoencoder": "emoji-autoencoder"}
COLOURS = ["red", "green", "blue", "yellow", "purple", "orange", "white", "black"]
THINGS = ["heart", "apple", "cat face", "rocket", "book", "star", "octopus", "umbrella"]
# Tokens of a caption such as these.
TOKENS = 8
PICTURES = 192


def recipe_of(case):
    return json.loads((RECIPES / f"{NAMES[case]}.json").read_text())


def pictures(folder):
    """Coloured noise with captions; what is shown makes no difference to the time."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(0)
    for index in range(PICTURES):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)
        Image.fromarray(coarse).resize((128, 128)).save(folder / f"{index:04}.png")
        words = f"{COLOURS[index % 8]} {THINGS[index // 8 % 8]} number {index}"
        (folder / f"{index:04}.txt").write_text(words)


class Brisk:
    name = "brisk"

    def __init__(self, case, folder, arguments):
        data = folder / "pictures.safetensors"
        if not data.exists():
            (folder / "pictures").mkdir()
            pictures(folder / "pictures")
            run([arguments.brisk, "train", "prepare-pictures", folder / "pictures", "-o", data], arguments)
        recipe = recipe_of(case)
        recipe["training"] |= {"log_every": 10, "steps": arguments.steps, "max_minutes": None}
        recipe |= {"pictures": {}} if "pictures" in recipe else {}
        if case == "image":
            recipe |= {"sample_every": 10**6}
        self.recipe = folder / f"{case}.json"
        self.recipe.write_text(json.dumps(recipe))
        self.command = [arguments.brisk, "train", case, "--recipe", self.recipe, "--data", data]
        if case == "image":
            self.command += ["--vae", ROOT / "assets/emoji-autoencoder"]
        self.arguments = arguments

    def round(self):
        with tempfile.TemporaryDirectory() as out:
            run([*self.command, "-o", f"{out}/run"], self.arguments)
            lines = (pathlib.Path(out) / "run/training_log.jsonl").read_text().splitlines()
        speeds = [entry["samples_per_second"] for entry in map(json.loads, lines) if "samples_per_second" in entry]
        # The first line has what is read and made ready; the last may have what is saved.
        return speeds[1:-1] or speeds


class Torch:
    name = "PyTorch"

    def __init__(self, case, folder, arguments):
        import torch

        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        self.torch, self.steps, self.recipe = torch, arguments.steps, recipe_of(case)
        self.batch = self.recipe["training"]["batch"]
        self.networks = getattr(self, case)()
        parameters = [each for network in self.networks for each in network.parameters()]
        self.parameters = [each for each in parameters if each.requires_grad]
        rate = self.recipe["training"]["learning_rate"]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=0.0, fused=True)
        self.average = [each.detach().clone() for each in self.parameters]
        self.loss = torch.compile(self.loss) if arguments.compile else self.loss

    def image(self):
        from diffusers import SanaTransformer2DModel
        from transformers import Gemma2Config, Gemma2Model

        torch, sizes = self.torch, self.recipe["transformer"]
        text = Gemma2Model(Gemma2Config(**{k: v for k, v in self.recipe["text_encoder"].items() if k != "torch_dtype"}))
        transformer = SanaTransformer2DModel.from_config(sizes)
        side, channels = sizes["sample_size"], sizes["in_channels"]
        latents = torch.randn(self.batch, channels, side, side)
        ids = torch.randint(3, 1000, (self.batch, TOKENS))
        mask = torch.ones_like(ids)

        def loss():
            context = text(input_ids=ids, attention_mask=mask).last_hidden_state
            noise, level = torch.randn_like(latents), torch.sigmoid(torch.randn(self.batch))
            share = level[:, None, None, None]
            noisy = (1 - share) * latents + share * noise
            found = transformer(
                noisy, encoder_hidden_states=context, encoder_attention_mask=mask, timestep=1000 * level
            ).sample
            return (found - (noise - latents)).square().mean()

        self.loss = loss
        return [text.float().train(), transformer.float().train()]

    def autoencoder(self):
        from diffusers import AutoencoderDC

        torch = self.torch
        config = json.loads((ROOT / "assets/emoji-autoencoder/config.json").read_text())
        network = AutoencoderDC.from_config(config)
        side = self.recipe.get("picture_size", 128)
        pixels = torch.rand(self.batch, 3, side, side) * 2 - 1

        def loss():
            off = network(pixels).sample - pixels
            return off.abs().mean() + off.square().mean()

        self.loss = loss
        return [network.float().train()]

    def update(self):
        torch = self.torch
        self.optimiser.zero_grad(set_to_none=True)
        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 0.001)

    def round(self):
        for _ in range(3):
            self.update()
        speeds = []
        for _ in range(max(self.steps // 10 - 2, 1)):
            began = time.perf_counter()
            for _ in range(10):
                self.update()
            speeds.append(10 * self.batch / (time.perf_counter() - began))
        return speeds


def run(command, arguments):
    command = [str(part) for part in command]
    if command[1] == "train" and command[2] in NAMES:
        command += ["--threads", str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{' or '.join(NAMES)} (default: all)")
    parser.add_argument("--brisk", default=str(ROOT / "target/release/brisk"))
    parser.add_argument("--steps", type=int, default=60, help="updates of a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--compile", action="store_true", help="PyTorch by torch.compile")
    arguments = parser.parse_args()
    arguments.cases = arguments.cases or [*NAMES]
    for case in arguments.cases:
        if case not in NAMES:
            parser.error(f"{case} is no case; expected {' or '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases:
            peers = [kind(case, pathlib.Path(folder), arguments) for kind in (Brisk, Torch)]
            speeds = {peer.name: [] for peer in peers}
            for _ in range(arguments.rounds):
                for peer in peers:
                    speeds[peer.name] += peer.round()
            medians = {name: statistics.median(found) for name, found in speeds.items()}
            ratio = medians["brisk"] / medians["PyTorch"]
            shown = ", ".join(f"{name} {median:.1f}" for name, median in medians.items())
            print(f"{NAMES[case]}: samples a second {shown}: {ratio:.2f} times", flush=True)
            print(json.dumps({"case": NAMES[case], "threads": arguments.threads, "speeds": speeds}), flush=True)


if __name__ == "__main__":
    main()
