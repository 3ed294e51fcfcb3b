"""Goldens of the diffusion language models: logits of every architecture, and the reference generators.

    python reference/language_models.py --fast-dllm DIR --plus DIR --dllm DIR --sdar DIR --v2 DIR

The reference code is not part of this repository; each option is a checkout of it:
  --fast-dllm  NVlabs/Fast-dLLM at 24cc59e: LLaDA's and Dream's models, Dream's samplers
  --plus       Ringo-Star/FastdLLM_plusplus at 29fd034: Fast-dLLM's later generate.py (factor) and the Frechet rule
  --dllm       ZHZisZZ/dllm at ca17675: A2D, LLaDA-MoE and LLaDA2 models, LLaDA2's and BD3-LM's samplers
  --sdar       JetAstra/SDAR at c2041a8: SDAR's model and generate.py
  --v2         mgustineli/Fast-dLLM at fb55582: Fast-dLLM v2's batch_sample (a copy of upstream's)
Their models need transformers 4.57.6 (not the version in requirements.txt); torch as listed there.
"""

import argparse
import importlib.util
import os
import sys
import types
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # a compiled attention helper would only be slow here

import torch
import torch.nn.functional as functional

import common

SEEDS = 3
PROMPT, LENGTH, BLOCK = 9, 32, 8
VOCABULARY, MASK, EOS = 64, 63, 62


def package(folder, name):
    """Imports a folder with its relative imports under a name of its own."""
    folder = Path(folder)
    init = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    return module


