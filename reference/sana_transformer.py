"""Goldens of the SANA transformer (diffusers SanaTransformer2DModel), one folder per variant."""

import torch
from diffusers import SanaTransformer2DModel

import common

BASE = dict(
    in_channels=4,
    out_channels=4,
    num_attention_heads=3,
    attention_head_dim=8,
    num_layers=2,
    num_cross_attention_heads=2,
    cross_attention_head_dim=12,
    cross_attention_dim=24,
    caption_channels=16,
    mlp_ratio=2.5,
    sample_size=8,
    patch_size=1,
)
QK = dict(qk_norm="rms_norm_across_heads")

CASES = {
    "t1_base": {},
    "t2_qk_norm": QK,
    "t3_sprint": QK | dict(guidance_embeds=True),
    "t4_position": dict(interpolation_scale=2.0),
    "t5_patch2": dict(patch_size=2),
    "t7_learned_sigma": dict(out_channels=8, num_layers=1),
}


def build(case, **changes):
    return common.randomise(SanaTransformer2DModel(**(BASE | CASES[case] | changes)), f"sana_transformer/{case}")


def make_inputs(case, guidance):
    tensors = {
        "hidden_states": common.normal((2, 4, 6, 8), case, "hidden_states"),
        "encoder_hidden_states": common.normal((2, 5, 16), case, "encoder_hidden_states"),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        "timestep": torch.tensor([944.0, 285.0]),
    }
    if guidance:
        tensors["timestep"] = torch.tensor([0.9921875, 0.78125])
        tensors["guidance"] = torch.tensor([0.44921875, 0.2001953125])
    return tensors


def tap_block(taps, block, name):
    taps.input(block, f"{name}.input")
    taps.input(block.attn1, f"{name}.attn1.input")
    taps.output(block.attn1, f"{name}.attn1")
    taps.input(block.attn2, f"{name}.attn2.input")
    taps.output(block.attn2, f"{name}.attn2")
    taps.input(block.ff, f"{name}.ff.input")
    taps.output(block.ff, f"{name}.ff")
    taps.output(block, f"{name}.output")


def tap_model(taps, model):
    taps.output(model.patch_embed, "blocks.patch_embed")
    taps.output(model.time_embed, "blocks.time_embed", split=True)
    taps.output(model.caption_projection, "blocks.caption_projection")
    taps.output(model.caption_norm, "blocks.caption_norm")
    for i, block in enumerate(model.transformer_blocks):
        tap_block(taps, block, f"blocks.{i}")
    if hasattr(model, "norm_out"):
        taps.output(model.norm_out, "blocks.norm_out")


def main():
    for case in CASES:
        model = build(case)
        folder = common.case_folder("sana_transformer", case)
        common.write_config(folder / "config.json", model)
        common.write_weights(folder / "diffusion_pytorch_model.safetensors", model.state_dict())
        arguments = make_inputs(case, model.config.guidance_embeds)
        taps = common.Taps()
        tap_model(taps, model)
        sample = model(**arguments).sample
        tensors = {f"inputs.{k}": v for k, v in arguments.items()} | {"outputs.sample": sample} | taps.close()
        common.write_golden(folder / "golden.safetensors", tensors, every=5, large=1024)


if __name__ == "__main__":
    main()
