"""Writes folders of random weights in the diffusers layout, and the inputs of the cases.

Shapes come from config.json files (bench/configs), values from one generator, so both sides of a
comparison read the same file. Folders are made once and kept.
"""

import functools
import importlib.util
import json
import pathlib
import shutil
import sys
import types

import torch
from safetensors.torch import save_file

FILES = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    # A folder of its own, without a pipeline around it.
    "language_model": "model.safetensors",
}
PIPELINE = {"transformer", "vae", "text_encoder"}
TYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
PATTERN = 1 << 22


def read(path):
    return json.loads(pathlib.Path(path).read_text())


def build(component, config):
    """The reference's module for a config.json, in f32, evaluating."""
    settings = {name: value for name, value in config.items() if not name.startswith("_")}
    if component == "text_encoder":
        from transformers import Gemma2Config, Gemma2Model

        settings = Gemma2Config(**settings)
        # Only the plain implementation caps the logits.
        settings._attn_implementation = "eager"
        return Gemma2Model(settings).eval()
    if component == "language_model":
        from transformers import Qwen3Config, Qwen3ForCausalLM

        # The same graph with another mask, which the caller gives.
        kept = {name: value for name, value in settings.items() if name not in ["model_type", "architectures"]}
        return Qwen3ForCausalLM(Qwen3Config(**kept, attn_implementation="sdpa")).eval()
    from diffusers import AutoencoderDC, AutoencoderKLHunyuanVideo, SanaTransformer2DModel

    if component == "transformer":
        return SanaTransformer2DModel(**settings).eval()
    if config.get("_class_name") != "AutoencoderKLHunyuanVideo":
        return AutoencoderDC(**settings).eval()
    module = AutoencoderKLHunyuanVideo(**settings).eval()
    # All frames at once, as brisk decodes them; blended pieces are other pictures.
    module.use_framewise_decoding = False
    return module


