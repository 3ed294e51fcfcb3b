"""Goldens of Segment Anything (arXiv 2304.02643): image encoder, mask decoder with every kind of prompt, pictures and
masks in their own size, and masks of everything.

    python sam.py      # needs segment-anything 1.0 and scipy besides

Networks run in transformers' classes. The authors' own take the same weights under their names and must give the same
masks; they cut, resize and find everything. Their torchvision and OpenCV are replaced by what the functions are
defined to do.
"""

import json
import sys
import types

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

import common

CASES = {
    # As published, small: windows that do not divide the grid, one layer of global attention.
    "base": dict(
        vision=dict(image_size=80, patch_size=8, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
                    output_channels=32, window_size=3, global_attn_indexes=[1], num_pos_feats=16),
        prompt=dict(image_size=80, patch_size=8, hidden_size=32, mask_input_channels=16),
        decoder=dict(hidden_size=32, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=24),
    ),
    # The other branches: no positions, no biases, windows that fit, another activation and epsilon, narrow heads,
    # one layer of decoder at full width, a shallow head, two masks.
    "bare": dict(
        vision=dict(image_size=48, patch_size=8, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                    output_channels=16, window_size=3, global_attn_indexes=[0], num_pos_feats=8, use_abs_pos=False,
                    use_rel_pos=False, qkv_bias=False, mlp_ratio=2.5, hidden_act="relu", layer_norm_eps=1e-5),
        prompt=dict(image_size=48, patch_size=8, hidden_size=16, mask_input_channels=8, layer_norm_eps=1e-5,
                    hidden_act="relu"),
        decoder=dict(hidden_size=16, mlp_dim=40, num_attention_heads=2, iou_head_hidden_dim=20, iou_head_depth=2,
                     num_hidden_layers=1, attention_downsample_rate=1, num_multimask_outputs=2, hidden_act="gelu",
                     layer_norm_eps=1e-5),
    ),
    # Pictures of another size than the tables of relative positions: the tables are resized. Windows larger than a
    # side, a deep head, three layers of decoder.
    "resized": dict(
        vision=dict(image_size=64, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                    output_channels=16, window_size=8, global_attn_indexes=[1], num_pos_feats=8, use_abs_pos=False),
        prompt=dict(image_size=64, patch_size=8, hidden_size=16, mask_input_channels=4),
        decoder=dict(hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=12, iou_head_depth=4,
                     num_hidden_layers=3, num_multimask_outputs=3),
        size=(56, 88),
    ),
}

# Values of tables, which mean nothing at the size of matrices.
TABLES = ("pos_embed", "rel_pos_h", "rel_pos_w", "_embed.weight", "_token.weight", "_tokens.weight", "point_embed")


def build(case):
    settings = CASES[case]
    config = SamConfig(
        vision_config=SamVisionConfig(**settings["vision"]),
        prompt_encoder_config=SamPromptEncoderConfig(**settings["prompt"]),
        mask_decoder_config=SamMaskDecoderConfig(**settings["decoder"]),
        attn_implementation="eager",
    )
    model = SamModel(config)
    tables = {name for name, _ in model.named_parameters() if name.endswith(TABLES) or ".point_embed." in name}
    common.randomise(model, f"sam/{case}", gain=1.3, bias=0.2, skip=tables)
    for name, parameter in model.named_parameters():
        if name in tables:
            parameter.data.copy_(common.normal(tuple(parameter.shape), "sam", case, name, scale=0.5))
        if name.endswith("positional_embedding"):
            parameter.data.copy_(common.normal(tuple(parameter.shape), "sam", case, "frequencies", scale=0.7))
    return model.eval()


