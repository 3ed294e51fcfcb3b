"""Goldens of the deep-compression autoencoder (diffusers AutoencoderDC): four kinds, two sizes, tiling."""

import torch
from diffusers import AutoencoderDC

import common

RES, EV = "ResBlock", "EfficientViTBlock"

CASES = {
    # As SANA's: multi-scale attention in three stages, strided convolution down, interpolation up.
    "a": dict(
        latent_channels=8,
        attention_head_dim=16,
        encoder_block_types=[RES] * 3 + [EV] * 3,
        decoder_block_types=[RES] * 3 + [EV] * 3,
        encoder_block_out_channels=[8, 8, 16, 16, 32, 32],
        decoder_block_out_channels=[8, 8, 16, 16, 32, 32],
        encoder_layers_per_block=[1, 2, 1, 2, 1, 1],
        decoder_layers_per_block=[2, 1, 1, 1, 1, 1],
        encoder_qkv_multiscales=[[], [], [], [5], [5], [5]],
        decoder_qkv_multiscales=[[], [], [], [5], [5], [5]],
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    ),
    # As the "in" and "mix" kinds: empty first stage, batch norm and ReLU in the decoder's convolutional stages.
    "b": dict(
        latent_channels=8,
        attention_head_dim=16,
        encoder_block_types=[RES] * 3 + [EV] * 3,
        decoder_block_types=[RES] * 3 + [EV] * 3,
        encoder_block_out_channels=[8, 8, 8, 16, 16, 32],
        decoder_block_out_channels=[8, 8, 8, 16, 16, 32],
        encoder_layers_per_block=[0, 1, 2, 1, 1, 1],
        decoder_layers_per_block=[0, 1, 2, 1, 1, 1],
        encoder_qkv_multiscales=[[]] * 6,
        decoder_qkv_multiscales=[[]] * 6,
        decoder_norm_types=["batch_norm"] * 3 + ["rms_norm"] * 3,
        decoder_act_fns=["relu"] * 3 + ["silu"] * 3,
        scaling_factor=0.3189,
    ),
    # As lite: SANA's encoder, a decoder of residual blocks without its full-resolution stage.
    "c": dict(
        latent_channels=8,
        attention_head_dim=32,
        encoder_block_types=[RES] * 3 + [EV] * 3,
        decoder_block_types=RES,
        encoder_block_out_channels=[8, 8, 8, 32, 32, 32],
        decoder_block_out_channels=[8, 8, 8, 8, 16, 16],
        encoder_layers_per_block=[1, 1, 1, 1, 1, 1],
        decoder_layers_per_block=[0, 1, 2, 1, 1, 1],
        encoder_qkv_multiscales=[[], [], [], [5], [5], [5]],
        decoder_qkv_multiscales=[[]] * 6,
        downsample_block_type="Conv",
        upsample_block_type="pixel_shuffle",
        decoder_conv_act_fn="silu",
        scaling_factor=0.41407,
    ),
    # As 1.5: residual blocks only, no shortcut around the latent, seven stages.
    "d": dict(
        latent_channels=8,
        encoder_block_types=RES,
        decoder_block_types=RES,
        encoder_block_out_channels=[8, 8, 8, 8, 16, 16, 16],
        decoder_block_out_channels=[8, 8, 8, 8, 16, 16, 16],
        encoder_layers_per_block=[0, 1, 2, 1, 1, 1, 1],
        decoder_layers_per_block=[0, 1, 2, 1, 1, 1, 1],
        encoder_qkv_multiscales=[[]] * 7,
        decoder_qkv_multiscales=[[]] * 7,
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
        decoder_conv_act_fn="silu",
        scaling_factor=0.5,
    ),
}


def build(case):
    model = AutoencoderDC(**CASES[case])
    return common.randomise(model, f"dcae/{case}", gain=0.7, bias=0.3)


def original_names(model):
    """The same weights under the names of the authors' checkpoints."""
    state = dict(model.state_dict())
    config = model.config
    out = {}
    for name, value in state.items():
        parts = name.split(".")
        half, rest = parts[0], parts[1:]
        leaf = rest[-1]
        if rest[0] == "conv_in":
            doubled = "conv." if rest[1] == "conv" else ""
            shortcut = "main." if half == "decoder" and config.decoder_in_shortcut else ""
            new = f"{half}.project_in.{shortcut}conv.{doubled}{leaf}"
        elif rest[0] == "norm_out":
            new = f"{half}.project_out.op_list.0.{leaf}"
        elif rest[0] == "conv_out" and half == "encoder":
            shortcut = "main." if config.encoder_out_shortcut else ""
            new = f"encoder.project_out.{shortcut}op_list.0.conv.{leaf}"
        elif rest[0] == "conv_out":
            doubled = "conv." if rest[1] == "conv" else ""
            new = f"decoder.project_out.op_list.2.conv.{doubled}{leaf}"
        else:
            stage, index, inner = rest[1], rest[2], rest[3:]
            prefix = f"{half}.stages.{stage}.op_list.{index}"
            path = ".".join(inner[:-1])
            if path == "conv":  # a resampler
                single = half == "encoder" and config.downsample_block_type != "pixel_unshuffle"
                new = f"{prefix}.main.conv.{leaf}" if single else f"{prefix}.main.conv.conv.{leaf}"
            elif path in ("attn.to_k", "attn.to_v"):
                continue
            elif path == "attn.to_q":
                base = name[: -len("to_q.weight")]
                value = torch.cat([state[f"{base}to_{letter}.weight"] for letter in "qkv"])[:, :, None, None]
                new = f"{prefix}.context_module.main.qkv.conv.weight"
            elif path == "attn.to_out":
                value = value[:, :, None, None]
                new = f"{prefix}.context_module.main.proj.conv.weight"
            else:
                table = {
                    "conv1": "main.conv1.conv",
                    "conv2": "main.conv2.conv",
                    "norm": "main.conv2.norm",
                    "attn.to_qkv_multiscale.0.proj_in": "context_module.main.aggreg.0.0",
                    "attn.to_qkv_multiscale.0.proj_out": "context_module.main.aggreg.0.1",
                    "attn.norm_out": "context_module.main.proj.norm",
                    "conv_out.conv_inverted": "local_module.main.inverted_conv.conv",
                    "conv_out.conv_depth": "local_module.main.depth_conv.conv",
                    "conv_out.conv_point": "local_module.main.point_conv.conv",
                    "conv_out.norm": "local_module.main.point_conv.norm",
                }
                new = f"{prefix}.{table[path]}.{leaf}"
        if new in out:
            raise ValueError(f"two tensors map to {new}")
        out[new] = value
    return out


