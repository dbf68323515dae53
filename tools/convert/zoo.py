#!/usr/bin/env python3
"""Converts every model configuration of open_clip, with random weights and few layers, and compares the embeddings with
open_clip's. Prints the table of ZOO.md.

  python3 tools/convert/zoo.py build > tools/convert/ZOO.md       # all of them
  python3 tools/convert/zoo.py build ViT-H-14 EVA02               # those whose names contain one of these
  python3 tools/convert/zoo.py build --shard 0/2                  # every second one; join the tables' lines

Needs open_clip_torch with its dependencies. Reduced are the number of layers (vision 2, text 1; ResNets one block per
stage) and the vocabulary; widths, heads, image sizes, norms, activations, masks and pooling are the configuration's own.
TinyCLIP's configurations are not open_clip's, but its models are: they are built by open_clip from the sizes below, and the
pruned ones ("auto") with blocks of different widths.
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
HERE = pathlib.Path(__file__).parent


def tinyclip(embed, vision, text, pruned=False):
    """Sizes of a TinyCLIP [Wu 2023]: (width, layers, patch or 0 for a ResNet), (width, layers)."""
    config = {"embed_dim": embed,
              "vision_cfg": {"image_size": 224, "width": vision[0], "layers": vision[1], "patch_size": vision[2] or None},
              "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": text[0], "heads": text[0] // 64,
                           "layers": text[1]}}
    if pruned:
        config["mask_image"] = config["mask_text"] = True
    return config


RESNET = [3, 4, 6, 3]
TINYCLIP = {
    "TinyCLIP-ViT-8M-16-Text-3M": tinyclip(512, (256, 10, 16), (256, 3)),
    "TinyCLIP-ViT-39M-16-Text-19M": tinyclip(512, (512, 12, 16), (512, 6)),
    "TinyCLIP-ViT-40M-32-Text-19M": tinyclip(512, (512, 12, 32), (512, 6)),
    "TinyCLIP-ViT-61M-32-Text-29M": tinyclip(512, (640, 12, 32), (512, 9)),
    "TinyCLIP-ResNet-19M-Text-19M": tinyclip(1024, (44, RESNET, 0), (512, 6)),
    "TinyCLIP-ResNet-30M-Text-29M": tinyclip(1024, (56, RESNET, 0), (512, 9)),
    "TinyCLIP-auto-ViT-22M-32-Text-10M": tinyclip(512, (768, 12, 32), (512, 12), pruned=True),
    "TinyCLIP-auto-ViT-45M-32-Text-18M": tinyclip(512, (768, 12, 32), (512, 12), pruned=True),
    "TinyCLIP-auto-ViT-63M-32-Text-31M": tinyclip(512, (768, 12, 32), (512, 12), pruned=True),
}


def config_of(name):
    return copy.deepcopy(TINYCLIP[name]) if name in TINYCLIP else json.loads((CONFIGS / f"{name}.json").read_text())


def prune(model, config):
    """What TinyCLIP's pruning may leave: fewer heads and hidden values in each block, no attention, no MLP."""
    sys.path.insert(0, str(HERE.parent.parent / "tests/goldens/towers"))
    from make_goldens import PrunedBlock
    for blocks, width in ((model.visual.transformer.resblocks, config["vision_cfg"]["width"]),
                          (model.transformer.resblocks, config["text_cfg"]["width"])):
        for i in range(len(blocks)):
            heads, hidden = [(5, 1000), (0, 3 * width + 7), (width // 64, 0), (3, 2 * width)][i % 4]
            blocks[i] = PrunedBlock(width, heads, hidden, 64)


def tinyclip_name(key):
    return ("_image_encoder." + key if key.startswith("visual.") else
            "_logit_scale.logit_scale" if key == "logit_scale" else "_text_encoder." + key)


def reduced(config):
    config = copy.deepcopy(config)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" not in vision:
        vision["layers"] = [1, 1, 1, 1] if isinstance(vision.get("layers"), list) else 2
    pruned = config.get("mask_image", False)
    if pruned:
        vision["layers"] = 4
    text.update(layers=3 if pruned else 1, vocab_size=VOCABULARY)
    if text.get("pool_type") == "eos":
        text["eos_id"] = VOCABULARY - 1
    return config


def shallow(create=timm.create_model):
    """timm.create_model with two blocks, of a FastViT one or two in each stage."""
    def few(name):
        if name.startswith("fastvit"):
            return {"layers": (1, 2, 1, 2, 1) if name in ("fastvit_mci3", "fastvit_mci4") else (1, 2, 1, 2)}
        return {"depth": 2}
    return lambda name, **kwargs: create(name, **{**kwargs, **few(name)})


def randomise(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("logit_scale"):
                p.fill_(2.0)
            elif name.endswith(".gamma") and p.ndim == 3:  # a FastViT's LayerScale: with 1 its maps grow from block to block
                p.copy_(0.1 + 0.05 * noise)
            elif p.ndim < 2:
                p.copy_(1 + 0.1 * noise if re.search(r"(norm\w*|ln_\w+|bn\d?|identity|downsample\.1)\.weight$", name) else 0.1 * noise)
            else:
                p.copy_(noise / max(p[0].numel(), 1) ** 0.5)
        for name, b in model.named_buffers():
            if name.endswith("running_var"):
                b.copy_(0.5 + torch.rand(b.shape, generator=generator))
            elif name.endswith("running_mean"):
                b.copy_(0.1 * torch.randn(b.shape, generator=generator))


def last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


def reason_of(message):
    return re.sub(r"^ocellus-convert: (open_clip_model.safetensors: )?(open_clip_config.json: )?(model_cfg\.)?", "",
                  last_line(message)).replace("|", "\\|")


def cosine(a, b):
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def check(name, build, folder):
    """The smallest cosines to the reference in f32 and in f16, or why the converter refuses."""
    config = reduced(config_of(name))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    weights, packed = folder / "open_clip_model.safetensors", folder / "model.oc"
    convert = [str(build / "ocellus-convert"), str(weights), "-o", str(packed), "-q"]
    # A configuration that is refused needs no weights to be refused.
    save_file({"visual.none": torch.zeros(1)}, weights)
    refusal = last_line(subprocess.run(convert, capture_output=True, text=True).stderr)
    if "is missing" not in refusal:
        return None, reason_of(refusal)

    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    pruned = config.pop("mask_image", False) and config.pop("mask_text")
    if pruned:  # the width is pruned alike in all layers
        config["vision_cfg"]["width"] -= 64
        config["text_cfg"].update(width=config["text_cfg"]["width"] - 64, heads=config["text_cfg"]["heads"] - 1)
    model = kind(config.pop("embed_dim"), **config).eval()
    if pruned:
        prune(model, config)
    randomise(model)
    rename = tinyclip_name if pruned else lambda key: key
    save_file({rename(k): v.contiguous().clone() for k, v in model.state_dict().items()}, weights)
    size = config["vision_cfg"]["image_size"]
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    ids = torch.randint(1, VOCABULARY - 1, (2, config["text_cfg"].get("context_length", 77)),
                        generator=torch.Generator().manual_seed(3))
    ids[0, 5] = ids[1, -1] = VOCABULARY - 1
    ids[0, 6:] = 0
    with torch.no_grad():
        expected = {"--pixels": (pixels, model.encode_image(pixels)), "--ids": (ids, model.encode_text(ids))}
    worst = []
    for dtype in ("f32", "f16"):
        worst.append(1.0)
        done = subprocess.run([*convert, "--dtype", dtype], capture_output=True, text=True)
        if done.returncode:
            return None, reason_of(done.stderr)
        for flag, (given, reference) in expected.items():
            np.save(folder / "in.npy", given.numpy())
            ran = subprocess.run([str(build / "ocellus"), "embed", str(packed), flag, str(folder / "in.npy"), "--raw",
                                  "-o", str(folder / "out.npy")], capture_output=True, text=True)
            if ran.returncode:
                return None, last_line(ran.stderr)
            worst[-1] = min(worst[-1], cosine(np.load(folder / "out.npy"), reference.numpy()))
    return worst, ""


def main():
    build, wanted = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    shard, shards = 0, 1
    if wanted[:1] == ["--shard"]:
        shard, shards = map(int, wanted[1].split("/"))
        wanted = wanted[2:]
    timm.create_model = shallow()
    tags = {}
    for name, tag in open_clip.list_pretrained():
        tags.setdefault(name, []).append(tag)
    names = sorted([p.stem for p in CONFIGS.glob("*.json")] + list(TINYCLIP))
    names = [n for n in names if not wanted or any(w in n for w in wanted)][shard::shards]
    print("# open_clip's configurations\n")
    print(f"Made by `tools/convert/zoo.py` with open_clip {open_clip.__version__} and timm {timm.__version__}: random weights, "
          "few layers; the cosines are the\nsmallest of image and text embeddings to open_clip's. A configuration works if "
          "they are at least 0.99999 in f32 and 0.9999\nin f16. The weights named are those that open_clip lists for it; they "
          "themselves were not tried here. \"Auto\" TinyCLIPs are\npruned: each block has its own number of heads and hidden "
          "values.\n")
    print("| configuration | | cosine f32, f16, or reason | published weights |\n|---|---|---|---|")
    works = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                worst, reason = check(name, build, pathlib.Path(folder))
            except Exception as error:  # the reference could not be built
                worst, reason = None, f"reference: {last_line(str(error))}"
        good = worst is not None and worst[0] >= 0.99999 and worst[1] >= 0.9999
        works += good
        state = "refused" if worst is None else "works" if good else "wrong"
        what = reason if worst is None else f"{worst[0]:.7f}, {worst[1]:.6f}"
        print(f"| {name} | {state} | {what} | {', '.join(tags.get(name, ['TinyCLIP'] if name in TINYCLIP else []))} |", flush=True)
    print(f"\n{works} of {len(names)} work.")


if __name__ == "__main__":
    main()
