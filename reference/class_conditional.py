"""Tiny class-conditional diffusion transformers of the DC-AE paper (arXiv 2410.10733): UViT, USiT, DiT and SiT by the authors'
classes, block by block, and their samplers over given noise.

    python class_conditional.py EFFICIENTVIT      # a checkout of mit-han-lab/efficientvit (de7d773)

Needs timm 1.0, einops, omegaconf and torchdiffeq 0.2.5 besides. SiT is the authors' DiT without a learned variance under the
authors' flow sampler, as their later repository (DC-Gen) pairs them.
"""

import contextlib
import dataclasses
import os
import sys
import types
from pathlib import Path

import torch

import common

BATCH = 2
UVIT = dict(input_size=4, patch_size=1, in_channels=4, hidden_size=24, depth=4, num_heads=2, num_classes=10, use_checkpoint=False)
DIT = dict(input_size=4, patch_size=1, in_channels=4, hidden_size=24, depth=3, num_heads=2, num_classes=10, use_checkpoint=False)
FLOW = dict(train_scheduler="SiTSampler", eval_scheduler="ODE_dopri5", num_inference_steps=250)
# Class, settings of its configuration, and runs of the sampler: file, scheduler, steps, guidance.
CASES = {
    "u_vit": ("UViT", UVIT, [("sampler", "DPM_Solver", 30, 1.5), ("sampler_unguided", "DPM_Solver", 8, 1.0)]),
    "u_vit_patches": (
        "UViT",
        UVIT | dict(patch_size=2, in_channels=3, depth=2, num_heads=3, mlp_ratio=2.5, qkv_bias=True, mlp_time_embed=True, act_layer="silu"),
        [("sampler", "DPM_Solver", 7, 2.5)],
    ),
    "u_sit": ("UViT", UVIT | FLOW | dict(depth=2), [("sampler", "ODE_dopri5", 250, 1.2), ("sampler_unguided", "ODE_dopri5", 250, 1.0)]),
    "u_sit_stochastic": ("UViT", UVIT | FLOW | dict(depth=2, hidden_size=16, eval_scheduler="SDE", num_inference_steps=9), [("sampler", "SDE", 9, 1.4)]),
    "dit": ("DiT", DIT, [("sampler", "GaussianDiffusion", 12, 1.3), ("sampler_unguided", "GaussianDiffusion", 5, 1.0)]),
    "dit_patches": ("DiT", DIT | dict(patch_size=2, in_channels=3, depth=2, num_heads=3, mlp_ratio=2.5), [("sampler", "GaussianDiffusion", 6, 4.0)]),
    "sit": ("DiT", DIT | dict(learn_sigma=False), [("sampler", "ODE_heun2", 9, 1.4)]),
}


def classes(root):
    """The authors' modules, without the packages around them, which import what is not needed here."""
    for name in ("efficientvit", "efficientvit.apps", "efficientvit.apps.utils", "efficientvit.models", "efficientvit.models.utils",
                 "efficientvit.diffusioncore", "efficientvit.diffusioncore.models"):
        module = types.ModuleType(name)
        module.__path__ = [str(Path(root, *name.split(".")))]
        sys.modules[name] = module
    # One process, as far as the authors' code asks.
    os.environ.setdefault("RANK", "0")
    from efficientvit.diffusioncore.models import dit, uvit

    return uvit, dit


def model_of(modules, kind, settings, label):
    uvit, dit = modules
    if kind == "UViT":
        # The authors put the table of DPM-Solver's schedule on a card while the network is built.
        built = settings | dict(train_scheduler="SiTSampler", eval_scheduler="ODE_dopri5")
        model, config = uvit.UViT(uvit.UViTConfig(**built)), uvit.UViTConfig(**settings)
    else:
        kept = {key: value for key, value in settings.items() if key not in FLOW}
        model, config = dit.DiT(dit.DiTConfig(**kept)), dit.DiTConfig(**settings)
    common.randomise(model, label, gain=1.2, skip=("pos_embed",))
    for name, parameter in model.named_parameters():
        if name == "pos_embed" and kind == "UViT" or name.endswith("embedding_table.weight"):
            parameter.data.copy_(common.normal(tuple(parameter.shape), label, name, scale=0.5))
        elif name == "pos_embed":
            parameter.data.copy_(parameter.data.to(torch.bfloat16).float())
    return model.eval(), config


