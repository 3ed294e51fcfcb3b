"""Makes the files under seeds/<target>/ of what people and trainers write: adapters, settings, data and recipes. Those
whose name begins with good_ must be read, all others refused; tests of the crates that read them see to it."""
import json
import pathlib
import struct
import zlib

from kit import chunk, clear, end, here, pixel, png, put, safetensors, tensors

clear("lora", "scheduler", "captions", "data_set", "emoji_package", "training_log", "recipe", "redraw",
      "quantized_weights", "mask_prompts", "mask_runs", "words")

# Adapters of layer x.0 [2, 3] in every naming, and of y [1, 2].
nan = struct.pack("<f", float("nan"))


def ones(*shape):
    count = 1
    for side in shape:
        count *= side
    return ("F32", shape, struct.pack("<f", 1.0) * count)


def adapter(metadata=None, down="x.0.lora_A.weight", up="x.0.lora_B.weight", **more):
    return tensors(metadata, **({down: ones(1, 3), up: ones(2, 1)} | more))


settings = "lora_adapter_metadata"
put("lora", "good_diffusers", adapter(None, "transformer.x.0.lora_A.weight", "transformer.x.0.lora_B.weight"))
put("lora", "good_peft", adapter(None, "base_model.model.x.0.lora_A.default.weight", "base_model.model.x.0.lora_B.default.weight"))
put("lora", "good_comfyui", adapter(None, "diffusion_model.x.0.lora_A.weight", "diffusion_model.x.0.lora_B.weight",
    **{"diffusion_model.x.0.alpha": ones()}))
put("lora", "good_kohya", adapter(None, "lora_unet_x_0.lora_down.weight", "lora_unet_x_0.lora_up.weight",
    **{"lora_unet_x_0.alpha": ones()}))
put("lora", "good_older", adapter(None, "unet.x.0.lora.down.weight", "unet.x.0.lora.up.weight"))
put("lora", "good_bias", adapter(**{"x.0.lora_B.bias": ones(2)}))
put("lora", "good_dora", adapter(**{"x.0.lora_magnitude_vector": ones(2)}))
put("lora", "good_metadata", adapter({settings: json.dumps({"transformer.lora_alpha": 2, "transformer.r": 1})}))
put("lora", "good_config.json", b'{"peft_type": "LORA", "lora_alpha": 8, "r": 1, "use_rslora": true, '
    b'"alpha_pattern": {"x.0": 2.5, "^y$": 3}, "target_modules": ["x.0"]}')
put("lora", "empty", b"")
put("lora", "no_tensors", safetensors({}))
put("lora", "half_a_pair", adapter(up="y.lora_B.weight"))
put("lora", "ranks_differ", adapter(**{"x.0.lora_B.weight": ones(2, 2)}))
put("lora", "rank_zero", adapter(**{"x.0.lora_A.weight": ("F32", (0, 3), b""), "x.0.lora_B.weight": ("F32", (2, 0), b"")}))
put("lora", "scalar_pair", adapter(**{"x.0.lora_A.weight": ones(), "x.0.lora_B.weight": ones()}))
put("lora", "alpha_nan", adapter(**{"x.0.alpha": ("F32", (), nan)}))
put("lora", "alpha_two", adapter(**{"x.0.alpha": ones(2)}))
put("lora", "two_names", adapter(**{"transformer.x.0.lora_A.weight": ones(1, 3), "transformer.x.0.lora_B.weight": ones(2, 1)}))
put("lora", "two_adapters", adapter(**{"x.0.lora_A.second.weight": ones(1, 3)}))
put("lora", "text_encoder", adapter(**{"text_encoder.a.lora_A.weight": ones(1, 3)}))
put("lora", "whole_tensor", adapter(**{"head.weight": ones(2, 2)}))
put("lora", "lokr", adapter(**{"x.0.lokr_w1": ones(2, 2)}))
put("lora", "metadata_not_json", adapter({settings: "{"}))
put("lora", "metadata_list", adapter({settings: "[1]"}))
put("lora", "metadata_no_network", adapter({settings: '{"r": 4}'}))
put("lora", "metadata_other_networks", adapter({settings: '{"a.r": 4, "b.r": 4}'}))
put("lora", "config_dora.json", b'{"use_dora": true}')
put("lora", "config_loha.json", b'{"peft_type": "LOHA"}')
put("lora", "config_alpha.json", b'{"lora_alpha": 1e300}')
put("lora", "config_pattern.json", b'{"alpha_pattern": {"a.*b": 2}}')
put("lora", "config_open.json", b'{')