def authors_names(state):
    """The same tensors as segment_anything names them."""
    renamed = {}
    for name, value in state.items():
        if name == "prompt_encoder.shared_embedding.positional_embedding":
            continue
        new = name.replace("shared_image_embedding.positional_embedding", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix")
        if new.startswith("vision_encoder."):
            new = new.replace("vision_encoder.layers.", "image_encoder.blocks.").replace("vision_encoder.", "image_encoder.")
            new = new.replace("layer_norm", "norm").replace("patch_embed.projection", "patch_embed.proj")
            for i, own in enumerate(("conv1", "norm1", "conv2", "norm2")):
                new = new.replace(f"neck.{own}", f"neck.{i}")
        elif new.startswith("prompt_encoder."):
            new = new.replace(".point_embed.", ".point_embeddings.")
            for i, own in zip((0, 1, 3, 4, 6), ("conv1", "layer_norm1", "conv2", "layer_norm2", "conv3")):
                new = new.replace(f"mask_embed.{own}", f"mask_downscaling.{i}") if "no_mask" not in new else new
        else:
            new = new.replace("layer_norm_final_attn", "norm_final_attn")
            for i, own in zip((0, 1, 3), ("upscale_conv1", "upscale_layer_norm", "upscale_conv2")):
                new = new.replace(own, f"output_upscaling.{i}")
            if ".transformer." in new:
                new = new.replace("layer_norm", "norm")
            for head in ("iou_prediction_head", *(f"output_hypernetworks_mlps.{i}" for i in range(9))):
                depth = sum(key.startswith(f"mask_decoder.{head}.") and key.endswith("bias") for key in state)
                at = f"mask_decoder.{head}."
                if new.startswith(at):
                    first, _, leaf = new[len(at):].rpartition(".")
                    layer = {"proj_in": 0, "proj_out": depth - 1}.get(first)
                    layer = int(first.split(".")[1]) + 1 if layer is None else layer
                    new = f"{at}layers.{layer}.{leaf}"
        renamed[new] = value
    return renamed


def image_encoder_golden(folder, case, model):
    encoder, settings = model.vision_encoder, CASES[case]
    size = settings.get("size", (settings["vision"]["image_size"],) * 2)
    encoder.patch_embed.image_size = size
    pixels = common.normal((2, 3, *size), "sam", case, "pixels")
    taps = common.Taps()
    taps.output(encoder.patch_embed, "patch_embed")
    for i, layer in enumerate(encoder.layers):
        taps.output(layer, f"layers.{i}")
    tensors = {"inputs.pixel_values": pixels, "outputs.image_embeddings": encoder(pixels)[0]}
    tensors |= {f"blocks.{name}": value for name, value in taps.close().items()}
    common.write_golden(folder / "golden_image_encoder.safetensors", tensors, large=2048)


def prompts(case, side, grid):
    """Named sets of prompts of one picture, or one for each of two."""
    points = common.uniform((3, 4, 2), -2.0, side + 2.0, "sam", case, "points")
    corners = common.uniform((3, 2, 2), 0.0, side, "sam", case, "boxes").sort(dim=1).values.reshape(3, 4)
    masks = common.normal((3, 1, 4 * grid, 4 * grid), "sam", case, "masks", scale=3.0)
    labels = torch.tensor([[1, 0, 1, -1], [0, 0, 1, 1], [1, 1, 1, 0]])
    return {
        "point": dict(point_coords=points[:, :1], point_labels=labels[:, :1]),
        "points": dict(point_coords=points, point_labels=labels),
        "left_out": dict(point_coords=points, point_labels=torch.where(labels == 0, -10, labels)),
        "box": dict(boxes=corners),
        "box_and_points": dict(boxes=corners, point_coords=points[:, :3], point_labels=labels[:, :3]),
        "mask": dict(mask_input=masks[:2]),
        "all": dict(boxes=corners[:2], point_coords=points[:2], point_labels=labels[:2], mask_input=masks[1:]),
        "nothing": dict(),
        "pictures": dict(point_coords=points[:2], point_labels=labels[:2], pictures=2),
    }


def decode(model, embeddings, given, taps=None):
    """All masks of prompts, the single one first; prompts with a mask, or with pictures of their own, each for itself."""
    pictures = len(embeddings)
    encoder, decoder = model.prompt_encoder, model.mask_decoder
    positions = model.get_image_wide_positional_embeddings()
    count = max([len(value) for value in given.values()], default=1)

    def run(image, some):
        points = some.get("point_coords")
        sparse, dense = encoder(
            points if points is None else points[None],
            None if points is None else some["point_labels"][None],
            some["boxes"][None] if "boxes" in some else None,
            some.get("mask_input"),
        )
        several = [
            decoder(
                image_embeddings=image, image_positional_embeddings=positions, sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense, multimask_output=multimask,
            )
            for multimask in (False, True)
        ]
        masks, ious = (torch.cat(parts, dim=2)[0] for parts in zip(*several))
        return masks, ious, None if sparse is None else sparse[0]

    if pictures == 1 and "mask_input" not in given:
        return run(embeddings, given)
    rows = [
        run(embeddings[i % pictures : i % pictures + 1], {name: value[i : i + 1] for name, value in given.items()})
        for i in range(count)
    ]
    masks, ious, sparse = zip(*rows)
    return torch.cat(masks), torch.cat(ious), None if sparse[0] is None else torch.cat(sparse)


def mask_decoder_goldens(folder, case, model):
    settings = CASES[case]["prompt"]
    side, grid = settings["image_size"], settings["image_size"] // settings["patch_size"]
    width = settings["hidden_size"]
    for name, given in prompts(case, side, grid).items():
        embeddings = common.normal((given.pop("pictures", 1), width, grid, grid), "sam", case, "embeddings")
        decoder, taps = model.mask_decoder, common.Taps()
        seen = {}
        for i, layer in enumerate(decoder.transformer.layers):
            taps.output(layer, f"layers.{i}", split=True)
        taps.output(decoder.transformer.layer_norm_final_attn, "tokens")
        masks, ious, sparse = decode(model, embeddings, given)
        tensors = {"inputs.image_embeddings": embeddings, "outputs.low_res_masks": masks, "outputs.iou_predictions": ious}
        tensors |= {f"inputs.{key}": value for key, value in given.items()}
        if sparse is not None:
            tensors["blocks.sparse"] = sparse
        values = taps.close()
        # Runs of several calls leave the last one's values, which say nothing.
        if len(embeddings) == 1 and "mask_input" not in given:
            for i in range(len(decoder.transformer.layers)):
                tensors[f"blocks.layers.{i}.tokens"] = values[f"layers.{i}.0"][0]
                tensors[f"blocks.layers.{i}.image"] = values[f"layers.{i}.1"].flatten(0, 1)
            tensors["blocks.tokens"] = values["tokens"][0]
        common.write_golden(folder / f"golden_mask_decoder_{name}.safetensors", tensors, large=1024)


def authors_library():
    """segment_anything without torchvision, OpenCV and pycocotools."""
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes", "torchvision.transforms", "torchvision.transforms.functional", "cv2"):
        sys.modules[name] = types.ModuleType(name)
    boxes, functional, cv2 = (sys.modules[n] for n in ("torchvision.ops.boxes", "torchvision.transforms.functional", "cv2"))

    def area(box):
        return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])

    def batched_nms(box, scores, _categories, iou_threshold):
        kept = []
        for i in torch.sort(scores, descending=True, stable=True).indices.tolist():
            low, high = torch.maximum(box[i, :2], box[:, :2]), torch.minimum(box[i, 2:], box[:, 2:])
            inner = (high - low).clamp(min=0).prod(1)
            overlap = inner / (area(box)[i] + area(box) - inner)
            if all(not overlap[j] > iou_threshold for j in kept):
                kept.append(i)
        return torch.tensor(kept, dtype=torch.int64)

    boxes.batched_nms, boxes.box_area = batched_nms, area
    functional.to_pil_image = Image.fromarray
    functional.resize = lambda picture, size: picture.resize((size[1], size[0]), Image.BILINEAR)

    def components(mask, connectivity):
        assert connectivity == 8
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        return count + 1, labels, np.bincount(labels.reshape(-1), minlength=count + 1)[:, None], None

    cv2.connectedComponentsWithStats = components
    import segment_anything
    from segment_anything import modeling

    return segment_anything, modeling


