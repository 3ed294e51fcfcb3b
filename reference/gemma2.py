"""Goldens of the Gemma-2 decoder body (transformers Gemma2Model, eager attention)."""

import torch
from transformers import Gemma2Config, Gemma2Model

import common

BASE = dict(
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    num_hidden_layers=3,
    intermediate_size=64,
    vocab_size=64,
    query_pre_attn_scalar=16,
    attn_logit_softcapping=50.0,
    final_logit_softcapping=30.0,
    max_position_embeddings=64,
    sliding_window=4096,
    rms_norm_eps=1e-6,
    pad_token_id=0,
    eos_token_id=1,
    bos_token_id=2,
)

# name -> (config changes, tokens, valid tokens of each row)
CASES = {
    "softcap50": ({}, 9, [9, 5]),
    "softcap2": ({"attn_logit_softcapping": 2.0}, 9, [9, 5]),
    # A query sees 8 keys in the sliding layers, and the sequence is longer.
    "sliding": ({"sliding_window": 8}, 21, [21, 13]),
    # head_dim * heads differs from hidden_size, query scale differs from head_dim.
    "narrow": ({"num_hidden_layers": 1, "query_pre_attn_scalar": 24, "num_key_value_heads": 1}, 7, [7, 1]),
}


def build(label, **changes):
    config = Gemma2Config(**(BASE | changes), attn_implementation="eager")
    model = Gemma2Model(config)
    # The norms multiply by 1 + weight.
    common.randomise(model, f"gemma2/{label}", norm_offset=-1.0)
    for name, parameter in model.named_parameters():
        # Sharp attention, so that the soft cap changes the result.
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            parameter.mul_(2.0)
    return model.eval()


def config_json(model):
    config = model.config.to_dict()
    config["architectures"] = ["Gemma2Model"]
    config.pop("_name_or_path", None)
    return config


def run(model, ids, mask):
    result = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    keep = mask[:, :, None].float()
    tensors = {"inputs.input_ids": ids, "inputs.attention_mask": mask}
    tensors["outputs.last_hidden_state"] = result.last_hidden_state * keep
    # hidden_states[0] is the scaled embedding, [i] the output of layer i-1; the last one is after the final norm.
    for i, value in enumerate(result.hidden_states[:-1]):
        tensors[f"blocks.hidden_states.{i}"] = value * keep
    return tensors


def main():
    for case, (changes, tokens, lengths) in CASES.items():
        model = build("shared" if case in ("softcap50", "softcap2", "sliding") else case, **changes)
        ids = torch.randint(4, 64, (len(lengths), tokens), generator=common.generator("gemma2", case))
        ids[:, 0] = 2
        mask = torch.zeros_like(ids)
        for row, length in enumerate(lengths):
            mask[row, :length] = 1
        ids = ids * mask
        folder = common.case_folder("gemma2", case)
        common.write_json(folder / "config.json", config_json(model))
        # Stored as published (bf16) in two cases; every value is exact in it.
        stored = torch.bfloat16 if case in ("softcap2", "sliding") else None
        common.write_weights(folder / "model.safetensors", model.state_dict(), stored)
        tensors = run(model, ids, mask)
        taps = common.Taps()
        layer = model.layers[0]
        for name in (
            "input_layernorm",
            "self_attn",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "mlp",
            "post_feedforward_layernorm",
        ):
            taps.output(getattr(layer, name), f"blocks.layers.0.{name}")
        model(input_ids=ids, attention_mask=mask)
        keep = mask[:, :, None].float()
        tensors |= {name: value * keep for name, value in taps.close().items()}
        # Without padding the real rows are the same.
        shortest = lengths[-1]
        single = model(input_ids=ids[-1:, :shortest]).last_hidden_state
        tensors["outputs.unpadded_last_row"] = single
        common.write_golden(folder / "golden.safetensors", tensors)

    # The same weights under the names of the causal language model's files, without its output head.
    model = build("narrow", **CASES["narrow"][0])
    prefixed = {f"model.{name}": value for name, value in model.state_dict().items()}
    common.write_weights(common.FIXTURES / "gemma2/narrow/prefixed.safetensors", prefixed)


if __name__ == "__main__":
    main()
