"""Goldens of VILA-U (arXiv 2409.04429): vision tower, projector, depth transformer, language model, greedy generation,
tokenizer.

    python vila_u.py VILA_U      # a checkout of mit-han-lab/vila-u (096623c)

Each case is a folder in the published layout: config.json, llm/, vision_tower/, mm_projector/. Tower, projector and depth
transformer are the reference's classes; the language model is transformers' Llama, as the reference's file only adds
packed attention to it. The reference runs in bfloat16 alone: its two casts of the decoder are left out, and everything
is float32. Draws are replaced by the largest logit.
"""

import dataclasses
import importlib
import importlib.util
import json
import re
import sys
import types

import numpy as np
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

import common

CASES = {
    # As the 256-pixel model: one codebook for all depths, published whole, positions scaled by 2, attention at one
    # resolution of the decoder.
    "base": dict(
        siglip=dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8),
        grid=4, depth=4, n_embed=400, shared=True,
        decoder=dict(ch=32, ch_mult=[1, 1, 1, 2], num_res_blocks=1, attn_resolutions=[4], resolution=32, z_channels=16),
        head=dict(embed_dim=48, n_head=4, n_layer=2),
        llm=dict(hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4),
        scaling=2.0, projector="mlp2x_gelu", guidance=3.0, stored="safetensors",
    ),
    # As the 384-pixel one: patches that do not fill the picture, a grid that is resized before it is decoded. A codebook
    # for each depth, attention at two resolutions, grouped keys, another guidance.
    "wide": dict(
        siglip=dict(hidden_size=48, intermediate_size=72, num_hidden_layers=4, num_attention_heads=3, image_size=32, patch_size=10),
        grid=3, depth=3, n_embed=300, shared=False, resized=[4, 4],
        decoder=dict(ch=32, ch_mult=[1, 2, 1, 1], num_res_blocks=2, attn_resolutions=[8, 32], resolution=32, z_channels=12),
        head=dict(embed_dim=32, n_head=2, n_layer=1),
        llm=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2),
        scaling=None, projector="linear", guidance=1.5, stored="safetensors",
    ),
    # The least of everything: one depth, a stored codebook of several that are one, no projector, pickled weights.
    "least": dict(
        siglip=dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8),
        grid=2, depth=2, n_embed=200, shared=True,
        decoder=dict(ch=32, ch_mult=[1, 1, 1, 1], num_res_blocks=1, attn_resolutions=[], resolution=16, z_channels=8),
        head=dict(embed_dim=24, n_head=3, n_layer=3),
        llm=dict(hidden_size=32, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2),
        scaling=None, projector="identity", guidance=2.0, stored="bin",
    ),
    "deep_mlp": dict(
        siglip=dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=4),
        grid=4, depth=1, n_embed=250, shared=True,
        decoder=dict(ch=32, ch_mult=[1, 1, 1], num_res_blocks=1, attn_resolutions=[16], resolution=16, z_channels=8),
        head=dict(embed_dim=32, n_head=2, n_layer=1),
        llm=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1),
        scaling=3.0, projector="mlp3x_gelu", guidance=3.0, stored="safetensors",
    ),
}

