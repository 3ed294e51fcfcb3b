"""Golden of a low-rank adapter on the transformer: rank 2, alpha 2, query, key and value of both attentions."""

import torch
from diffusers import SanaPipeline

import common
import sana_transformer

RANK = 2


def main():
    model = sana_transformer.build("t1_base")
    width = model.config.num_attention_heads * model.config.attention_head_dim
    layers = {}
    for i in range(model.config.num_layers):
        for attention in ("attn1", "attn2"):
            for letter in "qkv":
                name = f"transformer_blocks.{i}.{attention}.to_{letter}"
                layers[f"{name}.lora_A.weight"] = common.normal((RANK, width), "lora", name, "a", scale=0.3)
                layers[f"{name}.lora_B.weight"] = common.normal((width, RANK), "lora", name, "b", scale=0.3)
    folder = common.case_folder("lora", "t1_base")
    SanaPipeline.save_lora_weights(folder, transformer_lora_layers=layers)

    inputs = sana_transformer.make_inputs("lora", False)
    tensors = {f"inputs.{k}": v for k, v in inputs.items()}
    tensors["outputs.without"] = model(**inputs).sample
    model.load_lora_adapter({f"transformer.{k}": v.clone() for k, v in layers.items()}, prefix="transformer")
    tensors["outputs.scale1"] = model(**inputs, attention_kwargs={"scale": 1.0}).sample
    tensors["outputs.scale0.5"] = model(**inputs, attention_kwargs={"scale": 0.5}).sample

    # The same by adding scale * B A to the weights.
    for scale in (1.0, 0.5):
        merged = sana_transformer.build("t1_base")
        state = merged.state_dict()
        for name in [k[: -len(".lora_A.weight")] for k in layers if k.endswith("lora_A.weight")]:
            state[f"{name}.weight"] += scale * layers[f"{name}.lora_B.weight"] @ layers[f"{name}.lora_A.weight"]
        difference = (merged(**inputs).sample - tensors[f"outputs.scale{scale:g}"]).abs().max()
        if difference > 1e-5:
            raise ValueError(f"merged weights differ by {difference} at scale {scale}")
    common.write_golden(folder / "golden.safetensors", tensors)


if __name__ == "__main__":
    main()
