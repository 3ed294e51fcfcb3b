"""CAME and CAME-8bit over twenty steps: the update formulas of SANA-1.5's optimizer stated in PyTorch.

The state is kept under the names of the authors' optimizer. Nothing here is run with their code.
"""

import torch

import common

SETTINGS = dict(lr=0.02, weight_decay=0.1, beta1=0.9, beta2=0.999, beta3=0.9999, eps1=1e-30, eps2=1e-16, clip=1.0)
# The last of each kind stays in full whatever the rule: too few elements, or moments that are not factored.
SHAPES = {
    "linear.weight": (24, 30), "point.weight": (20, 16, 1, 1), "table": (6, 8), "depth.weight": (10, 1, 3, 3),
    "linear.bias": (24,),
}
STEPS = 20


def blocks_of(x, size, rows):
    """The values of each block in a row."""
    return [part.reshape(-1) for part in (x.split(size) if rows else x.reshape(-1).split(size))]


def quantise(x, size, rows):
    codes, scales, minima = [], [], []
    for block in blocks_of(x, size, rows):
        low, high = block.min(), block.max()
        scale = (high - low) / 255
        code = torch.round((block - low) / scale) if scale > 0 else torch.zeros_like(block)
        codes.append(code.to(torch.uint8))
        scales.append(scale)
        minima.append(low)
    return torch.cat(codes).reshape(x.shape), torch.stack(scales), torch.stack(minima)


def dequantise(state, size, rows):
    codes, scales, minima = state
    values = [c.float() * s + m for c, s, m in zip(blocks_of(codes, size, rows), scales, minima)]
    return torch.cat(values).reshape(codes.shape)


def factor(row, column):
    return (row / row.mean()).rsqrt()[:, None] * column.rsqrt()[None, :]


def step(p, g, state, eight_bit):
    s = SETTINGS
    factored = p.dim() == 2 or (p.dim() == 4 and p.shape[2:] == (1, 1))
    matrix = (lambda x: x.reshape(x.shape[0], -1)) if factored else (lambda x: x)
    small = eight_bit is None or not factored or p.numel() <= eight_bit["minimum"]
    if not state:
        zeros = torch.zeros_like(p)
        state["exp_avg"] = zeros if small else quantise(zeros, eight_bit["size"], eight_bit["rows"])
        if factored:
            for kind in ("sq", "res"):
                state[f"exp_avg_{kind}_row"] = torch.zeros(p.shape[0])
                state[f"exp_avg_{kind}_col"] = torch.zeros(p.shape[1])
        else:
            state["exp_avg_sq"] = zeros.clone()

    def average(kind, value, beta):
        for end, dim in (("row", 1), ("col", 0)):
            mean = state[f"exp_avg_{kind}_{end}"]
            mean.mul_(beta).add_(value.mean(dim), alpha=1 - beta)
        return factor(state[f"exp_avg_{kind}_row"], state[f"exp_avg_{kind}_col"])

    square = g * g + s["eps1"]
    if factored:
        u = g * average("sq", matrix(square), s["beta2"]).reshape(p.shape)
    else:
        state["exp_avg_sq"].mul_(s["beta2"]).add_(square, alpha=1 - s["beta2"])
        u = g * state["exp_avg_sq"].rsqrt()
    u = u / max(1.0, (u.norm() / u.numel() ** 0.5 / s["clip"]).item())
    m = state["exp_avg"] if small else dequantise(state["exp_avg"], eight_bit["size"], eight_bit["rows"])
    m = s["beta1"] * m + (1 - s["beta1"]) * u
    state["exp_avg"] = m if small else quantise(m, eight_bit["size"], eight_bit["rows"])
    delta = m
    if factored:
        delta = m * average("res", matrix((u - m) ** 2 + s["eps2"]), s["beta3"]).reshape(p.shape)
    p = p - s["weight_decay"] * s["lr"] * p
    return p - s["lr"] * delta


def main():
    inputs = {f"inputs.{name}": torch.tensor([value]) for name, value in SETTINGS.items()}
    start = {name: common.normal(shape, "came", name) for name, shape in SHAPES.items()}
    gradients = [
        {name: common.normal(shape, "came", index, name, scale=0.3 + 0.1 * (index % 4)) for name, shape in SHAPES.items()}
        for index in range(STEPS)
    ]
    # A parameter that takes no part in a step keeps its state.
    del gradients[3]["table"]
    inputs |= {f"inputs.param.{name}": value for name, value in start.items()}
    for index, step_gradients in enumerate(gradients):
        inputs |= {f"inputs.grad.{index}.{name}": value for name, value in step_gradients.items()}
    cases = {
        "came": None,
        "came8bit_elements": dict(size=64, rows=False, minimum=100),
        "came8bit_rows": dict(size=10, rows=True, minimum=100),
    }
    folder = common.case_folder("optimiser", "came")
    common.write_weights(folder / "inputs.safetensors", inputs)
    for case, eight_bit in cases.items():
        outputs = {}
        if eight_bit:
            outputs["inputs.block_size"] = torch.tensor([float(eight_bit["size"])])
            outputs["inputs.min_8bit_size"] = torch.tensor([float(eight_bit["minimum"])])
            outputs["inputs.block_rows"] = torch.tensor([float(eight_bit["rows"])])
        parameters, states = dict(start), {name: {} for name in SHAPES}
        for index, step_gradients in enumerate(gradients):
            for name, gradient in step_gradients.items():
                parameters[name] = step(parameters[name], gradient, states[name], eight_bit)
            if index in (0, 1, 9, STEPS - 1):
                outputs |= {f"outputs.param.{index}.{name}": value for name, value in parameters.items()}
        for name, state in states.items():
            for kind, value in state.items():
                if isinstance(value, tuple):
                    for part, values in zip(("data", "scale", "min"), value):
                        outputs[f"outputs.{kind}.{name}.{part}"] = values
                else:
                    outputs[f"outputs.{kind}.{name}"] = value
        common.write_weights(folder / f"{case}.safetensors", outputs)


if __name__ == "__main__":
    main()