# Configurations of schedulers.
dpm = {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++", "final_sigmas_type": "zero",
       "flow_shift": 3.0, "lower_order_final": True, "num_train_timesteps": 1000, "prediction_type": "flow_prediction",
       "solver_order": 2, "solver_type": "midpoint", "use_flow_sigmas": True}
euler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
scm = {"_class_name": "SCMScheduler", "num_train_timesteps": 1000, "prediction_type": "trigflow", "sigma_data": 0.5}


def config(base, **changes):
    return json.dumps(base | changes).encode()


put("scheduler", "good_dpm", config(dpm))
put("scheduler", "good_infinity", config(dpm, lambda_min_clipped=float("-inf")))
put("scheduler", "good_euler", config(euler))
put("scheduler", "good_scm", config(scm))
put("scheduler", "one_timestep", config(euler, num_train_timesteps=1))
put("scheduler", "shift_huge", config(euler, shift=1e300))
put("scheduler", "shift_tiny", config(dpm, flow_shift=1e-300))
put("scheduler", "shift_text", config(euler, shift="3"))
put("scheduler", "timesteps_zero", config(euler, num_train_timesteps=0))
put("scheduler", "timesteps_half", config(euler, num_train_timesteps=0.5))
put("scheduler", "order_9", config(dpm, solver_order=9))
put("scheduler", "sigma_zero", config(scm, sigma_data=0))
put("scheduler", "sigma_tiny", config(scm, sigma_data=1e-300))
put("scheduler", "unknown_key", config(euler, wobble=1))
put("scheduler", "unknown_class", config(euler, _class_name="DDIMScheduler"))
put("scheduler", "class_number", config(euler, _class_name=7))
put("scheduler", "list", b"[1]")
put("scheduler", "open", b'{"_class_name": "SCMScheduler"')
put("scheduler", "not_utf8", b'{"_class_name": "\xff"}')
put("scheduler", "deep", b'{"_class_name": ' + b"[" * 400)

# Texts beside pictures.
put("captions", "good_plain", b"A red apple\nfruit\nround\n")
put("captions", "good_mark_and_returns", b"\xef\xbb\xbfA Red Apple\r\n\r\nfruit \r\n")
put("captions", "good_no_line_end", "Äpfel, 苹果 🍎".encode())
put("captions", "empty", b"")
put("captions", "white", b" \r\n\t\n \xe3\x80\x80\n")
put("captions", "mark_alone", b"\xef\xbb\xbf")
put("captions", "utf16", "A red apple".encode("utf-16"))
put("captions", "latin1", "Äpfel".encode("latin-1"))
put("captions", "web_page", b"<!DOCTYPE html><html><body>Not found</body></html>")
put("captions", "zero_bytes", b"a\0b")

# Data sets: one grey picture of 8 x 8.
one = {"name": "red apple", "tags": ["fruit"], "hexcode": "1F34E", "set": "noto", "group": "food-drink", "held_out": False}


def data_set(entries=(one,), pictures=("U8", (1, 3, 8, 8), bytes(192)), kind="brisk-emoji-1", **further):
    text = entries if isinstance(entries, str) else json.dumps(list(entries))
    return tensors({"format": kind, "entries": text}, pictures=pictures, **further)


wide = ("U8", (1, 3, 4, 16), bytes(192))


put("data_set", "good_one", data_set())
put("data_set", "good_own", data_set([one | {"set": "own", "held_out": True}]))
put("data_set", "empty", b"")
put("data_set", "no_entries", tensors({"format": "brisk-emoji-1"}, pictures=("U8", (1, 3, 8, 8), bytes(192))))
put("data_set", "no_pictures", data_set(pictures=None))
put("data_set", "none_at_all", data_set([], ("U8", (0, 3, 8, 8), b"")))
put("data_set", "other_format", data_set(kind="brisk-emoji-9"))
put("data_set", "fewer_pictures", data_set([one, one]))
put("data_set", "good_wide", data_set(pictures=wide))
put("data_set", "good_shapes", data_set([one, one], None, **{"pictures.4x16": wide, "pictures.8x8": ("U8", (1, 3, 8, 8), bytes(192))}))
put("data_set", "other_shape", data_set(pictures=None, **{"pictures.16x4": wide}))
put("data_set", "square_and_wide", data_set([one, one], **{"pictures.4x16": wide}))
put("data_set", "unknown_tensor", data_set(latents=wide))
put("data_set", "too_flat", data_set(pictures=("U8", (1, 3, 1, 16), bytes(48))))
put("data_set", "no_side", data_set(pictures=("U8", (1, 3, 0, 0), b"")))
put("data_set", "no_side_many", data_set(pictures=("U8", (2**40, 3, 0, 0), b"")))
put("data_set", "grey", data_set(pictures=("U8", (1, 1, 8, 8), bytes(64))))
put("data_set", "flat", data_set(pictures=("U8", (192,), bytes(192))))
put("data_set", "floats", data_set(pictures=("F32", (1, 3, 4, 4), bytes(192))))
put("data_set", "unknown_set", data_set([one | {"set": "other"}]))
put("data_set", "entries_open", data_set("["))
put("data_set", "entries_number", data_set("7"))

