"""Goldens of SANA's ControlNet: two copied blocks on a base of four, wired as diffusers does and as the authors do.

`diffusers/` is run with diffusers' classes. `native/` is derived: the formulas of the authors' wiring, written below with
diffusers' modules, and not produced by running the authors' code.
"""

import torch
from diffusers import SanaControlNetModel

import common
import sana_transformer

SCALE = 0.7


def build_pair(layers=4, copied=2, **changes):
    base = sana_transformer.build("t1_base", num_layers=layers, **changes)
    arguments = sana_transformer.BASE | {"num_layers": copied} | changes
    control = common.randomise(SanaControlNetModel(**arguments), "sana_controlnet")
    return base, control


def share_embeddings(base, control):
    """As in the authors' files: one patch, time and caption embedding for both."""
    for name in ("patch_embed", "time_embed", "caption_projection", "caption_norm"):
        getattr(control, name).load_state_dict(getattr(base, name).state_dict())


def native_forward(base, control, inputs, condition, scale, record):
    batch, _, height, width = inputs["hidden_states"].shape
    bias = ((1 - inputs["encoder_attention_mask"].float()) * -10000.0).unsqueeze(1)
    modulation, embedded = base.time_embed(inputs["timestep"], batch_size=batch, hidden_dtype=torch.float32)
    caption = base.caption_norm(base.caption_projection(inputs["encoder_hidden_states"]))

    def run(block, x):
        return block(x, None, caption, bias, modulation, height, width)

    copies, projections = control.transformer_blocks, control.controlnet_blocks
    hidden = run(base.transformer_blocks[0], base.patch_embed(inputs["hidden_states"]))
    branch = run(copies[0], hidden + control.input_block(base.patch_embed(condition)))
    for i, block in enumerate(base.transformer_blocks[1:], start=1):
        if i <= len(copies):
            residual = scale * projections[i - 1](branch)
            record[f"blocks.residual.{i - 1}"] = residual
            hidden = hidden + residual
        hidden = run(block, hidden)
        record[f"blocks.base.{i}"] = hidden
        if i < len(copies):
            branch = run(copies[i], branch)
    out = base.proj_out(base.norm_out(hidden, embedded, base.scale_shift_table))
    return out.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def make_inputs():
    inputs = sana_transformer.make_inputs("controlnet", False)
    return inputs, common.normal(tuple(inputs["hidden_states"].shape), "controlnet", "condition")


def native_golden():
    """The pair with shared embeddings, its inputs and the expected output of the authors' wiring."""
    base, control = build_pair()
    share_embeddings(base, control)
    inputs, condition = make_inputs()
    record = {}
    sample = native_forward(base, control, inputs, condition, SCALE, record)
    tensors = {f"inputs.{k}": v for k, v in inputs.items()} | {"inputs.controlnet_cond": condition}
    tensors |= {"inputs.conditioning_scale": torch.tensor([SCALE]), "outputs.sample": sample} | record
    tensors["outputs.sample_scale1"] = native_forward(base, control, inputs, condition, 1.0, {})
    return base, control, tensors


def main():
    base, control = build_pair()
    inputs, condition = make_inputs()
    folder = common.case_folder("sana_controlnet", "diffusers")
    for name, model in (("transformer", base), ("controlnet", control)):
        (folder / name).mkdir()
        common.write_config(folder / name / "config.json", model)
        common.write_weights(folder / name / "diffusion_pytorch_model.safetensors", model.state_dict())
    taps = common.Taps()
    sana_transformer.tap_model(taps, control)
    samples = control(**inputs, controlnet_cond=condition, conditioning_scale=SCALE, return_dict=False)[0]
    tensors = {f"inputs.{k}": v for k, v in inputs.items()} | {"inputs.controlnet_cond": condition}
    tensors["inputs.conditioning_scale"] = torch.tensor([SCALE])
    tensors |= {k.replace("blocks.", "blocks.controlnet.", 1): v for k, v in taps.close().items()}
    tensors["outputs.sample"] = base(**inputs, controlnet_block_samples=tuple(samples)).sample
    # Written whole: they are inputs of the transformer.
    large = max(sample.numel() for sample in samples)
    tensors |= {f"outputs.block_samples.{i}": sample for i, sample in enumerate(samples)}
    tensors = {k: v for k, v in tensors.items() if not k.endswith((".input", ".ff"))}
    common.write_golden(folder / "golden.safetensors", tensors, large=large)

    _, _, tensors = native_golden()
    folder = common.case_folder("sana_controlnet", "native")
    common.write_golden(folder / "golden.safetensors", tensors, every=5, large=1024)


if __name__ == "__main__":
    main()
