"""Goldens of HART (arXiv 2410.10812): tokenizer, transformer, diffusion head and greedy generation.

    python hart.py HART      # a checkout of mit-han-lab/hart (e28a41f); needs scipy besides

Each case is a folder in the published layout: llm/ and tokenizer/. The reference runs on a CPU in float32; its fused
norm is replaced by its definition, its random draws by the largest logit and by the noise that the golden holds.
"""

import random
import sys
import types

import numpy as np
import torch

import common

CASES = {
    # As published: EMA weights beside others, four shared phi convolutions over an odd number of scales (the middle
    # one lies between two), a grid that some scales do not divide, padding in front and behind.
    "base": dict(
        tokenizer=dict(vocab_size=640, z_channels=12, ch=32, ch_mult=[1, 2], quantizer_type="var_hybrid"),
        transformer=dict(depth=3, embed_dim=64, num_heads=2, context_token=6, context_dim=24, use_context_norm=True),
        patch_nums=[1, 2, 3, 4, 6],
        mask=[[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]],
        guidance=4.5,
        ema=True,
    ),
    # The other branches: normalised queries and keys, no norm of the context, one phi, another share of it, a table of
    # scale embeddings, a head count that is no power of two.
    "norms": dict(
        tokenizer=dict(
            vocab_size=620, z_channels=8, ch=32, ch_mult=[1, 1], quantizer_type="var_hybrid", share_quant_resi=1,
            quant_resi=-0.25, using_znorm=True,
        ),
        transformer=dict(
            depth=2, embed_dim=48, num_heads=3, context_token=5, context_dim=20, attn_l2_norm=True,
            use_timestep_embed=False, mlp_ratio=3.0, num_sampling_steps="5", norm_eps=1e-5,
        ),
        patch_nums=[1, 2, 3, 5],
        mask=[[0, 1, 1, 1, 1]],
        guidance=2.0,
        ema=False,
    ),
    # A phi of its own for each scale, and guidance that is 1 at the last scale, where the head goes without it.
    "own_phi": dict(
        tokenizer=dict(
            vocab_size=610, z_channels=8, ch=32, ch_mult=[1, 1], quantizer_type="var_hybrid", share_quant_resi=0,
            quant_conv_ks=1,
        ),
        transformer=dict(depth=1, embed_dim=32, num_heads=1, context_token=4, context_dim=16),
        patch_nums=[1, 3, 4],
        mask=[[1, 1, 1, 1]],
        guidance=2.0,
        ema=False,
    ),
}