def check_original(case, model, original):
    """Where the published converter knows the kind, it must bring the names back exactly."""
    if case not in ("a", "b"):
        return
    from diffusers.loaders.single_file_utils import convert_autoencoder_dc_checkpoint_to_diffusers

    back = convert_autoencoder_dc_checkpoint_to_diffusers({k: v.clone() for k, v in original.items()})
    state = model.state_dict()
    missing, unexpected = sorted(set(state) - set(back)), sorted(set(back) - set(state))
    if missing or unexpected:
        raise ValueError(f"{case}: missing {missing[:5]} unexpected {unexpected[:5]}")
    for name, value in state.items():
        if not torch.equal(value, back[name].reshape(value.shape)):
            raise ValueError(f"{case}: {name} differs after conversion")


def tap_everything(model, taps):
    for half, blocks in (("encoder", "down_blocks"), ("decoder", "up_blocks")):
        part = getattr(model, half)
        for name in ("conv_in", "norm_out", "conv_out"):
            if hasattr(part, name):
                taps.output(getattr(part, name), f"{half}.{name}")
        for i, stage in enumerate(getattr(part, blocks)):
            for j, block in enumerate(stage):
                taps.output(block, f"{half}.{blocks}.{i}.{j}")
    # The inside of the last attention block of each half, where there is one.
    for half in ("encoder", "decoder"):
        names = [n for n, m in model.named_modules() if n.startswith(half) and n.endswith(".attn")]
        for attn_name in names[-1:]:
            block_name = attn_name[: -len(".attn")]
            attn = model.get_submodule(attn_name)
            for leaf in ("to_q", "to_k", "to_v", "to_out", "norm_out"):
                taps.output(getattr(attn, leaf), f"{attn_name}.{leaf}")
            for k, scale in enumerate(attn.to_qkv_multiscale):
                taps.output(scale, f"{attn_name}.to_qkv_multiscale.{k}")
            taps.output(attn, attn_name)
            ffn = model.get_submodule(f"{block_name}.conv_out")
            taps.output(ffn.conv_inverted, f"{block_name}.conv_out.conv_inverted")
            taps.output(ffn.conv_depth, f"{block_name}.conv_out.conv_depth")
            taps.input(ffn.conv_point, f"{block_name}.conv_out.gated")
            taps.output(ffn, f"{block_name}.conv_out")


def main():
    for case in CASES:
        model = build(case)
        folder = common.case_folder("dcae", case)
        common.write_config(folder / "config.json", model)
        common.write_weights(folder / "diffusion_pytorch_model.safetensors", model.state_dict())
        original = original_names(model)
        check_original(case, model, original)
        common.write_weights(folder / "original.safetensors", original, torch.bfloat16)
        ratio = 2 ** (len(CASES[case]["encoder_block_out_channels"]) - 1)

        sample = common.normal((1, 3, 64, 64), case, "sample", scale=0.7)
        latent = common.normal((1, 8, 64 // ratio, 64 // ratio), case, "latent")
        taps = common.Taps()
        tap_everything(model, taps)
        tensors = {"inputs.sample": sample, "inputs.latent": latent}
        tensors["outputs.latent"] = model.encode(sample).latent
        tensors["outputs.sample"] = model.decode(latent).sample
        tensors |= {f"blocks.{k}": v for k, v in taps.close().items()}
        common.write_golden(folder / "golden.safetensors", tensors, every=11, large=1024)

        height, width, batch = 192, 256, 2 if case in ("a", "b") else 1
        latent = common.normal((batch, 8, height // ratio, width // ratio), case, "latent wide")
        tensors = {
            "inputs.pattern_shape": torch.tensor([batch, 3, height, width]),
            "inputs.latent": latent,
            "outputs.latent": model.encode(common.pattern((batch, 3, height, width))).latent,
            "outputs.sample": model.decode(latent).sample,
        }
        common.write_golden(folder / "golden_192x256.safetensors", tensors, every=61)

    model = build("a")
    tile = dict(
        tile_sample_min_height=256,
        tile_sample_min_width=256,
        tile_sample_stride_height=192,
        tile_sample_stride_width=192,
    )
    latent = common.normal((1, 8, 24, 20), "a", "latent tiled")
    picture = common.pattern((1, 3, 768, 640))
    tensors = {
        "inputs.pattern_shape": torch.tensor(picture.shape),
        "inputs.latent": latent,
        "untiled.latent": model.encode(picture).latent,
        "untiled.sample": model.decode(latent).sample,
    }
    model.enable_tiling(**tile)
    tensors["tiled.latent"] = model.encode(picture).latent
    tensors["tiled.sample"] = model.decode(latent).sample
    common.write_golden(common.FIXTURES / "dcae/a/golden_tiled.safetensors", tensors, every=401)
    common.write_json(common.FIXTURES / "dcae/a/tiling.json", tile)


if __name__ == "__main__":
    main()
