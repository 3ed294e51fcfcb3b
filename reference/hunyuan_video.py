"""Goldens of HunyuanVideo (arXiv 2412.03603), whose networks Magic 1-For-1 (arXiv 2502.07701) shares: transformers for
text to video and for both ways of image to video, and the causal autoencoder.

    python hunyuan_video.py

Everything runs in diffusers' classes. The original names, and Magic 1-For-1's, are the inverse of diffusers' own map.
"""

import sys

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel

import common

TINY = dict(num_attention_heads=2, attention_head_dim=16, num_layers=2, num_single_layers=2, num_refiner_layers=2,
            patch_size=2, patch_size_t=1, text_embed_dim=20, pooled_projection_dim=12, rope_theta=256.0,
            rope_axes_dim=(4, 6, 6))

TRANSFORMERS = {
    # Text to video, guidance in the network.
    "text": dict(TINY, in_channels=4, out_channels=4, guidance_embeds=True),
    # The first frame beside the noise with a mask of what is given.
    "concat": dict(TINY, in_channels=9, out_channels=4, guidance_embeds=False, image_condition_type="latent_concat"),
    # The first frame in place of the noise; other sizes of patches and layers than published.
    "replace": dict(TINY, in_channels=4, out_channels=4, guidance_embeds=True, image_condition_type="token_replace",
                    patch_size_t=2, num_layers=1, num_refiner_layers=1, mlp_ratio=3.0, rope_axes_dim=(6, 2, 8)),
}

AUTOENCODERS = {
    "autoencoder": dict(latent_channels=4, block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4),
    # No attention, more layers, another number of channels at each level.
    "autoencoder_plain": dict(latent_channels=3, block_out_channels=(4, 8, 12, 16), layers_per_block=2,
                              norm_num_groups=2, mid_block_add_attention=False),
}


def transformer_golden(case, model):
    settings = TRANSFORMERS[case]
    frames, height, width = (4 if case == "replace" else 3), 4, 6
    lengths = [9, 6]
    mask = torch.zeros(2, 9, dtype=torch.int64)
    for row, length in zip(mask, lengths):
        row[:length] = 1
    inputs = dict(
        hidden_states=common.normal((2, settings["in_channels"], frames, height, width), case, "latent"),
        timestep=torch.tensor([750.0, 937.5]),
        encoder_hidden_states=common.normal((2, 9, 20), case, "text"),
        encoder_attention_mask=mask,
        pooled_projections=common.normal((2, 12), case, "pooled"),
    )
    if settings["guidance_embeds"]:
        inputs["guidance"] = torch.tensor([6000.0, 1000.0])
    taps = common.Taps()
    taps.output(model.time_text_embed, "time_text_embed")
    taps.output(model.context_embedder, "context_embedder")
    for i, block in enumerate(model.context_embedder.token_refiner.refiner_blocks):
        taps.output(block, f"context_embedder.{i}")
    taps.output(model.x_embedder, "x_embedder")
    for i, block in enumerate(model.transformer_blocks):
        taps.output(block, f"transformer_blocks.{i}", split=True)
    for i, block in enumerate(model.single_transformer_blocks):
        taps.output(block, f"single_transformer_blocks.{i}", split=True)
    taps.output(model.norm_out, "norm_out")
    taps.output(model.proj_out, "proj_out")
    tensors = {f"inputs.{name}": value for name, value in inputs.items()}
    tensors["outputs.sample"] = model(**inputs).sample
    for name, value in taps.close().items():
        # Rows of padding mean nothing.
        text = name.startswith("context_embedder") or name.endswith(".1") and "transformer_blocks" in name and name.count(".") == 2
        for row, length in enumerate(lengths):
            one = value[row : row + 1]
            tensors[f"blocks.{row}.{name}"] = one[:, :length] if text else one
    common.write_golden(common.FIXTURES / "hunyuan_video" / case / "golden_transformer.safetensors", tensors, large=1 << 20)


