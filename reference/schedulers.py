"""Sigmas, time steps and whole trajectories of the three samplers, driven by the linear model v = A x + b."""

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SCMScheduler

import common

CHANNELS, SHAPE = 4, (1, 4, 3, 5)


def dpm(shift):
    return DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift
    )


def euler(shift):
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def write_scheduler(path, scheduler):
    """scheduler_config.json exactly as diffusers writes it."""
    path.write_text(scheduler.to_json_string())


def velocity(x, a, b):
    return torch.einsum("oc,bchw->bohw", a, x) + b.view(1, -1, 1, 1)


def main():
    folder = common.case_folder("schedulers", "flow")
    a = common.normal((CHANNELS, CHANNELS), "schedulers", "a", scale=0.5)
    b = common.normal((CHANNELS,), "schedulers", "b", scale=0.2)
    start = common.normal(SHAPE, "schedulers", "start")
    tensors = {"inputs.a": a, "inputs.b": b, "inputs.latents": start}
    for make, name, shifts, counts in (
        (dpm, "dpm", (3.0, 6.0), (1, 2, 4, 14, 20, 50)),
        (euler, "euler", (3.0,), (1, 4, 20)),
    ):
        for shift in shifts:
            for count in counts:
                scheduler = make(shift)
                scheduler.set_timesteps(count)
                label = f"{name}.shift{shift:g}.n{count}"
                tensors[f"{label}.sigmas"] = scheduler.sigmas
                tensors[f"{label}.timesteps"] = scheduler.timesteps
                if count not in (2, 4, 20):
                    continue
                x, samples = start, []
                for t in scheduler.timesteps:
                    x = scheduler.step(velocity(x, a, b), t, x, return_dict=False)[0]
                    samples.append(x)
                tensors[f"{label}.samples"] = torch.stack(samples)
    common.write_golden(folder / "golden.safetensors", tensors)
    write_scheduler(folder / "dpm_scheduler_config.json", dpm(3.0))
    write_scheduler(folder / "euler_scheduler_config.json", euler(3.0))

    folder = common.case_folder("schedulers", "scm")
    tensors = {"inputs.a": a, "inputs.b": b, "inputs.latents": start}
    grids = {
        "n1": (1, dict(intermediate_timesteps=None)),
        "n2": (2, dict(intermediate_timesteps=1.3)),
        "n4": (4, dict(intermediate_timesteps=None)),
        "n4_searched": (
            4,
            dict(timesteps=[1.5682963, 1.3, 1.1, 0.6, 0.0], max_timesteps=None, intermediate_timesteps=None),
        ),
    }
    for label, (count, arguments) in grids.items():
        scheduler = SCMScheduler()
        scheduler.set_timesteps(count, **arguments)
        tensors[f"{label}.timesteps"] = scheduler.timesteps
        # What the pipeline does around the scheduler, with one generator for all steps.
        generator = torch.Generator("cpu").manual_seed(7)
        twin = torch.Generator("cpu").manual_seed(7)
        sigma_data = scheduler.config.sigma_data
        x, samples, denoised, noises, outputs = start * sigma_data, [], [], [], []
        for t in scheduler.timesteps[:-1]:
            s = torch.sin(t) / (torch.cos(t) + torch.sin(t))
            norm = torch.sqrt(s**2 + (1 - s) ** 2)
            flow = x / sigma_data * norm
            v = velocity(flow, a, b)
            f = ((1 - 2 * s) * flow + (1 - 2 * s + 2 * s**2) * v) / norm * sigma_data
            outputs.append(f)
            noises.append(torch.randn(SHAPE, generator=twin))
            x, clean = scheduler.step(f, t, x, generator=generator, return_dict=False)
            samples.append(x)
            denoised.append(clean)
        tensors[f"{label}.model_outputs"] = torch.stack(outputs)
        tensors[f"{label}.noises"] = torch.stack(noises)
        tensors[f"{label}.samples"] = torch.stack(samples)
        tensors[f"{label}.denoised"] = torch.stack(denoised)
        tensors[f"{label}.result"] = denoised[-1] / sigma_data
    common.write_golden(folder / "golden.safetensors", tensors)
    write_scheduler(folder / "scheduler_config.json", SCMScheduler())


if __name__ == "__main__":
    main()
