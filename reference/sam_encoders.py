"""Goldens of the fast image encoders of Segment Anything: MobileSAM's TinyViT (arXiv 2306.14289) and EfficientViT-SAM
(arXiv 2402.05008), each with prompt encoder and mask decoder, in files as their authors publish them.

    python sam_encoders.py FOLDER      # needs segment-anything 1.0 and scipy besides

FOLDER holds the packages `mobile_sam` of github.com/ChaoningZhang/MobileSAM and `efficientvit` of
github.com/mit-han-lab/efficientvit. Their classes run as they are, but for two things that they fix: the width of
what the encoder gives (256), and that TinyViT's last merging keeps the size (by its width of 320).
"""

import importlib
import sys
import types

import numpy as np
import torch
from PIL import Image

import common
from sam import authors_library, picture

WIDTH = 32
DECODER = dict(mlp_dim=64, iou_head_hidden_dim=24)

TINY_VIT = dict(img_size=1024, embed_dims=[16, 32, 40, 48], depths=[2, 1, 2, 1], num_heads=[2, 2, 4, 6],
                window_sizes=[7, 7, 5, 14], mlp_ratio=3.0, mbconv_expand_ratio=4.0, drop_path_rate=0.0)

EFFICIENT_VIT = {
    # As the L models: five stages, seen at 512 pixels, 5x5 neighbourhoods, plain inverted bottlenecks.
    "l": dict(
        size=512,
        backbone=dict(width_list=[8, 16, 16, 24, 32], depth_list=[1, 1, 1, 2, 2], expand_list=[1, 2, 2, 2, 3], qkv_dim=8),
        neck=dict(head_width=24, head_depth=2, expand_ratio=1, middle_op="fmb"),
    ),
    # As the XL models: six stages, seen at 1024 pixels, 3x3 neighbourhoods, none of the first stage's blocks.
    "xl": dict(
        size=1024,
        backbone=dict(width_list=[8, 8, 16, 16, 24, 32], depth_list=[0, 1, 1, 1, 1, 1], expand_list=[1, 2, 2, 2, 2, 3],
                      block_list=["res", "fmb", "fmb", "fmb", "att@3", "att@3"],
                      fewer_norm_list=[False, False, False, False, True, True], qkv_dim=8),
        neck=dict(head_width=24, head_depth=1, expand_ratio=2, middle_op="fmb"),
    ),
}


def module(name, **members):
    made = types.ModuleType(name)
    vars(made).update(members)
    sys.modules[name] = made
    return made


def libraries(folder):
    """The packages without what they import besides."""
    sys.path.insert(0, folder)
    authors_library()
    to_two = lambda value: value if isinstance(value, tuple) else (value, value)
    module("timm")
    module("timm.models")
    module("timm.models.layers", DropPath=torch.nn.Identity, to_2tuple=to_two, trunc_normal_=torch.nn.init.trunc_normal_)
    module("timm.models.registry", register_model=lambda function: function)

    class Normalize(torch.nn.Module):
        def __init__(self, mean, std):
            super().__init__()
            self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

        def forward(self, image):
            return (image - self.mean) / self.std

    def compose(steps):
        def run(image):
            for step in steps:
                image = step(image)
            return image

        return run

    transforms = sys.modules["torchvision.transforms"]
    transforms.Compose, transforms.Normalize = compose, Normalize
    transforms.ToTensor = lambda: lambda image: torch.from_numpy(image).permute(2, 0, 1).float() / 255
    sys.modules["torchvision"].transforms = transforms
    functional = sys.modules["torchvision.transforms.functional"]
    functional.resize = lambda image, size: image.resize((size[1], size[0]), Image.BILINEAR)
    module("efficientvit.models.nn.triton_rms_norm", TritonRMSNorm2dFunc=None)
    module("efficientvit.models.nn.drop")
    # Without the package's other models.
    package = importlib.import_module("efficientvit.models")
    module("efficientvit.models.efficientvit", __path__=[f"{package.__path__[0]}/efficientvit"])
    return importlib.import_module("mobile_sam"), importlib.import_module("efficientvit.models.efficientvit.sam")


