"""Goldens of Qwen2 as a text encoder (transformers Qwen2Model, eager attention)."""

import torch
from transformers import Qwen2Config, Qwen2Model

import common

BASE = dict(
    hidden_size=48,
    num_attention_heads=6,
    num_key_value_heads=2,
    num_hidden_layers=3,
    intermediate_size=80,
    vocab_size=96,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
    rope_theta=1_000_000.0,
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=2,
)

# name -> (config changes, mask of each row). Rows of padding behind a kept token see what stands before them.
CASES = {
    # A beginning that all texts share, then padding in front of a text, behind it, and none.
    "padding": ({}, ["11100001111", "11111110000", "11111111111"]),
    # Padding first, which sees nothing; one key head, another base of the rotary frequencies, a head of its own.
    "left": (
        dict(num_key_value_heads=1, rope_theta=10_000.0, rms_norm_eps=1e-5, num_hidden_layers=1, tie_word_embeddings=False),
        ["0000111111", "0111111111"],
    ),
}


def build(case, changes):
    config = Qwen2Config(**(BASE | changes), attn_implementation="eager")
    model = Qwen2Model(config)
    common.randomise(model, f"qwen2/{case}")
    for name, parameter in model.named_parameters():
        # Sharp attention, so that the mask and the positions change the result.
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            parameter.mul_(2.0)
    return model.eval()


def main():
    for case, (changes, rows) in CASES.items():
        model = build(case, changes)
        mask = torch.tensor([[int(keep) for keep in row] for row in rows])
        ids = torch.randint(3, 96, mask.shape, generator=common.generator("qwen2", case))
        # The beginning is the same everywhere, and padding is one token.
        ids[:, :3] = ids[:1, :3]
        ids = torch.where(mask == 1, ids, torch.zeros_like(ids))
        folder = common.case_folder("qwen2", case)
        config = model.config.to_dict()
        config["architectures"] = ["Qwen2Model" if case == "padding" else "Qwen2ForCausalLM"]
        config.pop("_name_or_path", None)
        common.write_json(folder / "config.json", config)
        if case == "padding":
            state = model.state_dict()
        else:
            state = {f"model.{name}": value for name, value in model.state_dict().items()}
            state["lm_head.weight"] = common.normal((96, 48), "qwen2", case, "head")
        common.write_weights(folder / "model.safetensors", state, torch.bfloat16)
        taps = common.Taps()
        taps.output(model.embed_tokens, "embedding")
        for i, layer in enumerate(model.layers):
            taps.output(layer, f"layers.{i}")
            for theirs, ours in (
                ("input_layernorm", "attention_norm"),
                ("self_attn", "attention"),
                ("post_attention_layernorm", "mlp_norm"),
                ("mlp", "mlp"),
            ):
                taps.output(getattr(layer, theirs), f"layers.{i}.{ours}")
        taps.output(model.norm, "norm")
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        tensors = {"inputs.input_ids": ids, "inputs.attention_mask": mask}
        tensors["outputs.last_hidden_state"] = states * mask[:, :, None]
        if case == "padding":
            # Rows of padding too, all of which see the beginning.
            tensors["outputs.all_rows"] = states
            tensors |= {f"blocks.{name}": value for name, value in taps.close().items()}
        common.write_golden(folder / "golden.safetensors", tensors)


if __name__ == "__main__":
    main()
