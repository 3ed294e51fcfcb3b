"""Tiny SANA pipelines in the published folder layout, and whole runs of diffusers' pipelines on them.

`pipelines/sana` also holds a ControlNet (controlnet/) and a second scheduler (scheduler_euler/); `pipelines/sprint` is the
few-step kind. Runs are listed in cases.json of each folder; cases/NAME.safetensors holds the tensors.
"""

import json
import logging
import re

import numpy
import torch
from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaControlNetModel,
    SanaControlNetPipeline,
    SanaPAGPipeline,
    SanaPipeline,
    SanaSprintImg2ImgPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
)
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Gemma2Config, Gemma2Model, PreTrainedTokenizerFast

import common

logging.getLogger("transformers").setLevel(logging.ERROR)

LATENT_CHANNELS, RATIO = 4, 8
PROMPT = "a red circle over a blue square"
INSTRUCTION = ["Describe the picture with more colours and shapes.", "User Prompt: "]
SENTENCES = [
    "a red circle over a blue square",
    "a small green triangle under a large yellow ring",
    "two blue squares and one red ring on a grey ground",
    "describe the picture with more colours and shapes. user prompt: a yellow circle",
    "Describe the picture with more colours and shapes.",
    "User Prompt: a blurry picture of a white square near a black line",
]


def build_tokenizer():
    """A small byte-fallback BPE with Gemma's conventions: <pad>=0, <eos>=1, <bos>=2, <unk>=3, <bos> first."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    trained.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=130, special_tokens=specials))
    model = json.loads(trained.to_str())["model"]
    pieces = [p for p, _ in sorted(model["vocab"].items(), key=lambda item: item[1]) if p not in specials]
    names = specials + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    vocabulary = {piece: i for i, piece in enumerate(names)}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(specials)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="right",
    )
    return fast, tokenizer, len(names)


TRANSFORMER = dict(
    in_channels=LATENT_CHANNELS,
    out_channels=LATENT_CHANNELS,
    num_attention_heads=2,
    attention_head_dim=8,
    num_layers=2,
    num_cross_attention_heads=2,
    cross_attention_head_dim=8,
    cross_attention_dim=16,
    caption_channels=16,
    sample_size=8,
)


def build_transformer(label, **changes):
    model = common.randomise(SanaTransformer2DModel(**(TRANSFORMER | changes)), f"pipelines/{label}")
    # A velocity of modest size, as a trained model's: keeps twenty guided steps tame.
    for name in ("proj_out.weight", "proj_out.bias"):
        model.get_parameter(name).mul_(0.25)
    return model


def build_vae(label):
    vae = AutoencoderDC(
        latent_channels=LATENT_CHANNELS,
        attention_head_dim=8,
        encoder_block_types=["ResBlock"] * 3 + ["EfficientViTBlock"],
        decoder_block_types=["ResBlock"] * 3 + ["EfficientViTBlock"],
        encoder_block_out_channels=[8, 8, 8, 16],
        decoder_block_out_channels=[8, 8, 8, 16],
        encoder_layers_per_block=[1, 1, 1, 1],
        decoder_layers_per_block=[1, 1, 1, 1],
        encoder_qkv_multiscales=[[], [], [], [5]],
        decoder_qkv_multiscales=[[], [], [], [5]],
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    return common.randomise(vae, f"pipelines/{label}/vae", gain=0.7, bias=0.1)


def build_text_encoder(label, vocabulary):
    config = Gemma2Config(
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_hidden_layers=2,
        intermediate_size=32,
        vocab_size=vocabulary,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        max_position_embeddings=1024,
        sliding_window=4096,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        attn_implementation="eager",
    )
    return common.randomise(Gemma2Model(config), f"pipelines/{label}/text", norm_offset=-1.0)


def dpm():
    return DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)


def save_pipeline(pipe, folder):
    """The published layout: safetensors of every component, class names as in the published index."""
    pipe.save_pretrained(folder, safe_serialization=True)
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    index["tokenizer"] = ["transformers", "GemmaTokenizerFast"]
    common.write_json(path, index)
    for path in folder.rglob("*.json"):
        if path.name == "config.json":
            config = json.loads(path.read_text())
            config.pop("_name_or_path", None)
            common.write_json(path, config)


def picture(width, height):
    """A fixed RGB picture: smooth ramps with a box, so that resizing matters."""
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    red, green, blue = x * 255 // width, y * 255 // height, (x * 3 + y * 5) % 256
    pixels = torch.stack([red, green, blue], dim=-1)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = torch.tensor([250, 20, 60])
    return pixels.to(torch.uint8)


class Runner:
    def __init__(self, folder):
        self.folder, self.cases = folder, {}
        (folder / "cases").mkdir()

    def run(self, name, pipe, description, **arguments):
        """One pipeline call, recorded: every step's latents, the final latents, the picture."""
        seed = arguments.pop("seed", None)
        seeded = {} if seed is None else {"generator": torch.Generator("cpu").manual_seed(seed)}
        steps = []

        def keep(_pipe, _step, _time, values):
            steps.append(values["latents"].clone())
            return {}

        image = arguments.get("image", arguments.get("control_image"))
        call = arguments | {"use_resolution_binning": False}
        pipe.set_progress_bar_config(disable=True)
        picture_float = pipe(**call, **seeded, output_type="np", callback_on_step_end=keep).images
        if seed is not None:
            seeded["generator"].manual_seed(seed)
        latents = pipe(**call, **seeded, output_type="latent").images
        pixels = (torch.from_numpy(picture_float) * 255).round().to(torch.uint8)
        tensors = {"steps.latents": torch.stack(steps), "outputs.latents": latents, "outputs.pixels": pixels}
        tensors["outputs.picture"] = torch.from_numpy(picture_float).permute(0, 3, 1, 2)
        if "latents" in arguments:
            tensors["inputs.latents"] = arguments["latents"]
        if image is not None:
            tensors["inputs.image"] = torch.from_numpy(numpy.array(image))
        if seed is not None:
            # The draws of the run, in order: the latents, then (few-step kind) one of the same shape per step.
            twin = torch.Generator("cpu").manual_seed(seed)
            if "latents" not in arguments:
                tensors["draws.latents"] = torch.randn(latents.shape, generator=twin)
            if "Sprint" in type(pipe).__name__:
                tensors["draws.steps"] = torch.stack([torch.randn(latents.shape, generator=twin) for _ in steps])
        clipped = ((picture_float == 0) | (picture_float == 1)).mean()
        path = self.folder / "cases" / f"{name}.safetensors"
        large = max(2048, tensors["steps.latents"].numel())
        common.write_golden(path, tensors, every=17, large=large)
        print(f"   largest latent {torch.stack(steps).abs().max():.2f}, clipped pixels {clipped:.2f}")
        shown = {k: v for k, v in arguments.items() if isinstance(v, (str, int, float, list)) or v is None}
        self.cases[name] = description | shown | {"seed": seed, "pipeline": type(pipe).__name__}

    def finish(self):
        common.write_json(self.folder / "cases.json", self.cases)


