#!/usr/bin/env python3
"""Trains the demo's CLIP on rendered scenes and measures it; needs torch, numpy and Pillow.

    python3 train.py --out DIR                     the real run: 38 minutes on a busy core, and rendering
    python3 train.py --out DIR --steps 60 --scenes 3000 --tests 300      a try

Writes into DIR: demo.pt (a state dict in OpenAI's layout), bpe_demo.txt.gz, results.json (with the command).
"""

import argparse
import io
import json
import math
import multiprocessing
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

import clip_model
import scenes as sc

RESOLUTION, CONTEXT, MERGES, CAPTIONS = 64, 32, 400, 6
TRAIN_SEED, TEST_SEED = 20261, 70001

# ------------------------------------------------------------------------------------------------------ data


def camera(image, rng):
    """Sometimes what cameras and files do to a picture: blur, JPEG's blocks."""
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.1) * image.width / RESOLUTION))
    if rng.random() < 0.3:
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=int(rng.integers(25, 95)))
        image = Image.open(packed)
    return image


def training_scene(index):
    """Pixels [64, 64, 3] uint8, what is there [12], captions, what they say [CAPTIONS, 12]."""
    image, scene, rng = sc.make(TRAIN_SEED, index)
    pixels = np.asarray(clip_model.to_square(camera(image, rng), RESOLUTION))
    texts, said = zip(*(sc.caption(scene, rng) for _ in range(CAPTIONS)))
    return pixels, sc.encode(scene), texts, [sc.encode(s) for s in said]


def training_set(count, workers, cache):
    """The first `count` scenes, from the file `cache` if it is there, else rendered (and written there)."""
    if cache and os.path.exists(cache):
        return torch.load(cache, weights_only=False)
    with multiprocessing.Pool(workers) as pool:
        pixels, truth, texts, said = zip(*pool.imap(training_scene, range(count), chunksize=64))
    data = torch.from_numpy(np.stack(pixels)), np.array(truth, np.int8), texts, np.array(said, np.int8)
    if cache:
        torch.save(data, cache)
    return data