def submodule(parent, name, folder):
    full = f"{parent}.{name}"
    spec = importlib.util.spec_from_file_location(full, Path(folder) / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    spec.loader.exec_module(module)
    return module


def script(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def randomise(model, label, gain=1.0, head=4.0):
    """Weights that matter, and a head that is often sure of itself."""
    common.randomise(model, label, gain=gain)
    for name, parameter in model.named_parameters():
        if "wte" in name or "embed" in name:
            parameter.data.copy_(common.normal(tuple(parameter.shape), label, name, scale=0.7))
        if name.endswith(("lm_head.weight", "transformer.ff_out.weight")):
            parameter.data.copy_((parameter * head).to(torch.bfloat16).float())
            # Trained models never propose the mask; the reference would decode it for ever.
            parameter.data[MASK] = 0
    return model.eval()


def tokens(count, *labels):
    """Ordinary tokens: neither mask nor end."""
    return torch.randint(0, EOS - 2, (1, count), generator=common.generator("tokens", *labels))


class Counter:
    """Counts forward passes."""

    def __init__(self, model):
        self.count = 0
        self.handle = model.register_forward_hook(self.add)

    def add(self, *_):
        self.count += 1

    def take(self):
        count, self.count = self.count, 0
        return count


# --- LLaDA ---------------------------------------------------------------------------------------


LLADA = dict(
    d_model=32, n_heads=4, n_layers=2, mlp_hidden_size=64, activation_type="silu", block_type="llama",
    layer_norm_type="rms", rope=True, rope_theta=500000.0, rms_norm_eps=1e-5, max_sequence_length=128,
    vocab_size=VOCABULARY, embedding_size=VOCABULARY, weight_tying=False, include_bias=False, include_qkv_bias=False,
    bias_for_layer_norm=False, attention_dropout=0.0, residual_dropout=0.0, embedding_dropout=0.0, alibi=False,
    attention_layer_norm=False, block_group_size=1, input_emb_norm=False, scale_logits=False, flash_attention=False,
    mask_token_id=MASK, eos_token_id=EOS, pad_token_id=EOS, init_device="cpu", rope_full_precision=True, mlp_ratio=4,
    layer_norm_with_affine=True,
)

LLADA_CASES = {
    "llada": dict(n_kv_heads=4),
    # iLLaDA: grouped keys, the embedding as head, a table larger than the vocabulary.
    "illada": dict(n_kv_heads=2, weight_tying=True, embedding_size=VOCABULARY + 8, vocab_size=VOCABULARY),
    "llada_norm": dict(n_kv_heads=4, attention_layer_norm=True, include_qkv_bias=True),
    "llada_groups": dict(n_kv_heads=1, block_group_size=2),
    "llada_one_layer": dict(n_kv_heads=4, n_layers=1),
}


class Llada:
    def __init__(self, options):
        package(Path(options.fast_dllm) / "llada/model", "llada_model")
        folder = Path(options.fast_dllm) / "llada/model"
        self.configuration = submodule("llada_model", "configuration_llada", folder)
        self.modeling = submodule("llada_model", "modeling_llada", folder)
        generation = Path(options.plus) / "v1/llada/generate.py"
        # generate.py imports the model by the name of its own folder, and a profiler nobody needs here.
        stub = types.ModuleType("model")
        stub.modeling_llada = self.modeling
        sys.modules["model"], sys.modules["model.modeling_llada"] = stub, self.modeling
        self.generation = script(generation, "llada_generate")

    def build(self, case, seed):
        settings = LLADA | LLADA_CASES[case]
        config = self.configuration.LLaDAConfig(**settings)
        model = self.modeling.LLaDAModelLM(config, init_params=False)
        return randomise(model, f"language_models/{case}/{seed}"), settings

    def json(self, settings):
        return {"architectures": ["LLaDAModelLM"], "model_type": "llada"} | {
            key: value for key, value in settings.items() if key != "init_device"
        }

    def tensors(self, model):
        return {k: v for k, v in model.state_dict().items() if "rotary" not in k}

    def taps(self, model):
        taps = common.Taps()
        body = model.model.transformer
        taps.output(body.wte, "blocks.embedding")
        groups = body.blocks if "blocks" in body else [b for g in body.block_groups for b in g]
        for index, block in enumerate(groups):
            taps.output(block.attn_norm, f"blocks.layers.{index}.attention_norm")
            taps.output(block.attn_out, f"blocks.layers.{index}.attention")
            taps.output(block.ff_norm, f"blocks.layers.{index}.mlp_norm")
            taps.output(block.ff_out, f"blocks.layers.{index}.mlp")
            taps.output(block, f"blocks.layers.{index}")
        taps.output(body.ln_f, "blocks.norm")
        return taps

    RULES = {
        "quota32": dict(steps=32),
        "quota8": dict(steps=8),
        "threshold0.9": dict(steps=32, threshold=0.9),
        "threshold0.3": dict(steps=32, threshold=0.3),
        "factor1": dict(steps=32, factor=1.0),
        "frechet1": dict(steps=32, frechet_margin=0.0),
    }

    def generations(self, model, prompt):
        functions = {
            "none": self.generation.generate,
            "prefix": self.generation.generate_with_prefix_cache,
            "dual": self.generation.generate_with_dual_cache,
        }
        found = {}
        for cache, function in functions.items():
            for rule, settings in self.RULES.items():
                x, nfe = function(
                    model, prompt, gen_length=LENGTH, block_length=BLOCK, temperature=0.0, mask_id=MASK, **settings
                )
                found[f"{cache}.{rule}"] = (x, nfe)
        for scale in (0.5, 2.0):
            found[f"none.guidance{scale:g}"] = self.guided(model, prompt, scale)
        return found

    def guided(self, model, prompt, scale):
        """Classifier-free guidance as LLaDA's generate.py has it: the unconditional row hides the prompt."""
        x = torch.cat([prompt, torch.full((1, LENGTH), MASK)], dim=1)
        nfe = 0
        for start in range(PROMPT, PROMPT + LENGTH, BLOCK):
            for _ in range(BLOCK):
                masked = x == MASK
                hidden = x.clone()
                hidden[:, :PROMPT] = MASK
                conditional, unconditional = model(x).logits, model(hidden).logits
                logits = unconditional + (scale + 1) * (conditional - unconditional)
                masked[:, start + BLOCK :] = False
                x0, transfer = self.generation.get_transfer_index(
                    logits, 0.0, "low_confidence", masked, x, torch.tensor([1])
                )
                x = torch.where(transfer, x0, x)
                nfe += 1
        return x, nfe


# --- Dream ---------------------------------------------------------------------------------------


DREAM = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
    vocab_size=VOCABULARY, rms_norm_eps=1e-6, rope_theta=1000000.0, max_position_embeddings=128, hidden_act="silu",
    tie_word_embeddings=False, attention_dropout=0.0, use_sliding_window=False, mask_token_id=MASK, pad_token_id=EOS,
    eos_token_id=EOS, bos_token_id=EOS - 1,
)


class Dream:
    def __init__(self, options):
        plus = Path(options.plus) / "v1/dream/model"
        package(plus, "dream_model")
        for name in ("configuration_dream", "generation_utils", "generation_utils_block", "modeling_dream"):
            setattr(self, name, submodule("dream_model", name, plus))
        self.dynamic = Llada(options).generation.get_transfer_index_dynamic

    def build(self, case, seed):
        settings = DREAM | ({"num_hidden_layers": 1} if case.endswith("one_layer") else {})
        config = self.configuration_dream.DreamConfig(**settings)
        config._attn_implementation = "sdpa"
        model = self.modeling_dream.DreamModel(config)
        return randomise(model, f"language_models/{case}/{seed}"), settings

    def json(self, settings):
        return {"architectures": ["DreamModel"], "model_type": "Dream"} | settings

    def tensors(self, model):
        return model.state_dict()

    def taps(self, model):
        return llama_taps(model)

    def call(self, model, utilities, prompt, **settings):
        mixin = utilities.DreamGenerationMixin
        model.diffusion_generate = types.MethodType(mixin.diffusion_generate, model)
        model._sample = types.MethodType(mixin._sample, model)
        config = utilities.DreamGenerationConfig(
            mask_token_id=MASK, pad_token_id=EOS, eos_token_id=EOS, bos_token_id=EOS - 1, max_new_tokens=LENGTH,
            max_length=PROMPT + LENGTH, temperature=0.0, top_p=None, alg_temp=0.0,
            steps=settings.pop("steps"), alg=settings.pop("alg"),
        )
        counter = Counter(model)
        x = model.diffusion_generate(prompt, generation_config=config, **settings)
        counter.handle.remove()
        return x, counter.take()

    def generations(self, model, prompt):
        found = {}
        whole, blocks = self.generation_utils, self.generation_utils_block
        for algorithm in ("maskgit_plus", "topk_margin", "entropy"):
            for steps in (32, 16, 12):
                found[f"none.{algorithm}{steps}"] = self.call(model, whole, prompt, steps=steps, alg=algorithm)
        for steps in (32, 8):
            for threshold in (0.9, 0.3):
                name = f"none.threshold{threshold:g}.steps{steps}"
                found[name] = self.call(
                    model, whole, prompt, steps=steps, alg="confidence_threshold", threshold=threshold
                )
        for cache in ("prefix", "dual"):
            common_settings = dict(block_length=BLOCK, dual_cache=cache == "dual")
            for steps in (32, 16):
                found[f"{cache}.entropy{steps}"] = self.call(
                    model, blocks, prompt, steps=steps, alg="entropy", **common_settings
                )
            for threshold in (0.9, 0.3):
                found[f"{cache}.threshold{threshold:g}"] = self.call(
                    model, blocks, prompt, steps=32, alg="confidence_threshold", threshold=threshold, **common_settings
                )
            found[f"{cache}.frechet1"] = self.call(
                model, blocks, prompt, steps=32, alg="confidence_threshold", frechet_margin=0.0, **common_settings
            )
            found[f"{cache}.factor1"] = self.factor(model, prompt, cache == "dual")
        return found

    def factor(self, model, prompt, dual):
        """Dream's block sampler with LLaDA's factor rule: the reference has both, but not together."""
        x = torch.cat([prompt, torch.full((1, LENGTH), MASK)], dim=1)
        nfe = 0
        for start in range(PROMPT, PROMPT + LENGTH, BLOCK):
            end = start + BLOCK
            output = model(x, "full", None, use_cache=True)
            nfe += 1
            x[0, start] = output.logits[0, start - 1].argmax()
            past = output.past_key_values
            replace = torch.zeros_like(x, dtype=torch.bool)
            replace[:, start:end] = True
            if not dual:
                past = [tuple(part[:, :start] for part in layer) for layer in past]
            stop = end if dual else x.shape[1]
            while True:
                extra = dict(dual_cache=True, replace_position=replace) if dual else {}
                logits = model(x[:, start:stop], "full", None, past_key_values=past, use_cache=True, **extra).logits
                nfe += 1
                logits = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
                masked = x[:, start:stop] == MASK
                masked[:, BLOCK:] = False
                if masked.any():
                    x0, transfer = self.dynamic(logits, 0.0, "low_confidence", masked, x[:, start:stop], None, 1.0)
                    x[:, start:stop] = torch.where(transfer, x0, x[:, start:stop])
                if not (x[:, start:end] == MASK).any():
                    break
        return x, nfe


def llama_taps(model):
    taps = common.Taps()
    taps.output(model.model.embed_tokens, "blocks.embedding")
    for index, layer in enumerate(model.model.layers):
        taps.output(layer.input_layernorm, f"blocks.layers.{index}.attention_norm")
        taps.output(layer.self_attn, f"blocks.layers.{index}.attention")
        taps.output(layer.post_attention_layernorm, f"blocks.layers.{index}.mlp_norm")
        taps.output(layer.mlp, f"blocks.layers.{index}.mlp")
        taps.output(layer, f"blocks.layers.{index}")
    taps.output(model.model.norm, "blocks.norm")
    return taps


# --- Driver --------------------------------------------------------------------------------------


def write_case(family, case, seed, generate):
    model, settings = family.build(case, seed)
    folder = common.case_folder("language_models", f"{case}_{seed}")
    common.write_json(folder / "config.json", family.json(settings))
    common.write_weights(folder / "model.safetensors", family.tensors(model), torch.bfloat16)
    # Masks stand among the tokens, as they do during generation.
    ids = tokens(21, case, seed)
    ids[:, 12:] = MASK
    ids[:, 17] = 5
    result = {"inputs.input_ids": ids}
    taps = family.taps(model)
    result["outputs.logits"] = model(ids).logits
    result |= taps.close()
    common.write_golden(folder / "golden.safetensors", result)
    if not generate:
        return
    prompt = tokens(PROMPT, "prompt", case, seed)
    found = {"inputs.prompt": prompt}
    for name, (x, nfe) in family.generations(model, prompt).items():
        found[f"{name}.ids"] = x
        found[f"{name}.nfe"] = torch.tensor([nfe])
    common.write_golden(folder / "generation.safetensors", found)
    print("  ", {n[:-4]: int(v) for n, v in found.items() if n.endswith(".nfe")})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("fast-dllm", "plus", "dllm", "sdar", "v2"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--only", nargs="*", help="families to make")
    options = parser.parse_args()

    def wanted(family):
        return not options.only or family in options.only

    if wanted("llada"):
        llada = Llada(options)
        for case in LLADA_CASES:
            for seed in range(SEEDS if case in ("llada", "illada") else 1):
                write_case(llada, case, seed, generate=case in ("llada", "llada_one_layer"))
    if wanted("dream"):
        dream = Dream(options)
        for seed in range(SEEDS):
            write_case(dream, "dream", seed, generate=True)
        write_case(dream, "dream_one_layer", 0, generate=False)


if __name__ == "__main__":
    main()
