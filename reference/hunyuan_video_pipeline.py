"""Tiny HunyuanVideo pipelines (arXiv 2412.03603) in the published folder layout, and whole runs of diffusers' pipelines on
them: a clip from a picture, its latent beside the noise or in its place, and a clip from text alone.

    python hunyuan_video_pipeline.py
"""

import json

import numpy
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video as text_pipeline
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video_image2video as image_pipeline
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

import common

PROMPT, NEGATIVE = "A Red heart jumps, twice!", "blurry, still"
WIDTH, HEIGHT, FRAMES, STEPS = 48, 32, 9, 3
SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>", "<pad>"]
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
VISION = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, image_size=12, patch_size=4)
LLAMA = dict(hidden_size=32, intermediate_size=56, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=2048, rms_norm_eps=1e-5, rope_theta=500000.0, pad_token_id=6, bos_token_id=0, eos_token_id=1)
TRANSFORMER = dict(num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=2, num_refiner_layers=1,
                   patch_size=2, patch_size_t=1, text_embed_dim=32, pooled_projection_dim=24, rope_theta=256.0,
                   rope_axes_dim=(4, 6, 6), out_channels=4)
CASES = {
    "concat": dict(TRANSFORMER, in_channels=9, guidance_embeds=False, image_condition_type="latent_concat"),
    "replace": dict(TRANSFORMER, in_channels=4, guidance_embeds=True, image_condition_type="token_replace"),
    "text": dict(TRANSFORMER, in_channels=4, guidance_embeds=True),
}


