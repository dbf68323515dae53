#!/usr/bin/env python3
"""Small checkpoints with random weights of towers that no other golden has, and what their references make of a picture
(and of texts): rotary positions with inner norms (eva02), post-norm blocks (eva02-e), rotary positions with an attention
pool (pe-core), a convolutional stem (mci), layers of different widths (tinyclip).

  python3 tests/goldens/towers/make_goldens.py        # timm 1.0, open_clip 3.3

Weights are rounded to f16, in which they are stored, before the reference runs.
"""
import json
import pathlib
from functools import partial

import numpy as np
import open_clip
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem, HybridEmbed

HERE = pathlib.Path(__file__).parent
WIDTH, SIDE = 32, 32


def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            gain = p.ndim == 1 and name.endswith("weight")
            p.copy_((1 + 0.2 * noise if gain else 0.2 * noise if p.ndim < 2 else noise / p[0].numel() ** 0.5).half().float())
            if name.endswith("logit_scale"):
                p.fill_(2.0)
        for name, b in model.named_buffers():
            if name.endswith("running_var"):
                b.copy_((0.5 + torch.rand(b.shape, generator=g)).half().float())
            elif name.endswith("running_mean"):
                b.copy_((0.2 * torch.randn(b.shape, generator=g)).half().float())
    return model.eval()


def write(name, model, config, config_name, rename=lambda key: key):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    state = {rename(k): v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / config_name).write_text(json.dumps(config, indent=1) + "\n")
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    np.save(folder / "pixel_values.npy", pixels.numpy())
    with torch.no_grad():
        if hasattr(model, "encode_image"):
            ids = torch.tensor([[30, 4, 9, 31, 0, 0], [30, 7, 31, 0, 0, 0]])
            np.save(folder / "image_embeds.npy", model.encode_image(pixels).numpy())
            np.save(folder / "input_ids.npy", ids.numpy())
            np.save(folder / "text_embeds.npy", model.encode_text(ids).numpy())
        else:
            np.save(folder / "image_embeds.npy", model(pixels).numpy())


def timm_case(name, architecture, model, heads):
    write(name, model, {"architecture": architecture, "model_args": {"num_heads": heads, "img_size": SIDE},
                        "pretrained_cfg": {"input_size": [3, SIDE, SIDE]}}, "config.json")


class Attention(torch.nn.Module):
    """Attention of any number of heads of `d` values, whatever the width is."""

    def __init__(self, width, heads, d):
        super().__init__()
        self.heads, self.d = heads, d
        self.in_proj_weight = torch.nn.Parameter(torch.empty(3 * d * heads, width))
        self.in_proj_bias = torch.nn.Parameter(torch.empty(3 * d * heads))
        self.out_proj = torch.nn.Linear(d * heads, width)

    def forward(self, x, mask):
        n, t, _ = x.shape
        qkv = torch.nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(n, t, 3, self.heads, self.d).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(y.transpose(1, 2).reshape(n, t, -1))


class PrunedBlock(torch.nn.Module):
    """A block as TinyCLIP's pruning leaves it [Wu 2023]: some heads and hidden values, or no attention, or no MLP."""

    def __init__(self, width, heads, hidden, d=16):
        super().__init__()
        if heads:
            self.ln_1 = torch.nn.LayerNorm(width)
            self.attn = Attention(width, heads, d)
        if hidden:
            self.ln_2 = torch.nn.LayerNorm(width)
            self.mlp = torch.nn.ModuleDict({"c_fc": torch.nn.Linear(width, hidden), "c_proj": torch.nn.Linear(hidden, width)})

    def get_weight_dtype(self):
        return torch.float32

    def forward(self, x, attn_mask=None, **_):
        if hasattr(self, "attn"):
            x = x + self.attn(self.ln_1(x), attn_mask)
        if hasattr(self, "mlp"):
            x = x + self.mlp["c_proj"](torch.nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return x


def tinyclip():
    config = {"embed_dim": 24,
              "vision_cfg": {"image_size": SIDE, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
              "text_cfg": {"context_length": 6, "vocab_size": 32, "width": 32, "heads": 2, "layers": 3}}
    model = open_clip.model.CLIP(**config)
    blocks = model.visual.transformer.resblocks
    for i, (heads, hidden) in enumerate([(1, 40), (0, 24), (3, 0), (2, 17)]):
        blocks[i] = PrunedBlock(32, heads, hidden)
    for i, (heads, hidden) in enumerate([(2, 8), (0, 30), (1, 24)]):
        model.transformer.resblocks[i] = PrunedBlock(32, heads, hidden)
    # As published: the widths before pruning in the configuration, the towers apart in the names.
    config["vision_cfg"]["width"], config["text_cfg"]["width"], config["text_cfg"]["heads"] = 64, 48, 3
    config["mask_image"] = config["mask_text"] = True
    rename = lambda k: ("_image_encoder.module." + k if k.startswith("visual.") else
                        "_logit_scale.logit_scale" if k == "logit_scale" else "_text_encoder.module." + k)
    write("tinyclip", randomise(model, 5), config, "open_clip_config.json", rename)


def main():
    small = dict(pretrained=False, num_classes=0, img_size=SIDE, patch_size=8, embed_dim=WIDTH, depth=2, num_heads=2)
    for seed, (name, architecture) in enumerate([("eva02", "eva02_base_patch16_clip_224"),
                                                 ("eva02-e", "eva02_enormous_patch14_clip_224"),
                                                 ("pe-core", "vit_pe_core_base_patch16_224")]):
        more = {"mlp_ratio": 2.0} if name == "eva02-e" else {}
        timm_case(name, architecture, randomise(timm.create_model(architecture, **small, **more), seed), 2)
    stem = ConvStem(channels=(16, 16, WIDTH), stride=(4, 2, 2), kernel_size=(4, 2, 2), padding=0, act_layer=torch.nn.GELU)
    mci = VisionTransformer(img_size=SIDE, patch_size=1, embed_dim=WIDTH, depth=2, num_heads=2, num_classes=0,
                            no_embed_class=True, embed_layer=partial(HybridEmbed, backbone=stem, proj=False))
    timm_case("mci", "vit_base_mci_224", randomise(mci, 4), 2)
    tinyclip()


if __name__ == "__main__":
    main()
