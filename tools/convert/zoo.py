#!/usr/bin/env python3
"""Converts every model configuration of open_clip, with random weights and few layers, and compares the embeddings with
open_clip's. Prints the table of ZOO.md.

  python3 tools/convert/zoo.py build > tools/convert/ZOO.md       # all of them
  python3 tools/convert/zoo.py build ViT-H-14 EVA02               # those whose names contain one of these

Needs open_clip_torch with its dependencies. Reduced are the number of layers (vision 2, text 1; ResNets one block per
stage) and the vocabulary; widths, heads, image sizes, norms, activations, masks and pooling are the configuration's own.
"""
import copy
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import open_clip
import timm
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file

VOCABULARY = 512
CONFIGS = pathlib.Path(open_clip.__file__).parent / "model_configs"


def reduced(config):
    config = copy.deepcopy(config)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" not in vision:
        vision["layers"] = [1, 1, 1, 1] if isinstance(vision.get("layers"), list) else 2
    text.update(layers=1, vocab_size=VOCABULARY)
    if text.get("pool_type") == "eos":
        text["eos_id"] = VOCABULARY - 1
    return config


def shallow(create=timm.create_model):
    """timm.create_model with two blocks."""
    return lambda name, **kwargs: create(name, **{**kwargs, "depth": 2})


def randomise(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("logit_scale"):
                p.fill_(2.0)
            elif p.ndim < 2:
                p.copy_(1 + 0.1 * noise if re.search(r"(norm\w*|ln_\w+|bn\d|downsample\.1)\.weight$", name) else 0.1 * noise)
            else:
                p.copy_(noise / max(p[0].numel(), 1) ** 0.5)
        for name, b in model.named_buffers():
            if name.endswith("running_var"):
                b.copy_(0.5 + torch.rand(b.shape, generator=generator))
            elif name.endswith("running_mean"):
                b.copy_(0.1 * torch.randn(b.shape, generator=generator))


def last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


def cosine(a, b):
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def check(name, build, folder):
    """The smallest cosine to the reference, or why the converter refuses."""
    config = reduced(json.loads((CONFIGS / f"{name}.json").read_text()))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    weights, packed = folder / "open_clip_model.safetensors", folder / "model.oc"
    convert = [str(build / "ocellus-convert"), str(weights), "-o", str(packed), "-q"]
    # A configuration that is refused needs no weights to be refused.
    save_file({"visual.none": torch.zeros(1)}, weights)
    refusal = last_line(subprocess.run(convert, capture_output=True, text=True).stderr)
    if "is missing" not in refusal:
        return None, re.sub(r"^ocellus-convert: open_clip_model.safetensors: (open_clip_config.json: )?(model_cfg\.)?", "", refusal)

    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    model = kind(config.pop("embed_dim"), **config).eval()
    randomise(model)
    state = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
    save_file(state, weights)
    done = subprocess.run(convert, capture_output=True, text=True)
    if done.returncode:
        return None, last_line(done.stderr)
    size = config["vision_cfg"]["image_size"]
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    ids = torch.randint(1, VOCABULARY - 1, (2, config["text_cfg"].get("context_length", 77)),
                        generator=torch.Generator().manual_seed(3))
    ids[0, 5] = ids[1, -1] = VOCABULARY - 1
    ids[0, 6:] = 0
    with torch.no_grad():
        expected = {"--pixels": (pixels, model.encode_image(pixels)), "--ids": (ids, model.encode_text(ids))}
    worst = 1.0
    for flag, (given, reference) in expected.items():
        np.save(folder / "in.npy", given.numpy())
        ran = subprocess.run([str(build / "ocellus"), "embed", str(packed), flag, str(folder / "in.npy"), "--raw",
                              "-o", str(folder / "out.npy")], capture_output=True, text=True)
        if ran.returncode:
            return None, last_line(ran.stderr)
        worst = min(worst, cosine(np.load(folder / "out.npy"), reference.numpy()))
    return worst, ""


def main():
    build, wanted = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    timm.create_model = shallow()
    names = sorted(p.stem for p in CONFIGS.glob("*.json"))
    print("# open_clip's configurations\n")
    print(f"Made by `tools/convert/zoo.py` with open_clip {open_clip.__version__} and timm {timm.__version__}: random weights, "
          "few layers; the cosine is the\nsmallest of image and text embeddings to open_clip's, in f32.\n")
    print("| configuration | | cosine or reason |\n|---|---|---|")
    works = 0
    for name in names:
        if wanted and not any(w in name for w in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                worst, reason = check(name, build, pathlib.Path(folder))
            except Exception as error:  # the reference could not be built
                worst, reason = None, f"reference: {last_line(str(error))}"
        works += worst is not None and worst >= 0.99999
        state = "refused" if worst is None else "works" if worst >= 0.99999 else "wrong"
        print(f"| {name} | {state} | {reason if worst is None else f'{worst:.7f}'} |", flush=True)
    print(f"\n{works} work.")


if __name__ == "__main__":
    main()