VOCABULARY = 400
SPECIAL = ["<im_start>", "<im_end>", "<vi_start>", "<vi_end>"]
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def reference(root):
    """The reference's modules, whose packages' own imports want CUDA, and a dataclass of which wants Python 3.10."""
    for name in ("", ".model", ".model.multimodal_encoder", ".model.multimodal_projector"):
        package = types.ModuleType(f"vila_u{name}")
        package.__path__ = [f"{root}/vila_u{name.replace('.', '/')}"]
        sys.modules[package.__name__] = package
    strict = dataclasses.dataclass

    def lenient(cls=None, **settings):
        def make(cls):
            for name in cls.__annotations__:
                value = cls.__dict__.get(name)
                if value is not None and type(value).__hash__ is None:
                    setattr(cls, name, dataclasses.field(default_factory=type(value)))
            return strict(cls, **settings)

        return make if cls is None else make(cls)

    dataclasses.dataclass = lenient
    base = "vila_u.model.multimodal_encoder.rqvaesigliptransformer"
    tower = importlib.import_module(f"{base}.modeling_rqvaesigliptransformer")
    vae = importlib.import_module(f"{base}.rqvaesiglip.modeling_rqvaesiglip")
    modules = importlib.import_module(f"{base}.rqvaesiglip.modules")
    depth = importlib.import_module(f"{base}.rqtransformer.modeling_rqtransformer")
    projector = importlib.import_module("vila_u.model.multimodal_projector.base_projector")
    dataclasses.dataclass = strict
    path = f"{root}/vila_u/train/transformers_replace/models/llama/tokenization_llama.py"
    spec = importlib.util.spec_from_file_location("transformers.models.llama.tokenization_llama_slow", path)
    tokenization = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tokenization)

    def upsample(self, x):
        return self.conv(torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))

    def decode(self, z):
        z = z.permute(0, 3, 1, 2).contiguous()
        if self.decoder_latent_shape is not None:
            z = torch.nn.functional.interpolate(z, size=tuple(self.decoder_latent_shape), mode="bilinear")
        return self.decoder(self.post_quant_conv(z))

    modules.Upsample.forward = upsample
    vae.RQVAESiglipModel.decode = decode
    return types.SimpleNamespace(
        Tower=tower.RQVAESIGLIPTransformer, vae=vae, depth=depth, projector=projector, Tokenizer=tokenization.LlamaTokenizer,
    )


def tower_config(case):
    own = CASES[case]
    width, grid, depth = own["siglip"]["hidden_size"], own["grid"], own["depth"]
    rqvaesiglip = dict(
        model_type="rqvaesiglip_model", architectures=["RQVAESiglipModel"], embed_dim=width, n_embed=own["n_embed"],
        latent_shape=[grid, grid, width], code_shape=[grid, grid, depth], shared_codebook=own["shared"],
        restart_unused_codes=True, decay=0.99, latent_loss_weight=0.25, pretrained_model="siglip",
        decoder_latent_shape=own.get("resized"),
        ddconfig=dict(own["decoder"], in_channels=3, out_ch=3, double_z=False, dropout=0.0),
    )
    rqtransformer = dict(
        model_type="rqtransformer_model", architectures=["RQTransformer"], block_size=[grid, grid, depth],
        input_embed_dim_1=width, input_embed_dim_2=own["llm"]["hidden_size"], embed_dim=own["head"]["embed_dim"],
        vocab_size=own["n_embed"], head=dict(block=dict(n_head=own["head"]["n_head"]), n_layer=own["head"]["n_layer"]),
    )
    return dict(
        model_type="rqvaesigliptransformer_model", architectures=["RQVAESIGLIPTransformer"], hidden_size=width,
        rqvaesiglip=rqvaesiglip, rqtransformer=rqtransformer, torch_dtype="bfloat16",
    )


def siglip_config(case):
    vision = dict(CASES[case]["siglip"], model_type="siglip_vision_model")
    text = dict(
        model_type="siglip_text_model", hidden_size=vision["hidden_size"], intermediate_size=40, num_hidden_layers=1,
        num_attention_heads=2, vocab_size=50, max_position_embeddings=8, bos_token_id=48, eos_token_id=49, pad_token_id=1,
    )
    return dict(model_type="siglip", architectures=["SiglipModel"], vision_config=vision, text_config=text)


def llm_config(case):
    own = CASES[case]
    scaling = own["scaling"] and {"type": "linear", "factor": own["scaling"]}
    return dict(
        own["llm"], model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=VOCABULARY + len(SPECIAL),
        rms_norm_eps=1e-5, rope_theta=10000.0, rope_scaling=scaling, max_position_embeddings=600, hidden_act="silu",
        tie_word_embeddings=False, attention_bias=False, bos_token_id=1, eos_token_id=2, pretraining_tp=1,
        model_max_length=1200, tokenizer_padding_side="right", tokenizer_model_max_length=1200, use_cache=True,
        torch_dtype="bfloat16", attention_dropout=0.0, initializer_range=0.02, transformers_version="4.36.2",
    )