def values(pattern, name, shape, dtype):
    """Random values of a size that keeps activations in range; norm weights near their centre."""
    count = 1
    for side in shape:
        count *= side
    # Another start for each name: equal matrices would cancel in q and k.
    start = sum(name.encode()) * 7919 % PATTERN
    tiled = torch.roll(pattern, start).repeat(count // PATTERN + 1)[:count].reshape(shape)
    if "norm" in name and name.endswith("weight"):
        tiled = 1 + 0.1 * tiled
    elif len(shape) < 2:
        tiled = 0.02 * tiled
    else:
        tiled = tiled / (count // shape[0]) ** 0.5
    return tiled.to(dtype).contiguous()


def place(folder, name):
    """Where a component lies in a model's folder."""
    return folder if name == "language_model" else folder / name


def component(source, target, name, dtype):
    """Random weights for source/name/config.json below target; kept where they exist already."""
    folder = place(target, name)
    config = place(source, name) / "config.json"
    weights = folder / FILES[name]
    if weights.exists() and (folder / "config.json").read_text() == config.read_text():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        module = build(name, read(config))
    pattern = torch.randn(PATTERN, generator=torch.Generator().manual_seed(0))
    state = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    if name == "language_model" and module.config.tie_word_embeddings:
        del state["lm_head.weight"]
    temporary = weights.with_suffix(".part")
    tensors = {key: values(pattern, key, shape, TYPES[dtype]) for key, shape in state.items()}
    save_file(tensors, temporary)
    temporary.rename(weights)
    shutil.copy(config, folder / "config.json")


def folder(source, cache, components, dtype):
    """A model's folder with random weights for these components."""
    source = pathlib.Path(source)
    target = pathlib.Path(cache) / "models" / f"{source.name}-{dtype}"
    for name in components:
        component(source, target, name, dtype)
    if set(components) == PIPELINE:
        for name in ["tokenizer", "scheduler"]:
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        shutil.copy(source / "model_index.json", target / "model_index.json")
    return target


def segment_anything(config):
    """The authors' networks as a configuration has them, with weights of their own."""
    # Without what the package imports besides: it wants a torchvision that goes with this torch.
    if "segment_anything" not in sys.modules:
        package = types.ModuleType("segment_anything")
        package.__path__ = list(importlib.util.find_spec("segment_anything").submodule_search_locations)
        sys.modules["segment_anything"] = package
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    vision, decoder = config["vision_config"], config["mask_decoder_config"]
    width, grid = vision["output_channels"], vision["image_size"] // vision["patch_size"]
    encoder = ImageEncoderViT(
        img_size=vision["image_size"],
        patch_size=vision["patch_size"],
        embed_dim=vision["hidden_size"],
        depth=vision["num_hidden_layers"],
        num_heads=vision["num_attention_heads"],
        mlp_ratio=vision.get("mlp_ratio", 4.0),
        out_chans=width,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        rel_pos_zero_init=True,
        window_size=vision["window_size"],
        global_attn_indexes=vision["global_attn_indexes"],
    )
    side = vision["image_size"]
    prompts = PromptEncoder(width, (grid, grid), (side, side), config["prompt_encoder_config"]["mask_input_channels"])
    two_way = TwoWayTransformer(
        decoder.get("num_hidden_layers", 2), width, decoder["num_attention_heads"], decoder["mlp_dim"]
    )
    masks = MaskDecoder(
        transformer_dim=width, transformer=two_way, num_multimask_outputs=3, iou_head_depth=3,
        iou_head_hidden_dim=decoder["iou_head_hidden_dim"],
    )
    return Sam(encoder, prompts, masks).eval()


def segmenter(source, cache, components, dtype):
    """A folder with a file of random weights under the authors' names."""
    folder = pathlib.Path(cache) / "models" / f"{pathlib.Path(source).name}-{dtype}"
    target = folder / "sam.pth"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(pathlib.Path(source) / "config.json", folder / "config.json")
        torch.manual_seed(0)
        state = segment_anything(read(pathlib.Path(source) / "config.json")).state_dict()
        temporary = target.with_suffix(".part")
        torch.save({name: tensor.to(TYPES[dtype]) for name, tensor in state.items()}, temporary)
        temporary.rename(target)
    return folder


def load(target, name):
    """The reference's module with the folder's weights, in f32."""
    from safetensors import safe_open

    with torch.device("meta"):
        module = build(name, read(place(target, name) / "config.json"))
    module = module.to_empty(device="cpu")
    with safe_open(place(target, name) / FILES[name], "pt") as file:
        state = module.state_dict()
        for key in file.keys():
            state[key].copy_(file.get_tensor(key))
    # What is computed from the configuration and stored nowhere is lost on the meta device.
    if name == "text_encoder":
        module.rotary_emb = type(module.rotary_emb)(config=module.config)
    if name == "language_model":
        module.model.rotary_emb = type(module.model.rotary_emb)(config=module.config)
        module.tie_weights()
    return module


def randn(generator, *shape):
    return torch.randn(*shape, generator=generator)


def inputs(case, source):
    """The tensors of a case, named as brisk probe and brisk bench read them."""
    source = pathlib.Path(source)
    generator = torch.Generator().manual_seed(1)
    component = case.component
    if component == "gemm":
        rows, inner, columns = case.shape
        weight = randn(generator, columns, inner) / inner**0.5
        return {"x": randn(generator, rows, inner), "weight": weight}
    if component == "depthwise":
        channels, height, width = case.shape
        return {
            "x": randn(generator, 1, channels, height, width),
            "weight": randn(generator, channels, 1, 3, 3) / 3,
            "bias": 0.02 * randn(generator, channels),
        }
    if component in ["image_encoder", "mask_decoder"]:
        vision = read(source / "config.json")["vision_config"]
        side, channels = vision["image_size"], vision["output_channels"]
        if component == "image_encoder":
            return {"pixel_values": randn(generator, 1, 3, side, side)}
        grid = side // vision["patch_size"]
        corners = side * torch.rand(case.prompts, 2, 2, generator=generator)
        boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
        return {"image_embeddings": randn(generator, 1, channels, grid, grid), "boxes": boxes}
    if component in ["text_encoder", "language_model"]:
        config = read(place(source, component) / "config.json")
        ids = torch.randint(4, config["vocab_size"], (1, case.tokens), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    vae = read(source / "vae" / "config.json")
    if case.frames:
        side, frames = case.size // vae.get("spatial_compression_ratio", 8), (case.frames - 1) // 4 + 1
        return {"latent": randn(generator, 1, vae["latent_channels"], frames, side, side)}
    ratio = 2 ** (len(vae["encoder_block_out_channels"]) - 1)
    side = case.size // ratio
    if component == "vae.encode":
        picture = 0.5 * randn(generator, 1, 3, case.size, case.size)
        return {"sample": picture.clamp(-1, 1)}
    if component == "vae.decode":
        return {"latent": randn(generator, 1, vae["latent_channels"], side, side)}
    config = read(source / "transformer" / "config.json")
    tensors = {
        "hidden_states": randn(generator, 1, config["in_channels"], side, side),
        "encoder_hidden_states": randn(generator, 1, case.tokens, config["caption_channels"]),
        "encoder_attention_mask": torch.ones(1, case.tokens),
        "timestep": torch.tensor([500.0]),
    }
    if config.get("guidance_embeds"):
        tensors |= {"timestep": torch.tensor([0.5]), "guidance": torch.tensor([0.45])}
    return tensors