def sampler_golden(case, model):
    """The loop of diffusers' pipelines over given tensors."""
    settings = TRANSFORMERS[case]
    channels, frames = settings["in_channels"], (4 if case == "replace" else 3)
    steps, shift, strength = 4, 5.0, 3.0
    if case == "concat":
        channels = settings["out_channels"]
    inputs = dict(latents=common.normal((2, channels, frames, 4, 6), case, "noise"),
                  encoder_hidden_states=common.normal((2, 9, 20), case, "words"),
                  encoder_attention_mask=torch.tensor([[1] * 9, [1] * 5 + [0] * 4]),
                  pooled_projections=common.normal((2, 12), case, "whole"))
    tensors = {f"inputs.{name}": value for name, value in inputs.items()}
    tensors |= {"inputs.steps": torch.tensor([steps]), "inputs.shift": torch.tensor([shift]), "inputs.guidance": torch.tensor([strength])}
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1])
    latents, given = inputs.pop("latents"), None
    negative = None
    if case == "concat":
        image = common.normal((2, channels, 1, 4, 6), case, "image")
        given = torch.zeros(2, channels + 1, frames, 4, 6)
        given[:, :channels, :1], given[:, channels, :1] = image, 1
        negative = dict(encoder_hidden_states=common.normal((2, 7, 20), case, "other words"),
                        encoder_attention_mask=torch.tensor([[1] * 7, [1] * 2 + [0] * 5]),
                        pooled_projections=common.normal((2, 12), case, "other whole"))
        tensors |= {f"inputs.negative_{name}": value for name, value in negative.items()} | {"inputs.image_latents": image}
    first = None
    if case == "replace":
        first = common.normal((2, channels, 1, 4, 6), case, "image")
        tensors["inputs.image_latents"] = first
    guidance = torch.tensor([strength] * 2) * 1000 if settings["guidance_embeds"] else None
    for i, time in enumerate(scheduler.timesteps):
        seen = latents if given is None else torch.cat([latents, given], dim=1)
        if first is not None:
            seen = torch.cat([first, latents[:, :, 1:]], dim=2)
        velocity = model(seen, time.expand(2), **inputs, guidance=guidance).sample
        if negative is not None:
            other = model(seen, time.expand(2), **negative, guidance=guidance).sample
            velocity = other + strength * (velocity - other)
        if first is None:
            latents = scheduler.step(velocity, time, latents).prev_sample
        else:
            latents = torch.cat([first, scheduler.step(velocity[:, :, 1:], time, latents[:, :, 1:]).prev_sample], dim=2)
        tensors[f"outputs.latents.{i}"] = latents
    tensors["outputs.sample"] = latents
    common.write_golden(common.FIXTURES / "hunyuan_video" / case / "golden_sampler.safetensors", tensors)


