"""A whole HART pipeline with its goldens: prompts to pictures, the largest logit for each draw.

    python hart_pipeline.py HART      # a checkout of mit-han-lab/hart (e28a41f)

`fixtures/hart_pipeline/model` is a folder as users have it: llm/ and tokenizer/ as published, text_encoder/ with its
tokenizer inside, the system prompt in a file.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

import common

# hart.py is called as the package is that it runs.
spec = importlib.util.spec_from_file_location("hart_goldens", Path(__file__).with_name("hart.py"))
goldens = importlib.util.module_from_spec(spec)
spec.loader.exec_module(goldens)

CASE = "pipeline"
goldens.CASES[CASE] = dict(
    tokenizer=dict(vocab_size=640, z_channels=8, ch=32, ch_mult=[1, 1], quantizer_type="var_hybrid"),
    transformer=dict(depth=2, embed_dim=64, num_heads=2, context_token=14, context_dim=48, use_context_norm=True),
    patch_nums=[1, 2, 3, 5],
    guidance=4.5,
    ema=True,
)

# Line ends and spaces at both ends count.
SYSTEM = " Describe one picture:\n- colours and shapes.\nPrompt:\n"
PROMPTS = [
    "a red heart",
    "two green apples on a wooden table, warm light from the left, and much more than fits",
]


def text_tokenizer(folder):
    """Byte-level BPE of Qwen2's kind, which pads before the text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([SYSTEM, *PROMPTS] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|endoftext|>", padding_side="left"
    )
    fast.save_pretrained(folder)
    for extra in folder.iterdir():
        if extra.name not in ("tokenizer.json", "tokenizer_config.json"):
            extra.unlink()
    return fast


def text_encoder(folder, vocabulary):
    config = Qwen2Config(
        hidden_size=48, num_attention_heads=6, num_key_value_heads=2, num_hidden_layers=2, intermediate_size=80,
        vocab_size=vocabulary, max_position_embeddings=128, tie_word_embeddings=True,
    )
    model = Qwen2Model(config)
    common.randomise(model, "hart_pipeline/text_encoder")
    stored = config.to_dict() | {"architectures": ["Qwen2ForCausalLM"]}
    stored.pop("_name_or_path", None)
    common.write_json(folder / "config.json", stored)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    common.write_weights(folder / "model.safetensors", state, torch.bfloat16)
    return model.eval()


def generate(hart, tokenizer, model, context, mask, smooth):
    """Codes, latent and picture; neither noise nor chance."""
    codes, inside = [], {}

    def largest(logits, top_k=0, top_p=0.0, rng=None, num_samples=1):
        smallest = logits.topk(top_k, dim=-1)[0].amin(dim=-1, keepdim=True)
        logits.masked_fill_(logits < smallest, -torch.inf)
        codes.append(logits.argmax(-1))
        return codes[-1].unsqueeze(-1)

    def keep(f_hat):
        inside["latent"] = f_hat.clone()
        return fhat(f_hat)

    hart.module.sample_with_top_k_top_p_ = largest
    fhat, randn, randn_like = tokenizer.fhat_to_img, torch.randn, torch.randn_like
    torch.randn, torch.randn_like = lambda *shape, **_: torch.zeros(*shape), lambda x, **_: torch.zeros_like(x)
    tokenizer.fhat_to_img = keep
    try:
        image = model.autoregressive_infer_cfg(
            B=len(mask), label_B=context.clone(), cfg=goldens.CASES[CASE]["guidance"], more_smooth=smooth,
            context_position_ids=goldens.positions(mask), context_mask=mask.clone(),
        )
    finally:
        torch.randn, torch.randn_like, tokenizer.fhat_to_img = randn, randn_like, fhat
    return codes, inside["latent"], image


def main(root):
    hart = goldens.reference(root)
    from hart.utils.tools import encode_prompts

    folder = common.case_folder("hart_pipeline", "model")
    (folder / "text_encoder").mkdir()
    (folder / "system_prompt.txt").write_bytes(SYSTEM.encode())
    words = text_tokenizer(folder / "text_encoder")
    text = text_encoder(folder / "text_encoder", len(words))
    tokenizer, model, own, own_llm = goldens.build(hart, CASE)
    goldens.store_weights(folder, CASE, hart, tokenizer, model)
    goldens.store_configurations(folder, tokenizer, model, own, own_llm)

    tensors = {}
    length = model.context_token
    for label, system in (("system", SYSTEM), ("plain", None)):
        ids, mask, _, context = encode_prompts(PROMPTS, text, words, length, system, system is not None)
        tensors[f"{label}.input_ids"] = ids
        tensors[f"{label}.mask"] = mask.long()
        tensors[f"{label}.context"] = context
        codes, latent, image = generate(hart, tokenizer, model, context, mask.long(), False)
        tensors |= {f"{label}.codes.{i}": values for i, values in enumerate(codes)}
        tensors[f"{label}.latent"] = latent
        # As the command line of the reference saves it.
        tensors[f"{label}.pixels"] = (image * 255).to(torch.uint8).permute(0, 2, 3, 1)
    common.write_golden(folder / "golden.safetensors", tensors, large=1 << 20)


if __name__ == "__main__":
    main(sys.argv[1])