def build(ref, case):
    own = CASES[case]
    siglip = siglip_config(case)
    models = ref.vae.SiglipModel.config_class
    made = models(vision_config=siglip["vision_config"], text_config=siglip["text_config"])
    made._attn_implementation = "eager"
    models.from_pretrained = classmethod(lambda cls, path: made)
    tower = ref.Tower(ref.Tower.config_class(**tower_config(case)))
    common.randomise(tower, f"vila_u/{case}/tower", gain=1.0)
    # Codewords of the sizes that are left depth by depth.
    for index, codebook in enumerate({id(book): book for book in tower.rqvaesiglip.quantizer.codebooks}.values()):
        scale = 0.9 * 0.75**index
        codebook.weight.data.copy_(common.normal(tuple(codebook.weight.shape), case, "codebook", index, scale=scale))
        codebook.embed_ema.copy_(codebook.weight[:-1])
    tower.rqtransformer.classifier_mlp.linear.weight.data.mul_(2)
    positions = tower.rqtransformer.pos_emb_d
    positions.data.copy_(common.normal(tuple(positions.shape), case, "positions", scale=0.5))
    sizes = types.SimpleNamespace(mm_hidden_size=own["siglip"]["hidden_size"], hidden_size=own["llm"]["hidden_size"])
    settings = ref.projector.MultimodalProjectorConfig(own["projector"])
    projector = common.randomise(ref.projector.MultimodalProjector(settings, sizes), f"vila_u/{case}/projector", gain=1.2)
    config = {k: v for k, v in llm_config(case).items() if k not in ("rope_scaling", "rope_theta", "torch_dtype")}
    kind = {"rope_type": "linear", "factor": own["scaling"]} if own["scaling"] else {"rope_type": "default"}
    llm = LlamaForCausalLM(LlamaConfig(**config, rope_parameters=dict(kind, rope_theta=10000.0), attn_implementation="eager"))
    common.randomise(llm, f"vila_u/{case}/llm", gain=1.5)
    return tower.eval(), projector.eval(), llm.eval()


def bf16(state):
    return {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in state.items()}


def store(folder, case, tower, projector, llm, tokenizer):
    own = CASES[case]
    for part in ("llm", "vision_tower/siglip", "mm_projector"):
        (folder / part).mkdir(parents=True)
    common.write_json(folder / "vision_tower/config.json", tower_config(case))
    common.write_json(folder / "vision_tower/siglip/config.json", siglip_config(case))
    common.write_json(folder / "mm_projector/config.json", dict(model_type="v2l_projector", mm_projector_type=own["projector"], architectures=["MultimodalProjector"]))
    common.write_json(folder / "llm/config.json", llm_config(case))
    common.write_json(folder / "llm/generation_config.json", dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, do_sample=True, temperature=0.9, top_p=0.6, max_length=600))
    side = own["siglip"]["image_size"]
    common.write_json(folder / "vision_tower/preprocessor_config.json", dict(size=dict(height=side, width=side), crop_size=dict(height=side, width=side), image_mean=[0.5] * 3, image_std=[0.5] * 3, image_processor_type="CLIPImageProcessor"))
    common.write_json(
        folder / "config.json",
        dict(
            model_type="vila_u_llama", architectures=["VILAULlamaModel"], hidden_size=own["llm"]["hidden_size"],
            mm_hidden_size=own["siglip"]["hidden_size"], image_aspect_ratio="resize", num_video_frames=8,
            mm_use_im_start_end=True, mm_use_vi_start_end=True, mm_use_im_patch_token=False, mm_vision_select_layer=-2,
            llm_cfg=llm_config(case), vision_tower_cfg=tower_config(case),
            mm_projector_cfg=dict(mm_projector_type=own["projector"], model_type="v2l_projector"), model_dtype="torch.bfloat16",
        ),
    )
    state = bf16(tower.state_dict())
    if own["shared"] and own["stored"] == "bin":
        # A saver that drops what is stored already.
        state = {k: v for k, v in state.items() if not re.search(r"codebooks\.[1-9]", k)}
    if own["stored"] == "bin":
        torch.save(state, folder / "vision_tower/pytorch_model.bin")
        torch.save(bf16(llm.state_dict()), folder / "llm/pytorch_model.bin")
    else:
        common.write_weights(folder / "vision_tower/model.safetensors", state)
        common.write_weights(folder / "llm/model.safetensors", bf16(llm.state_dict()))
    common.write_weights(folder / "mm_projector/model.safetensors", bf16(projector.state_dict()))
    tokenizer.write(folder / "llm")