def text_cases(pipe, tokenizer, folder):
    """Prompt encoding alone: ids, masks and the selected rows, with and without the instruction, with truncation."""
    cases = {
        "plain": dict(prompt=PROMPT, max_sequence_length=300),
        "upper_case": dict(prompt="  A Red CIRCLE over a blue Square  ", max_sequence_length=300),
        "empty": dict(prompt="", max_sequence_length=300),
        "bytes": dict(prompt="a \u732b \u00e9 circle", max_sequence_length=300),
        "instruction": dict(prompt=PROMPT, max_sequence_length=300, complex_human_instruction=INSTRUCTION),
        "truncated": dict(prompt=PROMPT + " and a green ring", max_sequence_length=8),
        "instruction_truncated": dict(
            prompt=PROMPT + " and a green ring", max_sequence_length=8, complex_human_instruction=INSTRUCTION
        ),
        "instruction_empty": dict(prompt="", max_sequence_length=8, complex_human_instruction=INSTRUCTION),
    }
    tensors, index = {}, {}
    for name, case in cases.items():
        seen = {}
        handle = pipe.text_encoder.register_forward_pre_hook(
            lambda _m, args, kwargs: seen.update(ids=args[0], mask=kwargs["attention_mask"]), with_kwargs=True
        )
        embeds, mask, _, _ = pipe.encode_prompt(
            case["prompt"],
            do_classifier_free_guidance=False,
            device="cpu",
            max_sequence_length=case["max_sequence_length"],
            complex_human_instruction=case.get("complex_human_instruction"),
        )
        handle.remove()
        lowered = case["prompt"].lower().strip()
        full = "\n".join(case.get("complex_human_instruction", [])) + lowered
        raw = tokenizer.encode(full).ids[: seen["ids"].shape[1]]
        if raw != seen["ids"][0][: len(raw)].tolist():
            raise ValueError(f"{name}: the tokenizer file and its wrapper disagree")
        tensors[f"{name}.input_ids"] = torch.tensor(raw)
        tensors[f"{name}.padded_length"] = torch.tensor([seen["ids"].shape[1]])
        tensors[f"{name}.prompt_mask"] = mask[0]
        # Only the rows that the mask keeps, in order.
        tensors[f"{name}.prompt_embeds"] = embeds[0][mask[0].bool()]
        index[name] = case
    common.write_golden(folder / "text.safetensors", tensors)
    common.write_json(folder / "text.json", index)