def authors_model(modeling, case, model):
    own = CASES[case]
    vision, prompt, decoder = own["vision"], own["prompt"], own["decoder"]
    width, grid = prompt["hidden_size"], vision["image_size"] // vision["patch_size"]
    sam = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=vision["image_size"], patch_size=vision["patch_size"], embed_dim=vision["hidden_size"],
            depth=vision["num_hidden_layers"], num_heads=vision["num_attention_heads"], out_chans=width, use_rel_pos=True,
            window_size=vision["window_size"], global_attn_indexes=vision["global_attn_indexes"],
            norm_layer=lambda dim: torch.nn.LayerNorm(dim, eps=1e-6),
        ),
        prompt_encoder=modeling.PromptEncoder(width, (grid, grid), (vision["image_size"],) * 2, prompt["mask_input_channels"]),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=width, iou_head_hidden_dim=decoder["iou_head_hidden_dim"],
            transformer=modeling.TwoWayTransformer(2, width, decoder["num_attention_heads"], decoder["mlp_dim"]),
        ),
    )
    sam.load_state_dict(authors_names(model.state_dict()))
    return sam.eval()


def picture(width, height):
    """Shapes of many sizes on a gradient."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    colours = [96 + 60 * np.sin(x / 9 + k) + 60 * np.cos(y / (7 + k)) for k in range(3)]
    pixels = np.stack(colours, axis=-1)
    for i in range(9):
        centre = ((37 * i + 11) % width, (53 * i + 17) % height)
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (3 + 2 * i) ** 2
        pixels[inside] = [(91 * i) % 256, (157 * i + 60) % 256, (211 * i + 120) % 256]
    return pixels.clip(0, 255).astype(np.uint8)


def predictor_golden(library, sam):
    """A picture larger than the frame and one smaller, prompts in their own pixels."""
    folder = common.case_folder("sam", "predictor")
    for name, (width, height) in {"larger": (131, 97), "smaller": (41, 59)}.items():
        predictor = library.SamPredictor(sam)
        image = picture(width, height)
        predictor.set_image(image)
        points = np.array([[width * 0.3, height * 0.6], [width * 0.8, 3.0]])
        labels, box = np.array([1, 0]), np.array([4.0, 6.0, width - 7.0, height * 0.75])
        masks, ious, low = predictor.predict(points, labels, box, multimask_output=True, return_logits=True)
        single, single_iou, _ = predictor.predict(points, labels, box, low[:1], multimask_output=False, return_logits=True)
        resized = predictor.transform.apply_image(image)
        frame = sam.preprocess(torch.from_numpy(resized).permute(2, 0, 1)[None].float())
        tensors = {
            "inputs.image": torch.from_numpy(image)[None],
            "inputs.points": torch.from_numpy(points), "inputs.labels": torch.from_numpy(labels),
            "inputs.box": torch.from_numpy(box),
            "blocks.resized": torch.from_numpy(resized)[None], "blocks.pixel_values": frame,
            "blocks.points": torch.from_numpy(predictor.transform.apply_coords(points, image.shape[:2])),
            "blocks.box": torch.from_numpy(predictor.transform.apply_boxes(box[None], image.shape[:2])[0]),
            "blocks.low_res_masks": torch.from_numpy(low),
            "outputs.logits": torch.from_numpy(masks), "outputs.ious": torch.from_numpy(ious),
            "outputs.refined_logits": torch.from_numpy(single), "outputs.refined_ious": torch.from_numpy(single_iou),
        }
        common.write_golden(folder / f"{name}.safetensors", tensors, every=11, large=2048)


class Discs:
    """In place of a predictor: discs about points, of whole numbers, so that every program gives the same."""

    def __init__(self, threshold):
        self.device, self.transform, self.model = "cpu", self, types.SimpleNamespace(mask_threshold=threshold)

    def set_image(self, image):
        self.size = image.shape[:2]

    def reset_image(self):
        pass

    def apply_coords(self, points, _size):
        return points

    def predict_torch(self, points, _labels, multimask_output, return_logits):
        assert multimask_output and return_logits
        y, x = torch.meshgrid(*(torch.arange(side) for side in self.size), indexing="ij")
        masks, ious = [], []
        for px, py in points[:, 0].floor().long().tolist():
            for m in range(3):
                radius = 3 + (7 * px + 13 * py + 5 * m) % 23
                logits = radius * radius - (x - px) ** 2 - (y - py) ** 2
                if m == 1:
                    logits = torch.where((x + 2 * y) % 29 == 0, -40, logits)
                if m == 2:
                    logits = torch.where((x // 4 + y // 4) % 17 == 0, 40, logits)
                masks.append(logits.float() / 16)
                ious.append(((3 * px + 11 * py + 17 * m) % 101) / 100)
        return torch.stack(masks).unflatten(0, (-1, 3)), torch.tensor(ious).unflatten(0, (-1, 3)), None


def everything_goldens(library):
    """The authors' generator over discs, with and without crops and clean-up, and its parts."""
    from segment_anything.utils import amg

    folder = common.case_folder("sam", "everything")
    plain = dict(points_per_side=8, points_per_batch=7, pred_iou_thresh=0.3, stability_score_thresh=0.7, box_nms_thresh=0.5)
    cases = {
        "plain": plain,
        "crops": plain | dict(crop_n_layers=2, crop_n_points_downscale_factor=2, crop_overlap_ratio=0.25, crop_nms_thresh=0.6),
        "regions": plain | dict(min_mask_region_area=9, mask_threshold=0.5, stability_score_offset=0.75),
    }
    written = {}
    for name, settings in cases.items():
        own = {key: value for key, value in settings.items() if key != "mask_threshold"}
        nothing = types.SimpleNamespace(image_encoder=types.SimpleNamespace(img_size=80))
        generator = library.SamAutomaticMaskGenerator(nothing, output_mode="uncompressed_rle", **own)
        generator.predictor = Discs(settings.get("mask_threshold", 0.0))
        masks = generator.generate(np.zeros((118, 150, 3), dtype=np.uint8))
        print(f"everything/{name}: {len(masks)} masks")
        written[name] = {"settings": settings, "masks": masks}
    (folder / "masks.json").write_text(json.dumps(written, sort_keys=True) + "\n")
    spots = (common.normal((2, 40, 50), "sam", "regions") > 0.4).numpy()
    tensors = {"inputs.masks": torch.from_numpy(spots.astype(np.uint8))}
    for mode in ("holes", "islands"):
        for least in (3, 9, 5000):
            cleaned = [amg.remove_small_regions(mask, least, mode)[0] for mask in spots]
            tensors[f"outputs.{mode}.{least}"] = torch.from_numpy(np.stack(cleaned).astype(np.uint8))
    common.write_golden(folder / "regions.safetensors", tensors)
    boxes = []
    for size, layers, ratio in (((97, 131), 2, 512 / 1500), ((64, 64), 1, 0.25), ((41, 300), 3, 0.0)):
        found = amg.generate_crop_boxes(size, layers, ratio)
        boxes.append({"size": size, "layers": layers, "overlap": ratio, "boxes": [[layer, *box] for box, layer in zip(*found)]})
    (folder / "crops.json").write_text(json.dumps(boxes) + "\n")


