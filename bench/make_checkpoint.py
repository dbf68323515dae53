#!/usr/bin/env python3
"""Makes full-size checkpoints with random weights in the published layout (Hugging Face folders; ResNets: open_clip's), for benchmarks: speed
does not depend on what the weights are, and nothing has to be downloaded.

  python3 bench/make_checkpoint.py clip-vit-b32 /tmp/clip-vit-b32
  build/ocellus-convert /tmp/clip-vit-b32 -o /tmp/b32.oc --dtype s8

Needs numpy. Weights are normal with standard deviation 0.02 (norms: gain 1, bias 0), seed 0, in float32 (--dtype f16: half)."""
import argparse
import json
import os
import re
import sys

import numpy as np


def clip(vision, text, embed, patch, image=224, act="quick_gelu"):
    (vw, vl, vh, vm), (tw, tl, th) = vision, text
    return {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": embed, "logit_scale_init_value": 2.6592,
            "text_config": {"hidden_size": tw, "intermediate_size": 4 * tw, "num_hidden_layers": tl, "num_attention_heads": th,
                            "max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": act, "layer_norm_eps": 1e-5,
                            "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1, "projection_dim": embed},
            "vision_config": {"hidden_size": vw, "intermediate_size": vm, "num_hidden_layers": vl, "num_attention_heads": vh,
                              "image_size": image, "patch_size": patch, "hidden_act": act, "layer_norm_eps": 1e-5,
                              "num_channels": 3, "projection_dim": embed}}


def siglip(width, layers, heads, mlp, patch, image=224, vocab=32000, context=64):
    tower = {"hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": layers, "num_attention_heads": heads,
             "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
    return {"model_type": "siglip", "architectures": ["SiglipModel"],
            "text_config": {**tower, "max_position_embeddings": context, "vocab_size": vocab, "projection_size": width},
            "vision_config": {**tower, "image_size": image, "patch_size": patch, "num_channels": 3}}


def clip_resnet(layers, width, text, embed, image=224):
    """open_clip's configuration, in which CLIP's ResNets are published."""
    tw, tl, th = text
    return {"model_type": "open_clip", "embed_dim": embed,
            "vision_cfg": {"image_size": image, "layers": layers, "width": width, "patch_size": None},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": tw, "heads": th, "layers": tl}}


PRESETS = {  # vision: width, layers, heads, mlp; text: width, layers, heads
    "clip-vit-b32": clip((768, 12, 12, 3072), (512, 12, 8), 512, 32),
    "clip-vit-b16": clip((768, 12, 12, 3072), (512, 12, 8), 512, 16),
    "clip-vit-l14": clip((1024, 24, 16, 4096), (768, 12, 12), 768, 14),
    "clip-vit-h14": clip((1280, 32, 16, 5120), (1024, 24, 16), 1024, 14, act="gelu"),
    "clip-rn50": clip_resnet([3, 4, 6, 3], 64, (512, 12, 8), 1024),
    "siglip-b16": siglip(768, 12, 12, 3072, 16),
    "siglip-l16": siglip(1024, 24, 16, 4096, 16),
    "siglip-so400m-14": siglip(1152, 27, 16, 4304, 14, context=16),
}


def resnet_shapes(c):
    """Names and shapes of the state dict of open_clip's CLIP with a ModifiedResNet."""
    v, t, out = c["vision_cfg"], c["text_cfg"], {}

    def convolution(conv, norm, n, k, side):
        out[f"visual.{conv}.weight"] = (n, k, side, side)
        for x in ("weight", "bias", "running_mean", "running_var"):
            out[f"visual.{norm}.{x}"] = (n,)

    w = v["width"]
    for i, (n, k) in enumerate(((w // 2, 3), (w // 2, w // 2), (w, w // 2)), 1):
        convolution(f"conv{i}", f"bn{i}", n, k, 3)
    k = w
    for stage, count in enumerate(v["layers"]):
        n = w << stage
        for b in range(count):
            p = f"layer{stage + 1}.{b}."
            convolution(p + "conv1", p + "bn1", n, k, 1)
            convolution(p + "conv2", p + "bn2", n, n, 3)
            convolution(p + "conv3", p + "bn3", 4 * n, n, 1)
            if b == 0:
                convolution(p + "downsample.0", p + "downsample.1", 4 * n, k, 1)
            k = 4 * n
    out["visual.attnpool.positional_embedding"] = ((v["image_size"] // 32) ** 2 + 1, k)
    for x, n in (("q", k), ("k", k), ("v", k), ("c", c["embed_dim"])):
        out[f"visual.attnpool.{x}_proj.weight"], out[f"visual.attnpool.{x}_proj.bias"] = (n, k), (n,)
    w = t["width"]
    for i in range(t["layers"]):
        p = f"transformer.resblocks.{i}."
        for x, n, k in (("attn.in_proj_", 3 * w, w), ("attn.out_proj.", w, w), ("mlp.c_fc.", 4 * w, w), ("mlp.c_proj.", w, 4 * w)):
            out[p + x + "weight"], out[p + x + "bias"] = (n, k), (n,)
        for x in ("ln_1", "ln_2"):
            out[f"{p}{x}.weight"], out[f"{p}{x}.bias"] = (w,), (w,)
    out["token_embedding.weight"], out["positional_embedding"] = (t["vocab_size"], w), (t["context_length"], w)
    out["ln_final.weight"], out["ln_final.bias"] = (w,), (w,)
    out["text_projection"], out["logit_scale"] = (w, c["embed_dim"]), ()
    return out


def shapes(c):
    """Names and shapes of the state dict, as transformers writes it."""
    out = {}
    siglip_like = c["model_type"] == "siglip"

    def norm(name, n):
        out[name + ".weight"], out[name + ".bias"] = (n,), (n,)

    def linear(name, n, k, bias=True):
        out[name + ".weight"] = (n, k)
        if bias:
            out[name + ".bias"] = (n,)

    def blocks(tower, t):
        w = t["hidden_size"]
        for i in range(t["num_hidden_layers"]):
            p = f"{tower}.encoder.layers.{i}."
            for x in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear(p + "self_attn." + x, w, w)
            norm(p + "layer_norm1", w)
            norm(p + "layer_norm2", w)
            linear(p + "mlp.fc1", t["intermediate_size"], w)
            linear(p + "mlp.fc2", w, t["intermediate_size"])

    v, t = c["vision_config"], c["text_config"]
    vw, tw, p = v["hidden_size"], t["hidden_size"], v["patch_size"]
    tokens = (v["image_size"] // p) ** 2
    out["logit_scale"] = (1,) if siglip_like else ()
    if siglip_like:
        out["logit_bias"] = (1,)
    out["text_model.embeddings.token_embedding.weight"] = (t["vocab_size"], tw)
    out["text_model.embeddings.position_embedding.weight"] = (t["max_position_embeddings"], tw)
    blocks("text_model", t)
    norm("text_model.final_layer_norm", tw)
    out["vision_model.embeddings.patch_embedding.weight"] = (vw, 3, p, p)
    if siglip_like:
        linear("text_model.head", tw, tw)
        out["vision_model.embeddings.patch_embedding.bias"] = (vw,)
        out["vision_model.embeddings.position_embedding.weight"] = (tokens, vw)
        h = "vision_model.head."
        out[h + "probe"] = (1, 1, vw)
        out[h + "attention.in_proj_weight"], out[h + "attention.in_proj_bias"] = (3 * vw, vw), (3 * vw,)
        linear(h + "attention.out_proj", vw, vw)
        norm(h + "layernorm", vw)
        linear(h + "mlp.fc1", v["intermediate_size"], vw)
        linear(h + "mlp.fc2", vw, v["intermediate_size"])
    else:
        out["vision_model.embeddings.class_embedding"] = (vw,)
        out["vision_model.embeddings.position_embedding.weight"] = (tokens + 1, vw)
        norm("vision_model.pre_layrnorm", vw)
        linear("visual_projection", c["projection_dim"], vw, False)
        linear("text_projection", c["projection_dim"], tw, False)
    blocks("vision_model", v)
    norm("vision_model.post_layernorm", vw)
    return out


def write_safetensors(path, tensors, dtype, rng):
    header, offset = {}, 0
    for name, shape in tensors.items():
        n = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": {2: "F16", 4: "F32"}[dtype.itemsize], "shape": list(shape), "data_offsets": [offset, offset + n]}
        offset += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors.items():
            if re.search(r"norm|\bln_|\bbn\d|downsample\.1|running_", name):
                x = np.full(shape, 1.0 if name.endswith(("weight", "_var")) else 0.0, np.float32)
            elif name.startswith("logit_"):
                x = np.full(shape, 4.6052 if name.endswith("scale") else -10.0, np.float32)
            else:  # convolutions before a batch norm keep the size of what comes in, as trained ones do
                deviation = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) == 4 and name.startswith("visual.") else 0.02
                x = rng.standard_normal(shape, np.float32) * np.float32(deviation)
            f.write(np.asarray(x, dtype).tobytes())
            if sys.stderr.isatty():
                print(f"\r{f.tell() / 1e6:.0f} of {offset / 1e6:.0f} MB", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)


MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write_open_clip_config(folder, c):
    model = {k: x for k, x in c.items() if k != "model_type"}
    with open(os.path.join(folder, "open_clip_config.json"), "w") as f:
        json.dump({"model_cfg": model, "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}},
                  f, indent=1)


def write_config(folder, c):
    size = c["vision_config"]["image_size"]
    is_clip = c["model_type"] == "clip"
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(c, f, indent=1)
    with open(os.path.join(folder, "preprocessor_config.json"), "w") as f:
        common = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3}
        json.dump({**common, "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": size}, "do_center_crop": True,
                   "crop_size": {"height": size, "width": size}, "image_mean": MEAN, "image_std": STD} if is_clip else
                  {**common, "image_processor_type": "SiglipImageProcessor", "size": {"height": size, "width": size},
                   "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, f, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=sorted(PRESETS))
    parser.add_argument("folder")
    parser.add_argument("--dtype", choices=("f32", "f16"), default="f32")
    parser.add_argument("--layers", type=int, help="of both towers, fewer than the model has: a small file of its shapes")
    args = parser.parse_args()
    c = PRESETS[args.preset]
    os.makedirs(args.folder, exist_ok=True)
    if c["model_type"] == "open_clip":
        if args.layers:
            parser.error("--layers is for towers of blocks")
        write_open_clip_config(args.folder, c)
        weights, tensors = "open_clip_model.safetensors", resnet_shapes(c)
    else:
        for tower in ("vision_config", "text_config") if args.layers else ():
            c[tower]["num_hidden_layers"] = args.layers
        write_config(args.folder, c)
        weights, tensors = "model.safetensors", shapes(c)
    write_safetensors(os.path.join(args.folder, weights), tensors, np.dtype({"f16": "f2", "f32": "f4"}[args.dtype]), np.random.default_rng(0))


if __name__ == "__main__":
    main()