def published(kind, config, settings):
    """The settings as a file; what only training reads is left out."""
    training = ("use_checkpoint", "pretrained_path", "pretrained_source", "attn_mode", "name", "unconditional", "post_norm")
    file = {key: value for key, value in dataclasses.asdict(config).items() if key not in training}
    return file | settings_of_flow(settings) | {"_class_name": kind}


def settings_of_flow(settings):
    return {key: value for key, value in settings.items() if key in FLOW}


def transformer_golden(model, kind, settings, folder, label):
    taps = common.Taps()
    if kind == "UViT":
        taps.output(model.patch_embed, "blocks.patch_embed")
        taps.output(model.mid_block.attn, "blocks.mid_block.attn")
        taps.output(model.mid_block.mlp, "blocks.mid_block.mlp")
        taps.output(model.mid_block, "blocks.mid_block")
        for group in ("in_blocks", "out_blocks"):
            for index, block in enumerate(getattr(model, group)):
                taps.output(block.attn, f"blocks.{group}.{index}.attn")
                taps.output(block.mlp, f"blocks.{group}.{index}.mlp")
                taps.output(block, f"blocks.{group}.{index}")
        taps.input(model.in_blocks[0], "blocks.tokens")
        taps.output(model.decoder_pred, "blocks.decoder_pred")
    else:
        taps.output(model.x_embedder, "blocks.x_embedder")
        taps.output(model.t_embedder, "blocks.t_embedder")
        taps.input(model.blocks[0], "blocks.tokens")
        for index, block in enumerate(model.blocks):
            taps.output(block.attn, f"blocks.blocks.{index}.attn")
            taps.output(block.mlp, f"blocks.blocks.{index}.mlp")
            taps.output(block, f"blocks.blocks.{index}")
        taps.output(model.final_layer, "blocks.final_layer")
    side, channels = settings["input_size"], settings["in_channels"]
    latents = common.normal((3, channels, side, side), label, "hidden_states")
    flow = "train_scheduler" in settings or not settings.get("learn_sigma", True)
    times = torch.tensor([0.0, 0.37, 1.0] if flow else [0.0 if kind == "DiT" else 1.0, 371.5, 999.0])
    # The last one is the null class.
    labels = torch.tensor([3, 9, 10])
    sample = model.forward_without_cfg(latents, times, labels)
    tensors = {"inputs.hidden_states": latents, "inputs.timestep": times, "inputs.class_labels": labels}
    tensors |= taps.close() | {"outputs.sample": sample}
    common.write_golden(folder / "golden_transformer.safetensors", tensors, large=300)


@contextlib.contextmanager
def given(draws):
    """Random draws are taken from a list."""
    kept = torch.randn, torch.randn_like
    torch.randn = lambda *_, **__: draws.pop(0)
    torch.randn_like = lambda _: draws.pop(0)
    try:
        yield
    finally:
        torch.randn, torch.randn_like = kept


def sampler(modules, model, config, scheduler, steps, after, batch):
    """Sets the authors' sampler up for so many steps, so that `after` gets the state after each."""
    uvit, dit = modules
    config = dataclasses.replace(config, eval_scheduler=scheduler, num_inference_steps=steps)
    model.cfg = config
    if scheduler == "DPM_Solver":
        betas = (torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2).numpy()
        model.eval_scheduler = uvit.NoiseScheduleVP(schedule="discrete", betas=torch.tensor(betas).float())
        update = uvit.DPM_Solver.dpm_solver_update

        def seen(solver, x, s, t, order, *arguments, **keywords):
            # An update of the highest order does not go through the others.
            result = update(solver, x, s, t, order, *arguments, **keywords)
            after.append(result[:batch])
            return result

        uvit.DPM_Solver.dpm_solver_update = seen
        return lambda: setattr(uvit.DPM_Solver, "dpm_solver_update", update)
    if scheduler == "GaussianDiffusion":
        model.eval_scheduler = dit.create_diffusion(str(steps))
        step = model.eval_scheduler.p_sample

        def seen(*arguments, **keywords):
            found = step(*arguments, **keywords)
            after.append(found["sample"][:batch])
            return found

        model.eval_scheduler.p_sample = seen
        return lambda: None
    flow = uvit.SiTSampler(uvit.sit_create_transport("Linear", "velocity", None, None, None))
    if scheduler == "SDE":
        # The settings of DC-Gen, under the name that it has there.
        walk = flow.sample_sde(sampling_method="Euler", diffusion_form="sigma", diffusion_norm=1.0, last_step="Mean", last_step_size=0.04,
                               num_steps=steps)
    else:
        walk = flow.sample_ode(sampling_method=scheduler.removeprefix("ODE_"), num_steps=steps, atol=1e-6, rtol=0.001, reverse=False)

    def seen(*arguments, **keywords):
        states = walk(*arguments, **keywords)
        # Where the sampler steps as it likes, what lies between is interpolated.
        first = 0 if scheduler == "SDE" else 1
        after.extend(state[:batch] for state in states[first:] if scheduler != "ODE_dopri5")
        return states

    model.eval_scheduler = seen
    return lambda: None