class Tokenizer:
    """The reference's slow tokenizer over a SentencePiece model that is trained here."""

    LINES = [
        "a red heart", "a blue house behind a tall tree", "what is this?", "How many birds are there in the picture?",
        "the quick brown fox jumps over the lazy dog", "two dogs play in the snow", "It's a cat, isn't it?",
        "draw me a picture of the sea at 12:30, please.", "green apples and yellow lemons on a table", "USER: ASSISTANT:",
        SYSTEM, "small boats, large boats; no boats at all!", "a house, a mouse, a horse and a rose in 1984",
    ]

    def __init__(self, ref):
        import io

        import sentencepiece

        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(self.LINES * 3), model_writer=model, vocab_size=VOCABULARY, model_type="bpe",
            byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity", remove_extra_whitespaces=False,
            split_digits=True, allow_whitespace_only_pieces=True, hard_vocab_limit=True, num_threads=1, minloglevel=2,
        )
        self.model = model.getvalue()
        path = common.FIXTURES / "vila_u" / "tokenizer.model"
        path.write_bytes(self.model)
        self.slow = ref.Tokenizer(str(path), legacy=False)
        path.unlink()
        self.slow.add_tokens(SPECIAL, special_tokens=True)
        assert set(SPECIAL) <= set(self.slow.all_special_tokens)
        assert self.slow.convert_tokens_to_ids(SPECIAL) == list(range(VOCABULARY, VOCABULARY + 4))

    def write(self, folder):
        (folder / "tokenizer.model").write_bytes(self.model)
        special = lambda text: dict(content=text, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
        common.write_json(folder / "added_tokens.json", {token: VOCABULARY + i for i, token in enumerate(SPECIAL)})
        common.write_json(
            folder / "tokenizer_config.json",
            dict(
                tokenizer_class="LlamaTokenizer", legacy=False, add_bos_token=True, add_eos_token=False, model_max_length=1200,
                bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>", padding_side="right",
                added_tokens_decoder={str(i): special(t) for i, t in [*enumerate(["<unk>", "<s>", "</s>"]), *enumerate(SPECIAL, VOCABULARY)]},
            ),
        )
        common.write_json(folder / "special_tokens_map.json", dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"))

    def chunk(self, text):
        """Ids of a text, with the beginning."""
        return [1] + self.slow.convert_tokens_to_ids(self.slow.tokenize(text)) if text else [1]

    def decode(self, ids):
        """Text without special tokens; the class does not take that none are left."""
        special = set(self.slow.all_special_ids)
        return self.slow.decode(ids, skip_special_tokens=True) if set(ids) - special else ""

    def prompt(self, text):
        """As the reference's `tokenizer_image_token`: one beginning, and -200 for each picture."""
        chunks = [self.chunk(chunk) for chunk in text.split("<image>")]
        ids = list(chunks[0])
        for chunk in chunks[1:]:
            ids += [-200] + chunk[1:]
        return ids


def conversation(message):
    """One user's turn by the template `vicuna_v1`."""
    message = message.strip()
    return f"{SYSTEM} USER: {message} ASSISTANT:" if message else f"{SYSTEM} USER:ASSISTANT:"


TEXTS = [
    "", " ", "  ", "a red heart", " a red heart", "a  red   heart ", "\n", "\nwhat is this?", "What's this? 1984!", "a\tb", "é ü 😀 汉",
    "▁", "a▁b", "▁▁a", "<im_start>", "a <im_start>", "<im_start> a", "<im_start>a<im_end>", " <im_start> ", "<vi_start><vi_end> x </s>",
    "<s>a</s> b<unk>c", "</s", "ab<im_startx", "boats boatsboats", "xxxxxxxxxxxxxxxxxxxxxxxxx", "\x00\x01", "a\r\nb", "  <im_end>  two  ",
]


def tokenizer_golden(folder, tokenizer):
    prompts = {
        "drawing": conversation("a red heart") + " <im_start>",
        "video": conversation("a red heart") + " <vi_start>",
        "unconditional": conversation(" ") + " <im_start>",
        "picture": conversation("<image>\nwhat is this?"),
        "two pictures": conversation("<image>\n<image>\nwhich one is red?"),
        "between": conversation("Is <image> like <image>?"),
        "text": conversation("what is this?"),
        "strip": conversation("  what is this? \n"),
    }
    cases = dict(
        texts=[dict(text=text, ids=tokenizer.chunk(text), decoded=tokenizer.decode(tokenizer.chunk(text))) for text in TEXTS],
        prompts=[dict(name=name, prompt=text, ids=tokenizer.prompt(text)) for name, text in prompts.items()],
        decoded=[dict(ids=ids, text=tokenizer.decode(ids)) for ids in [[5, 6, 300], [1, 260, 261, 2, 301], [231, 156, 162], [400, 310, 401], [3 + 0xF0, 3 + 0x9F, 300]]],
    )
    (folder / "tokenizer.json").write_text(json.dumps(cases, indent=1, ensure_ascii=True) + "\n")


def tower_golden(folder, case, tower):
    own = CASES[case]
    vae, side, grid, width = tower.rqvaesiglip, own["siglip"]["image_size"], own["grid"], own["siglip"]["hidden_size"]
    pixels = common.normal((2, 3, side, side), case, "pixels", scale=0.6)
    taps = common.Taps()
    vision = vae.siglip_model.vision_model
    taps.output(vision.embeddings, "embeddings")
    for index, layer in enumerate(vision.encoder.layers):
        taps.output(layer, f"layers.{index}")
    codes, features = vae.encode_image(pixels)
    tensors = {"inputs.pixel_values": pixels, "outputs.codes": codes}
    words, _ = vae.get_code_emb_with_depth(codes)
    # The reference gives x + (z - x): z up to rounding.
    summed = words.sum(-2)
    torch.testing.assert_close(summed, features, rtol=1e-4, atol=1e-4)
    tensors["outputs.features"] = summed
    values = taps.close()
    last = values[f"layers.{own['siglip']['num_hidden_layers'] - 2}"].reshape(features.shape)
    for depth in range(own["depth"]):
        tensors[f"blocks.residual.{depth}"] = (last - words[..., : depth + 1, :].sum(-2)).square().sum(-1)
    tensors |= {f"blocks.{k}": v for k, v in values.items()}
    given = common.normal((2, grid, grid, width), case, "features")
    taps = common.Taps()
    taps.output(vae.post_quant_conv, "post_quant_conv")
    decoder = vae.decoder
    for leaf in ("conv_in", "norm_out", "conv_out"):
        taps.output(getattr(decoder, leaf), f"decoder.{leaf}")
    for leaf in ("block_1", "attn_1", "block_2"):
        taps.output(getattr(decoder.mid, leaf), f"decoder.mid.{leaf}")
    for i, level in enumerate(decoder.up):
        for kind in ("block", "attn"):
            for j, block in enumerate(getattr(level, kind)):
                taps.output(block, f"decoder.up.{i}.{kind}.{j}")
        if hasattr(level, "upsample"):
            taps.output(level.upsample, f"decoder.up.{i}.upsample")
    tensors["inputs.features"] = given
    tensors["outputs.sample"] = vae.decode(given)
    tensors |= {f"blocks.{k}": v for k, v in taps.close().items()}
    common.write_golden(folder / "golden_tower.safetensors", tensors, every=11, large=1024)


def parts_golden(folder, case, tower, projector):
    own = CASES[case]
    features = common.normal((2, 5, own["siglip"]["hidden_size"]), case, "projected")
    common.write_golden(folder / "golden_projector.safetensors", {"inputs.features": features, "outputs.embeddings": projector(features)})
    hidden = common.normal((2, 5, own["llm"]["hidden_size"]), case, "hidden")
    codes = torch.randint(own["n_embed"], (2, 5, own["depth"]), generator=common.generator(case, "codes"))
    head = tower.rqtransformer
    taps = common.Taps()
    for index, block in enumerate(head.head_transformer.blocks):
        taps.output(block, f"blocks.{index}")
    logits = head(hidden, codes, tower.rqvaesiglip)
    tensors = {"inputs.hidden_states": hidden, "inputs.codes": codes, "outputs.logits": logits}
    tensors |= {f"blocks.{k}": v for k, v in taps.close().items()}
    common.write_golden(folder / "golden_depth.safetensors", tensors, every=7, large=2048)


def positions(mask):
    found = mask.cumsum(-1) - 1
    return found.masked_fill(mask == 0, 1)


def language_golden(folder, case, llm):
    ids = torch.randint(3, VOCABULARY + 4, (2, 13), generator=common.generator(case, "ids"))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    taps = common.Taps()
    for index, layer in enumerate(llm.model.layers):
        taps.output(layer, f"layers.{index}")
    taps.output(llm.model.norm, "norm")
    logits = llm(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False).logits
    values = taps.close()
    keep = mask.unsqueeze(-1)
    tensors = {"inputs.input_ids": ids, "inputs.attention_mask": mask, "outputs.logits": logits * keep}
    tensors["outputs.hidden_states"] = values.pop("norm") * keep
    tensors |= {f"blocks.{k}": v * keep for k, v in values.items()}
    embeds = common.normal((2, 7, llm.config.hidden_size), case, "embeds")
    # Of rows that come as embeddings.
    tensors["embeds.inputs_embeds"] = embeds
    tensors["embeds.logits"] = llm(inputs_embeds=embeds, use_cache=False).logits
    common.write_golden(folder / "golden_language_model.safetensors", tensors, every=7, large=4096)


def generate_golden(folder, ref, case, tower, projector, llm, tokenizer, frames=None):
    """The loop of `generate_image_content`, or of `generate_video_content`, without what only moves transformers' own loop on."""
    own = CASES[case]
    vae, grid, count = tower.rqvaesiglip, own["grid"], own["grid"] ** 2 * (frames or 1)
    start = "<vi_start>" if frames else "<im_start>"
    texts = ["a red heart", "two dogs play in the snow"][: 1 if frames else 2]
    rows = [tokenizer.prompt(f"{conversation(text)} {start}") for text in texts]
    rows += [tokenizer.prompt(f"{conversation(' ')} {start}")] * len(texts)
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    seen = []

    def largest(logits, temperature=1.0, top_k=None, top_p=None):
        seen.append(logits.clone())
        return logits.argmax(-1)

    ref.depth.sample_from_logits = largest
    embeds, codes = llm.get_input_embeddings()(ids), []
    whole = mask.clone()
    for _ in range(count):
        hidden = llm.model(inputs_embeds=embeds, attention_mask=whole, position_ids=positions(whole), use_cache=False).last_hidden_state
        feature, code = tower.rqtransformer.generate(hidden[:, -1:], vae, cfg=own["guidance"])
        codes.append(code)
        embeds = torch.cat([embeds, projector(feature)], 1)
        whole = torch.cat([whole, torch.ones_like(whole[:, :1])], 1)
    codes = torch.cat(codes, 1)
    assert torch.equal(*codes.chunk(2))
    codes = codes.chunk(2)[0]
    features = vae.get_code_emb_with_depth(codes)[0].sum(-2).flatten(0, 1).unflatten(0, (-1, grid, grid))
    image = vae.decode(features).add(1).div(2).clamp(0, 1)
    tensors = {"inputs.input_ids": ids, "inputs.attention_mask": mask, "inputs.guidance": torch.tensor([own["guidance"]])}
    tensors |= {"outputs.codes": codes, "outputs.features": features, "outputs.image": image}
    logits = torch.stack(seen).reshape(count, own["depth"], len(texts), -1)
    for place in range(2):
        tensors[f"blocks.logits.{place}"] = logits[place]
    # How far the choice of a code is from another: what another order of additions may change.
    best = logits.topk(2, dim=-1).values
    print(f"{case}: the closest choice is off by {(best[..., 0] - best[..., 1]).min():.1e}")
    name = "golden_video" if frames else "golden_generate"
    common.write_golden(folder / f"{name}.safetensors", tensors, every=13, large=2048)


def answer_golden(folder, case, tower, projector, llm, tokenizer):
    """The likeliest answer to a question about two pictures, one of which is the other upside down, and to one without."""
    own = CASES[case]
    side = own["siglip"]["image_size"]
    pixels = torch.randint(256, (21, 34, 3), generator=common.generator(case, "picture"), dtype=torch.uint8)
    pictures = [Image.fromarray(pixels.numpy()), Image.fromarray(pixels.flip(0).contiguous().numpy())]
    resized = [np.asarray(picture.resize((side, side))) for picture in pictures]
    values = torch.stack([torch.tensor((each / 255.0 - 0.5) / 0.5, dtype=torch.float32).permute(2, 0, 1) for each in resized])
    tensors = {"inputs.pixels": pixels, "outputs.pixel_values": values}
    codes, _ = tower.rqvaesiglip.encode_image(values)
    features = tower.rqvaesiglip.get_code_emb_with_depth(codes)[0].sum(-2).flatten(1, 2)
    seen = projector(features)
    questions = {"pictures": "<image>\n<image>\nwhat is this?", "between": "Is <image> like <image>?", "text": "what is this?"}
    for name, question in questions.items():
        ids = tokenizer.prompt(conversation(question))
        rows, shown = [], iter(seen)
        for chunk in " ".join(map(str, ids)).split("-200"):
            own_ids = torch.tensor([int(each) for each in chunk.split()], dtype=torch.int64)
            rows += [llm.get_input_embeddings()(own_ids)]
            picture = next(shown, None) if name != "text" else None
            rows += [] if picture is None else [picture]
        embeds = torch.cat(rows)[None]
        answer = []
        for _ in range(8):
            logits = llm(inputs_embeds=embeds, use_cache=False).logits[0, -1]
            best = logits.topk(2).values
            # From a close choice on, another order of additions may write something else.
            if best[0] - best[1] < 1e-3:
                break
            answer.append(int(logits.argmax()))
            embeds = torch.cat([embeds, llm.get_input_embeddings()(torch.tensor([[answer[-1]]]))], 1)
        if answer:
            tensors[f"outputs.{name}"] = torch.tensor(answer)
    common.write_golden(folder / "golden_answers.safetensors", tensors, large=1 << 20)


def main(root):
    ref = reference(root)
    (common.FIXTURES / "vila_u").mkdir(exist_ok=True)
    tokenizer = Tokenizer(ref)
    tokenizer_golden(common.case_folder("vila_u", "texts"), tokenizer)
    for case in CASES:
        folder = common.case_folder("vila_u", case)
        tower, projector, llm = build(ref, case)
        store(folder, case, tower, projector, llm, tokenizer)
        tower_golden(folder, case, tower)
        parts_golden(folder, case, tower, projector)
        language_golden(folder, case, llm)
        generate_golden(folder, ref, case, tower, projector, llm, tokenizer)
        generate_golden(folder, ref, case, tower, projector, llm, tokenizer, frames=3)
        answer_golden(folder, case, tower, projector, llm, tokenizer)


if __name__ == "__main__":
    main(sys.argv[1])