# Emoji packages, four files in one document.
heart = {"body": '<path fill="#f00" d="M0 0h10v10H0z"/>'}
package = {"icons": {"width": 10, "height": 10, "icons": {"heart": heart}, "aliases": {"love": {"parent": "heart", "hFlip": True}}},
           "chars": {"2764": "heart"},
           "data": [{"label": "Red Heart", "hexcode": "2764-FE0F", "tags": ["love"], "group": 8}],
           "groups": {"groups": {"8": "symbols"}}}


def icons(**changes):
    return json.dumps(package | {"icons": package["icons"] | changes}).encode()


put("emoji_package", "good_icon", json.dumps(package).encode())
put("emoji_package", "good_alias", json.dumps(package | {"chars": {"2764": "love"}}).encode())
put("emoji_package", "good_turned", icons(icons={"heart": heart | {"rotate": 3, "hFlip": True, "left": -5}}))
put("emoji_package", "circle", icons(icons={}, aliases={"heart": {"parent": "heart"}}))
put("emoji_package", "no_icon", icons(icons={}))
put("emoji_package", "no_body", icons(icons={"heart": {}}))
put("emoji_package", "no_width", icons(width=0))
put("emoji_package", "wide", icons(width=1e300))
put("emoji_package", "far", icons(left=-1e300))
put("emoji_package", "not_svg", icons(icons={"heart": {"body": "<path"}}))
put("emoji_package", "no_chars", json.dumps(package | {"chars": {}}).encode())
put("emoji_package", "chars_list", json.dumps(package | {"chars": ["heart"]}).encode())
put("emoji_package", "no_data", json.dumps(package | {"data": []}).encode())
put("emoji_package", "data_text", json.dumps(package | {"data": "x"}).encode())
put("emoji_package", "no_group", json.dumps(package | {"groups": {}}).encode())
put("emoji_package", "icons_null", json.dumps(package | {"icons": None}).encode())

# Training logs.
line = {"step": 10, "loss": 0.5, "learning_rate": 1e-3, "gradient_norm": 1.5, "seconds": 2.0, "samples_per_second": 8.0,
        "skipped": 0}


def lines(*changes, end="\n"):
    return "".join(json.dumps(line | change) + end for change in changes).encode()


put("training_log", "good_two", lines({}, {"step": 20, "psnr": 21.5}))
put("training_log", "good_returns", b"\xef\xbb\xbf" + lines({}, {"step": 20, "loss": None}, end="\r\n"))
put("training_log", "good_cut", lines({}, {"step": 20})[:-9])
put("training_log", "good_far", lines({"step": 2**64 - 1, "loss": 1e300}, {"loss": -1e-300}))
put("training_log", "cut_in_the_middle", lines({})[:-9] + b"\n" + lines({}))
put("training_log", "negative_step", lines({"step": -1}, {}))
put("training_log", "text_as_loss", lines({"loss": "0.5"}, {}))
put("training_log", "list", b"[1]\n[2]\n")
put("training_log", "not_utf8", b"\xff\n" + lines({}))

# Recipes: the built-in ones at small sizes.
recipes = here.parent.parent / "crates/train/recipes"
built_in = {name: json.loads((recipes / f"{name}.json").read_text())
            for name in ("emoji-autoencoder", "emoji-image", "arithmetic-text", "scenes-class-f32")}


def recipe(name="arithmetic-text", training=None, **changes):
    document = built_in[name] | changes
    document["training"] = built_in[name]["training"] | (training or {})
    return json.dumps({key: value for key, value in document.items() if value != "absent"}).encode()


for name in built_in:
    put("recipe", "good_" + name.replace("-", "_"), recipe(name))