def augment(pixels, generator):
    """uint8 [B, R, R, 3] to normalised float [B, 3, R, R], as a camera might have seen the same scene."""
    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    x = pixels.permute(0, 3, 1, 2).float() / 255
    b, half, r = len(x), len(x) // 2, RESOLUTION
    # Half of the batch is turned, scaled, sheared and shifted a little; the other half stays sharp.
    angle, scale = uniform(-0.2, 0.2, half), uniform(0.9, 1.12, half)
    theta = torch.stack([angle.cos() * scale, -angle.sin() + uniform(-0.08, 0.08, half), uniform(-0.1, 0.1, half),
                         angle.sin() + uniform(-0.08, 0.08, half), angle.cos() * scale, uniform(-0.1, 0.1, half)], 1)
    grid = F.affine_grid(theta.view(half, 2, 3), (half, 3, r, r), align_corners=False)
    x = torch.cat([F.grid_sample(x[:half], grid, padding_mode="border", align_corners=False), x[half:]])
    # Light: brightness, white balance, saturation, contrast, a slope across the picture, gain noise.
    x = x * uniform(0.75, 1.15, b, 1, 1, 1) * uniform(0.93, 1.07, b, 3, 1, 1)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(0.75, 1.15, b, 1, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * uniform(0.8, 1.15, b, 1, 1, 1)
    ramp = torch.linspace(-1, 1, r)
    x = x * (1 + uniform(-0.12, 0.12, b, 1, 1, 1) * ramp + uniform(-0.12, 0.12, b, 1, 1, 1) * ramp[:, None])
    noise = uniform(0, 0.06, b, 1, 1, 1) * (torch.rand(b, 1, 1, 1, generator=generator) < 0.6)
    x = x + noise * torch.randn(x.shape, generator=generator)
    return (x.clamp(0, 1) - torch.tensor(clip_model.MEAN).view(3, 1, 1)) / torch.tensor(clip_model.STD).view(3, 1, 1)


# -------------------------------------------------------------------------------------------------- training

def contrastive_loss(logits, agreement):
    """Symmetric cross-entropy with several positives: each positive against the negatives of its row or column.

    logits [N, M] images x texts; agreement [N, M]: 1 true, 0 false, -1 left out. With one positive a row this is
    CLIP's loss.
    """
    true = (agreement == 1).float()
    loss = 0.0
    for dim in (1, 0):
        negatives = logits.masked_fill(agreement != 0, -1e4).logsumexp(dim, keepdim=True)
        loss = loss + (F.softplus(negatives - logits) * true).sum(dim).div(true.sum(dim).clamp(min=1)).mean() / 2
    return loss


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def optimizers_of(model):
    """Muon for the matrices of the blocks, AdamW for all else; no decay on vectors and embeddings."""
    groups = {"matrices": [], "projections": [], "others": []}
    for name, p in model.named_parameters():
        kind = "others" if p.ndim < 2 or "embedding" in name else "matrices" if "resblocks" in name else "projections"
        groups[kind].append(p)
    return [torch.optim.Muon(groups["matrices"], weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW([{"params": groups["projections"], "weight_decay": 0.1},
                               {"params": groups["others"], "weight_decay": 0.0}], betas=(0.9, 0.98))]


def train(model, data, ids, args):
    """Trains in place, to the average of the weights over the last steps; gives the steps done and the seconds."""
    pixels, truth, _, said = data
    generator = torch.Generator().manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    optimizers = optimizers_of(model)
    parameters = list(model.parameters())
    average, averaged = [torch.zeros_like(p) for p in parameters], 0
    lengths = ids.argmax(-1).numpy()
    simple = np.flatnonzero((truth[:, 4] == 1) & (truth[:, 5] == -2))  # a single object
    start, step, order = time.time(), 0, np.empty(0, int)
    warmup = min(150, args.steps // 5)
    while True:
        # The schedule is by steps; on a busy machine the clock shortens it, so that the rate still falls to zero.
        progress = max(step / args.steps, (time.time() - start) / (60 * args.minutes))
        if progress >= 1:
            break
        rate = args.rate * min(1, (step + 1) / warmup, 1.6 * (1 - progress))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        if len(order) < args.batch:
            order = rng.permutation(simple if progress < 0.25 else len(pixels))  # single objects first
        rows, order = order[:args.batch], order[args.batch:]
        which = np.stack([rng.permutation(CAPTIONS)[:2] for _ in rows])  # two captions a picture
        two, which = np.repeat(rows, 2), which.ravel()
        by_length = np.argsort(lengths[two, which], kind="stable")  # parts of like length waste little on padding
        two, which = two[by_length], which[by_length]
        agreement = torch.from_numpy(sc.agreement(truth[rows], said[two, which]))
        with torch.autocast("cpu", torch.bfloat16):
            images = model.encode_image(augment(pixels[rows], generator))
            texts = torch.cat([model.encode_text(part) for part in ids[two, which].chunk(4)])
        logits = model.logit_scale.exp() * unit(images.float()) @ unit(texts.float()).T
        loss = contrastive_loss(logits, agreement)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
            if progress > 0.9:
                averaged += 1
                torch._foreach_lerp_(average, parameters, 1 / averaged)
        step += 1
        if step % 50 == 0:
            print(f"step {step}  loss {loss.item():.4f}  scale {model.logit_scale.exp().item():.1f}  "
                  f"rate {rate:.2e}  {time.time() - start:.0f} s", flush=True)
        if step % 300 == 0:
            print("  ", quick_look(model, args), flush=True)
    for p, a in zip(parameters, average):
        p.data.copy_(a)
    return step, time.time() - start


# --------------------------------------------------------------------------------------------------- testing

def test_pictures(count, pairs, seed, keep=lambda scene: True, two=0.0):
    """Pixels [N, 64, 64, 3] and scenes that `keep` accepts; other seeds than the training's."""
    pixels, kept, index = [], [], 0
    while len(kept) < count:
        image, scene, _ = sc.make(seed, index, pairs, two=two)
        index += 1
        if keep(scene):
            pixels.append(np.asarray(clip_model.to_square(image, RESOLUTION)))
            kept.append(scene)
    return torch.from_numpy(np.stack(pixels)), kept


@torch.no_grad()
def embed_images(model, x):
    return torch.cat([unit(model.encode_image(part)) for part in x.split(256)])


@torch.no_grad()
def embed_texts(model, tokenizer, texts):
    return unit(model.encode_text(tokenizer(texts, CONTEXT)))


def colour_shape_labels(template="a photo of {}."):
    return [template.format(sc.with_article(f"{c} {s}")) for c in sc.COLOURS for s in sc.SHAPES]


def single(scene):
    return len(scene.groups) == 1 and scene.groups[0].count == 1


def percent(hits):
    return round(100 * float(np.mean(hits)), 2)


def quick_look(model, args):
    tokenizer = clip_model.Tokenizer(os.path.join(args.out, "bpe_demo.txt.gz"))
    labels = embed_texts(model, tokenizer, colour_shape_labels())
    out = {}
    for name, held_out in (("seen", False), ("held_out", True)):
        pixels, kept = test_pictures(256, sc.allowed_pairs(held_out), TEST_SEED + 90, single)
        best = (embed_images(model, clip_model.normalise(pixels)) @ labels.T).argmax(1).numpy()
        out[name] = percent(best == [8 * s.groups[0].colour + s.groups[0].shape for s in kept])
    return out


def choose(model, tokenizer, images, candidates):
    """The share of pictures whose first candidate text (the true one) scores best among its own candidates."""
    flat = sorted({t for row in candidates for t in row})
    texts = dict(zip(flat, embed_texts(model, tokenizer, flat)))
    return percent([int((torch.stack([texts[t] for t in row]) @ image).argmax()) == 0
                    for image, row in zip(images, candidates)])


def phrase(group, texture=None, count=None):
    count = count or group.count
    noun = sc.SHAPES[group.shape] + ("" if count == 1 else "es" if sc.SHAPES[group.shape] == "cross" else "s")
    words = " ".join(([texture] if texture else []) + [sc.COLOURS[group.colour], noun])
    return sc.with_article(words) if count == 1 else f"{sc.NUMBERS[count][0]} {words}"


def measure(model, tokenizer, count):
    """Zero-shot accuracy in percent, with seen and held-out pairs of colour and shape, one prompt a label."""
    result = {}
    labels = embed_texts(model, tokenizer, colour_shape_labels())
    for name, held_out in (("seen", False), ("held_out", True)):
        pairs, seed = sc.allowed_pairs(held_out), TEST_SEED + held_out
        figures = {"pictures": count}
        pixels, kept = test_pictures(count, pairs, seed, single)
        truth = np.array([8 * s.groups[0].colour + s.groups[0].shape for s in kept])
        clean = embed_images(model, clip_model.normalise(pixels))
        best = (clean @ labels.T).argmax(1).numpy()
        figures["colour_x_shape_64"] = percent(best == truth)
        figures["colour_8"] = percent(best // 8 == truth // 8)
        figures["shape_8"] = percent(best % 8 == truth % 8)
        worst = {f"{sc.COLOURS[c]} {sc.SHAPES[s]}": percent(best[truth == 8 * c + s] == 8 * c + s) for c, s in pairs}
        figures["worst_pairs"] = dict(sorted(worst.items(), key=lambda kv: kv[1])[:3])
        for size in range(3):
            at = np.array([s.groups[0].size == size for s in kept])
            figures[f"colour_x_shape_64_{sc.SIZES[size]}"] = percent(best[at] == truth[at])
        disturbed = augment(pixels, torch.Generator().manual_seed(1))
        best = (embed_images(model, disturbed) @ labels.T).argmax(1).numpy()
        figures["colour_x_shape_64_disturbed"] = percent(best == truth)

        textured = [i for i, s in enumerate(kept) if s.groups[0].size > 0]
        texts = []
        for i in textured:
            g = kept[i].groups[0]
            true = sc.TEXTURES[g.texture]
            texts.append([f"a photo of {phrase(g, t)}." for t in [true] + [t for t in sc.TEXTURES if t != true]])
        figures["texture_3"] = choose(model, tokenizer, clean[textured], texts)

        part = max(1, count // 2)
        pixels, kept = test_pictures(part, pairs, seed + 10, lambda s: s.groups[0].size == 1)
        texts = [[f"a photo of {phrase(s.groups[0], count=n)}." for n in
                  [s.groups[0].count] + [n for n in range(1, 5) if n != s.groups[0].count]] for s in kept]
        figures["count_4"] = choose(model, tokenizer, embed_images(model, clip_model.normalise(pixels)), texts)

        pixels, kept = test_pictures(part, pairs, seed + 20, two=1.0)
        texts = []
        for s in kept:
            a, b = phrase(s.groups[0]), phrase(s.groups[1])
            left, above = [f"{a} to the left of {b}", f"{b} to the left of {a}"], [f"{a} above {b}", f"{b} above {a}"]
            texts.append([f"a photo of {t}." for t in (left + above if s.relation == 0 else above + left)])
        figures["relation_4"] = choose(model, tokenizer, embed_images(model, clip_model.normalise(pixels)), texts)
        result[name] = figures
    return result


# ------------------------------------------------------------------------------------------------------ main

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for demo.pt, bpe_demo.txt.gz, results.json")
    parser.add_argument("--scenes", type=int, default=60000, help="rendered training scenes")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--minutes", type=float, default=45, help="end the training within this time at the latest")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--tests", type=int, default=1000, help="test pictures for each figure")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    parser.add_argument("--cache", help="keep the rendered scenes in this file, for further runs")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    start = time.time()
    data = training_set(args.scenes, args.workers, args.cache)
    rendering = time.time() - start
    print(f"{args.scenes} scenes ready in {rendering:.0f} s", flush=True)
    vocabulary = os.path.join(args.out, "bpe_demo.txt.gz")
    clip_model.save_merges(vocabulary, clip_model.train_merges([t for row in data[2] for t in row], MERGES))
    tokenizer = clip_model.Tokenizer(vocabulary)
    ids = tokenizer([t for row in data[2] for t in row], CONTEXT).view(args.scenes, CAPTIONS, CONTEXT)
    model = clip_model.Clip(tokenizer.size, RESOLUTION, context=CONTEXT)
    count = {"image_tower": sum(p.numel() for p in model.visual.parameters()),
             "all": sum(p.numel() for p in model.parameters())}
    print(f"vocabulary {tokenizer.size}, parameters {count}", flush=True)

    steps, seconds = train(model, data, ids, args)
    torch.save(model.checkpoint(), os.path.join(args.out, "demo.pt"))
    model = clip_model.Clip.from_state_dict(torch.load(os.path.join(args.out, "demo.pt"), weights_only=True))
    result = {
        "command": "python3 " + " ".join([os.path.basename(sys.argv[0])] + sys.argv[1:]),
        "torch": torch.__version__, "threads": args.threads, "parameters": count, "vocabulary": tokenizer.size,
        "scenes": args.scenes, "steps": steps, "batch": args.batch,
        "render_seconds": round(rendering), "train_seconds": round(seconds),
        "zero_shot_percent": measure(model, tokenizer, args.tests),
    }
    with open(os.path.join(args.out, "results.json"), "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
