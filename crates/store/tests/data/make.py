"""Makes torch.pth, a tiny checkpoint as PyTorch writes it (made with torch 2.x, CPU)."""
import collections
import pathlib

import torch

base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
module = torch.nn.Linear(2, 1)
with torch.no_grad():
    module.weight.copy_(torch.tensor([[0.5, -2.0]]))
    module.bias.copy_(torch.tensor([float("nan")]))
state = module.state_dict()  # an OrderedDict with the attribute _metadata
state["transposed"] = base.t()
state["row"] = base[1]
state["bf16"] = torch.tensor([1.5, -0.25], dtype=torch.bfloat16)
state["half"] = torch.tensor(3.0, dtype=torch.float16)
state["long"] = torch.tensor([-1, 2**40])
state["bool"] = torch.tensor([True, False])
state["expanded"] = torch.tensor([7], dtype=torch.uint8).expand(3)
state["empty"] = torch.zeros(0, 5)
state["parameter"] = torch.nn.Parameter(torch.tensor([9.0], dtype=torch.float64))
torch.save(
    {
        "state_dict": state,
        "epoch": 3,
        "betas": (0.9, 0.999),
        "dtype": torch.bfloat16,
        "shape": torch.Size([1, 2]),
        "other": collections.OrderedDict(a=torch.zeros(1)),
        "name": "tiny",
        "none": None,
        "big": 2**70,
    },
    pathlib.Path(__file__).with_name("torch.pth"),
)
