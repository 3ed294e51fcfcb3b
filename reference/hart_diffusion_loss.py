"""What HART's diffusion head is trained by: the authors' loss with its gradient, and the noised values.

    python hart_diffusion_loss.py HART      # a checkout of mit-han-lab/hart (e28a41f)
"""

import sys

import torch

import common


def main(root):
    # A package without __init__.py comes after a module of its name, which hart.py is.
    sys.path[0] = root
    from hart.modules.diffusion import create_diffusion

    # The other goldens are made without gradients.
    torch.set_grad_enabled(True)
    process = create_diffusion(timestep_respacing="", noise_schedule="cosine")
    generator = torch.Generator().manual_seed(11)
    width = 6
    # Both ends of the process, places whose values stand for all beyond them at the last step included.
    times = torch.tensor([0, 0, 0, 0, 1, 2, 57, 143, 500, 714, 998, 999])
    clean = (0.4 * torch.randn(len(times), width, generator=generator)).clamp(-1, 1)
    clean[0, 0], clean[1, 1] = 1.0, -1.0
    noise = torch.randn(len(times), width, generator=generator)
    # Near the noise, as a trained head is: far from it the last step's likelihood is cut off.
    near = torch.tensor([1e-3] * 4 + [0.3] * (len(times) - 4))[:, None]
    predicted = noise + near * torch.randn(len(times), width, generator=generator)
    shares = 0.8 * torch.randn(len(times), width, generator=generator)
    output = torch.cat([predicted, shares], dim=1).requires_grad_()
    terms = process.training_losses(lambda x, t: output, clean, times, noise=noise)
    loss = terms["loss"].mean()
    loss.backward()
    tensors = dict(
        times=times.float(), clean=clean, noise=noise, noisy=process.q_sample(clean, times, noise=noise),
        output=output.detach(), loss=loss.detach()[None], gradient=output.grad,
    )
    common.write_weights(common.case_folder("hart_training", "diffusion") / "golden.safetensors", tensors)


if __name__ == "__main__":
    main(*sys.argv[1:])