put("recipe", "good_mark", b"\xef\xbb\xbf" + recipe().replace(b"\n", b"\r\n"))
put("recipe", "empty", b"")
put("recipe", "null", b"null")
put("recipe", "no_kind", recipe(kind="absent"))
put("recipe", "unknown_kind", recipe(kind="video"))
put("recipe", "unknown_key", recipe(wobble=1))
put("recipe", "unknown_training_key", recipe(training={"wobble": 1}))
put("recipe", "batch_zero", recipe(training={"batch": 0}))
put("recipe", "batch_huge", recipe(training={"batch": 2**63}))
put("recipe", "batch_text", recipe(training={"batch": "16"}))
put("recipe", "batch_half", recipe(training={"batch": 1.5}))
put("recipe", "rate_negative", recipe(training={"learning_rate": -1}))
put("recipe", "rate_overflow", recipe(training={"learning_rate": 1}).replace(b'"learning_rate": 1', b'"learning_rate": 1e999'))
put("recipe", "optimiser_unknown", recipe(training={"optimiser": "lion"}))
put("recipe", "betas_three", recipe(training={"betas": [0.9, 0.99, 0.999]}))
put("recipe", "model_list", recipe(model=[1]))
put("recipe", "model_text", recipe(model="llada"))
put("recipe", "config_list", recipe("emoji-autoencoder", config=[1]))
put("recipe", "transformer_null", recipe("emoji-image", transformer=None))
put("recipe", "shift_overflow", recipe("emoji-image", flow_shift=1e308))
put("recipe", "law_nan", recipe("emoji-image", noise_law=[None, 1.0]))
put("recipe", "lengths_uneven", recipe(lengths=[[33, 0.5]]))
put("recipe", "block_zero", recipe(block_length=0))
put("recipe", "classes_unknown", recipe("scenes-class-f32", classes="colour"))
put("recipe", "network_list", recipe("scenes-class-f32", network=[1]))
put("recipe", "network_odd", recipe("scenes-class-f32", network=built_in["scenes-class-f32"]["network"] | {"depth": 7}))
put("recipe", "network_other", recipe("scenes-class-f32", network={"_class_name": "Other"}))
put("recipe", "guidance_huge", recipe("scenes-class-f32", guidance=1e300))
put("recipe", "sample_steps_zero", recipe("scenes-class-f32", sample_steps=0))
put("recipe", "deep", b'{"kind": ' + b"[" * 400)

# Pictures that say how they were drawn, and what they say.
said = {"version": "0.1.0", "model": "sana-emoji", "prompt": "red heart", "seed": 5, "index": 0, "steps": 3,
        "guidance": 2.5, "width": 64, "height": 64, "scheduler": "dpm"}


def said_png(text, keyword=b"brisk"):
    return png(1, 1, chunk(b"tEXt", keyword + b"\0" + text), pixel, end)


put("redraw", "good_text", json.dumps(said).encode())
put("redraw", "good_picture", said_png(json.dumps(said).encode()))
put("redraw", "good_compressed", png(1, 1, chunk(b"zTXt", b"brisk\0\0" + zlib.compress(json.dumps(said).encode())), pixel, end))
put("redraw", "good_lists", json.dumps(said | {"pag_scale": 1.5, "pag_layers": [0, 2], "angles": [1.0], "later": {"x": [1]}}).encode())
put("redraw", "no_prompt", b'{"model": "m"}')
put("redraw", "no_text", png(1, 1, pixel, end))
put("redraw", "other_text", said_png(b"a red heart", b"parameters"))
put("redraw", "not_json", said_png(b"{"))
put("redraw", "steps_zero", json.dumps(said | {"steps": 0}).encode())
put("redraw", "seed_half", json.dumps(said | {"seed": 0.5}).encode())
put("redraw", "index_huge", json.dumps(said | {"index": 2**64 - 1}).encode())
put("redraw", "images_huge", json.dumps(said | {"images": 2**63}).encode())
put("redraw", "scheduler_list", json.dumps(said | {"scheduler": [[["dpm"]]]}).encode())
put("redraw", "deep", b'{"model": "m", "prompt": "p", "lora": ' + b"[" * 100 + b"]" * 100 + b"}")

# Quantized weights of a layer a [3, 40]: two blocks of 16 rows and 32 columns, each with 16 scales.
for name, length in {"good_8bit": 2 * (512 + 32), "good_4bit": 2 * (256 + 32)}.items():
    put("quantized_weights", name, tensors(**{"a.weight": ("U8", (length,), bytes(length))}))
put("quantized_weights", "short", tensors(**{"a.weight": ("U8", (7,), bytes(7))}))
put("quantized_weights", "floats", tensors(**{"a.weight": ones(3, 40)}))
put("quantized_weights", "other_name", tensors(**{"b.weight": ("U8", (7,), bytes(7))}))
put("quantized_weights", "empty", b"")

