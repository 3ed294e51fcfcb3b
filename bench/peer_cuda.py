#!/usr/bin/env python3
"""PyTorch with diffusers on an NVIDIA card: DC-AE and a step of SANA-Sprint at the published shapes, random weights.

    python3 bench/peer_cuda.py [--compile]

bf16, channels last; medians of 20 runs, each waited for. --compile adds torch.compile, which takes minutes.
"""
import argparse
import json
import statistics
import time

import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel

CONFIGS = "bench/configs/sana-sprint-0.6b"
HALF = dict(device="cuda", dtype=torch.bfloat16)


def milliseconds(work):
    with torch.no_grad():
        for _ in range(5):
            work()
        torch.cuda.synchronize()
        times = []
        for _ in range(20):
            start = time.perf_counter()
            work()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def build(kind, part):
    with open(f"{CONFIGS}/{part}/config.json") as file:
        config = {key: value for key, value in json.load(file).items() if not key.startswith("_")}
    with torch.device("cuda"):
        return kind(**config).eval().to(torch.bfloat16)


parser = argparse.ArgumentParser()
parser.add_argument("--compile", action="store_true")
arguments = parser.parse_args()
torch.manual_seed(0)
vae = build(AutoencoderDC, "vae").to(memory_format=torch.channels_last)
transformer = build(SanaTransformer2DModel, "transformer")
latent = torch.randn(1, 32, 32, 32, **HALF)
inputs = dict(
    hidden_states=latent,
    encoder_hidden_states=torch.randn(1, 300, 2304, **HALF),
    encoder_attention_mask=torch.ones(1, 300, **HALF),
    timestep=torch.tensor([1.0], **HALF),
    guidance=torch.tensor([0.45], **HALF),
)
picture = torch.randn(1, 3, 1024, 1024, **HALF).to(memory_format=torch.channels_last)
wide = latent.to(memory_format=torch.channels_last)
print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}")
print(f"decode 1024 px: {milliseconds(lambda: vae.decode(wide)):.2f} ms")
print(f"encode 1024 px: {milliseconds(lambda: vae.encode(picture)):.2f} ms")
print(f"step: {milliseconds(lambda: transformer(**inputs)):.2f} ms", flush=True)
if arguments.compile:
    step, decode = torch.compile(transformer), torch.compile(vae.decoder)
    print(f"step, compiled: {milliseconds(lambda: step(**inputs)):.2f} ms", flush=True)
    print(f"decode, compiled: {milliseconds(lambda: decode(wide)):.2f} ms")
