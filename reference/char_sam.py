"""Goldens of the networks of Char-SAM besides Segment Anything: CRAFT (arXiv 1904.01941) and the CRNN that EasyOCR
reads words with.

    python char_sam.py [FOLDER]

Both are stated here from their papers and from the names and shapes of the published files. With FOLDER, which holds
craft_mlt_25k.pth and english_g2.pth, the statements are checked against them: every tensor must have its place.
"""

import sys
from pathlib import Path

import json

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import common


def vgg(channels):
    """torchvision's list of layers, up to the last batch norm that is used."""
    first, second, third, fourth, fifth = channels
    layers, before = [], 3
    for width in [first, first, "pool", second, second, "pool", third, third, third, "pool", fourth, fourth, fourth,
                  "pool", fifth, fifth]:
        if width == "pool":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    return layers[:-1]


class Join(nn.Module):
    def __init__(self, above, skip, out):
        super().__init__()
        middle = 2 * out
        self.conv = nn.Sequential(nn.Conv2d(above + skip, middle, 1), nn.BatchNorm2d(middle), nn.ReLU(inplace=True),
                                  nn.Conv2d(middle, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.conv(x)


class Craft(nn.Module):
    def __init__(self, stage_channels=(64, 128, 256, 512, 512), deep_channels=1024, join_channels=(256, 128, 64, 32),
                 head_channels=(32, 16)):
        super().__init__()
        layers = vgg(stage_channels)
        self.basenet = nn.Module()
        for name, start, end in [("slice1", 0, 12), ("slice2", 12, 19), ("slice3", 19, 29), ("slice4", 29, 39)]:
            part = nn.Sequential()
            for index in range(start, end):
                part.add_module(str(index), layers[index])
            setattr(self.basenet, name, part)
        self.basenet.slice5 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(stage_channels[4], deep_channels, 3, padding=6, dilation=6),
            nn.Conv2d(deep_channels, deep_channels, 1))
        above = deep_channels
        for index, out in enumerate(join_channels):
            setattr(self, f"upconv{index + 1}", Join(above, stage_channels[4 - index], out))
            above = out
        wide, narrow = head_channels
        self.conv_cls = nn.Sequential(
            nn.Conv2d(above, wide, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(wide, wide, 3, padding=1),
            nn.ReLU(inplace=True), nn.Conv2d(wide, narrow, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(narrow, narrow, 1), nn.ReLU(inplace=True), nn.Conv2d(narrow, 2, 1))

    def forward(self, x):
        """Activations of the next part change a part's result in place, but for the deepest."""
        seen, skips = {}, []
        for name in ["slice1", "slice2", "slice3", "slice4"]:
            x = getattr(self.basenet, name)(x)
            skips.append(x)
        deep = self.basenet.slice5(x)
        for index, skip in enumerate(skips):
            seen[f"skips.{index}"] = skip.clone()
        seen["deep"] = deep.clone()
        y = deep
        for index in range(4):
            skip = skips[3 - index]
            if index:
                y = F.interpolate(y, size=skip.shape[2:], mode="bilinear", align_corners=False)
            y = getattr(self, f"upconv{index + 1}")(torch.cat([y, skip], 1))
            seen[f"joins.{index}"] = y.clone()
        y = self.conv_cls(y)
        seen["head"] = y.clone()
        return y, seen


class LinkRefiner(nn.Module):
    """Over the maps and the features of CRAFT."""

    def __init__(self, inputs=34, inner=64, wide=128):
        super().__init__()
        layers = []
        for entering in [inputs, inner, inner]:
            layers += [nn.Conv2d(entering, inner, 3, padding=1), nn.BatchNorm2d(inner), nn.ReLU(inplace=True)]
        self.last_conv = nn.Sequential(*layers)
        for index, step in enumerate([6, 12, 18, 24]):
            branch = nn.Sequential(
                nn.Conv2d(inner, wide, 3, dilation=step, padding=step), nn.BatchNorm2d(wide), nn.ReLU(inplace=True),
                nn.Conv2d(wide, wide, 1), nn.BatchNorm2d(wide), nn.ReLU(inplace=True), nn.Conv2d(wide, 1, 1))
            setattr(self, f"aspp{index + 1}", branch)

    def forward(self, maps, features):
        x = self.last_conv(torch.cat([maps, features], 1))
        return sum(getattr(self, f"aspp{index + 1}")(x) for index in range(4))


class Lstm(nn.Module):
    def __init__(self, wide, hidden, out):
        super().__init__()
        self.rnn = nn.LSTM(wide, hidden, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, out)

    def forward(self, x):
        return self.linear(self.rnn(x)[0])


class Crnn(nn.Module):
    def __init__(self, output_channels=256, hidden_size=256, classes=97):
        super().__init__()
        a, b, c, d = [output_channels // part for part in (8, 4, 2, 1)]
        relu = lambda: nn.ReLU(True)
        self.FeatureExtraction = nn.Module()
        self.FeatureExtraction.ConvNet = nn.Sequential(
            nn.Conv2d(1, a, 3, 1, 1), relu(), nn.MaxPool2d(2, 2), nn.Conv2d(a, b, 3, 1, 1), relu(), nn.MaxPool2d(2, 2),
            nn.Conv2d(b, c, 3, 1, 1), relu(), nn.Conv2d(c, c, 3, 1, 1), relu(), nn.MaxPool2d((2, 1), (2, 1)),
            nn.Conv2d(c, d, 3, 1, 1, bias=False), nn.BatchNorm2d(d), relu(), nn.Conv2d(d, d, 3, 1, 1, bias=False),
            nn.BatchNorm2d(d), relu(), nn.MaxPool2d((2, 1), (2, 1)), nn.Conv2d(d, d, 2, 1, 0), relu())
        self.SequenceModeling = nn.Sequential(Lstm(d, hidden_size, hidden_size),
                                              Lstm(hidden_size, hidden_size, hidden_size))
        self.Prediction = nn.Linear(hidden_size, classes)

    def forward(self, x):
        x = self.FeatureExtraction.ConvNet(x).permute(0, 3, 1, 2).mean(3)
        seen = {"features": x}
        for index, lstm in enumerate(self.SequenceModeling):
            x = lstm(x)
            seen[f"sequence.{index}"] = x
        x = self.Prediction(x)
        seen["prediction"] = x
        return x, seen


def channels_last(tensor):
    return tensor.permute(0, 2, 3, 1).contiguous() if tensor.ndim == 4 else tensor.contiguous()


def write(topic, model, config, entry, pixels, outputs):
    folder = common.case_folder(topic, "base")
    (folder / "config.json").write_text(json.dumps({"model_type": topic} | config, indent=2, ensure_ascii=False) + "\n")
    state = {f"module.{name}": tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    result, seen = model(pixels.clone())
    golden = {"inputs.pixel_values": pixels}
    golden |= {f"blocks.{name}": channels_last(tensor) for name, tensor in seen.items()}
    golden |= {f"outputs.{name}": tensor.contiguous() for name, tensor in outputs(result).items()}
    common.write_golden(folder / f"golden_{entry}.safetensors", golden)


def check(folder):
    for name, model in [("craft_mlt_25k.pth", Craft()), ("english_g2.pth", Crnn())]:
        state = torch.load(folder / name, map_location="cpu", weights_only=True)
        state = {key.removeprefix("module."): value for key, value in state.items()}
        model.load_state_dict(state, strict=True)
        print(name, "fits,", sum(p.numel() for p in model.parameters()), "parameters")


if __name__ == "__main__":
    sizes = dict(stage_channels=(8, 16, 32, 40, 48), deep_channels=64, join_channels=(32, 24, 16, 8), head_channels=(12, 6))
    craft = common.randomise(Craft(**sizes), "craft/base", gain=1.4, bias=0.1)
    pixels = common.normal((2, 3, 48, 80), "craft", "pixels")
    write("craft", craft, {key: list(value) if isinstance(value, tuple) else value for key, value in sizes.items()},
          "detector", pixels, lambda maps: {"region": maps[:, 0], "affinity": maps[:, 1]})
    refiner = common.randomise(LinkRefiner(2 + 8, 12, 16), "craft/refiner", gain=1.4, bias=0.1)
    folder = common.case_folder("craft", "refiner")
    state = {f"module.{name}": tensor.contiguous().clone() for name, tensor in refiner.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    maps, features = (common.normal((1, count, 28, 36), "craft", name) for count, name in [(2, "maps"), (8, "features")])
    golden = {"inputs.maps": channels_last(maps), "inputs.features": channels_last(features)}
    golden["affinity"] = channels_last(refiner(maps, features))
    common.write_golden(folder / "golden_refiner.safetensors", golden)
    characters = "0123456789abc"
    crnn = common.randomise(Crnn(16, 12, len(characters) + 1), "crnn/base", gain=1.4, bias=0.1)
    pixels = common.normal((2, 1, 32, 52), "crnn", "pixels")
    write("crnn", crnn, dict(output_channels=16, hidden_size=12, image_height=32, characters=characters), "recogniser",
          pixels, lambda logits: {"logits": logits})
    for folder in sys.argv[1:]:
        check(Path(folder))