# Original name and diffusers' name of layers that only differ in it.
ORIGINAL = [
    ("img_in.proj", "x_embedder.proj"),
    ("time_in.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
    ("time_in.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
    ("guidance_in.mlp.0", "time_text_embed.guidance_embedder.linear_1"),
    ("guidance_in.mlp.2", "time_text_embed.guidance_embedder.linear_2"),
    ("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
    ("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
    ("txt_in.input_embedder", "context_embedder.proj_in"),
    ("txt_in.t_embedder.mlp.0", "context_embedder.time_text_embed.timestep_embedder.linear_1"),
    ("txt_in.t_embedder.mlp.2", "context_embedder.time_text_embed.timestep_embedder.linear_2"),
    ("txt_in.c_embedder.linear_1", "context_embedder.time_text_embed.text_embedder.linear_1"),
    ("txt_in.c_embedder.linear_2", "context_embedder.time_text_embed.text_embedder.linear_2"),
    ("final_layer.linear", "proj_out"),
]
REFINER = [("norm1", "norm1"), ("norm2", "norm2"), ("self_attn_proj", "attn.to_out.0"), ("mlp.fc1", "ff.net.0.proj"),
           ("mlp.fc2", "ff.net.2"), ("adaLN_modulation.1", "norm_out.linear")]
DOUBLE = [("img_mod.linear", "norm1.linear"), ("txt_mod.linear", "norm1_context.linear"),
          ("img_attn_q_norm", "attn.norm_q"), ("img_attn_k_norm", "attn.norm_k"),
          ("txt_attn_q_norm", "attn.norm_added_q"), ("txt_attn_k_norm", "attn.norm_added_k"),
          ("img_attn_proj", "attn.to_out.0"), ("txt_attn_proj", "attn.to_add_out"),
          ("img_mlp.fc1", "ff.net.0.proj"), ("img_mlp.fc2", "ff.net.2"),
          ("txt_mlp.fc1", "ff_context.net.0.proj"), ("txt_mlp.fc2", "ff_context.net.2")]
SINGLE = [("linear2", "proj_out"), ("modulation.linear", "norm.linear"), ("q_norm", "attn.norm_q"), ("k_norm", "attn.norm_k")]


def original_names(state):
    """The same tensors as the authors of HunyuanVideo name them."""
    left = dict(state)
    found = {}

    def rename(old, new):
        for leaf in ("weight", "bias"):
            if f"{new}.{leaf}" in left:
                found[f"{old}.{leaf}"] = left.pop(f"{new}.{leaf}")

    def join(old, news):
        for leaf in ("weight", "bias"):
            found[f"{old}.{leaf}"] = torch.cat([left.pop(f"{new}.{leaf}") for new in news])

    for old, new in ORIGINAL:
        rename(old, new)
    for leaf in ("weight", "bias"):
        scale, shift = left.pop(f"norm_out.linear.{leaf}").chunk(2)
        found[f"final_layer.adaLN_modulation.1.{leaf}"] = torch.cat([shift, scale])
    for i in range(99):
        for outer, inner, names in (
            (f"txt_in.individual_token_refiner.blocks.{i}", f"context_embedder.token_refiner.refiner_blocks.{i}", REFINER),
            (f"double_blocks.{i}", f"transformer_blocks.{i}", DOUBLE),
            (f"single_blocks.{i}", f"single_transformer_blocks.{i}", SINGLE),
        ):
            if not any(name.startswith(f"{inner}.") for name in left):
                continue
            for old, new in names:
                rename(f"{outer}.{old}", f"{inner}.{new}")
            attention = [f"{inner}.attn.to_{letter}" for letter in "qkv"]
            if names is REFINER:
                join(f"{outer}.self_attn_qkv", attention)
            elif names is DOUBLE:
                join(f"{outer}.img_attn_qkv", attention)
                join(f"{outer}.txt_attn_qkv", [f"{inner}.attn.add_{letter}_proj" for letter in "qkv"])
            else:
                join(f"{outer}.linear1", [*attention, f"{inner}.proj_mlp"])
    if left:
        raise ValueError(f"left over: {sorted(left)}")
    return found


def transformers():
    for case, settings in TRANSFORMERS.items():
        model = HunyuanVideoTransformer3DModel(**settings)
        common.randomise(model, f"hunyuan_video/{case}")
        folder = common.case_folder("hunyuan_video", case)
        common.write_config(folder / "config.json", model)
        state = model.state_dict()
        common.write_weights(folder / "diffusion_pytorch_model.safetensors", state, torch.bfloat16)
        transformer_golden(case, model)
        sampler_golden(case, model)
        if case == "replace":
            continue
        original = {name: value.to(torch.bfloat16) for name, value in original_names(state).items()}
        beside = {"vae.post_quant_conv.bias": torch.zeros(4)}
        layouts = {"text": {"original": {"module": original}}}
        layouts["concat"] = {
            "student": {"state_dict": original},
            "lightning": {"state_dict": {f"model.{name}": value for name, value in original.items()} | beside},
            "distilling": {"state_dict": {
                f"hydit_unimodel.guidance_model.feedforward_model.{name}": value for name, value in original.items()
            } | beside},
        }
        for layout, content in layouts[case].items():
            folder = common.case_folder("hunyuan_video", f"{case}_{layout}")
            common.write_config(folder / "config.json", model)
            torch.save(content, folder / "model.pt")


def autoencoder_golden(case, model):
    ratio, settings = 8, AUTOENCODERS[case]
    taps = common.Taps()
    for half in ("encoder", "decoder"):
        part = getattr(model, half)
        taps.output(part.conv_in, f"{half}.conv_in")
        taps.output(part.mid_block.resnets[0], f"{half}.mid_block.resnets.0")
        for attention in part.mid_block.attentions:
            if attention is not None:
                taps.output(attention, f"{half}.mid_block.attentions.0")
        taps.output(part.mid_block, f"{half}.mid_block")
        levels = part.down_blocks if half == "encoder" else part.up_blocks
        for i, block in enumerate(levels):
            taps.output(block, f"{half}.{'down' if half == 'encoder' else 'up'}_blocks.{i}")
        taps.output(part.conv_out, f"{half}.conv_out")
    model.use_framewise_encoding = model.use_framewise_decoding = False
    sample = common.uniform((2, 3, 9, 16, 24), -1, 1, case, "clip")
    latent = common.normal((2, settings["latent_channels"], 3, 3, 4), case, "latent")
    tensors = {
        "inputs.sample": sample,
        "inputs.latent": latent,
        "outputs.latent": model.encode(sample).latent_dist.mode(),
        "outputs.sample": model.decode(latent).sample,
    }
    for name, value in taps.close().items():
        rows = value.permute(0, 2, 3, 4, 1) if value.ndim == 5 else value
        tensors[f"blocks.{name}"] = rows.contiguous()
    folder = common.FIXTURES / "hunyuan_video" / case
    common.write_golden(folder / "golden.safetensors", tensors)
    picture = common.normal((1, settings["latent_channels"], 1, 5, 2), case, "one frame")
    frame = common.uniform((1, 3, 1, 24, 16), -1, 1, case, "frame")
    common.write_golden(folder / "golden_frame.safetensors", {
        "inputs.sample": frame, "inputs.latent": picture,
        "outputs.latent": model.encode(frame).latent_dist.mode(), "outputs.sample": model.decode(picture).sample,
    })
    model.use_framewise_encoding = model.use_framewise_decoding = True
    for name, size, stride in (("tiled", (16, 32, 32), (12, 24, 24)), ("tiled_wide", (8, 24, 40), (4, 16, 24))):
        model.enable_tiling(
            tile_sample_min_num_frames=size[0], tile_sample_min_height=size[1], tile_sample_min_width=size[2],
            tile_sample_stride_num_frames=stride[0], tile_sample_stride_height=stride[1], tile_sample_stride_width=stride[2],
        )
        frames, height, width = (41, 56, 72) if name == "tiled" else (13, 48, 40)
        clip = common.uniform((1, 3, frames, height, width), -1, 1, case, name, "clip")
        cells = common.normal((1, settings["latent_channels"], (frames - 1) // 4 + 1, height // 8, width // 8), case, name)
        tensors = {
            "inputs.latent": cells, "inputs.tile_size": torch.tensor(size), "inputs.tile_stride": torch.tensor(stride),
            "outputs.sample": model.decode(cells).sample,
        }
        if name == "tiled_wide":
            tensors |= {"inputs.sample": clip, "outputs.latent": model.encode(clip).latent_dist.mode()}
        common.write_golden(folder / f"golden_{name}.safetensors", tensors, every=13)
        model.use_tiling = False


def autoencoders():
    for case, settings in AUTOENCODERS.items():
        model = AutoencoderKLHunyuanVideo(**settings)
        common.randomise(model, f"hunyuan_video/{case}", gain=1.4)
        folder = common.case_folder("hunyuan_video", case)
        common.write_config(folder / "config.json", model)
        state = model.state_dict()
        common.write_weights(folder / "diffusion_pytorch_model.safetensors", state, torch.bfloat16)
        autoencoder_golden(case, model)
        if case == "autoencoder":
            folder = common.case_folder("hunyuan_video", f"{case}_original")
            # The authors' file has keys of its own beside diffusers'.
            published = {k: v for k, v in dict(model.config).items() if not k.startswith("_")}
            published |= dict(_class_name="AutoencoderKLCausal3D", sample_size=256, sample_tsize=64,
                              time_compression_ratio=published.pop("temporal_compression_ratio"),
                              down_block_types=["DownEncoderBlockCausal3D"] * 4,
                              up_block_types=["UpDecoderBlockCausal3D"] * 4)
            common.write_json(folder / "config.json", published)
            torch.save({"state_dict": {f"vae.{k}": v.to(torch.bfloat16) for k, v in state.items()}}, folder / "pytorch_model.pt")


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["transformers", "autoencoders"]
    for name in chosen:
        globals()[name]()