def agree(sam, model):
    """Both classes give the same of the same weights, but for the epsilon of the decoder's norms."""
    pixels = common.normal((1, 3, 80, 80), "sam", "agree")
    embeddings = sam.image_encoder(pixels)
    torch.testing.assert_close(embeddings, model.vision_encoder(pixels)[0], rtol=1e-4, atol=1e-4)
    given = prompts("base", 80, 10)["box_and_points"]
    sparse, dense = sam.prompt_encoder((given["point_coords"], given["point_labels"]), given["boxes"], None)
    positions = sam.prompt_encoder.get_dense_pe()
    masks, _ = sam.mask_decoder(embeddings, positions, sparse, dense, multimask_output=True)
    torch.testing.assert_close(masks, decode(model, embeddings, given)[0][:, 1:], rtol=1e-3, atol=1e-3)


def main():
    models = {}
    for case in CASES:
        folder = common.case_folder("sam", case)
        model = models[case] = build(case)
        config = model.config.to_dict()
        config["architectures"] = ["SamModel"]
        common.write_json(folder / "config.json", config)
        state = model.state_dict()
        if case != "bare":
            state.pop("prompt_encoder.shared_embedding.positional_embedding")
        common.write_weights(folder / "model.safetensors", state, torch.bfloat16)
        image_encoder_golden(folder, case, model)
        mask_decoder_goldens(folder, case, model)
    library, modeling = authors_library()
    sam = authors_model(modeling, "base", models["base"])
    agree(sam, models["base"])
    authors = common.case_folder("sam", "authors")
    (authors / "config.json").write_bytes((common.FIXTURES / "sam/base/config.json").read_bytes())
    torch.save({name: value.to(torch.bfloat16) for name, value in sam.state_dict().items()}, authors / "sam_vit_tiny.pth")
    predictor_golden(library, sam)
    everything_goldens(library)


if __name__ == "__main__":
    main()