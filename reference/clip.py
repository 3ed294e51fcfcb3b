"""Goldens of CLIP (arXiv 2103.00020): both encoders, and scores of pictures for texts with the published tokenizer's and
picture processor's ways.

    python clip.py
"""

import json

import numpy
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

import common
from hunyuan_video_pipeline import clip_tokenizer, picture, randomise

TEXT = dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=16)
VISION = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, image_size=12, patch_size=4)
PROMPTS = ["a red heart jumps", "Heart", "", "a prompt that is longer than the places that there are for it"]
SIZES = [(12, 12), (40, 25), (17, 31)]


def main():
    folder = common.case_folder("clip", "model")
    tokenizer, words = clip_tokenizer(folder)
    tokenizer.save_vocabulary(str(folder))
    common.write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": TEXT["max_position_embeddings"], "do_lower_case": True,
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})
    for other in ("tokenizer.json", "tokenizer.model"):
        (folder / other).unlink(missing_ok=True)
    end = words - 1
    # As published files are: the text's end in their old number.
    text = TEXT | {"vocab_size": words, "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=20, attn_implementation="eager")
    model = CLIPModel(config)
    del model.logit_scale
    randomise(model, "clip/model")
    model.logit_scale = torch.nn.Parameter(torch.tensor(2.0))
    common.write_json(folder / "config.json", {
        "architectures": ["CLIPModel"], "model_type": "clip", "logit_scale_init_value": 2.6592, "projection_dim": 20,
        "text_config": text | {"model_type": "clip_text_model"}, "text_config_dict": None,
        "vision_config": {"model_type": "clip_vision_model"}, "vision_config_dict": VISION})
    state = {k: v for k, v in model.state_dict().items() if "position_ids" not in k}
    common.write_weights(folder / "model.safetensors", state, torch.bfloat16)

    ids = torch.tensor([[3, 7, 5, 9, 11, end, end, end], [4, 6, end, end, end, end, end, end], [4, 8, 3, 2, 1, 0, 7, end]])
    mask = (torch.arange(8)[None] < torch.tensor([[6], [3], [8]])).long()
    pixels = common.normal((2, 3, 12, 12), "clip", "pixels")
    found = model(input_ids=ids, attention_mask=mask, pixel_values=pixels)
    common.write_golden(folder / "golden.safetensors", {
        "inputs.input_ids": ids, "inputs.attention_mask": mask, "inputs.pixel_values": pixels,
        "outputs.text_embeds": found.text_embeds, "outputs.image_embeds": found.image_embeds,
        "outputs.logits_per_image": found.logits_per_image,
    })

    processor = CLIPImageProcessor(size={"shortest_edge": 12}, crop_size={"height": 12, "width": 12})
    common.write_json(folder / "preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12},
        "do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
        "resample": 3, "rescale_factor": 1 / 255, "image_mean": processor.image_mean, "image_std": processor.image_std})
    pictures = [picture(*size) for size in SIZES]
    pixels = processor(pictures, return_tensors="pt").pixel_values
    rows = [tokenizer(prompt, truncation=True, max_length=TEXT["max_position_embeddings"]).input_ids for prompt in PROMPTS]
    texts = torch.cat([model(input_ids=torch.tensor([row]), pixel_values=pixels).text_embeds for row in rows])
    seen = model(input_ids=torch.tensor([rows[0]]), pixel_values=pixels).image_embeds
    tensors = {f"inputs.pictures.{i}": torch.from_numpy(numpy.array(p)) for i, p in enumerate(pictures)}
    common.write_golden(folder / "golden_scores.safetensors", tensors | {"outputs.scores": 100 * seen @ texts.T})
    common.write_json(folder / "prompts.json", {"prompts": PROMPTS, "ids": rows})


if __name__ == "__main__":
    main()
