"""Goldens of the diffusion language models: logits of every architecture, and the reference generators.

    python reference/language_models.py --fast-dllm DIR --plus DIR --dllm DIR --sdar DIR --v2 DIR

The reference code is not part of this repository; each option is a checkout of it:
  --fast-dllm  NVlabs/Fast-dLLM at 24cc59e: LLaDA's and Dream's models, Dream's samplers
  --plus       Ringo-Star/FastdLLM_plusplus at 29fd034: Fast-dLLM's later generate.py (factor) and the Frechet rule
  --dllm       ZHZisZZ/dllm at ca17675: A2D, LLaDA-MoE and LLaDA2 models, LLaDA2's and BD3-LM's samplers
  --sdar       JetAstra/SDAR at c2041a8: SDAR's model and generate.py
  --v2         mgustineli/Fast-dLLM at fb55582: Fast-dLLM v2's batch_sample (a copy of upstream's)
Their models need transformers 4.57.6 (not the version in requirements.txt) and einops 0.8.2; torch as listed there.
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


# --- Qwen and Llama graphs -------------------------------------------------------------------------


def block_mask(tokens, block, pad=0):
    """[1, 1, T, T], true where the query's block is not before the key's."""
    blocks = (torch.arange(tokens) + pad) // block
    return (blocks[None, :] <= blocks[:, None])[None, None]


def scores(mask):
    """The mask as something to add to attention scores."""
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


class Committed:
    """Stands for a cache: the tokens before, computed again at every call, which is what a cache must equal."""

    def __init__(self, model, block):
        self.network, self.model, self.block, self.device = model, model.model, block, "cpu"
        self.past, self.count = torch.zeros(1, 0, dtype=torch.long), 0

    def logits(self, ids, store):
        self.count += 1
        whole = torch.cat([self.past, ids], dim=1)
        mask = scores(block_mask(whole.shape[1], self.block))
        if store:
            self.past = whole
        return self.network(whole, attention_mask=mask).logits[:, -ids.shape[1] :]


class SdarCall(Committed):
    """The call that SDAR's generate.py makes."""

    def eval(self):
        return self

    def __call__(self, ids, store_kv, **_):
        return types.SimpleNamespace(logits=self.logits(ids, store_kv))


class Version2Call(Committed):
    """The calls that Fast-dLLM v2's batch_sample makes."""

    def forward(self, input_ids, update_past_key_values, **_):
        logits = self.logits(input_ids, update_past_key_values)
        return types.SimpleNamespace(logits=logits, past_key_values=self.past)

    def sample_with_top_p(self, logits, top_p, temperature):
        probabilities = functional.softmax(logits, dim=-1)
        return probabilities.argmax(dim=-1), probabilities


