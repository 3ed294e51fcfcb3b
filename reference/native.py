"""SANA weights under the authors' names, saved as .pth files (torch zip pickles).

The weights are those of fixtures/sana_transformer and fixtures/sana_controlnet/native, whose goldens apply.
"""

import torch

import common
import sana_controlnet
import sana_transformer

BLOCK = {
    "attn1.norm_q": "attn.q_norm",
    "attn1.norm_k": "attn.k_norm",
    "attn1.to_out.0": "attn.proj",
    "attn2.to_q": "cross_attn.q_linear",
    "attn2.norm_q": "cross_attn.q_norm",
    "attn2.norm_k": "cross_attn.k_norm",
    "attn2.to_out.0": "cross_attn.proj",
    "ff.conv_inverted": "mlp.inverted_conv.conv",
    "ff.conv_depth": "mlp.depth_conv.conv",
    "ff.conv_point": "mlp.point_conv.conv",
}
TOP = {
    "patch_embed.proj": "x_embedder.proj",
    "time_embed.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_embed.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_embed.guidance_embedder.linear_1": "cfg_embedder.mlp.0",
    "time_embed.guidance_embedder.linear_2": "cfg_embedder.mlp.2",
    "time_embed.linear": "t_block.1",
    "caption_projection.linear_1": "y_embedder.y_proj.fc1",
    "caption_projection.linear_2": "y_embedder.y_proj.fc2",
    "caption_norm": "attention_y_norm",
    "proj_out": "final_layer.linear",
}


def block_names(state, prefix, target):
    """One block's tensors, from `prefix.` to `target.`, with the fused projections joined."""
    out = {}
    inner = {k[len(prefix) + 1 :]: v for k, v in state.items() if k.startswith(prefix + ".")}
    for name, value in inner.items():
        module, leaf = name.rsplit(".", 1) if "." in name else ("", name)
        if name == "scale_shift_table":
            out[f"{target}.{name}"] = value
        elif module in BLOCK:
            out[f"{target}.{BLOCK[module]}.{leaf}"] = value
    out[f"{target}.attn.qkv.weight"] = torch.cat([inner[f"attn1.to_{x}.weight"] for x in "qkv"])
    for leaf in ("weight", "bias"):
        out[f"{target}.cross_attn.kv_linear.{leaf}"] = torch.cat([inner[f"attn2.to_{x}.{leaf}"] for x in "kv"])
    return out


def model_names(model, label):
    state, config = model.state_dict(), model.config
    out = {}
    for name, value in state.items():
        module, leaf = name.rsplit(".", 1) if "." in name else ("", name)
        if module in TOP:
            out[f"{TOP[module]}.{leaf}"] = value
        elif name == "scale_shift_table":
            out["final_layer.scale_shift_table"] = value
    for i in range(config.num_layers):
        out |= block_names(state, f"transformer_blocks.{i}", f"blocks.{i}")
    width = config.num_attention_heads * config.attention_head_dim
    # Present in the published files, unused at inference.
    out["pos_embed"] = common.normal((1, config.sample_size**2, width), label, "pos_embed")
    out["y_embedder.y_embedding"] = common.normal((300, config.caption_channels), label, "y_embedding")
    if config.guidance_embeds:
        out["logvar_linear.weight"] = common.normal((1, width), label, "logvar weight")
        out["logvar_linear.bias"] = common.normal((1,), label, "logvar bias")
    return out


def save(path, state, dtype=torch.float32):
    state = {k: v.detach().clone().to(dtype).contiguous() for k, v in state.items()}
    torch.save({"state_dict": state}, path)
    print(f"{path.relative_to(common.FIXTURES)}: {len(state)} tensors, {path.stat().st_size} bytes")


def check_count(model, state, extra):
    used = sum(v.numel() for k, v in state.items() if not k.startswith(extra))
    expected = sum(v.numel() for v in model.state_dict().values())
    if used != expected:
        raise ValueError(f"{used} values renamed, {expected} in the model")


EXTRA = ("pos_embed", "y_embedder.y_embedding", "logvar_linear", "controlnet")


def main():
    for case in ("t1_base", "t2_qk_norm", "t3_sprint"):
        model = sana_transformer.build(case)
        state = model_names(model, f"native/{case}")
        check_count(model, state, EXTRA)
        folder = common.case_folder("native", case)
        if case == "t1_base":
            save(folder / "model_bf16.pth", state, torch.bfloat16)
        # bf16, as most published files are, is exact for these weights.
        save(folder / "model.pth", state, torch.bfloat16 if case == "t2_qk_norm" else torch.float32)

    base, control, _ = sana_controlnet.native_golden()
    state = model_names(base, "native/controlnet")
    check_count(base, state, EXTRA)
    weights = control.state_dict()
    for leaf in ("weight", "bias"):
        state[f"controlnet.0.before_proj.{leaf}"] = weights[f"input_block.{leaf}"]
        for j in range(control.config.num_layers):
            state[f"controlnet.{j}.after_proj.{leaf}"] = weights[f"controlnet_blocks.{j}.{leaf}"]
    for j in range(control.config.num_layers):
        state |= block_names(weights, f"transformer_blocks.{j}", f"controlnet.{j}.copied_block")
    folder = common.case_folder("native", "controlnet")
    save(folder / "model.pth", state, torch.bfloat16)


if __name__ == "__main__":
    main()
