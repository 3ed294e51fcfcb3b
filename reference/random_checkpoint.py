"""Writes a model folder of random bf16 weights at the published shapes of SANA-Sprint 0.6B.

    python reference/random_checkpoint.py OUT

Transformer, DC-AE and Gemma-2-2B have the real sizes (7.7 GB in all), so that speed and memory can
be measured without a download; the tokenizer is the tiny one of fixtures/pipelines. The pictures
are noise, of course.
"""

import json
import pathlib
import shutil
import sys

import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from safetensors.torch import save_file
from transformers import Gemma2Config, Gemma2Model

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0))

TRANSFORMER = dict(
    in_channels=32, out_channels=32, num_attention_heads=36, attention_head_dim=32, num_layers=28,
    num_cross_attention_heads=16, cross_attention_head_dim=72, cross_attention_dim=1152,
    caption_channels=2304, mlp_ratio=2.5, sample_size=32, patch_size=1, guidance_embeds=True,
    qk_norm="rms_norm_across_heads",
)
ENCODER_DECODER = ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3
WIDTHS = [128, 256, 512, 512, 1024, 1024]
SCALES = [[], [], [], [5], [5], [5]]
AUTOENCODER = dict(
    latent_channels=32, attention_head_dim=32, encoder_block_types=ENCODER_DECODER,
    decoder_block_types=ENCODER_DECODER, encoder_block_out_channels=WIDTHS,
    decoder_block_out_channels=WIDTHS, encoder_layers_per_block=[2, 2, 2, 3, 3, 3],
    decoder_layers_per_block=[3] * 6, encoder_qkv_multiscales=SCALES,
    decoder_qkv_multiscales=SCALES, downsample_block_type="Conv",
    upsample_block_type="interpolate", scaling_factor=0.41407,
)
TEXT_ENCODER = dict(
    vocab_size=256000, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26,
    num_attention_heads=8, num_key_value_heads=4, head_dim=256, query_pre_attn_scalar=256,
    sliding_window=4096,
)


def values(name, shape):
    """Random values of a size that keeps activations in range; norm weights near one."""
    count = 1
    for side in shape:
        count *= side
    tiled = BLOCK.repeat(count // len(BLOCK) + 1)[:count].reshape(shape)
    if "norm" in name and name.endswith("weight"):
        tiled = 1 + 0.1 * tiled
    elif len(shape) < 2:
        tiled = 0.02 * tiled
    else:
        tiled = tiled / (count // shape[0]) ** 0.5
    return tiled.to(torch.bfloat16).contiguous()


def write(folder, file, model, config):
    folder.mkdir(parents=True)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    save_file({name: values(name, shape) for name, shape in shapes.items()}, folder / file)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    print(folder.name, len(shapes), "tensors")


def main():
    out = pathlib.Path(sys.argv[1])
    with torch.device("meta"):
        transformer = SanaTransformer2DModel(**TRANSFORMER)
        autoencoder = AutoencoderDC(**AUTOENCODER)
        text_config = Gemma2Config(**TEXT_ENCODER)
        text_encoder = Gemma2Model(text_config)
    weights = "diffusion_pytorch_model.safetensors"
    name = {"_class_name": "SanaTransformer2DModel"}
    write(out / "transformer", weights, transformer, name | TRANSFORMER)
    write(out / "vae", weights, autoencoder, {"_class_name": "AutoencoderDC"} | AUTOENCODER)
    write(out / "text_encoder", "model.safetensors", text_encoder, text_config.to_dict())
    tiny = ROOT / "fixtures/pipelines/sprint"
    for part in ["tokenizer", "scheduler"]:
        shutil.copytree(tiny / part, out / part)
    shutil.copy(tiny / "model_index.json", out / "model_index.json")


main()