def decoders(modeling):
    prompts = modeling.PromptEncoder(WIDTH, (64, 64), (1024, 1024), 16)
    transformer = modeling.TwoWayTransformer(2, WIDTH, 8, DECODER["mlp_dim"])
    masks = modeling.MaskDecoder(
        transformer_dim=WIDTH, transformer=transformer, iou_head_hidden_dim=DECODER["iou_head_hidden_dim"],
    )
    return prompts, masks


def randomise(model, label):
    tables = {name for name, _ in model.named_parameters()
              if name.endswith(("attention_biases", "_embed.weight", "_token.weight", "_tokens.weight"))
              or ".point_embeddings." in name}
    common.randomise(model, label, gain=1.3, bias=0.2, skip=tables)
    for name, parameter in model.named_parameters():
        if name in tables:
            parameter.data.copy_(common.normal(tuple(parameter.shape), label, name, scale=0.5))
    frequencies = model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    frequencies.copy_(common.normal(tuple(frequencies.shape), label, "frequencies", scale=0.7))
    # TinyViT takes its biases apart when it is put to evaluation.
    return model.train().eval()


def tiny_vit(mobile_sam):
    from mobile_sam import modeling
    from mobile_sam.modeling.tiny_vit_sam import LayerNorm2d

    encoder = modeling.TinyViT(num_classes=5, **TINY_VIT)
    encoder.layers[2].downsample.conv2.c.stride = (1, 1)
    encoder.neck = torch.nn.Sequential(
        torch.nn.Conv2d(TINY_VIT["embed_dims"][-1], WIDTH, 1, bias=False), LayerNorm2d(WIDTH),
        torch.nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), LayerNorm2d(WIDTH),
    )
    return randomise(modeling.Sam(encoder, *decoders(modeling)), "sam/mobile")


def efficient_vit(library, name):
    import segment_anything.modeling
    from efficientvit.models.efficientvit.backbone import EfficientViTLargeBackbone
    from efficientvit.models.nn.norm import build_norm, set_norm_eps

    settings = EFFICIENT_VIT[name]
    backbone = EfficientViTLargeBackbone(**settings["backbone"])
    widths = settings["backbone"]["width_list"]
    last = range(len(widths) - 1, len(widths) - 4, -1)
    neck = library.SamNeck([f"stage{i}" for i in last], [widths[i] for i in last], out_dim=WIDTH, **settings["neck"])
    encoder = library.EfficientViTSamImageEncoder(backbone, neck)
    encoder.norm = build_norm("ln2d", WIDTH)
    model = library.EfficientViTSam(encoder, *decoders(segment_anything.modeling), image_size=(1024, settings["size"]))
    set_norm_eps(model, 1e-6)
    return randomise(model, f"sam/efficientvit_{name}")


def last(value):
    """A map, or tokens of a square one, channels last."""
    if value.ndim == 4:
        return value.permute(0, 2, 3, 1)
    side = round(value.shape[1] ** 0.5)
    return value.unflatten(1, (side, side))


def encoder_golden(folder, case, encoder, side, tapped):
    taps = common.Taps()
    for name, part in tapped.items():
        taps.output(part, name)
    embeddings = encoder(common.pattern((1, 3, side, side)))
    tensors = {"outputs.image_embeddings": embeddings}
    tensors |= {f"blocks.{name}": last(value).contiguous() for name, value in taps.close().items()}
    common.write_golden(folder / f"{case}_image_encoder.safetensors", tensors, every=509, large=1024)


