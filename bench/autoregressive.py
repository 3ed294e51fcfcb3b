"""HART and VILA-U beside their authors' modules: shapes of a case, random weights, inputs, and the peers.

A whole 1024-pixel HART in PyTorch takes minutes and VILA-U's 7 billion weights don't fit in 32 bits, so a case has some
scales, or some layers and places, of the published shapes. The rest is arithmetic (BENCHMARKS.md).
"""

import functools
import importlib.util
import json
import pathlib
import sys
import time
import types

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import checkpoints

REFERENCE = pathlib.Path(__file__).resolve().parent.parent / "reference"
# The first four places of VILA-U, HART's first scales: later codes follow from earlier ones, and one choice between
# logits that differ by an addition's order changes all after it.
COMPARED = 16


def write(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def is_hart(folder):
    return checkpoints.read(pathlib.Path(folder) / "llm/config.json")["model_type"] == "hart_transformer_t2i"


def source(case, published, cache):
    """The published configurations with the scales, or the layers and the grid, of this case."""
    target = pathlib.Path(cache) / "sources" / case.name
    llm = checkpoints.read(published / "llm/config.json")
    if is_hart(published):
        tokenizer = checkpoints.read(published / "tokenizer/config.json")
        write(target / "llm/config.json", llm | {"patch_nums": list(case.scales)})
        write(target / "tokenizer/config.json", tokenizer | {"v_patch_nums": list(case.scales)})
        return target
    write(target / "llm/config.json", llm | {"num_hidden_layers": case.layers})
    write(target / "mm_projector/config.json", checkpoints.read(published / "mm_projector/config.json"))
    tower = checkpoints.read(published / "vision_tower/config.json")
    vae, head, grid = tower["rqvaesiglip"], tower["rqtransformer"], case.grid
    width, depth = vae["embed_dim"], vae["code_shape"][2]
    vae |= {"latent_shape": [grid, grid, width], "code_shape": [grid, grid, depth], "pretrained_model": "siglip"}
    patch = 2 ** (len(vae["ddconfig"]["ch_mult"]) - 1)
    vae["ddconfig"] |= {"resolution": patch * grid, "attn_resolutions": [grid]}
    head["block_size"] = [grid, grid, depth]
    write(target / "vision_tower/config.json", tower)
    # What encodes pictures has no part in drawing them.
    vision = {"hidden_size": width, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 2}
    vision |= {"image_size": patch * grid, "patch_size": patch, "model_type": "siglip_vision_model"}
    text = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    text |= {"vocab_size": 64, "max_position_embeddings": 8, "model_type": "siglip_text_model"}
    siglip = {"model_type": "siglip", "architectures": ["SiglipModel"], "vision_config": vision, "text_config": text}
    write(target / "vision_tower/siglip/config.json", siglip)
    return target


def reference(name, root):
    """The authors' modules as the script that makes the goldens prepares them for a CPU."""
    if not root:
        flag = f"--{name.replace('_', '-')}"
        raise SystemExit(f"{flag}: expected a checkout of the authors' repository (see reference/{name}.py)")
    threads = torch.get_num_threads()
    sys.path.insert(0, str(REFERENCE))
    spec = importlib.util.spec_from_file_location(f"reference_of_{name}", REFERENCE / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.reference(str(root))
    torch.set_num_threads(threads)
    return found


def hart(folder, root):
    """Tokenizer and transformer, without weights."""
    found = reference("hart", root)
    settings = {
        part: {k: v for k, v in checkpoints.read(folder / part / "config.json").items() if k != "architectures"}
        for part in ("llm", "tokenizer")
    }
    tokenizer = found.Tokenizer(found.TokenizerConfig(**settings["tokenizer"]))
    holder = types.SimpleNamespace(vae=tokenizer)
    found.module.HARTAutoEncoderWithDisc.from_pretrained = classmethod(lambda cls, path: holder)
    own = settings["llm"] | {"flash_if_available": False, "vae_path": "unused"}
    model = found.module.HARTForT2I(found.Config(**own))
    model.gradient_checkpointing = False
    return found, tokenizer.eval(), model.eval()


def vila_u(folder, root):
    """Vision tower, projector and language model, without weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    found = reference("vila_u", root)
    siglip = checkpoints.read(folder / "vision_tower/siglip/config.json")
    made = found.vae.SiglipModel.config_class(vision_config=siglip["vision_config"], text_config=siglip["text_config"])
    made._attn_implementation = "eager"
    found.vae.SiglipModel.config_class.from_pretrained = classmethod(lambda cls, path: made)
    tower = found.Tower(found.Tower.config_class(**checkpoints.read(folder / "vision_tower/config.json")))
    own = {k: v for k, v in checkpoints.read(folder / "llm/config.json").items() if k not in ("architectures", "torch_dtype")}
    llm = LlamaForCausalLM(LlamaConfig(**own, attn_implementation="sdpa"))
    sizes = types.SimpleNamespace(mm_hidden_size=tower.config.hidden_size, hidden_size=own["hidden_size"])
    kind = checkpoints.read(folder / "mm_projector/config.json")["mm_projector_type"]
    projector = found.projector.MultimodalProjector(found.projector.MultimodalProjectorConfig(kind), sizes)
    return found, tower.eval(), projector.eval(), llm.eval()


def parts(folder, roots):
    """Modules by the folders of their files, with what stands before their names there."""
    if is_hart(folder):
        _, tokenizer, model = hart(folder, roots["hart"])
        return {"llm": (model, ""), "tokenizer": (tokenizer, "vae.")}
    _, tower, projector, llm = vila_u(folder, roots["vila_u"])
    return {"vision_tower": (tower, ""), "mm_projector": (projector, ""), "llm": (llm, "")}


def folder(case, made, cache, dtype, roots):
    """A folder of random weights in the published layout; kept where it exists already."""
    target = pathlib.Path(cache) / "models" / f"{case.name}-{dtype}"
    if (target / "complete").exists():
        return target
    for path in made.rglob("config.json"):
        write(target / path.relative_to(made), checkpoints.read(path))
    pattern = torch.randn(checkpoints.PATTERN, generator=torch.Generator().manual_seed(0))
    for name, (module, prefix) in parts(made, roots).items():
        # One codebook of all depths has a name at each; values go by the first.
        first = {}
        learnt = {key: first.setdefault(id(value), key) for key, value in module.named_parameters(remove_duplicate=False)}
        tensors = {}
        for key, value in module.state_dict().items():
            if key in learnt:
                value = checkpoints.values(pattern, learnt[key], tuple(value.shape), checkpoints.TYPES[dtype])
            tensors[prefix + key] = value.clone()
        save_file(tensors, target / name / "model.safetensors")
    (target / "complete").touch()
    return target


def read_weights(folder, name, module, prefix):
    with safe_open(folder / name / "model.safetensors", "pt") as file:
        state = module.state_dict()
        for key in file.keys():
            state[key.removeprefix(prefix)].copy_(file.get_tensor(key))


def inputs(case, folder):
    """Rows of text, as `brisk bench generate` takes them."""
    generator = torch.Generator().manual_seed(1)
    config = checkpoints.read(folder / "llm/config.json")
    if not is_hart(folder):
        ids = torch.randint(4, config["vocab_size"], (2, case.tokens), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "guidance": torch.tensor([3.0])}
    places = case.scales[-1] ** 2
    width = checkpoints.read(folder / "tokenizer/config.json")["z_channels"]
    context = checkpoints.randn(generator, 1, config["context_token"], config["context_dim"])
    tensors = {
        "context": context,
        "context_mask": torch.ones(context.shape[:2], dtype=torch.int64),
        "guidance": torch.tensor([4.5]),
        "latents": checkpoints.randn(generator, 1, places, width),
    }
    for step in range(int(config["num_sampling_steps"]) - 1):
        tensors[f"noise.{step}"] = checkpoints.randn(generator, 1, places, width)
    return tensors


def timed(function, spent):
    """A function whose seconds are added to `spent`."""

    @functools.wraps(function)
    def wrapped(*arguments, **named):
        started = time.perf_counter()
        result = function(*arguments, **named)
        spent.append(time.perf_counter() - started)
        return result

    return wrapped


def hart_runner(arguments):
    """`autoregressive_infer_cfg` with the likeliest codes and given noise, as reference/hart.py calls it."""
    folder, tensors = pathlib.Path(arguments.model), load_file(arguments.inputs)
    found, tokenizer, model = hart(folder, arguments.hart)
    read_weights(folder, "tokenizer", tokenizer, "vae.")
    read_weights(folder, "llm", model, "")
    latents, codes, decoding = tensors["latents"], [], []
    noise = [tensors[f"noise.{step}"] for step in range(sum(name.startswith("noise.") for name in tensors))]
    tokenizer.fhat_to_img = timed(tokenizer.fhat_to_img, decoding)

    def likeliest(logits, top_k=0, top_p=0.0, rng=None, num_samples=1):
        codes.append(logits.argmax(-1))
        return codes[-1].unsqueeze(-1)

    found.module.sample_with_top_k_top_p_ = likeliest
    randn, randn_like = torch.randn, torch.randn_like
    mask = tensors["context_mask"]

    def run():
        codes.clear()
        decoding.clear()
        coming = iter(noise + [None])

        def start(*shape, **_):
            flat = latents.reshape(-1, latents.shape[-1])
            return flat if shape[0] == len(flat) else flat.repeat(2, 1)

        def on_the_way(x, **_):
            value = next(coming)
            return torch.zeros_like(x) if value is None else value.reshape(-1, value.shape[-1]).repeat(2, 1)

        torch.randn, torch.randn_like = start, on_the_way
        started = time.perf_counter()
        try:
            model.autoregressive_infer_cfg(
                B=1, label_B=tensors["context"].clone(), cfg=float(tensors["guidance"]),
                context_position_ids=mask.cumsum(1) - 1, context_mask=mask.clone(),
            )
        finally:
            torch.randn, torch.randn_like = randn, randn_like
        seconds = time.perf_counter() - started - sum(decoding)
        return seconds, {"codes": torch.cat([each.flatten() for each in codes])}

    return run


def vila_u_runner(arguments):
    """The loop of `generate_image_content` with the likeliest codes, keys and values of the language model kept."""
    folder, tensors = pathlib.Path(arguments.model), load_file(arguments.inputs)
    found, tower, projector, llm = vila_u(folder, arguments.vila_u)
    for name, module in {"vision_tower": tower, "mm_projector": projector, "llm": llm}.items():
        read_weights(folder, name, module, "")
    if arguments.bf16:
        tower, projector, llm = (module.to(torch.bfloat16) for module in (tower, projector, llm))
    found.depth.sample_from_logits = lambda logits, **_: logits.argmax(-1)
    ids, guidance = tensors["input_ids"], float(tensors["guidance"])
    places = tower.config.rqvaesiglip["code_shape"][0] ** 2

    def run():
        started = time.perf_counter()
        embeds, cache, codes = llm.get_input_embeddings()(ids), None, []
        for _ in range(places):
            result = llm.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            feature, code = tower.rqtransformer.generate(
                result.last_hidden_state[:, -1:], tower.rqvaesiglip, cfg=guidance
            )
            codes.append(code[:1])
            embeds = projector(feature)
        return time.perf_counter() - started, {"codes": torch.cat(codes, 1)}

    return run


def runner(arguments):
    if arguments.peer != "torch":
        raise SystemExit(f"worker: {arguments.peer} of a loop over codes is not compared")
    torch.set_grad_enabled(False)
    return (hart_runner if is_hart(arguments.model) else vila_u_runner)(arguments)


def difference(output, reference):
    """The share of the first codes that differ."""
    ours, theirs = load_file(output), load_file(reference)["codes"].flatten()
    names = sorted((name for name in ours if name.startswith("codes.")), key=lambda name: int(name.split(".")[1]))
    codes = torch.cat([ours[name].flatten() for name in names]) if names else ours["codes"].flatten()
    if len(codes) != len(theirs):
        raise ValueError(f"{output.name} has {len(codes)} codes, {reference.name} {len(theirs)}")
    return (codes[:COMPARED].long() != theirs[:COMPARED].long()).float().mean().item()