def flow_generate(model, latents, labels, null, guidance):
    """The flow branch of the authors' `generate`, which their DiT has in DC-Gen only, and stochastic samplers too."""
    if guidance == 1.0:
        return model.eval_scheduler(latents, model.forward_without_cfg, y=labels)[-1]
    both, classes_ = torch.cat([latents, latents]), torch.cat([labels, null])
    return model.eval_scheduler(both, model.forward_with_cfg, y=classes_, cfg_scale=guidance)[-1].chunk(2)[0]


def sampler_golden(modules, model, config, settings, folder, label, run):
    file, scheduler, steps, guidance = run
    side, channels = settings["input_size"], settings["in_channels"]
    shape = (BATCH, channels, side, side)
    latents = common.normal(shape, label, file, "latents")
    labels = torch.tensor([4, 7])
    null = torch.full_like(labels, settings["num_classes"])
    after, noise = [], []
    if scheduler in ("SDE", "GaussianDiffusion"):
        count = steps if scheduler == "GaussianDiffusion" else steps - 1
        noise = [common.normal(shape, label, file, "noise", index) for index in range(count)]
    # The unconditional half draws noise of its own, which nothing depends on.
    draws = [x if guidance == 1.0 else torch.cat([x, common.normal(shape, label, file, "other", i)]) for i, x in enumerate(noise)]
    undo = sampler(modules, model, config, scheduler, steps, after, BATCH)
    if scheduler in ("DPM_Solver", "GaussianDiffusion"):
        with given([latents.clone()] + draws):
            sample = model.generate(labels, null, guidance)
    else:
        with given(draws):
            sample = flow_generate(model, latents.clone(), labels, null, guidance)
    undo()
    tensors = {
        "inputs.latents": latents, "inputs.steps": torch.tensor([steps]), "inputs.guidance": torch.tensor([guidance]),
        "inputs.class_labels": labels,
    }
    tensors |= {f"inputs.noise.{index}": x for index, x in enumerate(noise)}
    tensors |= {f"latents.{index}": x for index, x in enumerate(after)} | {"outputs.sample": sample}
    common.write_golden(folder / f"golden_{file}.safetensors", tensors)


def main(root):
    modules = classes(root)
    for case, (kind, settings, runs) in CASES.items():
        label = f"class_conditional/{case}"
        folder = common.case_folder("class_conditional", case)
        model, config = model_of(modules, kind, settings, label)
        transformer_golden(model, kind, settings, folder, label)
        for run in runs:
            sampler_golden(modules, model, config, settings, folder, label, run)
        file = published(kind, config, settings)
        if case == "sit":
            file = {key: value for key, value in file.items() if key not in FLOW} | {"_class_name": "SiT", "eval_scheduler": "ODE_heun2"}
        common.write_json(folder / "config.json", file)
        state = model.state_dict()
        if case == "u_vit":
            # As published: one file with the autoencoder.
            state = {f"diffusion_model.{name}": value for name, value in state.items()}
            state["autoencoder.encoder.project_in.conv.weight"] = common.normal((4, 3, 3, 3), label, "autoencoder")
        common.write_weights(folder / "model.safetensors", state, torch.bfloat16)
    # The same network as the authors' trainer writes it, and as the first U-ViT's files name its labels.
    model, _ = model_of(modules, *CASES["u_sit"][:2], "class_conditional/u_sit")
    state = {f"uvit.{name}": value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    state["uvit.label_emb.weight"] = state.pop("uvit.label_emb.embedding_table.weight")
    folder = common.case_folder("class_conditional", "u_sit_trained")
    torch.save({"state_dict": state, "epoch": 3, "global_step": 100}, folder / "pytorch_model.bin")
    (folder / "config.json").write_bytes((common.FIXTURES / "class_conditional/u_sit/config.json").read_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