class Qwen:
    """A2D, SDAR and Fast-dLLM v2: unmodified Qwen graphs with another mask."""

    SIZES = dict(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-6, rope_theta=1000000.0,
        hidden_act="silu", use_sliding_window=False, eos_token_id=EOS,
    )
    # name -> (config of the published kind, graph, block)
    CASES = {
        "a2d_qwen3": (dict(model_type="a2d-qwen3", head_dim=16), "qwen3", None),
        "a2d_qwen2": (dict(model_type="a2d-qwen2", tie_word_embeddings=True), "qwen2", None),
        "a2d_llama": (dict(model_type="a2d-llama", attention_bias=True), "llama", None),
        "sdar": (dict(model_type="sdar", architectures=["SDARForCausalLM"], head_dim=8, block_size=4), "qwen3", 4),
        "fast_dllm_v2": (
            dict(model_type="Fast_dLLM_Qwen", architectures=["Fast_dLLM_QwenForCausalLM"], bd_size=8), "qwen2", 8
        ),
    }

    def __init__(self, options):
        self.options = options

    def build(self, case, seed):
        changes, graph, self.block = self.CASES[case]
        self.case = case
        settings = self.SIZES | {"tie_word_embeddings": False, "mask_token_id": MASK} | changes
        given = {k: v for k, v in settings.items() if k not in ("model_type", "architectures", "mask_token_id")}
        if case.startswith("a2d"):
            # Their own classes, imported by file: their package wants a training stack.
            path = self.options.dllm / f"dllm/pipelines/a2d/models/{graph}/modeling_{graph}.py"
            module = script(path, f"a2d_{graph}")
            name = graph.capitalize()
            config = getattr(module, f"A2D{name}Config")(**given)
            model = getattr(module, f"A2D{name}LMHeadModel")
        else:
            import transformers

            name = {"qwen2": "Qwen2", "qwen3": "Qwen3"}[graph]
            config = getattr(transformers, f"{name}Config")(**given)
            model = getattr(transformers, f"{name}ForCausalLM")
        config._attn_implementation = "sdpa"
        return randomise(model(config), f"language_models/{case}/{seed}"), settings

    def json(self, settings):
        return settings

    def tensors(self, model):
        return {k: v for k, v in model.state_dict().items() if not (self.tied(model) and k == "lm_head.weight")}

    def tied(self, model):
        return model.config.tie_word_embeddings

    def taps(self, model):
        return llama_taps(model)

    def forward(self, model, ids):
        if self.block is None:
            return model(ids).logits
        return model(ids, attention_mask=scores(block_mask(ids.shape[1], self.block))).logits

    def generations(self, model, prompt):
        if self.case == "sdar":
            return self.sdar(model, prompt)
        if self.case == "fast_dllm_v2":
            return self.version2(model, prompt)
        return self.bd3lm(model, prompt)

    def bd3lm(self, model, prompt):
        core = dllm_core(self.options.dllm)
        script_as(core / "samplers/utils.py", "dllm.core.samplers.utils")
        sampler = script_as(core / "samplers/bd3lm.py", "bd3lm_sampler").BD3LMSampler
        tokenizer = types.SimpleNamespace(mask_token_id=MASK, eos_token_id=VOCABULARY, bos_token_id=0, pad_token_id=-1)
        found = {}
        for steps in (32, 8):
            counter = Counter(model)
            # The prompt is whole blocks: rows of padding alone would be NaN on a CPU.
            x = sampler(model=model, tokenizer=tokenizer).sample(
                [prompt[0, :BLOCK]], max_new_tokens=LENGTH, block_size=BLOCK, steps=steps, return_dict=False
            )
            counter.handle.remove()
            found[f"quota{steps}"] = (x, counter.take())
        return found

    def sdar(self, model, prompt):
        module = script(self.options.sdar / "generate.py", "sdar_generate")

        def greedy(logits, temperature, top_k, top_p):
            probability, token = functional.softmax(logits, dim=-1).max(dim=-1)
            return token, probability

        module.sample_with_temperature_topk_topp = greedy
        found = {}
        for name, settings in {
            "dynamic0.85": dict(remasking_strategy="low_confidence_dynamic", confidence_threshold=0.85),
            "dynamic0.3": dict(remasking_strategy="low_confidence_dynamic", confidence_threshold=0.3),
            "static2": dict(remasking_strategy="low_confidence_static", denoising_steps=2),
            "sequential": dict(remasking_strategy="sequential"),
        }.items():
            call = SdarCall(model, self.block)
            settings = dict(denoising_steps=4) | settings
            # A quota above the masks that are left makes the reference overwrite known tokens, so no
            # block may be partly known where the quota is above one.
            start = prompt[:, : PROMPT // 4 * 4] if name == "static2" else prompt
            x = module.block_diffusion_generate(
                call, {"input_ids": start}, MASK, gen_length=LENGTH, block_length=self.block, **settings
            )
            # The last block's keys and values are stored and never read.
            found[name] = (x[:, : start.shape[1] + LENGTH], call.count - 1)
        return found

    def version2(self, model, prompt):
        path = self.options.v2 / "v2/experiments/00_baseline"
        sys.path.insert(0, str(path))
        sampler = script(path / "generation_functions.py", "v2_generation").Fast_dLLM_QwenForCausalLM.batch_sample
        tokenizer = types.SimpleNamespace(pad_token_id=EOS)
        found = {}
        for name, start in (("rest", prompt), ("whole", prompt[:, :8])):
            start = torch.cat([prompt[:, :8], start], dim=1)  # more than one block, as the sampler expects
            for threshold in (0.9, 0.3):
                call = Version2Call(model, self.block)
                result = sampler(
                    call, start.clone(), tokenizer, block_size=self.block, max_new_tokens=LENGTH, small_block_size=4,
                    min_len=start.shape[1], seq_len=torch.tensor([start.shape[1]]), mask_id=MASK, threshold=threshold,
                    stop_token=VOCABULARY + 1, temperature=0.0, reuse_k=1,
                )
                # The last block's clean pass gives a token beyond the answer; it is left out.
                row = result[0][None, : start.shape[1] // self.block * self.block + LENGTH]
                found[f"{name}.threshold{threshold:g}"] = (row, call.count - 1)
            found[f"{name}.prompt"] = (start, 0)
        return found


# --- Mixtures of experts -------------------------------------------------------------------------


class Experts:
    CASES = {
        "llada_moe": dict(
            vocab_size=VOCABULARY, hidden_size=32, dense_intermediate_size=48, expert_intermediate_size=16,
            shared_expert_intermediate_size=None, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=50000.0, num_experts_per_tok=2, num_experts=6,
            qk_layernorm=True, moe_layer_freq=[0, 1, 1], moe_router_enable_expert_bias=True, partial_rotary_factor=1,
            moe_router_score_function="softmax", hidden_act="silu", pad_token_id=EOS, eos_token_id=EOS,
            attention_bias=False, tie_word_embeddings=False,
        ),
        "llada2": dict(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, use_qkv_bias=False, use_bias=False, rms_norm_eps=1e-6, num_experts=8,
            num_shared_experts=1, num_experts_per_tok=2, n_group=4, topk_group=2, routed_scaling_factor=2.5,
            moe_intermediate_size=16, first_k_dense_replace=1, partial_rotary_factor=0.5, rope_theta=600000.0,
            max_position_embeddings=128, hidden_act="silu", pad_token_id=EOS, eos_token_id=EOS,
            embedding_dropout=0.0, attention_dropout=0.0, output_dropout=0.0, tie_word_embeddings=False,
        ),
    }
    BLOCK = 8

    def __init__(self, options):
        self.options = options
        pipelines = options.dllm / "dllm/pipelines"
        package(pipelines / "llada/models", "moe_models")
        self.moe_config = submodule("moe_models", "configuration_lladamoe", pipelines / "llada/models")
        self.moe_model = submodule("moe_models", "modeling_lladamoe", pipelines / "llada/models")
        package(pipelines / "llada2/models", "llada2_models")
        self.two_config = submodule("llada2_models", "configuration_llada2_moe", pipelines / "llada2/models")
        self.two_model = submodule("llada2_models", "modeling_llada2_moe", pipelines / "llada2/models")

    def build(self, case, seed):
        self.case = case
        settings = self.CASES[case]
        if case == "llada_moe":
            config = self.moe_config.LLaDAMoEConfig(**settings)
            config._attn_implementation = "sdpa"
            model = self.moe_model.LLaDAMoEModelLM(config)
            named = {"model_type": "llada", "architectures": ["LLaDAMoEModelLM"]}
        else:
            config = self.two_config.LLaDA2MoeConfig(**settings)
            config._attn_implementation = "sdpa"
            model = self.two_model.LLaDA2MoeModelLM(config)
            named = {"model_type": "llada2_moe", "architectures": ["LLaDA2MoeModelLM"], "block_size": self.BLOCK}
        model = randomise(model, f"language_models/{case}/{seed}")
        for name, buffer in model.named_buffers():
            if name.endswith("expert_bias"):
                buffer.copy_(common.normal(tuple(buffer.shape), case, seed, name, scale=0.2))
        return model, settings | named | {"mask_token_id": MASK}

    def json(self, settings):
        return settings

    def tensors(self, model):
        return model.state_dict()

    def taps(self, model):
        taps = common.Taps()
        taps.output(model.model.norm, "blocks.norm")
        for index, layer in enumerate(model.model.layers):
            taps.output(layer.mlp, f"blocks.layers.{index}.mlp")
            taps.output(layer, f"blocks.layers.{index}")
        return taps

    def forward(self, model, ids):
        if self.case == "llada_moe":
            return model(ids, use_cache=False).logits
        mask = scores(block_mask(ids.shape[1], self.BLOCK))
        positions = torch.arange(ids.shape[1])[None]
        return model(ids, attention_mask=mask, position_ids=positions).logits

    def generations(self, model, prompt):
        if self.case == "llada_moe":
            return {}
        sampler = self.sampler()
        tokenizer = types.SimpleNamespace(mask_token_id=MASK, eos_token_id=EOS)
        found = {}
        for threshold in (0.95, 0.3):
            counter = Counter(model)

            # The sampler's mask is bf16, the model here f32.
            def call(ids, attention_mask, position_ids):
                return model(ids, attention_mask=attention_mask.float(), position_ids=position_ids)

            call.device = "cpu"
            x = sampler(model=call, tokenizer=tokenizer).sample(
                [prompt[0]], max_new_tokens=LENGTH, block_size=self.BLOCK, steps_per_block=self.BLOCK,
                threshold=threshold, return_dict=False,
            )
            counter.handle.remove()
            found[f"none.threshold{threshold:g}"] = (x[:, : PROMPT + LENGTH], counter.take())
        return found

    def sampler(self):
        dllm_core(self.options.dllm)
        return script_as(self.options.dllm / "dllm/pipelines/llada2/sampler.py", "llada2_sampler").LLaDA2Sampler


def dllm_core(folder):
    """The samplers' base without the training stack that their package imports."""
    core = folder / "dllm/core"
    for name in ("dllm", "dllm.core", "dllm.core.samplers", "dllm.core.schedulers"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    alpha = script_as(core / "schedulers/alpha.py", "dllm.core.schedulers.alpha")
    sys.modules["dllm.core.schedulers"].BaseAlphaScheduler = alpha.BaseAlphaScheduler
    sys.modules["dllm.core.schedulers"].LinearAlphaScheduler = alpha.LinearAlphaScheduler
    script_as(core / "samplers/base.py", "dllm.core.samplers.base")
    return core


def script_as(path, name):
    """Imports a file under the name that others import it by."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


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
    forward = getattr(family, "forward", lambda model, ids: model(ids).logits)
    result["outputs.logits"] = forward(model, ids)
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
    if wanted("qwen"):
        for case in Qwen.CASES:
            for seed in range(SEEDS):
                write_case(Qwen(options), case, seed, generate=case in ("sdar", "fast_dllm_v2", "a2d_qwen3") and seed < 2)
    if wanted("experts"):
        for case in Experts.CASES:
            for seed in range(SEEDS):
                write_case(Experts(options), case, seed, generate=case == "llada2" and seed < 2)


if __name__ == "__main__":
    main()
