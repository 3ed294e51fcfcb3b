#!/usr/bin/env bash
# Checks and times everything that runs on an NVIDIA card, in under 4 minutes. Usage: bench/cuda-check.sh [FOLDER]
# Carries two programs, built with `cargo build --release --workspace --features brisk-cuda/tools`; PROGRAMS says where
# they lie (default: target/release). Prints tables, and keeps them with the JSON in FOLDER (default: cuda-results). Kernels in f32: check-card --precise.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-cuda-results}" && cd "${1:-cuda-results}" && pwd)
programs=${PROGRAMS:-target/release}
failed=0
# A step that hangs or fails does not keep the others from running.
step() {
    local name=$1 limit=$2 left=$((235 - SECONDS))
    shift 2
    [ "$left" -lt "$limit" ] && limit=$left
    [ "$limit" -gt 4 ] || { echo "== $name: left out, the time is up"; failed=1; return; }
    echo "== $name (${SECONDS}s)"
    timeout "$limit" "$@" 2>&1 | tee "$out/$name.txt"
    [ "${PIPESTATUS[0]}" = 0 ] || { echo "failed: $name"; failed=1; }
}

nvidia-smi >"$out/nvidia-smi.txt" 2>&1
step kernels 80 "$programs/check-card" --json "$out/kernels.json"

# The same noise on the processor and on the card. Both pictures must be close; the box has a model for that.
picture=("$programs/brisk" image "red heart" --seed 1 --steps 4)
step picture-cpu 30 "${picture[@]}" -o "$out/cpu.png"
step picture-cuda 30 "${picture[@]}" --device cuda -o "$out/cuda.png"
step picture-precise 30 "${picture[@]}" --device cuda --precise -o "$out/precise.png"
step compare 20 "$programs/brisk" compare "$out/cpu.png" "$out/cuda.png"
step compare-precise 20 "$programs/brisk" compare "$out/cpu.png" "$out/precise.png"

for part in "image --steps 2 --size 1024" "vae.decode --size 1024" "vae.encode --size 1024" "transformer --size 1024" \
    "text_encoder --tokens 300"; do
    name=${part%% *}
    # shellcheck disable=SC2086
    step "bench-$name" 30 "$programs/brisk" bench $part --random bench/configs/sana-sprint-0.6b --device cuda \
        --runs 10 --no-ceilings
done
for kind in bf16 int4; do
    step "sana-1.6b-$kind" 20 "$programs/brisk" bench transformer --size 1024 --random bench/configs/sana-1.6b \
        --storage "$kind" --device cuda --runs 10 --no-ceilings
done
for kind in none 4bit; do
    step "llada-8b-$kind" 40 "$programs/brisk" bench text --random bench/configs/llada-8b --prompt-tokens 1024 \
        --gen-length 256 --steps 88 --quantize "$kind" --device cuda --runs 2 --no-ceilings
done

if python3 -c 'import diffusers' 2>/dev/null; then
    step pytorch-models 30 python3 bench/peer_cuda.py
fi
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    step pytorch 60 python3 - <<'PYTHON'
# The layers that decide the times, by PyTorch in bf16, channels last.
import time, torch
def ms(work):
    for _ in range(3): work()
    torch.cuda.synchronize(); times = []
    for _ in range(20):
        start = time.perf_counter(); work(); torch.cuda.synchronize(); times.append(time.perf_counter() - start)
    return sorted(times)[10] * 1e3
half = dict(device="cuda", dtype=torch.bfloat16)
print(torch.__version__, torch.cuda.get_device_name())
for side, channels in [(1024, 128), (512, 256), (256, 512)]:
    x = torch.randn(1, channels, side, side, **half).to(memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1, **half).to(memory_format=torch.channels_last)
    t = ms(lambda: conv(x)); flop = 18 * side * side * channels * channels
    print(f"conv 3x3 {side}x{side}x{channels}: {t:.3f} ms, {flop / t / 1e9:.0f} TFLOP/s")
for rows, columns, depth in [(1024, 3456, 1152), (1024, 5760, 1152), (300, 18432, 2304), (8192, 8192, 8192)]:
    x, w = torch.randn(rows, depth, **half), torch.randn(columns, depth, **half)
    t = ms(lambda: torch.nn.functional.linear(x, w))
    print(f"linear {rows}x{columns}x{depth}: {t:.3f} ms, {2 * rows * columns * depth / t / 1e9:.0f} TFLOP/s")
PYTHON
else
    echo "PyTorch with CUDA is not installed: nothing beside"
fi
echo "== done (${SECONDS}s): $out"
exit $failed
