"""One Python peer in a process of its own, driven line by line by peers.py.

It loads, prints a line of JSON, then obeys: `run N` prints the seconds of N runs, `save FILE`
writes the last output, `quit` prints the peak memory and ends.
"""

import argparse
import contextlib
import copy
import io
import json
import os
import pathlib
import sys
import time

import torch
from safetensors.torch import load_file, save_file

import autoregressive
import checkpoints


def single(function):
    """A function whose result is one tensor."""

    class Module(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *arguments):
            return function(self.inner, *arguments)

    return Module


def transformer_call(inner, hidden, text, mask, timestep, guidance=None):
    return inner(
        hidden_states=hidden,
        encoder_hidden_states=text,
        encoder_attention_mask=mask,
        timestep=timestep,
        guidance=guidance,
        return_dict=False,
    )[0]


def component(arguments, tensors):
    """A module, its positional arguments, and the name of its output."""
    target = pathlib.Path(arguments.model) if arguments.model else None
    names = {
        "vae.decode": ("vae", "latent", "sample"),
        "vae.encode": ("vae", "sample", "latent"),
    }
    kind = arguments.component
    if kind in names:
        part, given, output = names[kind]
        model = checkpoints.load(target, part)
        call = {
            "vae.decode": lambda inner, x: inner.decode(x, return_dict=False)[0],
            "vae.encode": lambda inner, x: inner.encode(x, return_dict=False)[0],
        }[kind]
        return single(call)(model), [tensors[given]], output
    if kind == "transformer":
        order = ["hidden_states", "encoder_hidden_states", "encoder_attention_mask", "timestep"]
        given = [tensors[name] for name in order]
        if "guidance" in tensors:
            given.append(tensors["guidance"])
        return single(transformer_call)(checkpoints.load(target, kind)), given, "sample"
    if kind == "gemm":
        rows, inner = tensors["weight"].shape
        layer = torch.nn.Linear(inner, rows, bias=False)
        layer.weight.data = tensors["weight"].float()
        return layer, [tensors["x"]], "y"
    if kind == "depthwise":
        channels = tensors["weight"].shape[0]
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        layer.weight.data, layer.bias.data = tensors["weight"], tensors["bias"]
        return layer, [tensors["x"]], "y"
    raise SystemExit(f"worker: no component {kind}")


def module_runner(arguments):
    """Runs a module as it is, compiled, or through OpenVINO."""
    tensors = load_file(arguments.inputs)
    module, given, name = component(arguments, tensors)
    module = module.eval()
    if arguments.peer == "openvino":
        return openvino_runner(module, given, name, arguments.threads)
    if arguments.peer == "compile":
        module = torch.compile(module)
    if arguments.channels_last:
        module = module.to(memory_format=torch.channels_last)
        last = torch.channels_last
        given = [x.to(memory_format=last) if x.dim() == 4 else x for x in given]

    def run():
        started = time.perf_counter()
        result = module(*given)
        return time.perf_counter() - started, {name: result}

    return run


def openvino_runner(module, given, name, threads):
    import openvino

    converted = openvino.convert_model(module, example_input=tuple(given))
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    request = compiled.create_infer_request()
    arrays = [x.numpy() for x in given]

    def run():
        started = time.perf_counter()
        result = request.infer(arrays)[compiled.output(0)]
        seconds = time.perf_counter() - started
        return seconds, {name: torch.from_numpy(result.copy())}

    return run


