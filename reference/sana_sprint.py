"""Goldens of SANA-Sprint's distillation: the consistency loss, and one step of student and discriminator.

Derived: the formulas of the paper and of its authors' code, written below over diffusers' transformer, and not produced by
running the authors' code. Tangents come from `torch.func.jvp`.
"""

import torch
from diffusers import SanaTransformer2DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import common

SIGMA = 0.5
LARGEST = 1.57080
BLOCKS = (0, 1)
SIZES = dict(
    in_channels=4,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=8,
    num_layers=2,
    num_cross_attention_heads=2,
    cross_attention_head_dim=8,
    cross_attention_dim=16,
    caption_channels=12,
    mlp_ratio=2.0,
    sample_size=4,
    patch_size=1,
    qk_norm="rms_norm_across_heads",
)


def column(t):
    return t.view(-1, 1, 1, 1)


def predict(model, x, t, text, mask, guidance=None):
    """F of a flow-matching network at the angles t; x is in units of sigma."""
    sine, cosine = column(t.sin()), column(t.cos())
    scale = 1 / (sine + cosine)
    arguments = dict(encoder_hidden_states=text, encoder_attention_mask=mask, timestep=(sine * scale).flatten())
    if guidance is not None:
        arguments["guidance"] = guidance * 0.1
    velocity = model(scale * x, **arguments).sample
    return scale * ((cosine - sine) * x + velocity)


def mix(clean, noise, t):
    return column(t.cos()) * clean + column(t.sin()) * noise


class Networks:
    def __init__(self):
        self.teacher = build("teacher", timestep_scale=0.001).requires_grad_(False)
        self.student = build("transformer", guidance_embeds=True)
        width = SIZES["num_attention_heads"] * SIZES["attention_head_dim"]
        self.logvar = common.randomise(nn.Linear(width, 1), "logvar", bias=0.3)

    def embedded(self, run):
        """The result of run() and the sum of the embeddings that the student computed on the way."""
        seen = []
        handle = self.student.time_embed.register_forward_hook(lambda _m, _a, result: seen.append(result[1]))
        result = run()
        handle.remove()
        return result, seen[0]

    def consistency(self, latents, noise, t, guidance, text, mask, empty, warmup):
        x = mix(latents, noise, t)
        with torch.no_grad():
            twice = [torch.cat([a, b]) for a, b in ((x, x), (t, t), (empty, text), (mask, mask))]
            without, with_caption = predict(self.teacher, *twice).chunk(2)
            velocity = SIGMA * (without + column(guidance) * (with_caption - without))
            rate = t.cos() * t.sin()
            _, dot = torch.func.jvp(
                lambda x, t: predict(self.student, x, t, text, mask, guidance),
                (x, t),
                (column(rate) * velocity / SIGMA, rate),
            )
        predicted, embedded = self.embedded(lambda: predict(self.student, x, t, text, mask, guidance))
        logvar = self.logvar(embedded)
        held = predicted.detach()
        sine, cosine = column(t.sin()), column(t.cos())
        raw = -(cosine**2) * (SIGMA * held - velocity) - warmup * (cosine * sine * SIGMA * x + SIGMA * dot)
        tangent = raw / (torch.linalg.vector_norm(raw, dim=(1, 2, 3), keepdim=True) + 0.1)
        weight = 1 / (SIGMA * column(t.tan()))
        loss = (weight * (-column(logvar)).exp() * (predicted - held - tangent) ** 2 + column(logvar)).mean()
        outputs = dict(x_t=SIGMA * x, velocity=velocity, F=held, F_dot=dot, logvar=logvar, g_raw=raw, g=tangent)
        return loss, predicted, outputs | {"loss": loss[None]}


