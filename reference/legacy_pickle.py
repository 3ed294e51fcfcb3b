"""A checkpoint as torch.save wrote it before 1.6, and the same tensors as safetensors.

    python legacy_pickle.py
"""

import collections

import torch
from safetensors.torch import save_file

import common

folder = common.case_folder("legacy_pickle", "shared")
shared = common.normal((6, 4), "legacy", "shared")
state = collections.OrderedDict(
    weight=shared,
    view=shared[1:3],
    column=shared[:, 2],
    turned=shared.t(),
    half=common.normal((3,), "legacy", "half").half(),
    count=torch.tensor(7),
    empty=torch.zeros(0, 5),
)
wrapped = {"state_dict": state, "epoch": 3}
torch.save(wrapped, folder / "checkpoint.pth", _use_new_zipfile_serialization=False)
save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, folder / "tensors.safetensors")
