"""Goldens of SVDQuant: the reference packer's output for random weights, and whole layers in plain PyTorch.

    python svdquant.py DEEPCOMPRESSOR      # a checkout of mit-han-lab/deepcompressor (69f3473)

packing.safetensors   codes, scales and factors as they are, and `*.packed` as deepcompressor's packers lay them out
layer.safetensors     one layer of odd size in every mode, from its definition:
                      y = Q_a(x / smooth) Q_w(R)^T + (x D^T) U^T + b
"""

import importlib
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

import common


def packers(root):
    """The packing modules alone: the package's own __init__ imports everything it can do."""
    for name in ("deepcompressor", "deepcompressor.backend", "deepcompressor.backend.nunchaku", "deepcompressor.backend.tinychat"):
        module = types.ModuleType(name)
        module.__path__ = [str(Path(root, *name.split(".")))]
        sys.modules[name] = module
    return importlib.import_module("deepcompressor.backend.nunchaku.utils")


def integers(shape, low, high, *labels):
    return torch.randint(low, high + 1, shape, generator=common.generator(*labels), dtype=torch.int32)


def int4_case(nunchaku, n, k, rank, dtype, out):
    """Codes and scales that survive the converter's rounding: its weight is code times scale."""
    case = f"int4.{n}x{k}"
    codes = integers((n, k), -7, 7, case, "codes")
    scales = common.uniform((n, k // 64), 0.01, 0.1, case, "scales").to(dtype)
    bias = common.normal((n,), case, "bias").to(dtype)
    smooth = common.uniform((k,), 0.5, 2.0, case, "smooth").to(dtype)
    down = common.normal((rank, k), case, "down").to(dtype)
    up = common.normal((n, rank), case, "up").to(dtype)
    weight = (codes.float().view(n, -1, 64) * scales.float().unsqueeze(-1)).view(n, k)
    packed = nunchaku.convert_to_nunchaku_w4x4y16_linear_weight(
        Exact(weight, dtype), scale=scales.view(n, 1, -1, 1), bias=bias, smooth=smooth, lora=(down, up)
    )
    store(out, case, dict(codes=codes.to(torch.int8), scales=scales, bias=bias, smooth=smooth, down=down, up=up))
    names = ("qweight", "wscales", "bias", "smooth")
    store(out, case + ".packed", dict(zip(names, packed[:4])) | dict(lora_down=packed[4][0], lora_up=packed[4][1]))


class Exact(torch.Tensor):
    """A float32 weight that passes for a 16-bit one, so that code times scale is not rounded on its way to the packer."""

    @staticmethod
    def __new__(cls, data, dtype):
        value = torch.Tensor._make_subclass(cls, data)
        value.claimed = dtype
        return value

    @property
    def dtype(self):
        return self.claimed

    def to(self, *arguments, **keywords):
        return self.as_subclass(torch.Tensor)

    @classmethod
    def __torch_function__(cls, function, kinds, arguments=(), keywords=None):
        plain = [a.as_subclass(torch.Tensor) if isinstance(a, Exact) else a for a in arguments]
        return super().__torch_function__(function, (torch.Tensor,), tuple(plain), keywords or {})


def nvfp4_case(nunchaku, n, k, out):
    case = f"nvfp4.{n}x{k}"
    codes = integers((n, k), 0, 15, case, "codes")
    scales = common.uniform((n, k // 16), 0.5, 400.0, case, "scales").to(torch.float8_e4m3fn)
    packer = nunchaku.NunchakuWeightPacker(bits=4)
    store(out, case, dict(codes=codes.to(torch.int8), scales=scales.view(torch.uint8)))
    wscales = packer.pack_scale(scales.to(torch.bfloat16).view(n, 1, -1, 1), group_size=16)
    store(out, case + ".packed", dict(qweight=packer.pack_weight(codes.clone()), wscales=wscales.view(torch.uint8)))


def awq_case(nunchaku, n, k, out):
    case = f"awq.{n}x{k}"
    codes = integers((n, k), 0, 15, case, "codes")
    tinychat = sys.modules["deepcompressor.backend.tinychat.utils"]
    store(out, case, dict(codes=codes.to(torch.int8)))
    store(out, case + ".packed", dict(qweight=tinychat.pack_w4(codes).view(torch.int32)))


def store(out, case, tensors):
    for name, value in tensors.items():
        out[f"{case}.{name}"] = value.clone().contiguous()


def fake_quantize(x, most, group, half):
    """Integers and scales of groups along the last dimension; a scale is absmax / most, held in `half`."""
    groups = x.view(*x.shape[:-1], -1, group)
    largest = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > 0, most / largest, torch.zeros_like(largest))
    codes = torch.round(groups * inverse)
    low = -8 if most == 7 else -127
    scale = (largest / most).to(half).float() if half else largest / most
    return codes.clamp(low, most), scale


def layer():
    rows, n, k, rank, group = 37, 72, 192, 16, 64
    x = common.normal((rows, k), "layer", "x")
    x[:, 5] *= 30  # an outlier channel
    x[3] = 0
    w = common.normal((n, k), "layer", "w", scale=k**-0.5)
    smooth = (x.abs().amax(0).clamp_min(1e-3) ** 0.5).to(torch.bfloat16).float()
    smoothed = w * smooth
    u, s, v = torch.linalg.svd(smoothed.double(), full_matrices=False)
    up = (u[:, :rank] * s[:rank]).to(torch.bfloat16).float()
    down_smoothed = v[:rank].float()
    down = (down_smoothed / smooth).to(torch.bfloat16).float()
    residual = smoothed - up @ (down * smooth)
    groups = residual.view(n, -1, group)
    scales = (groups.abs().amax(-1, keepdim=True) / 7).to(torch.bfloat16).float()
    codes = torch.round(groups / scales).clamp(-7, 7)
    bias = common.normal((n,), "layer", "bias", scale=0.1)
    dequantized = (codes * scales).view(n, k)
    branch = (x.double() @ down.double().T) @ up.double().T + bias.double()
    smooth_x = x * (1 / smooth)
    out = dict(x=x, smooth=smooth, up=up, down=down, bias=bias, scales=scales.view(n, -1))
    out["codes"] = codes.view(n, k).to(torch.int8)
    out["y.w4a16"] = (smooth_x.double() @ dequantized.double().T + branch).float()
    for name, most, half in (("w4a4", 7, torch.bfloat16), ("w4a8", 127, None)):
        q, scale = fake_quantize(smooth_x, most, group, half)
        # Integer products of a group, scaled by both scales, summed over groups.
        products = torch.einsum("mgk,ngk->mng", q.double(), codes.double())
        y = (products * scale.view(rows, 1, -1).double() * scales.view(1, n, -1).double()).sum(-1)
        out[f"y.{name}"] = (y + branch).float()
        out[f"codes.{name}"] = q.reshape(rows, k).to(torch.int8)
    return out


def write(path, tensors):
    save_file({k: v.clone().contiguous() for k, v in tensors.items()}, str(path))
    print(f"{path.relative_to(common.FIXTURES)}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def main(root):
    nunchaku = packers(root)
    folder = common.FIXTURES / "svdquant"
    folder.mkdir(exist_ok=True)
    out = {}
    int4_case(nunchaku, 256, 256, 32, torch.bfloat16, out)
    int4_case(nunchaku, 128, 384, 16, torch.float16, out)
    int4_case(nunchaku, 160, 192, 32, torch.bfloat16, out)  # padded to 256 x 256
    nvfp4_case(nunchaku, 128, 256, out)
    awq_case(nunchaku, 24, 192, out)
    write(folder / "packing.safetensors", out)
    write(folder / "layer.safetensors", layer())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
