"""Layers one by one, as PyTorch computes them: fixtures/layers/golden.safetensors and resize.safetensors.

Feature maps are NCHW (NCDHW with time), as everywhere in the goldens. `CASE.weight` and `CASE.bias` are parameters,
`CASE.x` is what goes in, `CASE.y` what comes out.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from common import case_folder, normal

tensors = {}


def keep(case, **values):
    for name, value in values.items():
        tensors[f"{case}.{name}"] = value.contiguous().clone()


def parameters(case, shape, outputs, *, bias=True):
    inputs = max(1, torch.Size(shape[1:]).numel())
    weight = normal(shape, case, "weight", scale=inputs**-0.5)
    shift = normal((outputs,), case, "bias", scale=0.3) if bias else None
    keep(case, weight=weight, **({"bias": shift} if bias else {}))
    return weight, shift


def norms():
    for case, shape, run in [
        ("layer_norm", (2, 5, 12), lambda x, w, b: F.layer_norm(x, (12,), w, b, 1e-6)),
        ("group_norm", (2, 8, 5, 6), lambda x, w, b: F.group_norm(x, 4, w, b, 1e-6)),
        ("group_norm_time", (1, 8, 3, 4, 5), lambda x, w, b: F.group_norm(x, 2, w, b, 1e-5)),
    ]:
        width = 12 if case == "layer_norm" else 8
        weight = normal((width,), case, "weight", scale=0.3) + 1
        bias = normal((width,), case, "bias", scale=0.3)
        x = normal(shape, case, "x") + 0.7
        keep(case, weight=weight, bias=bias, x=x, y=run(x, weight, bias))


def pointwise():
    x = torch.linspace(-6, 6, 97)
    keep("gelu", x=x, y=F.gelu(x))


def pools():
    x = normal((2, 3, 7, 9), "pool")
    keep("pool", x=x)
    keep("pool_2", y=F.max_pool2d(x, 2, 2))
    keep("pool_3_same", y=F.max_pool2d(x, 3, 1, 1))
    keep("pool_rows", y=F.max_pool2d(x, (2, 1), (2, 1)))


def convolutions():
    for case, size, dilation in [("dilated_6", (20, 17), 6), ("dilated_2", (5, 8), 2)]:
        x = normal((2, 5, *size), case, "x")
        weight, bias = parameters(case, (6, 5, 3, 3), 6)
        keep(case, x=x, y=F.conv2d(x, weight, bias, padding=dilation, dilation=dilation))
    for case, kernel, stride, padding, extra in [
        ("transposed_2", 2, 2, 0, 0),
        ("transposed_4", 4, 2, 1, 0),
        ("transposed_3", 3, 2, 1, 1),
    ]:
        x = normal((2, 5, 4, 3), case, "x")
        weight, bias = parameters(case, (5, 6, kernel, kernel), 6)
        y = F.conv_transpose2d(x, weight, bias, stride, padding, extra)
        keep(case, x=x, y=y)
    x = normal((2, 4, 5, 6, 7), "time", "x")
    keep("time", x=x)
    weight, bias = parameters("time", (3, 4, 3, 3, 3), 3)
    keep("time_same", y=F.conv3d(x, weight, bias, padding=1))
    past = F.pad(x, (1, 1, 1, 1, 2, 0), mode="replicate")
    keep("time_causal", y=F.conv3d(past, weight, bias))
    keep("time_causal_stride", y=F.conv3d(past, weight, bias, stride=2))
    keep("time_causal_space", y=F.conv3d(past, weight, bias, stride=(1, 2, 2)))


def attentions():
    heads, dim = 3, 4
    q, k, v = (normal((2, rows, heads * dim), "attention", name) for name, rows in [("q", 5), ("k", 9), ("v", 9)])
    keep("attention", q=q, k=k, v=v)
    split = lambda x: x.view(2, -1, heads, dim).transpose(1, 2)
    join = lambda x: x.transpose(1, 2).reshape(2, -1, heads * dim)
    for case, shape in [("bias_heads", (heads, 5, 9)), ("bias_rows", (2, 1, 5, 9))]:
        bias = normal(shape, case, scale=2.0)
        y = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=bias)
        keep(case, bias=bias, y=join(y))
    mask = torch.ones(5, 9, dtype=torch.bool).tril(4)
    keep("causal_offset_4", y=join(F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)))


def codes():
    x, table = normal((50, 8), "codes", "x"), normal((33, 8), "codes", "table")
    keep("codes", x=x, table=table, ids=torch.cdist(x.double(), table.double()).argmin(1))


def resizes():
    """Maps of other sizes, in a file of their own."""
    for case, size, wanted in [("down", (9, 8), (4, 5)), ("up", (3, 2), (8, 7)), ("one", (1, 1), (6, 4)), ("same", (4, 4), (4, 4))]:
        x = normal((2, 3, *size), "resize", case)
        area = F.interpolate(x, size=wanted, mode="area")
        keep(case, x=x, area=area, bicubic=F.interpolate(x, size=wanted, mode="bicubic"))


for make in [norms, pointwise, pools, convolutions, attentions, codes]:
    make()
folder = case_folder("layers", ".")
save_file(tensors, folder / "golden.safetensors")
tensors = {}
resizes()
save_file(tensors, folder / "resize.safetensors")