def predictor_golden(folder, case, predictor, pixels):
    """A picture larger than wide with prompts in its own pixels, up to logits in its size."""
    for name, (width, height) in {"wide": (131, 97), "high": (41, 59)}.items():
        image = picture(width, height)
        predictor.set_image(image)
        points = np.array([[width * 0.3, height * 0.6], [width * 0.8, 3.0]])
        labels, box = np.array([1, 0]), np.array([4.0, 6.0, width - 7.0, height * 0.75])
        masks, ious, low = predictor.predict(points, labels, box, multimask_output=True, return_logits=True)
        one, one_iou, _ = predictor.predict(points[:1], labels[:1], multimask_output=False, return_logits=True)
        box_only, box_iou, _ = predictor.predict(box=box, multimask_output=False, return_logits=True)
        refined, refined_iou, _ = predictor.predict(points, labels, box, low[:1], multimask_output=False, return_logits=True)
        tensors = {
            "inputs.image": torch.from_numpy(image)[None], "inputs.points": torch.from_numpy(points),
            "inputs.labels": torch.from_numpy(labels), "inputs.box": torch.from_numpy(box),
            "blocks.pixel_values": pixels(image), "blocks.image_embeddings": predictor.features,
            "outputs.logits": torch.from_numpy(masks), "outputs.ious": torch.from_numpy(ious),
            "outputs.point_logits": torch.from_numpy(one), "outputs.point_ious": torch.from_numpy(one_iou),
            "outputs.box_logits": torch.from_numpy(box_only), "outputs.box_ious": torch.from_numpy(box_iou),
            "outputs.refined_logits": torch.from_numpy(refined), "outputs.refined_ious": torch.from_numpy(refined_iou),
        }
        common.write_golden(folder / f"{case}_{name}.safetensors", tensors, every=211, large=1024)


def save(model, path):
    state = {name: value.to(torch.bfloat16) if value.is_floating_point() else value for name, value in model.state_dict().items()}
    torch.save(state, path)
    print(f"{path.relative_to(common.FIXTURES)}: {len(state)} tensors, {path.stat().st_size} bytes")


def main(folder):
    mobile_sam, efficient = libraries(folder)

    goldens = common.case_folder("sam", "encoders")

    sam = tiny_vit(mobile_sam)
    save(sam, common.case_folder("sam", "mobile") / "mobile_sam.pt")
    encoder = sam.image_encoder
    tapped = {"patch_embed": encoder.patch_embed}
    for i, layer in enumerate(encoder.layers):
        tapped |= {f"layers.{i}.blocks.{j}": block for j, block in enumerate(layer.blocks)}
        if layer.downsample is not None:
            tapped[f"layers.{i}.downsample"] = layer.downsample
    encoder_golden(goldens, "mobile", encoder, 1024, tapped)
    predictor = mobile_sam.SamPredictor(sam)

    def pixels(image):
        resized = predictor.transform.apply_image(image)
        return sam.preprocess(torch.from_numpy(resized).permute(2, 0, 1)[None].float())

    predictor_golden(goldens, "mobile", predictor, pixels)

    for name, settings in EFFICIENT_VIT.items():
        sam = efficient_vit(efficient, name)
        case = f"efficientvit_{name}"
        save(sam, common.case_folder("sam", case) / f"efficientvit_sam_{name}.pt")
        encoder = sam.image_encoder
        tapped = {}
        for i, stage in enumerate(encoder.backbone.stages):
            tapped |= {f"stages.{i}.op_list.{j}": block for j, block in enumerate(stage.op_list)}
        tapped |= {f"neck.input_ops.{i}": part for i, part in enumerate(encoder.neck.input_ops)}
        tapped |= {f"neck.middle.op_list.{i}": block for i, block in enumerate(encoder.neck.middle.op_list)}
        encoder_golden(goldens, case, encoder, settings["size"], tapped)
        predictor_golden(goldens, case, efficient.EfficientViTSamPredictor(sam), lambda image: sam.transform(image)[None])


if __name__ == "__main__":
    main(sys.argv[1])