def sana():
    folder = common.case_folder("pipelines", "sana")
    fast, tokenizer, vocabulary = build_tokenizer()
    parts = dict(
        tokenizer=fast,
        text_encoder=build_text_encoder("sana", vocabulary),
        vae=build_vae("sana"),
        transformer=build_transformer("sana"),
    )
    pipe = SanaPipeline(**parts, scheduler=dpm())
    save_pipeline(pipe, folder)
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler_euler")
    (folder / "instruction.txt").write_text("\n".join(INSTRUCTION))
    control = {k: v for k, v in TRANSFORMER.items() if k != "num_layers"}
    controlnet = common.randomise(SanaControlNetModel(**control, num_layers=1), "pipelines/controlnet")
    controlnet.save_pretrained(folder / "controlnet")
    text_cases(pipe, tokenizer, folder)

    def latents(name, count=1, height=8, width=8):
        return common.normal((count, LATENT_CHANNELS, height, width), "pipelines", name)

    base = dict(
        prompt=PROMPT, negative_prompt="", guidance_scale=4.5, height=64, width=64, complex_human_instruction=None
    )
    runner = Runner(folder)
    start = latents("sana")
    runner.run("dpm4", pipe, {}, **base, num_inference_steps=4, latents=start)
    runner.run("dpm20", pipe, {}, **base, num_inference_steps=20, latents=start)
    runner.run(
        "dpm4_blurry", pipe, {}, **(base | {"negative_prompt": "blurry"}), num_inference_steps=4, latents=start
    )
    runner.run("dpm20_seed42", pipe, {}, **base, num_inference_steps=20, seed=42)
    runner.run("dpm4_no_guidance", pipe, {}, **(base | {"guidance_scale": 1.0}), num_inference_steps=4, latents=start)
    runner.run(
        "dpm4_wide_two",
        pipe,
        {},
        **(base | {"width": 96, "num_images_per_prompt": 2}),
        num_inference_steps=4,
        latents=latents("wide", 2, 8, 12),
    )
    runner.run(
        "dpm4_instruction",
        pipe,
        {},
        **(base | {"complex_human_instruction": INSTRUCTION}),
        num_inference_steps=4,
        latents=start,
    )
    euler = SanaPipeline(**parts, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))
    runner.run("euler4", euler, {"scheduler": "euler"}, **base, num_inference_steps=4, latents=start)
    runner.run("euler20", euler, {"scheduler": "euler"}, **base, num_inference_steps=20, latents=start)

    for layer in (0, 1):
        name = f"transformer_blocks.{layer}"
        pag = SanaPAGPipeline(**parts, scheduler=dpm(), pag_applied_layers=name)
        for label, guidance in (("", 4.5), ("_no_guidance", 1.0)):
            runner.run(
                f"pag{layer}{label}",
                pag,
                {"pag_applied_layers": name},
                **(base | {"guidance_scale": guidance}),
                num_inference_steps=4,
                pag_scale=2.0,
                pag_adaptive_scale=0.0,
                latents=start,
            )
        if layer == 0:
            runner.run(
                "pag0_adaptive",
                pag,
                {"pag_applied_layers": name},
                **base,
                num_inference_steps=4,
                pag_scale=2.0,
                pag_adaptive_scale=0.005,
                latents=start,
            )

    with_control = SanaControlNetPipeline(**parts, controlnet=controlnet, scheduler=dpm())
    image = Image.fromarray(picture(64, 64).numpy())
    for scale in (1.0, 0.7):
        runner.run(
            f"controlnet_scale{scale:g}",
            with_control,
            {"wiring": "diffusers"},
            **base,
            num_inference_steps=4,
            control_image=image,
            controlnet_conditioning_scale=scale,
            latents=start,
        )
    runner.finish()


def sprint():
    folder = common.case_folder("pipelines", "sprint")
    fast, _, vocabulary = build_tokenizer()
    parts = dict(
        tokenizer=fast,
        text_encoder=build_text_encoder("sprint", vocabulary),
        vae=build_vae("sprint"),
        transformer=build_transformer("sprint", guidance_embeds=True, qk_norm="rms_norm_across_heads"),
        scheduler=SCMScheduler(),
    )
    pipe = SanaSprintPipeline(**parts)
    save_pipeline(pipe, folder)
    base = dict(prompt=PROMPT, guidance_scale=4.5, height=64, width=64, complex_human_instruction=None)
    runner = Runner(folder)
    for steps in (1, 2, 4):
        runner.run(
            f"scm{steps}_seed42",
            pipe,
            {},
            **base,
            num_inference_steps=steps,
            intermediate_timesteps=1.3 if steps == 2 else None,
            seed=42,
        )
    runner.run(
        "scm2_two_seed7", pipe, {}, **base, num_inference_steps=2, intermediate_timesteps=1.3, num_images_per_prompt=2, seed=7
    )
    image_pipe = SanaSprintImg2ImgPipeline(**parts)
    for name, strength, steps, size in (
        ("img2img_strength0.5", 0.5, 2, (64, 64)),
        ("img2img_strength0.6", 0.6, 2, (64, 64)),
        ("img2img_resized", 0.5, 4, (96, 80)),
    ):
        runner.run(
            name,
            image_pipe,
            {},
            **base,
            image=Image.fromarray(picture(*size).numpy()),
            strength=strength,
            num_inference_steps=steps,
            intermediate_timesteps=1.3 if steps == 2 else None,
            seed=11,
        )
    runner.finish()


def main():
    sana()
    sprint()
    for path in (common.FIXTURES / "pipelines").rglob("*.json"):
        text = path.read_text()
        cleaned = re.sub(r'\n\s*"_name_or_path": "[^"]*",', "", text)
        if cleaned != text:
            path.write_text(cleaned)


if __name__ == "__main__":
    main()
