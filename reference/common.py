"""Shared helpers of the golden scripts: deterministic weights, taps on modules, small files.

Conventions of every golden file
  * float32, layouts as in the reference (feature maps NCHW), integers int64.
  * A large tensor (by default over LARGE elements; never an input, never pixels) is thinned: `NAME.everyK` holds every
    K-th value of the flattened (row-major) tensor and `NAME.shape` its shape.
  * Random weights are rounded to bfloat16-representable values, so that a bf16 copy holds the same numbers.
"""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

torch.set_num_threads(1)
torch.set_grad_enabled(False)

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
LARGE = 4096


def case_folder(topic, case):
    """An empty folder fixtures/TOPIC/CASE."""
    folder = FIXTURES / topic / case
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def generator(*labels):
    """A CPU generator whose seed depends only on the labels."""
    digest = hashlib.sha256("/".join(map(str, labels)).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:4], "little"))


def normal(shape, *labels, scale=1.0):
    """Gaussian values that are exactly representable in bfloat16."""
    values = torch.randn(shape, generator=generator(*labels)) * scale
    return values.to(torch.bfloat16).float()


def uniform(shape, low, high, *labels):
    values = torch.rand(shape, generator=generator(*labels)) * (high - low) + low
    return values.to(torch.bfloat16).float()


def randomise(module, label, gain=1.0, bias=0.1, table=0.3, norm_offset=0.0, skip=()):
    """Give every parameter and running statistic a value that matters.

    Norm weights U(0.5, 1.5) + norm_offset, biases N(0, bias), scale_shift tables N(0, table), matrices and kernels
    N(0, gain / sqrt(fan in)), batch-norm mean N(0, 0.1), variance U(0.5, 1.5).
    """
    for name, parameter in module.named_parameters():
        if name in skip:
            continue
        shape = tuple(parameter.shape)
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "scale_shift_table":
            value = normal(shape, label, name, scale=table)
        elif leaf == "bias":
            value = normal(shape, label, name, scale=bias)
        elif parameter.ndim == 1:
            value = uniform(shape, 0.5 + norm_offset, 1.5 + norm_offset, label, name)
        elif "embed_tokens" in name:
            value = normal(shape, label, name, scale=0.5)
        else:
            fan_in = parameter[0].numel()
            value = normal(shape, label, name, scale=gain / fan_in**0.5)
        parameter.data.copy_(value)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(normal(tuple(buffer.shape), label, name, scale=0.1))
        elif name.endswith("running_var"):
            buffer.copy_(uniform(tuple(buffer.shape), 0.5, 1.5, label, name))
    return module.eval()


def pattern(shape):
    """A picture batch that needs no storage: ((7b + 31c + 13y + 29x + 3xy) mod 257) / 128 - 1, exact in float32."""
    b, c, h, w = (torch.arange(n, dtype=torch.int64) for n in shape)
    b, c, h, w = b.view(-1, 1, 1, 1), c.view(1, -1, 1, 1), h.view(1, 1, -1, 1), w.view(1, 1, 1, -1)
    return ((7 * b + 31 * c + 13 * h + 29 * w + 3 * h * w) % 257).float() / 128 - 1


class Taps:
    """Records inputs and outputs of named modules while a forward runs."""

    def __init__(self):
        self.values = {}
        self.handles = []

    def _first(self, value):
        if isinstance(value, (tuple, list)):
            return value[0]
        if hasattr(value, "last_hidden_state"):
            return value.last_hidden_state
        return value

    def output(self, module, name, split=False):
        def hook(_module, _arguments, result):
            if split:
                for i, part in enumerate(result):
                    self.values[f"{name}.{i}"] = part.detach().clone()
            else:
                self.values[name] = self._first(result).detach().clone()

        self.handles.append(module.register_forward_hook(hook))

    def input(self, module, name):
        def hook(_module, arguments, keywords):
            value = arguments[0] if arguments else keywords["hidden_states"]
            self.values[name] = value.detach().clone()

        self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def close(self):
        for handle in self.handles:
            handle.remove()
        return self.values


def write_golden(path, tensors, every=7, large=LARGE, metadata=None):
    """Write tensors, thinning large ones. Integers become int64, floats float32."""
    out = {}
    for name, value in tensors.items():
        value = value.detach().cpu()
        if value.dtype != torch.uint8:
            value = value.float() if value.is_floating_point() else value.to(torch.int64)
        if value.dtype != torch.uint8 and value.numel() > large and not name.startswith("inputs."):
            out[f"{name}.every{every}"] = value.reshape(-1)[::every].clone().contiguous()
            out[f"{name}.shape"] = torch.tensor(value.shape, dtype=torch.int64)
        else:
            out[name] = value.clone().contiguous()
    for name, value in out.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{path}: {name} is not finite")
    save_file(out, str(path), metadata=metadata)
    print(f"{path.relative_to(FIXTURES)}: {len(out)} tensors, {path.stat().st_size} bytes")


def write_weights(path, state, dtype=None):
    state = {k: (v.to(dtype) if dtype and v.is_floating_point() else v).clone().contiguous() for k, v in state.items()}
    save_file(state, str(path), metadata={"format": "pt"})
    print(f"{path.relative_to(FIXTURES)}: {len(state)} tensors, {path.stat().st_size} bytes")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_config(path, model):
    """The published config.json of a diffusers model, without machine-dependent keys."""
    config = {k: v for k, v in model.config.items() if k not in ("_name_or_path", "_use_default_values")}
    config["_class_name"] = type(model).__name__
    write_json(path, config)
