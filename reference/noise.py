"""torch.randn of the CPU generator: single draws of many sizes, and several draws from one generator."""

import torch

import common

SEEDS = [0, 1, 42, 2**32 + 5]
SHAPES = [(5,), (15,), (16,), (17,), (100,), (1, 4, 6, 8), (2, 32, 16, 16)]


def main():
    folder = common.case_folder("noise", "cpu_generator")
    tensors, index = {}, []
    for seed in SEEDS:
        for shape in SHAPES:
            values = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).reshape(-1)
            name = f"seed{seed}.shape{'x'.join(map(str, shape))}"
            if values.numel() > 256:
                tensors[f"{name}.first64"] = values[:64]
                tensors[f"{name}.last64"] = values[-64:]
            else:
                tensors[name] = values
            index.append({"name": name, "seed": seed, "shape": list(shape)})
        generator = torch.Generator("cpu").manual_seed(seed)
        for draw, count in enumerate([16, 5, 64, 17]):
            tensors[f"seed{seed}.sequence.{draw}"] = torch.randn(count, generator=generator)
    common.write_golden(folder / "golden.safetensors", tensors)
    common.write_json(folder / "index.json", index)


if __name__ == "__main__":
    main()
