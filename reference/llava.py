"""Goldens of what reads texts and pictures for clips: CLIP's text encoder (arXiv 2103.00020), and LLaVA (arXiv 2304.08485)
over Llama 3 with CLIP's vision encoder.

    python llava.py
"""

import torch
from transformers import (CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, LlamaConfig, LlamaModel, LlavaConfig,
                          LlavaForConditionalGeneration)

import common

TEXTS = {
    "clip_text": dict(vocab_size=40, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3,
                      max_position_embeddings=16, eos_token_id=39, bos_token_id=38, pad_token_id=39),
    # As older files are: the end is the largest id; another activation.
    "clip_text_old": dict(vocab_size=30, hidden_size=16, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2,
                          max_position_embeddings=18, eos_token_id=2, bos_token_id=0, pad_token_id=1, hidden_act="gelu",
                          layer_norm_eps=1e-6),
}


def prefixed(state, prefix):
    return {name if name.startswith(prefix) else f"{prefix}{name}": value for name, value in state.items()}


def randomise(model, label):
    common.randomise(model, label, gain=1.3)
    for name, parameter in model.named_parameters():
        if name.endswith(("token_embedding.weight", "position_embedding.weight", "class_embedding", "embed_tokens.weight")):
            parameter.data.copy_(common.normal(tuple(parameter.shape), label, name, scale=0.5))
    return model.eval()


def clip_text():
    for case, settings in TEXTS.items():
        config = CLIPTextConfig(**settings, attn_implementation="eager")
        model = randomise(CLIPTextModel(config), f"llava/{case}")
        folder = common.case_folder("llava", case)
        file = config.to_dict() | {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}
        common.write_json(folder / "config.json", file)
        state = prefixed({k: v for k, v in model.state_dict().items() if "position_ids" not in k}, "text_model.")
        common.write_weights(folder / "model.safetensors", state, torch.bfloat16)
        end = settings["vocab_size"] - 1
        ids = torch.tensor([[3, 7, 5, 9, end, end, end, end], [4, 6, end, end, end, end, end, end]])
        mask = (torch.arange(8)[None] < torch.tensor([[5], [3]])).long()
        taps = common.Taps()
        layers = [module for name, module in model.named_modules() if name.split(".")[-2:-1] == ["layers"]]
        for i, layer in enumerate(layers):
            taps.output(layer, f"layers.{i}")
        plain = model(ids)
        blocks = {f"blocks.{name}": value for name, value in taps.close().items()}
        masked = model(ids, attention_mask=mask).last_hidden_state * mask[:, :, None]
        common.write_golden(folder / "golden.safetensors", {
            "inputs.input_ids": ids, "inputs.attention_mask": mask, "outputs.last_hidden_state": masked,
            "outputs.pooled": plain.pooler_output, "plain.last_hidden_state": plain.last_hidden_state,
        } | blocks)


VISION = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, image_size=12, patch_size=4)
LLAMA = dict(vocab_size=50, hidden_size=32, intermediate_size=56, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=500000.0)
IMAGE = 47


def llava():
    text = LlamaConfig(**LLAMA)
    model = LlavaForConditionalGeneration(LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION), text_config=text, image_token_index=IMAGE, vision_feature_layer=-2,
        vision_feature_select_strategy="default", projector_hidden_act="gelu", attn_implementation="eager"))
    randomise(model, "llava/llava")
    state = {k: v for k, v in model.state_dict().items() if "position_ids" not in k}
    published = {}
    for name, value in state.items():
        new = name.replace("model.language_model.", "language_model.model.").replace("lm_head.", "language_model.lm_head.")
        new = new.replace("model.multi_modal_projector.", "multi_modal_projector.").replace("model.vision_tower.", "vision_tower.")
        if new.startswith("vision_tower.") and ".vision_model." not in new:
            new = new.replace("vision_tower.", "vision_tower.vision_model.")
        published[new] = value
    config = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": IMAGE,
              "ignore_index": -100, "pad_token_id": 0, "projector_hidden_act": "gelu", "vision_feature_layer": -2,
              "vision_feature_select_strategy": "default",
              "text_config": LLAMA | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
              "vision_config": VISION | {"model_type": "clip_vision_model", "projection_dim": 16}}
    for case, tensors in (("llava", published), ("llava_new", state)):
        folder = common.case_folder("llava", case)
        common.write_json(folder / "config.json", config)
        common.write_weights(folder / "model.safetensors", tensors, torch.bfloat16)
    ids = torch.tensor([[1, 5] + [IMAGE] * 9 + [7, 9, 11, 3], [1, 8] + [IMAGE] * 9 + [6, 2, 0, 0]])
    mask = torch.ones_like(ids)
    mask[1, 13:] = 0
    pixels = common.normal((2, 3, 12, 12), "llava", "pixels")
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    found = model(input_ids=ids, attention_mask=mask, position_ids=positions, pixel_values=pixels, output_hidden_states=True)
    states = [state * mask[:, :, None] for state in found.hidden_states]
    features = model.model.get_image_features(pixels)
    features = getattr(features, "pooler_output", features)
    features = torch.cat(list(features)) if isinstance(features, (list, tuple)) else features
    common.write_golden(common.FIXTURES / "llava" / "llava" / "golden.safetensors", {
        "inputs.input_ids": ids, "inputs.attention_mask": mask, "inputs.pixel_values": pixels,
        "outputs.last_hidden_state": states[-1], "skipped.1": states[-2], "skipped.2": states[-3],
        "blocks.features": features.reshape(-1, 32),
    })
    # The language model alone, as HunyuanVideo's text encoder is saved.
    alone = LlamaModel(text)
    alone.load_state_dict({k.removeprefix("model.language_model."): v for k, v in state.items() if ".language_model." in k})
    folder = common.case_folder("llava", "llama")
    common.write_json(folder / "config.json", LLAMA | {"model_type": "llama", "architectures": ["LlamaModel"]})
    common.write_weights(folder / "model.safetensors", alone.state_dict(), torch.bfloat16)
    found = alone(input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True)
    states = [state * mask[:, :, None] for state in found.hidden_states]
    common.write_golden(folder / "golden.safetensors", {
        "inputs.input_ids": ids, "inputs.attention_mask": mask, "outputs.last_hidden_state": states[-1],
        "skipped.1": states[-2], "skipped.2": states[-3],
    })


if __name__ == "__main__":
    clip_text()
    llava()
