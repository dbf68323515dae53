#!/usr/bin/env python3
"""Writes what PyTorch computes with the demo model: pictures and texts to stages, embeddings and scores.

    python3 make_goldens.py [--out DIR]        needs torch, numpy and Pillow

All values are computed in float32 from the weights of examples/demo/demo.pt (f16 ones widened). golden.json beside
the .npy files names each array and holds the checkpoint's SHA-256, so that a test can tell a stale golden.
"""

import argparse
import hashlib
import json
import os
import sys

import numpy as np
import torch
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.normpath(os.path.join(HERE, "..", "..", "..", "examples", "demo"))
sys.path.insert(0, DEMO)
import clip_model  # noqa: E402

PICTURES = ["purple-ring.png", "red-heart-left-of-blue-star.png"]
TEXTS = ["a photo of a purple ring.", "a photo of a red heart to the left of a blue star.", "Two  DOTTED yellow moons",
         "3 zebras, it's 50% \u00fcber!", "", "a picture of " + "many little striped orange circles and " * 5]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=HERE)
    args = parser.parse_args()
    checkpoint = os.path.join(DEMO, "demo.pt")
    model = clip_model.Clip.from_state_dict(torch.load(checkpoint, weights_only=True))
    tokenizer = clip_model.Tokenizer(os.path.join(DEMO, "bpe_demo.txt.gz"))
    side = model.visual.conv1.kernel_size[0] * round((len(model.visual.positional_embedding) - 1) ** 0.5)

    kept = {}

    def keep(name):
        def hook(module, inputs, output):
            kept[name] = output
        return hook

    last = len(model.visual.transformer.resblocks) - 1
    model.visual.ln_post.register_forward_hook(keep("vision.pooled"))
    model.visual.transformer.resblocks[last - 1].register_forward_hook(keep("vision.block_before_last"))
    model.ln_final.register_forward_hook(keep("text.final_ln"))
    pictures = [clip_model.to_square(Image.open(os.path.join(DEMO, "pictures", p)), side) for p in PICTURES]
    with torch.no_grad():
        pixels = clip_model.normalise(np.stack(pictures))
        ids = tokenizer(TEXTS, len(model.positional_embedding))
        images, texts = model.encode_image(pixels), model.encode_text(ids)
        scale = model.logit_scale.exp()
        images_norm, texts_norm = (x / x.norm(dim=-1, keepdim=True) for x in (images, texts))
        arrays = {
            "pixel_values": (pixels, "resized, cropped and normalised pictures, NCHW"),
            "vision.block_before_last": (kept["vision.block_before_last"], "residual stream before the last block, all tokens"),
            "vision.pooled": (kept["vision.pooled"], "class token after ln_post"),
            "image_embeds": (images, "projected, not normalised"),
            "input_ids": (ids, "start, tokens, end, zeros"),
            "text.pooled": (kept["text.final_ln"][torch.arange(len(ids)), ids.argmax(-1)], "end token after ln_final"),
            "text_embeds": (texts, "projected, not normalised"),
            "logits_per_image": (scale * images_norm @ texts_norm.T, "scale * cosine, [pictures, texts]"),
            "logit_scale": (scale.view(1), "scale as multiplied"),
        }
    with open(checkpoint, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    listing = []
    for name, (value, meaning) in arrays.items():
        value = np.ascontiguousarray(value.numpy())
        np.save(os.path.join(args.out, name + ".npy"), value)
        listing.append({"name": name, "file": name + ".npy", "dtype": str(value.dtype), "shape": list(value.shape),
                        "meaning": meaning})
    with open(os.path.join(args.out, "golden.json"), "w") as file:
        json.dump({"checkpoint": "examples/demo/demo.pt", "checkpoint_sha256": digest, "torch": torch.__version__,
                   "pictures": PICTURES, "texts": TEXTS, "arrays": listing}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