# Boxes and points of what to find in a picture.
put("mask_prompts", "good_boxes", b"[[1, 2, 3, 4], [0.5, 0, 1e3, 7.25]]")
put("mask_prompts", "good_objects", b'{"boxes": [{"name": "a", "box": [1, 2, 3, 4], "points": [[1, 2], [3, 4]], "labels": [1, 0]}]}')
put("mask_prompts", "good_point", b'[{"points": [[7, 8]], "box": null}]')
put("mask_prompts", "empty", b"")
put("mask_prompts", "empty_list", b"[]")
put("mask_prompts", "cut_off", b"[[1, 2, 3, 4]")
put("mask_prompts", "number", b"7")
put("mask_prompts", "text", b'["1,2,3,4"]')
put("mask_prompts", "three_numbers", b"[[1, 2, 3]]")
put("mask_prompts", "unknown_key", b'[{"bbox": [1, 2, 3, 4]}]')
put("mask_prompts", "labels_differ", b'[{"points": [[1, 2]], "labels": [1, 0]}]')
put("mask_prompts", "label_two", b'[{"points": [[1, 2]], "labels": [2]}]')
put("mask_prompts", "label_text", b'[{"points": [[1, 2]], "labels": ["1"]}]')
put("mask_prompts", "nested", b"[" * 500 + b"]" * 500)
put("mask_prompts", "name_number", b'[{"name": 1, "box": [1, 2, 3, 4]}]')
put("mask_prompts", "not_utf8", b'[{"name": "\xff", "box": [1, 2, 3, 4]}]')

put("words", "good_list", b'[{"box": [1, 2, 30, 14], "text": "Ab"}, [5, 5, 9, 9], {"polygon": [[0, 0], [9, 0], [9, 4], [0, 4]], "ignore": true}]')
put("words", "good_characters", b'{"words": [{"box": [1, 2, 30, 14], "text": "A", "characters": [{"text": "A", "box": [2, 2, 9, 14]}]}]}')
put("words", "good_lines", b'{"picture": "a.jpg", "words": [[1, 2, 3, 4]]}\n{"picture": "b.jpg", "words": []}\n')
put("words", "good_mlt", "\ufeff1,2,30,2,30,14,1,14,Latin,a,b\r\n0,0,9,0,9,9,0,9,Arabic,###\r\n".encode())
put("words", "good_text_seg", b'{"0000": {"text": "Ab", "bbox": [1, 2, 30, 2, 30, 14, 1, 14], "char": {"00": {"text": "A", "bbox": [1, 2, 9, 2, 9, 14, 1, 14]}}}}')
put("words", "good_coco_text", b'{"imgs": {"7": {"file_name": "a.jpg"}}, "anns": {"1": {"image_id": 7, "bbox": [1, 2, 3, 4], "utf8_string": "a", "legibility": "illegible"}}}')
put("words", "good_nothing", b"")
put("words", "cut_off", b'[{"box": [1, 2, 30, 14], "te')
put("words", "no_place", b'[{"text": "a"}]')
put("words", "three_numbers", b'[[1, 2, 3]]')
put("words", "two_points", b'[[[1, 2], [3, 4]]]')
put("words", "far_away", b'[[1, 2, 1e308, 1e309]]')
put("words", "unknown_key", b'[{"box": [1, 2, 3, 4], "script": "Latin"}]')
put("words", "text_number", b'[{"box": [1, 2, 3, 4], "text": 7}]')
put("words", "short_line", b"1,2,30,2,30,14,1,14,Latin")
put("words", "line_of_words", b"a,b,c,d,e,f,g,h,i,j")
put("words", "picture_missing", b'{"imgs": {}, "anns": {"1": {"image_id": 3, "bbox": [1, 2, 3, 4]}}}')
put("words", "text_seg_number", b'{"0000": 7}')
put("words", "line_without_words", b'{"picture": "a.jpg"}\n{"picture": "b.jpg"}')
put("words", "nested", b"[" * 500 + b"]" * 500)
put("words", "not_utf8", b'[{"text": "\xff", "box": [1, 2, 3, 4]}]')

# Width and height, then COCO's text.
put("mask_runs", "good_square", bytes([4, 4]) + b"52203")
put("mask_runs", "good_empty", bytes([3, 2]) + b"6")
put("mask_runs", "too_long", bytes([2, 2]) + b"9")
put("mask_runs", "too_short", bytes([2, 2]) + b"1")
put("mask_runs", "negative", bytes([4, 4]) + b"55N")
put("mask_runs", "endless", bytes([4, 4]) + b"o" * 40)
put("mask_runs", "no_size", b"")