class BatchNormLocal(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        batch, channels, tokens = x.shape
        x = x.view(-(-batch // 8), -1, channels, tokens)
        mean, variance = x.mean((1, 3), keepdim=True), x.var((1, 3), keepdim=True, unbiased=False)
        x = ((x - mean) / (variance + 1e-5).sqrt()).view(batch, channels, tokens)
        return x * self.weight[:, None] + self.bias[:, None]


def convolution(channels, outputs, kernel):
    layer = nn.Conv1d(channels, outputs, kernel, padding=kernel // 2, padding_mode="circular")
    return nn.utils.spectral_norm(layer, eps=1e-12)


def layer(channels, kernel):
    return nn.Sequential(convolution(channels, channels, kernel), BatchNormLocal(channels), nn.LeakyReLU(0.2))


class Residual(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return (self.fn(x) + x) / 2**0.5


class Head(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.main = nn.Sequential(layer(channels, 1), Residual(layer(channels, 9)))
        self.cls = convolution(channels, 1, 1)

    def forward(self, x):
        return self.cls(self.main(x)).flatten(1)


class Discriminator(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.heads = nn.ModuleList(Head(channels) for _ in BLOCKS)

    def forward(self, teacher, x, t, text, mask):
        tokens = {}
        handles = [
            teacher.transformer_blocks[i].register_forward_hook(lambda _m, _a, y, i=i: tokens.update({i: y}))
            for i in BLOCKS
        ]
        predict(teacher, x, t, text, mask)
        for handle in handles:
            handle.remove()
        return torch.cat([head(tokens[i].transpose(1, 2)) for i, head in zip(BLOCKS, self.heads)], 1)


def build(name, **changes):
    model = SanaTransformer2DModel(**(SIZES | changes))
    return common.randomise(model, f"sana_sprint/{name}")


def make_inputs(batch, height, width):
    def draw(name, *shape):
        return common.normal(shape, "sana_sprint", name, batch)

    mask = torch.ones(batch, 5, dtype=torch.int64)
    mask[::2, 3:] = 0
    return dict(
        latents=draw("latents", batch, 4, height, width),
        noise=draw("noise", batch, 4, height, width),
        guidance=torch.tensor([4.0, 4.5, 5.0]).repeat(batch)[:batch],
        encoder_hidden_states=draw("text", batch, 5, 12),
        encoder_attention_mask=mask,
        null_encoder_hidden_states=draw("null", 1, 5, 12),
    )


def consistency_golden(networks, folder):
    inputs = make_inputs(3, 4, 5)
    inputs["t"] = torch.tensor([0.3, 0.96875, 1.5])
    inputs |= {f"logvar.{k}": v.detach() for k, v in networks.logvar.named_parameters()}
    inputs["warmup"] = torch.tensor([0.75])
    text = inputs["encoder_hidden_states"]
    loss, _, outputs = networks.consistency(
        inputs["latents"], inputs["noise"], inputs["t"], inputs["guidance"], text, inputs["encoder_attention_mask"],
        inputs["null_encoder_hidden_states"].expand_as(text), 0.75,
    )
    loss.backward()
    outputs |= gradients(networks)
    tensors = {f"inputs.{k}": v for k, v in inputs.items()} | {f"outputs.{k}": v for k, v in outputs.items()}
    common.write_golden(folder / "scm.safetensors", tensors, every=5, large=1024)


def gradients(networks):
    named = list(networks.student.named_parameters())
    named += [(f"logvar.{k}", v) for k, v in networks.logvar.named_parameters()]
    found = {f"grad.{k}": v.grad.clone() for k, v in named}
    for _, parameter in named:
        parameter.grad = None
    return found


def steps_golden(networks, folder):
    batch, sides = 12, (4, 3, 3)
    inputs = make_inputs(batch, *sides[1:])
    text, mask = inputs["encoder_hidden_states"], inputs["encoder_attention_mask"]
    empty = inputs["null_encoder_hidden_states"].expand_as(text)
    width = SIZES["num_attention_heads"] * SIZES["attention_head_dim"]
    discriminator = common.randomise(Discriminator(width), "sana_sprint/discriminator").train()
    for name, buffer in discriminator.named_buffers():
        if name.endswith("_u"):
            buffer.copy_(nn.functional.normalize(common.normal(tuple(buffer.shape), "sana_sprint", name), dim=0))
    state = {f"heads.{k}": v.clone() for k, v in discriminator.heads.state_dict().items() if not k.endswith("_v")}
    for name in ("points", "drawn", "seen", "fake", "real", "misaligned"):
        inputs[f"{name}.noise"] = common.normal((batch, *sides), "sana_sprint/steps", name)
        inputs[f"{name}.t"] = common.uniform((batch,), 0.1, 1.5, "sana_sprint/steps", name, "t")
    inputs["drawn.t"][::2] = LARGEST
    guidance = inputs["guidance"]

    # The student's step.
    total, _, _ = networks.consistency(
        inputs["latents"], inputs["points.noise"], inputs["points.t"], guidance, text, mask, empty, 1.0
    )
    outputs = {"consistency_loss": total[None].detach()}
    t = inputs["drawn.t"]
    x = mix(inputs["latents"], inputs["drawn.noise"], t)
    clean = column(t.cos()) * x - column(t.sin()) * predict(networks.student, x, t, text, mask, guidance)
    t = inputs["seen.t"]
    adversarial = -discriminator(networks.teacher, mix(clean, inputs["seen.noise"], t), t, text, mask).mean()
    outputs["adversarial_loss"] = adversarial[None].detach()
    (total + 0.5 * adversarial).backward()
    outputs |= {f"student.{k}": v for k, v in gradients(networks).items()}

    # The discriminator's step, from the same state.
    discriminator.zero_grad()
    with torch.no_grad():
        discriminator.load_state_dict(state, strict=False)
        t = inputs["drawn.t"]
        x = mix(inputs["latents"], inputs["drawn.noise"], t)
        clean = column(t.cos()) * x - column(t.sin()) * predict(networks.student, x, t, text, mask, guidance)
    t = inputs["fake.t"]
    fake = mix(clean, inputs["fake.noise"], t)
    misaligned = mix(inputs["latents"].roll(1, 0), inputs["misaligned.noise"], inputs["misaligned.t"])
    on_fake = discriminator(
        networks.teacher, torch.cat([fake, misaligned]), torch.cat([t, inputs["misaligned.t"]]), text.repeat(2, 1, 1),
        mask.repeat(2, 1),
    )
    on_real = discriminator(networks.teacher, mix(inputs["latents"], inputs["real.noise"], t), t, text, mask)
    loss = 0.5 * ((1 - on_real).relu().mean() + (1 + on_fake).relu().mean())
    loss.backward()
    outputs |= {"discriminator_loss": loss[None], "fake": on_fake, "real": on_real}
    outputs |= {f"discriminator.grad.{k}": v.grad for k, v in discriminator.named_parameters()}
    tensors = {f"inputs.{k}": v for k, v in (inputs | state).items()} | {f"outputs.{k}": v for k, v in outputs.items()}
    common.write_golden(folder / "steps.safetensors", tensors, every=5, large=1024)


def main():
    torch.set_grad_enabled(True)
    networks = Networks()
    folder = common.case_folder("sana_sprint", "distillation")
    for name, model in (("transformer", networks.student), ("teacher", networks.teacher)):
        (folder / name).mkdir()
        common.write_config(folder / name / "config.json", model)
        common.write_weights(folder / name / "diffusion_pytorch_model.safetensors", model.state_dict())
    # The fused attention has no forward mode.
    with sdpa_kernel(SDPBackend.MATH):
        consistency_golden(networks, folder)
        steps_golden(networks, folder)


if __name__ == "__main__":
    main()