def llama_tokenizer():
    """Byte-level BPE with Llama 3's special tokens and its way to cut words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([image_pipeline.DEFAULT_PROMPT_TEMPLATE["template"], "a red heart jumps"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIALS[0], eos_token=SPECIALS[1], pad_token="<pad>",
                                   padding_side="right", model_max_length=2048)


def clip_tokenizer(folder):
    """As published: vocab.json and merges.txt."""
    letters = list(pre_tokenizers.ByteLevel.alphabet())
    merges = ["h e", "r e", "a r", "he ar", "hear t</w>", "re d</w>", "j u", "m p"]
    names = sorted(letters) + [f"{letter}</w>" for letter in sorted(letters)]
    names += [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, pad_token="<|endoftext|>", unk_token="<|endoftext|>"), len(names)


def randomise(model, label):
    common.randomise(model, label, gain=1.3)
    for name, parameter in model.named_parameters():
        if name.endswith(("token_embedding.weight", "position_embedding.weight", "class_embedding", "embed_tokens.weight")):
            parameter.data.copy_(common.normal(tuple(parameter.shape), label, name, scale=0.5))
    return model.eval()


def picture(width, height):
    """A picture with edges and a slope in every colour."""
    y, x = numpy.mgrid[0:height, 0:width]
    planes = [(x * 255 // (width - 1)), (y * 255 // (height - 1)), ((x // 7 + y // 5) % 2) * 200]
    return Image.fromarray(numpy.stack(planes, axis=-1).astype(numpy.uint8))


def crop_start(tokenizer, template):
    """Tokens before the prompt: of the published tokenizer what the pipelines have as a number."""
    return len(tokenizer(template.split("{}")[0]).input_ids)


def parts(case):
    label = f"hunyuan_video_pipeline/{case}"
    folder = common.case_folder("pipelines", f"hunyuan_video_{case}")
    for part in ("text_encoder", "text_encoder_2", "transformer", "vae"):
        (folder / part).mkdir()
    tokenizer = llama_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    tokenizer_2, words = clip_tokenizer(folder / "tokenizer_2")
    tokenizer_2.save_vocabulary(str(folder / "tokenizer_2"))
    common.write_json(folder / "tokenizer_2" / "tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "add_prefix_space": False, "do_lower_case": True, "errors": "replace",
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})
    for other in ("tokenizer.json", "tokenizer.model"):
        (folder / "tokenizer_2" / other).unlink(missing_ok=True)
    text = LlamaConfig(vocab_size=len(tokenizer), **LLAMA)
    if case == "text":
        encoder = randomise(LlamaModel(text), f"{label}/llama")
        common.write_json(folder / "text_encoder" / "config.json", LLAMA | {"vocab_size": len(tokenizer), "model_type": "llama", "architectures": ["LlamaModel"]})
        common.write_weights(folder / "text_encoder" / "model.safetensors", encoder.state_dict(), torch.bfloat16)
    else:
        image = tokenizer.convert_tokens_to_ids("<image>")
        encoder = randomise(LlavaForConditionalGeneration(LlavaConfig(
            vision_config=CLIPVisionConfig(**VISION), text_config=text, image_token_index=image, vision_feature_layer=-2,
            pad_token_id=6, vision_feature_select_strategy="default", projector_hidden_act="gelu", attn_implementation="eager")), f"{label}/llava")
        common.write_json(folder / "text_encoder" / "config.json", {
            "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": image, "ignore_index": -100,
            "pad_token_id": 6, "projector_hidden_act": "gelu", "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
            "text_config": LLAMA | {"vocab_size": len(tokenizer), "model_type": "llama", "architectures": ["LlamaForCausalLM"]},
            "vision_config": VISION | {"model_type": "clip_vision_model", "projection_dim": 16}})
        state = {k: v for k, v in encoder.state_dict().items() if "position_ids" not in k}
        common.write_weights(folder / "text_encoder" / "model.safetensors", state, torch.bfloat16)
    clip = dict(vocab_size=words, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3,
                max_position_embeddings=77, eos_token_id=words - 1, bos_token_id=words - 2, pad_token_id=words - 1)
    encoder_2 = randomise(CLIPTextModel(CLIPTextConfig(**clip, attn_implementation="eager")), f"{label}/clip")
    common.write_json(folder / "text_encoder_2" / "config.json", clip | {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"})
    state = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in encoder_2.state_dict().items() if "position_ids" not in k}
    common.write_weights(folder / "text_encoder_2" / "model.safetensors", state, torch.bfloat16)
    transformer = HunyuanVideoTransformer3DModel(**CASES[case])
    common.randomise(transformer, f"{label}/transformer")
    common.write_json(folder / "transformer" / "config.json", {"_class_name": "HunyuanVideoTransformer3DModel"} | CASES[case])
    common.write_weights(folder / "transformer" / "diffusion_pytorch_model.safetensors", transformer.state_dict(), torch.bfloat16)
    settings = dict(latent_channels=4, block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4)
    vae = AutoencoderKLHunyuanVideo(**settings)
    common.randomise(vae, f"{label}/vae")
    common.write_json(folder / "vae" / "config.json", {"_class_name": "AutoencoderKLHunyuanVideo"} | settings | {"scaling_factor": 0.476986})
    common.write_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", vae.state_dict(), torch.bfloat16)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    scheduler.save_pretrained(folder / "scheduler")
    made = dict(text_encoder=encoder, tokenizer=tokenizer, text_encoder_2=encoder_2, tokenizer_2=tokenizer_2, transformer=transformer, vae=vae,
                scheduler=scheduler)
    if case != "text":
        made["image_processor"] = CLIPImageProcessor(size={"shortest_edge": 12}, crop_size={"height": 12, "width": 12})
        made["image_processor"].save_pretrained(folder / "image_processor")
    kind = HunyuanVideoPipeline if case == "text" else HunyuanVideoImageToVideoPipeline
    names = {name: [type(part).__module__.split(".")[0], type(part).__name__] for name, part in made.items()}
    common.write_json(folder / "model_index.json", {"_class_name": kind.__name__, "_diffusers_version": "0.35.0"} | names)
    return folder, kind(**{name: part.eval() if isinstance(part, torch.nn.Module) else part for name, part in made.items()})


def run(case):
    folder, pipeline = parts(case)
    pipeline.set_progress_bar_config(disable=True)
    template = (text_pipeline if case == "text" else image_pipeline).DEFAULT_PROMPT_TEMPLATE
    patches = (VISION["image_size"] // VISION["patch_size"]) ** 2
    template = template | {"crop_start": crop_start(pipeline.tokenizer, template["template"])}
    if case != "text":
        # Of the published tokenizer the fifth place.
        place = pipeline.tokenizer(template["template"]).input_ids.index(pipeline.tokenizer.convert_tokens_to_ids("<image>"))
        template |= {"image_emb_start": place, "image_emb_end": place + patches, "image_emb_len": patches}
    noise = common.normal((1, 4, (FRAMES - 1) // 4 + 1, HEIGHT // 8, WIDTH // 8), "hunyuan_video_pipeline", case, "noise")
    tensors = {"latents": noise}
    after = []

    def seen(_pipeline, _step, _time, values):
        after.append(values["latents"].clone())
        return {}

    settings = dict(prompt=PROMPT, height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=STEPS, prompt_template=template,
                    callback_on_step_end=seen, output_type="pt", max_sequence_length=64)
    if case == "concat":
        settings |= dict(negative_prompt=NEGATIVE, true_cfg_scale=2.5)
    else:
        settings |= dict(guidance_scale=4.0)
    if case == "text":
        embeds, pooled, mask = pipeline.encode_prompt(PROMPT, prompt_template=template, max_sequence_length=64)
    else:
        settings["image"] = picture(WIDTH, HEIGHT)
        settings["image"].save(folder / "first.png")
        interleave = 2 if case == "concat" else 4
        embeds, pooled, mask = pipeline.encode_prompt(settings["image"], PROMPT, prompt_template=template, max_sequence_length=64,
                                                      image_embed_interleave=interleave)
    tensors |= {"text": embeds[:, mask[0].bool()], "pooled": pooled}
    clip = pipeline(latents=noise.clone(), **settings).frames[0]
    tensors |= {f"after.{i}": latents for i, latents in enumerate(after)}
    # [frames, rows, columns, colours], as files of frames hold them.
    tensors["frames"] = (clip.permute(0, 2, 3, 1) * 255).round()
    common.write_golden(folder / "golden.safetensors", tensors, large=1 << 20)
    common.write_json(folder / "case.json", {
        "prompt": PROMPT, "negative_prompt": NEGATIVE if case == "concat" else None, "guidance": 2.5 if case == "concat" else 4.0,
        "width": WIDTH, "height": HEIGHT, "frames": FRAMES, "steps": STEPS, "template_tokens": template["crop_start"]})


if __name__ == "__main__":
    for case in CASES:
        run(case)