def masks_runner(arguments):
    """Segment Anything of the authors' package: a picture's embedding, or the masks of boxes on one."""
    if arguments.peer == "openvino":
        raise SystemExit("worker: no OpenVINO export of Segment Anything here")
    tensors = load_file(arguments.inputs)
    model = checkpoints.segment_anything(json.loads(pathlib.Path(arguments.config).read_text()))
    model.load_state_dict(torch.load(pathlib.Path(arguments.model) / "sam.pth"))
    encoder = torch.compile(model.image_encoder) if arguments.peer == "compile" else model.image_encoder

    def masks():
        sparse, dense = model.prompt_encoder(points=None, boxes=tensors["boxes"], masks=None)
        # What `multimask_output` drops is made all the same.
        found, _ = model.mask_decoder.predict_masks(
            image_embeddings=tensors["image_embeddings"],
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        return {"low_res_masks": found}

    def run():
        started = time.perf_counter()
        if arguments.component == "image_encoder":
            result = {"image_embeddings": encoder(tensors["pixel_values"])}
        else:
            result = masks()
        return time.perf_counter() - started, result

    return run


def text_runner(arguments):
    """Gemma 2, with the keys and values of the first tokens kept where that is asked for."""
    if arguments.peer == "openvino":
        raise SystemExit("worker: no OpenVINO export of the text encoder here")
    tensors = load_file(arguments.inputs)
    model = checkpoints.load(pathlib.Path(arguments.model), "text_encoder")
    ids, mask = tensors["input_ids"], tensors["attention_mask"]
    prefix = arguments.prefix
    kept = None
    if prefix:
        kept = model(ids[:, :prefix], use_cache=True).past_key_values
    if arguments.peer == "compile":
        model = torch.compile(model)

    def run():
        # A run appends to the cache, so each gets a copy.
        cache = copy.deepcopy(kept)
        started = time.perf_counter()
        result = model(
            ids[:, prefix:], attention_mask=mask, past_key_values=cache, use_cache=bool(prefix)
        )
        return time.perf_counter() - started, {"last_hidden_state": result.last_hidden_state}

    return run


def language_runner(arguments):
    """A block of a masked-diffusion model over its cache: every token of the block sees all keys.

    The keys and values of the block are those of the step before, so each step writes its slots again.
    """
    if arguments.peer == "openvino":
        raise SystemExit("worker: no OpenVINO export of the language model here")
    model = checkpoints.load(pathlib.Path(arguments.model), "language_model")
    ids = load_file(arguments.inputs)["input_ids"]
    context, block = ids.shape[1], arguments.block
    first = context - block
    positions = torch.arange(context)

    # Nothing is hidden: in the first pass every token of the context sees every other, too.
    def everything(queries):
        return torch.zeros(1, 1, queries, context)

    whole = model.model(ids, attention_mask=everything(context), use_cache=True, cache_position=positions)
    cache = whole.past_key_values
    body = torch.compile(model.model) if arguments.peer == "compile" else model.model

    def run():
        started = time.perf_counter()
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :first], layer.values[:, :, :first]
        hidden = body(
            ids[:, first:],
            attention_mask=everything(block),
            past_key_values=cache,
            use_cache=True,
            cache_position=positions[first:],
        ).last_hidden_state
        return time.perf_counter() - started, hidden

    def with_head():
        seconds, hidden = run()
        started = time.perf_counter()
        logits = model.lm_head(hidden)
        return seconds + time.perf_counter() - started, {"logits": logits}

    return with_head


def pipeline_runner(arguments):
    """SANA-Sprint from prompt to the bytes of a PNG."""
    from diffusers import SanaSprintPipeline, SCMScheduler
    from transformers import PreTrainedTokenizerFast

    if arguments.peer == "openvino":
        raise SystemExit("worker: no OpenVINO export of the pipeline here")
    target = pathlib.Path(arguments.model)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(target / "tokenizer" / "tokenizer.json"),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    transformer = checkpoints.load(target, "transformer")
    pipeline = SanaSprintPipeline(
        tokenizer=tokenizer,
        text_encoder=checkpoints.load(target, "text_encoder"),
        vae=checkpoints.load(target, "vae"),
        transformer=transformer,
        scheduler=SCMScheduler.from_pretrained(target / "scheduler"),
    )
    pipeline.set_progress_bar_config(disable=True)
    if arguments.peer == "compile":
        transformer.compile()
        pipeline.vae.decode = torch.compile(pipeline.vae.decode)
    instruction = pathlib.Path(arguments.instruction).read_text()

    def run():
        started = time.perf_counter()
        image = pipeline(
            prompt=arguments.prompt,
            height=arguments.size,
            width=arguments.size,
            num_inference_steps=arguments.steps,
            generator=torch.Generator().manual_seed(0),
            use_resolution_binning=False,
            complex_human_instruction=[instruction],
        ).images[0]
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return time.perf_counter() - started, buffer.getvalue()

    return run


def peak_memory():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--component", required=True)
    parser.add_argument("--peer", choices=["torch", "compile", "openvino"], required=True)
    parser.add_argument("--model")
    parser.add_argument("--config")
    parser.add_argument("--inputs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefix", type=int, default=0)
    parser.add_argument("--block", type=int, default=0)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--prompt")
    parser.add_argument("--instruction")
    parser.add_argument("--size", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--hart", help="checkout of mit-han-lab/hart")
    parser.add_argument("--vila-u", help="checkout of mit-han-lab/vila-u")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    # Denormals as brisk treats them.
    torch.set_flush_denormal(True)
    answers = os.fdopen(os.dup(1), "w")

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    # Libraries print where they like; answers alone go to stdout.
    with contextlib.redirect_stdout(sys.stderr):
        runners = {"text_encoder": text_runner, "image": pipeline_runner, "language_model": language_runner}
        runners |= {"image_encoder": masks_runner, "mask_decoder": masks_runner, "generate": autoregressive.runner}
        run = runners.get(arguments.component, module_runner)(arguments)
        answer({"ready": True})
        result = None
        for line in sys.stdin:
            command, _, argument = line.strip().partition(" ")
            if command == "run":
                seconds = []
                for _ in range(int(argument)):
                    taken, result = run()
                    seconds.append(taken)
                answer({"seconds": seconds})
            elif command == "save":
                if isinstance(result, bytes):
                    pathlib.Path(argument).write_bytes(result)
                else:
                    save_file({key: x.contiguous() for key, x in result.items()}, argument)
                answer({"saved": argument})
            elif command == "quit":
                answer({"peak_memory_bytes": peak_memory()})
                return


if __name__ == "__main__":
    main()