def reference(root):
    """The reference's modules, on a CPU."""
    backend = types.ModuleType("hart_backend")
    kernels = types.ModuleType("hart_backend.fused_kernels")

    def rms_norm(out, x, weight, eps, _quantized):
        x32 = x.float()
        out.copy_((x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight)

    kernels.rms_norm = rms_norm
    backend.fused_kernels = kernels
    sys.modules |= {"hart_backend": backend, "hart_backend.fused_kernels": kernels}
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.nn.Module.cuda = lambda self, *_, **__: self
    # A package without __init__.py comes after a module of its name, which this script is.
    sys.path[0] = root
    from hart.modules.models.autoencoder import HARTAutoEncoder
    from hart.modules.models.autoencoder.configuration import HARTAutoEncoderWithDiscConfig
    from hart.modules.models.transformer import hart_transformer_t2i
    from hart.modules.models.transformer.configuration import HARTForT2IConfig

    return types.SimpleNamespace(
        Tokenizer=HARTAutoEncoder,
        TokenizerConfig=HARTAutoEncoderWithDiscConfig,
        module=hart_transformer_t2i,
        Config=HARTForT2IConfig,
    )


def build(hart, case, label=""):
    """Tokenizer and transformer with random weights, and what their configurations say."""
    settings = CASES[case]
    own = dict(settings["tokenizer"], v_patch_nums=settings["patch_nums"])
    tokenizer = hart.Tokenizer(hart.TokenizerConfig(**own))
    common.randomise(tokenizer, f"hart/{case}/tokenizer", gain=0.8)
    tokenizer.quantize.embedding.weight.data.copy_(
        common.normal(tuple(tokenizer.quantize.embedding.weight.shape), case, "codebook", scale=0.7)
    )
    for phi in (m for m in tokenizer.modules() if type(m).__name__ == "Phi"):
        phi.weight.data.copy_(common.normal(tuple(phi.weight.shape), case, "phi", len(phi.weight), scale=0.15))
    holder = types.SimpleNamespace(vae=tokenizer)
    hart.module.HARTAutoEncoderWithDisc.from_pretrained = classmethod(lambda cls, path: holder)
    own_llm = dict(mlp_type="llama", attn_type="llama", disable_aln=True, use_timestep_embed=True)
    own_llm |= dict(diff_width=32, diff_depth=2, vae_path="unused") | settings["transformer"]
    config = hart.Config(patch_nums=settings["patch_nums"], flash_if_available=False, **own_llm)
    model = hart.module.HARTForT2I(config)
    common.randomise(model, f"hart/{case}{label}/transformer", gain=1.3, bias=0.2, skip=skipped(model))
    # Logits of the size that mixtures by a low temperature bear.
    model.head.weight.data.copy_(common.normal(tuple(model.head.weight.shape), case, "head", scale=0.4 * model.C**-0.5))
    for name, parameter in model.named_parameters():
        if name.endswith(("q_bias", "v_bias")):
            parameter.data.copy_(common.normal(tuple(parameter.shape), case, name, scale=0.3))
        if name.endswith("scale_mul_1H11"):
            # One head beyond the largest factor, 100.
            values = common.uniform(tuple(parameter.shape), 0.5, 2.5, case, name)
            values.view(-1)[0] = 5.0
            parameter.data.copy_(values)
    model.gradient_checkpointing = False
    model.cond_drop_rate = -100.0
    return tokenizer, model.eval(), own, own_llm


def skipped(model):
    return {name for name, _ in model.named_parameters() if name.endswith(("q_bias", "v_bias", "scale_mul_1H11"))}


def positions(mask):
    return torch.cumsum(mask, dim=1) - 1


def store_weights(folder, case, hart, tokenizer, model):
    ema = CASES[case]["ema"]
    state = {k: v.to(torch.bfloat16) if v.is_floating_point() and "attn_bias" not in k else v for k, v in model.state_dict().items()}
    discriminator = {"disc.main.0.weight": torch.zeros(2, 3, 4, 4), "disc.main.1.num_batches_tracked": torch.tensor(3)}
    parts = {f"vae.{k}": v.to(torch.bfloat16) for k, v in tokenizer.state_dict().items()} | discriminator
    (folder / "llm").mkdir()
    (folder / "tokenizer").mkdir()
    if ema:
        torch.save(state, folder / "llm/ema_model.bin")
        _, other, _, _ = build(hart, case, "/not averaged")
        common.write_weights(folder / "llm/model.safetensors", other.state_dict(), torch.bfloat16)
        torch.save(parts, folder / "tokenizer/pytorch_model.bin")
    else:
        torch.save(state, folder / "llm/pytorch_model.bin")
        common.write_weights(folder / "tokenizer/model.safetensors", parts)


def store_configurations(folder, tokenizer, model, own, own_llm):
    """What the saved configurations of the classes hold; a path of training time may lie in the file."""
    llm = {k: v for k, v in model.config.to_dict().items() if k in own_llm or k in KEPT}
    llm |= dict(model_type="hart_transformer_t2i", architectures=["HARTForT2I"], vae_path="/training/tokenizer")
    common.write_json(folder / "llm/config.json", llm)
    saved = {k: v for k, v in tokenizer.config.to_dict().items() if k in own or k in KEPT_BY_TOKENIZER}
    saved |= dict(model_type="hart_autoencoder_with_disc", architectures=["HARTAutoEncoderWithDisc"])
    common.write_json(folder / "tokenizer/config.json", saved)


def tokenizer_golden(folder, case, tokenizer):
    settings = CASES[case]
    patch_nums, z = settings["patch_nums"], settings["tokenizer"]["z_channels"]
    side = patch_nums[-1]
    pixels = side * 2 ** (len(settings["tokenizer"]["ch_mult"]) - 1)
    sample = common.normal((2, 3, pixels, pixels), case, "sample", scale=0.6)
    latent = common.normal((2, z, side, side), case, "latent")
    taps = common.Taps()
    for half, levels in (("encoder", tokenizer.encoder.down), ("decoder", tokenizer.decoder.up)):
        part = getattr(tokenizer, half)
        name = "down" if half == "encoder" else "up"
        for leaf in ("conv_in", "norm_out", "conv_out"):
            taps.output(getattr(part, leaf), f"{half}.{leaf}")
        for leaf in ("block_1", "attn_1", "block_2"):
            taps.output(getattr(part.mid, leaf), f"{half}.mid.{leaf}")
        for i, level in enumerate(levels):
            for j, block in enumerate(level.block):
                taps.output(block, f"{half}.{name}.{i}.block.{j}")
            for j, block in enumerate(level.attn):
                taps.output(block, f"{half}.{name}.{i}.attn.{j}")
            for leaf in ("downsample", "upsample"):
                if hasattr(level, leaf):
                    taps.output(getattr(level, leaf), f"{half}.{name}.{i}.{leaf}")
    tensors = {"inputs.sample": sample, "inputs.latent": latent}
    feature = tokenizer.quant_conv(tokenizer.encoder(sample))
    tensors["outputs.latent"] = feature
    *codes, residual = tokenizer.quantize.f_to_idxBl_and_frest(feature, patch_nums)
    for scale, ids in enumerate(codes):
        tensors[f"outputs.codes.{scale}"] = ids
    # The sum over all scales, as the function makes it and does not give away.
    f_hat, teacher = torch.zeros_like(feature), []
    for scale, (ids, patches) in enumerate(zip(codes, patch_nums)):
        h = tokenizer.quantize.embedding(ids).transpose(1, 2).reshape(len(ids), z, patches, patches)
        if scale + 1 < len(patch_nums):
            f_hat, following = tokenizer.quantize.get_next_autoregressive_input(scale, len(patch_nums), f_hat, h, patch_nums)
            teacher.append(following.reshape(len(ids), z, -1).transpose(1, 2))
        else:
            before = residual.transpose(1, 2).reshape(f_hat.shape)
            torch.testing.assert_close(f_hat + before, feature, rtol=1e-4, atol=1e-4)
            f_hat = f_hat + h
        tensors[f"blocks.f_hat.{scale}"] = f_hat.clone()
    given = tokenizer.quantize.idxBl_to_var_input([ids.clone() for ids in codes], patch_nums)
    torch.testing.assert_close(torch.cat(teacher, 1), given)
    tensors["blocks.teacher_input"] = given
    tensors["outputs.f_hat"] = f_hat
    tensors["outputs.residual"] = residual
    tensors["outputs.sample"] = tokenizer.decoder(tokenizer.post_quant_conv(latent))
    tensors["outputs.clamped"] = tokenizer.fhat_to_img(latent)
    tensors |= {f"blocks.{k}": v for k, v in taps.close().items()}
    # The decoder ran last on `latent`; its taps are those of this run.
    common.write_golden(folder / "golden_tokenizer.safetensors", tensors, every=11, large=1024)


def context_of(case):
    settings = CASES[case]
    own = settings["transformer"]
    mask = torch.tensor(settings["mask"])
    context = common.normal((len(mask), own["context_token"], own["context_dim"]), case, "context")
    return context, mask


def transformer_golden(folder, case, hart, tokenizer, model):
    settings = CASES[case]
    patch_nums = settings["patch_nums"]
    context, mask = context_of(case)
    batch, length = mask.shape
    codes = [
        torch.randint(tokenizer.vocab_size, (batch, p * p), generator=common.generator(case, "codes", i))
        for i, p in enumerate(patch_nums)
    ]
    teacher = tokenizer.quantize.idxBl_to_var_input([ids.clone() for ids in codes], patch_nums)
    count = length - 1 + sum(p * p for p in patch_nums)
    model.random_masking = lambda x, orders: (torch.zeros(batch, count), torch.zeros(batch, x.shape[1]))
    taps = common.Taps()
    taps.output(model.context_embed, "context_embed")
    taps.output(model.lvl_embed, "lvl_embed")
    taps.output(model.word_embed, "word_embed")
    for i, block in enumerate(model.blocks):
        taps.output(block, f"blocks.{i}")
        taps.output(block.attn, f"blocks.{i}.attn")
        taps.output(block.ffn, f"blocks.{i}.ffn")
    taps.output(model.head_nm, "head_nm")
    # `word_embed` runs again for the diffusion loss; the first run counts.
    first = {}

    def keep_first(_module, _arguments, result):
        first.setdefault("word_embed", result.clone())

    handle = model.word_embed.register_forward_hook(keep_first)
    last = patch_nums[-1] ** 2
    logits, _, _ = model(
        context.clone(), teacher, positions(mask), mask,
        last_layer_gt=torch.zeros(batch, last, tokenizer.Cvae), last_layer_gt_discrete=codes[-1],
    )
    handle.remove()
    values = taps.close() | first
    tensors = {"inputs.context": context, "inputs.context_mask": mask}
    tensors |= {f"inputs.codes.{i}": ids for i, ids in enumerate(codes)}
    tensors["outputs.logits"] = logits
    tensors["outputs.hidden"] = values[f"blocks.{len(model.blocks) - 1}"][:, length - 1 :]
    tensors |= {f"blocks.{k}": v for k, v in values.items()}
    common.write_golden(folder / "golden_transformer.safetensors", tensors, every=7, large=2048)


def head_golden(folder, case, tokenizer, model):
    noisy = common.normal((9, tokenizer.Cvae), case, "noisy")
    condition = common.normal((9, model.C), case, "condition")
    times = torch.tensor([0, 1, 143, 285, 500, 714, 856, 998, 999])
    net = model.diffloss.net
    taps = common.Taps()
    taps.output(net.time_embed, "time_embed")
    taps.output(net.cond_embed, "cond_embed")
    taps.output(net.input_proj, "input_proj")
    for i, block in enumerate(net.res_blocks):
        taps.output(block, f"res_blocks.{i}")
    tensors = {"inputs.noisy": noisy, "inputs.timestep": times.float(), "inputs.condition": condition}
    tensors["outputs.sample"] = net(noisy, times, condition)
    tensors |= {f"blocks.{k}": v for k, v in taps.close().items()}
    spaced = model.diffloss.gen_diffusion
    tensors["schedule.timesteps"] = torch.tensor(spaced.timestep_map)
    for name in ("betas", "alphas_cumprod", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"):
        tensors[f"schedule.{name}"] = torch.tensor(getattr(spaced, name))
    common.write_golden(folder / "golden_diffusion_head.safetensors", tensors)


def generate_golden(folder, case, hart, tokenizer, model, smooth):
    settings = CASES[case]
    patch_nums = settings["patch_nums"]
    context, mask = context_of(case)
    batch, last, z = len(mask), patch_nums[-1] ** 2, tokenizer.Cvae
    steps = model.diffloss.gen_diffusion.num_timesteps
    latents = common.normal((batch, last, z), case, "latents")
    noise = [common.normal((batch, last, z), case, "noise", k) for k in range(steps - 1)]
    seen, codes = {}, []

    def largest(logits, top_k=0, top_p=0.0, rng=None, num_samples=1):
        seen[f"logits.{len(codes)}"] = logits.clone()
        smallest = logits.topk(top_k, dim=-1)[0].amin(dim=-1, keepdim=True)
        logits.masked_fill_(logits < smallest, -torch.inf)
        codes.append(logits.argmax(-1))
        return codes[-1].unsqueeze(-1)

    def mix(logits, tau=1, hard=False, eps=1e-10, dim=-1, rng=None):
        return (logits / tau).softmax(dim)

    hart.module.sample_with_top_k_top_p_ = largest
    hart.module.gumbel_softmax_with_rng = mix
    randn, randn_like = torch.randn, torch.randn_like

    def start(*shape, **_):
        return latents.reshape(-1, z)[: shape[0]] if shape[0] == batch * last else latents.reshape(-1, z).repeat(2, 1)

    def on_the_way(x, **_):
        value = next(drawn)
        return torch.zeros_like(x) if value is None else value.reshape(-1, z).repeat(2, 1)

    drawn = iter(noise + [None])
    torch.randn, torch.randn_like = start, on_the_way
    taps = common.Taps()
    taps.output(model.decoder_norm, "condition")
    inside = {}
    fhat = tokenizer.fhat_to_img

    def keep(f_hat):
        inside["latent"] = f_hat.clone()
        return fhat(f_hat)

    tokenizer.fhat_to_img = keep
    try:
        image = model.autoregressive_infer_cfg(
            B=batch, label_B=context.clone(), cfg=settings["guidance"], more_smooth=smooth,
            context_position_ids=positions(mask), context_mask=mask.clone(),
        )
    finally:
        torch.randn, torch.randn_like, tokenizer.fhat_to_img = randn, randn_like, fhat
    tensors = {"inputs.context": context, "inputs.context_mask": mask, "inputs.guidance": torch.tensor([settings["guidance"]])}
    if smooth:
        tensors["inputs.more_smooth"] = torch.tensor([1])
    tensors["inputs.latents"] = latents
    tensors |= {f"inputs.noise.{k}": value for k, value in enumerate(noise)}
    tensors |= {f"outputs.codes.{i}": ids for i, ids in enumerate(codes)}
    tensors["outputs.latent"] = inside["latent"]
    tensors["outputs.image"] = image
    tensors |= {f"blocks.{k}": v for k, v in (seen | taps.close()).items()}
    name = "golden_generate_smooth" if smooth else "golden_generate"
    common.write_golden(folder / f"{name}.safetensors", tensors, every=13, large=2048)


def main(root):
    hart = reference(root)
    random.seed(0)
    np.random.seed(0)
    for case in CASES:
        folder = common.case_folder("hart", case)
        tokenizer, model, own, own_llm = build(hart, case)
        store_weights(folder, case, hart, tokenizer, model)
        store_configurations(folder, tokenizer, model, own, own_llm)
        tokenizer_golden(folder, case, tokenizer)
        transformer_golden(folder, case, hart, tokenizer, model)
        head_golden(folder, case, tokenizer, model)
        for smooth in (False, True):
            generate_golden(folder, case, hart, tokenizer, model, smooth)


KEPT = {
    "patch_nums", "mlp_ratio", "norm_eps", "shared_aln", "cond_drop_rate", "drop_rate", "attn_drop_rate", "drop_path_rate",
    "attn_l2_norm", "flash_if_available", "fused_if_available", "sep_aln_pooling_mode", "use_cross_attn",
    "num_sampling_steps", "diffusion_batch_mul", "sampler", "diffusion_head_repeats", "use_context_norm", "context_norm_scale",
}
KEPT_BY_TOKENIZER = {
    "dropout", "beta", "using_znorm", "quant_conv_ks", "quant_resi", "share_quant_resi", "default_qresi_counts", "test_mode",
    "levels", "hybrid", "disable_quant_resi", "freeze_codebook_for_hybrid", "double_decoder",
}


if __name__ == "__main__":
    main(sys.argv[1])
