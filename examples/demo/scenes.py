#!/usr/bin/env python3
"""Renders scenes of simple shapes and says in plain English what is on them.

A scene holds one group of equal objects ("three red stars") or two single objects in a relation ("a red star
above a blue ring"). Everything is drawn from a seed: the same seed gives the same pictures and captions.
Captions mention a random part of what is true, so that one caption fits many scenes; `agreement` tells which
caption of a batch is true of which scene, which the contrastive loss needs.

Some colour and shape pairs (HELD_OUT) are never drawn nor named in training, to measure zero-shot answers.

    python3 scenes.py --out DIR [--count 12] [--seed 1] [--size 256]    look at some scenes
    python3 scenes.py --out pictures --named                            the pictures of the demo
"""

import argparse
import colorsys
import dataclasses
import math
import os

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ["circle", "square", "triangle", "star", "heart", "cross", "ring", "moon"]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]
TEXTURES = ["plain", "striped", "dotted"]
SIZES = ["small", "medium", "large"]  # medium is never named
BACKGROUNDS = ["white", "grey", "black", "beige", "wood", "grass", "sand", "sky", "other"]  # other is never named
RELATIONS = ["left", "above"]

# Each shape and each colour keeps at least six partners in training.
HELD_OUT = frozenset({
    ("red", "circle"), ("orange", "triangle"), ("yellow", "heart"), ("green", "star"),
    ("blue", "square"), ("purple", "ring"), ("black", "moon"), ("white", "cross"),
    ("red", "ring"), ("yellow", "square"), ("green", "cross"), ("blue", "heart"),
})

SYNONYMS = {"circle": ["disc"], "square": ["box"], "cross": ["plus sign"], "moon": ["crescent"],
            "ring": ["hoop"], "star": [], "triangle": [], "heart": []}
NUMBERS = {2: ["two", "2"], 3: ["three", "3"], 4: ["four", "4"]}

# Hue in degrees, saturation, value: the range that people would still call by the name.
HSV = {
    "red": ((-8, 5), (0.75, 1.0), (0.65, 1.0)), "orange": ((22, 34), (0.85, 1.0), (0.9, 1.0)),
    "yellow": ((49, 58), (0.75, 1.0), (0.88, 1.0)), "green": ((100, 145), (0.6, 1.0), (0.4, 0.85)),
    "blue": ((208, 238), (0.7, 1.0), (0.55, 1.0)), "purple": ((268, 295), (0.55, 1.0), (0.5, 0.9)),
    "black": ((0, 360), (0.0, 0.2), (0.0, 0.13)), "white": ((0, 360), (0.0, 0.04), (0.92, 1.0)),
}


@dataclasses.dataclass
class Group:
    """Equal objects: indices into COLOURS, SHAPES, TEXTURES, SIZES, and how many. In a caption -1 is unsaid."""
    colour: int
    shape: int
    texture: int
    size: int
    count: int


@dataclasses.dataclass
class Scene:
    """One or two groups. With two, the first is left of or above the second, as `relation` says."""
    groups: list
    relation: int  # index into RELATIONS, -1 with one group (or unsaid in a caption)
    background: int  # index into BACKGROUNDS (-1 unsaid)


# ---------------------------------------------------------------------------------------------- what to draw

def allowed_pairs(held_out):
    """The (colour, shape) index pairs of training (held_out False) or those kept out of it (True)."""
    return [(c, s) for c, colour in enumerate(COLOURS) for s, shape in enumerate(SHAPES)
            if ((colour, shape) in HELD_OUT) == held_out]


TRAINING_PAIRS = allowed_pairs(False)


def sample_group(rng, pairs, single):
    colour, shape = pairs[rng.integers(len(pairs))]
    texture = rng.choice(3, p=[0.5, 0.25, 0.25])
    count = 1 + rng.choice(4, p=[0.55, 0.15, 0.15, 0.15]) if single else 1
    size = 1
    if single and count == 1:
        size = rng.choice(3, p=[0.25, 0.4, 0.35])
        if size == 0:
            texture = 0  # no texture survives on ten pixels
    return Group(int(colour), int(shape), int(texture), int(size), int(count))


def sample_scene(rng, pairs=None, two=0.3):
    """A random scene whose objects have the given colour and shape pairs; `two` is the share with two groups."""
    pairs = pairs or TRAINING_PAIRS
    if rng.random() >= two:
        groups, relation = [sample_group(rng, pairs, True)], -1
    else:
        first = second = sample_group(rng, pairs, False)
        while (first.colour, first.shape) == (second.colour, second.shape):
            second = sample_group(rng, pairs, False)
        groups, relation = [first, second], int(rng.integers(2))
    return Scene(groups, relation, int(rng.integers(len(BACKGROUNDS))))


# ----------------------------------------------------------------------------------------------- how to draw

def arc(radius, cx=0.0, cy=0.0, n=56):
    t = np.linspace(0, 2 * math.pi, n, endpoint=False)
    return np.stack([cx + radius * np.cos(t), cy + radius * np.sin(t)], 1)


def spikes(n, inner):
    t = -math.pi / 2 + np.arange(2 * n) * math.pi / n
    r = np.where(np.arange(2 * n) % 2 == 0, 1.0, inner)
    return np.stack([r * np.cos(t), r * np.sin(t)], 1)


def heart():
    t = np.linspace(0, 2 * math.pi, 56, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2.5], 1) / 15.5


def outline(shape, rng):
    """Outer polygon, the polygon cut out of it (or None), and the largest tilt in degrees, in unit radius."""
    if shape == "circle":
        return arc(0.92), None, 180
    if shape == "square":
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.82, None, 16
    if shape == "triangle":
        return np.array([[0, -0.98], [0.98, 0.76], [-0.98, 0.76]]), None, 20
    if shape == "star":
        return spikes(5, rng.uniform(0.4, 0.5)) * 1.08, None, 36
    if shape == "heart":
        return heart(), None, 20
    if shape == "cross":
        w = rng.uniform(0.28, 0.36)
        return np.array([[-w, -1], [w, -1], [w, -w], [1, -w], [1, w], [w, w], [w, 1], [-w, 1], [-w, w],
                         [-1, w], [-1, -w], [-w, -w]]) * 0.95, None, 16
    if shape == "ring":
        return arc(0.98), arc(rng.uniform(0.48, 0.6)), 180
    return arc(1.0), arc(0.82, 0.46 * rng.choice([-1, 1]), rng.uniform(-0.15, 0.15)), 25  # moon


def colour_of(name, rng):
    (h0, h1), (s0, s1), (v0, v1) = HSV[name]
    rgb = colorsys.hsv_to_rgb(rng.uniform(h0, h1) % 360 / 360, rng.uniform(s0, s1), rng.uniform(v0, v1))
    return np.array(rgb, np.float32) * 255


def second_colour(name, base, rng):
    """The colour of stripes and dots on `base`: clearly different, never another named colour's hue."""
    if name == "white":
        return np.full(3, rng.uniform(110, 165), np.float32)
    if name == "black":
        return np.full(3, rng.uniform(120, 175), np.float32)
    light = base + (255 - base) * rng.uniform(0.7, 0.95)
    dark = base * rng.uniform(0.15, 0.35)
    return light if name != "yellow" and rng.random() < 0.6 else dark


def smooth_noise(rng, size, cells):
    """Noise in [0, 1] of about `cells` blobs across, [size, size]."""
    grid = (rng.random((cells, cells)) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.BICUBIC), np.float32) / 255


def background_pixels(kind, size, rng):
    """RGB [size, size, 3], float32 in 0..255."""
    plain = {"white": (238, 238, 238), "grey": (135, 135, 135), "black": (22, 22, 24), "beige": (222, 205, 175)}
    if kind in plain:
        base = np.array(plain[kind]) + rng.uniform(-14, 14) + rng.uniform(-4, 4, 3)
        slope = rng.uniform(-12, 12) * np.linspace(-1, 1, size)
        return base + (slope[:, None] if rng.random() < 0.5 else slope[None])[..., None] + np.zeros((size, size, 1))
    if kind == "wood":
        base = np.array([150, 105, 65]) * rng.uniform(0.8, 1.15)
        grain = np.sin((np.linspace(0, rng.uniform(14, 26), size)[:, None] + 2.5 * smooth_noise(rng, size, 4)) * 2)
        return base + 14 * grain[..., None] + 10 * (smooth_noise(rng, size, 24)[..., None] - 0.5)
    if kind == "grass":
        base = np.array([95, 135, 70]) * rng.uniform(0.8, 1.15)
        return base + np.array([50, 60, 35]) * (smooth_noise(rng, size, 40)[..., None] - 0.5)
    if kind == "sand":
        base = np.array([205, 180, 130]) * rng.uniform(0.88, 1.1)
        return base + 35 * (smooth_noise(rng, size, 48)[..., None] - 0.5)
    if kind == "sky":
        top, low = np.array([105, 165, 225.0]), np.array([185, 215, 240.0])
        t = np.linspace(0, 1, size)[:, None, None] ** rng.uniform(0.6, 1.5)
        cloud = np.clip(smooth_noise(rng, size, 5) - 0.55, 0, 1)[..., None] * 1.4
        blue = top + (low - top) * t + np.zeros((size, size, 3))
        return blue + (245 - blue) * cloud
    one, two = rng.uniform(20, 235, 3), rng.uniform(20, 235, 3)
    two = one + (two - one) * rng.uniform(0, 0.6)
    return one + (two - one) * smooth_noise(rng, size, int(rng.integers(2, 9)))[..., None]


def paint(canvas, name, shape, texture, cx, cy, radius, rng):
    """Draws one object onto the float canvas [S, S, 3] in place; lengths are in pixels."""
    size, width = canvas.shape[:2]
    pad = int(radius * 1.5) + 2
    x0, y0 = max(0, int(cx) - pad), max(0, int(cy) - pad)
    x1, y1 = min(width, int(cx) + pad), min(size, int(cy) + pad)
    outer, inner, tilt = outline(shape, rng)
    angle = math.radians(rng.uniform(-tilt, tilt))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turn = turn @ np.diag(rng.uniform(0.93, 1.07, 2)) * radius
    at = np.array([cx - x0, cy - y0])
    mask = Image.new("L", (x1 - x0, y1 - y0))
    draw = ImageDraw.Draw(mask)
    draw.polygon([tuple(p) for p in outer @ turn + at], fill=255)
    if inner is not None:
        draw.polygon([tuple(p) for p in inner @ turn + at], fill=0)
    alpha = np.asarray(mask, np.float32)[..., None] / 255

    base = colour_of(name, rng)
    fill = base
    if texture != "plain":
        period = max(size * 5.5 / 64, radius * rng.uniform(0.42, 0.6))
        theta = rng.uniform(0, math.pi)
        x, y = np.arange(x0, x1, dtype=np.float32) / period, np.arange(y0, y1, dtype=np.float32)[:, None] / period
        cosine, sine = math.cos(theta), math.sin(theta)
        u = x * cosine + y * sine + rng.random(dtype=np.float32)
        v = y * cosine - x * sine + rng.random(dtype=np.float32)
        if texture == "striped":
            on = np.abs(u - np.floor(u) - 0.5) < rng.uniform(0.19, 0.24)
        else:
            on = (u - np.floor(u) - 0.5) ** 2 + (v - np.floor(v) - 0.5) ** 2 < rng.uniform(0.27, 0.34) ** 2
        fill = np.where(on[..., None], second_colour(name, base, rng), base).astype(np.float32)
    canvas[y0:y1, x0:x1] += alpha * (fill - canvas[y0:y1, x0:x1])


def place(scene, rng):
    """Centre and radius of each object in units of the picture's side: [(group, x, y, r), ...]."""
    if len(scene.groups) == 2:
        r = rng.uniform(0.16, 0.215, 2)
        gap = rng.uniform(0.24, 0.27)
        drift = rng.uniform(-0.13, 0.13, 2)
        if scene.relation == 0:
            spots = [(0.5 - gap, 0.5 + drift[0]), (0.5 + gap, 0.5 + drift[1])]
        else:
            spots = [(0.5 + drift[0], 0.5 - gap), (0.5 + drift[1], 0.5 + gap)]
        return [(g, x, y, q) for g, (x, y), q in zip(scene.groups, spots, r)]
    group = scene.groups[0]
    if group.count == 1:
        low, high = [(0.12, 0.165), (0.21, 0.28), (0.335, 0.42)][group.size]
        r = rng.uniform(low, high)
        free = max(0.0, 0.47 - r)
        if group.size != 0:
            free = min(free, 0.2)
        return [(group, *(0.5 + rng.uniform(-free, free, 2)), r)]
    r = rng.uniform(0.15, 0.19)
    cells = [(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)]
    if group.count == 2:
        pairs = [(0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2)]
        chosen = [cells[i] for i in pairs[rng.integers(6)]]
    elif group.count == 3 and rng.random() < 0.3:
        r = rng.uniform(0.13, 0.15)
        line = [0.18, 0.5, 0.82]
        chosen = [(x, 0.5) for x in line] if rng.random() < 0.5 else [(0.5, y) for y in line]
    else:
        chosen = [cells[i] for i in rng.permutation(4)[:group.count]]
    return [(group, *(np.array(c) + rng.uniform(-0.045, 0.045, 2)), r * rng.uniform(0.95, 1.05)) for c in chosen]


def render(scene, size, rng, scale=2, aspect=1.0):
    """The scene as a PIL RGB image `size` pixels high, drawn `scale` times as large and averaged down.

    The objects lie in the middle square of a picture `aspect` (>= 1) times as wide as high. Draws another background
    (and writes it into the scene) until the objects stand out from it.
    """
    side = size * scale
    wide = round(size * aspect) * scale
    colours = [colour_of(COLOURS[g.colour], np.random.default_rng(0)) for g in scene.groups]
    for _ in range(50):
        canvas = np.asarray(background_pixels(BACKGROUNDS[scene.background], wide, rng), np.float32)[:side].copy()
        mean = canvas[::4, ::4].mean((0, 1))
        if min(np.linalg.norm(mean - c) for c in colours) > 95:
            break
        scene.background = int(rng.integers(len(BACKGROUNDS)))
    for group, x, y, r in place(scene, rng):
        paint(canvas, COLOURS[group.colour], SHAPES[group.shape], TEXTURES[group.texture],
              x * side + (wide - side) / 2, y * side, r * side, rng)
    image = Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))
    return image.reduce(scale) if scale > 1 else image


# -------------------------------------------------------------------------------------------------- captions

WRAPPERS = ["{}"] * 5 + [
    "a photo of {}", "a photo of {}", "a photo of {}", "a picture of {}", "a picture of {}", "an image of {}",
    "a drawing of {}", "a photograph of {}", "a scene with {}", "there is {}", "this is {}", "i see {}",
    "a good photo of {}", "a bad photo of {}", "a blurry photo of {}", "a camera picture of {}", "it shows {}",
]
PLACES = {
    "white": ["on a white background", "on white"], "grey": ["on a grey background", "on grey"],
    "black": ["on a black background", "in the dark"], "beige": ["on a beige background", "on beige"],
    "wood": ["on wood", "on a wooden table"], "grass": ["on grass", "on the grass"],
    "sand": ["on sand", "on the sand"], "sky": ["in the sky", "in front of the sky"],
}


def with_article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def describe(group, rng):
    """A noun phrase for a group, and a Group of what it says (-1 where it says nothing)."""
    said = Group(-1, -1, -1, -1, group.count)
    noun = ["shape", "object", "thing"][rng.integers(3)]
    if rng.random() < 0.93:
        said.shape = group.shape
        noun = SHAPES[group.shape]
        if SYNONYMS[noun] and rng.random() < 0.08:
            noun = SYNONYMS[noun][0]
    if rng.random() < (0.93 if said.shape >= 0 else 1.0):
        said.colour = group.colour
    if rng.random() < (0.6 if group.texture else 0.15):
        said.texture = group.texture
    if group.count == 1 and group.size != 1 and rng.random() < 0.4:
        said.size = group.size

    texture = TEXTURES[group.texture]
    colour = COLOURS[group.colour]
    plural = "s" if group.count > 1 else ""
    if plural and noun.endswith(("box", "cross")):
        plural = "es"
    before, after = [], ""
    if said.size >= 0:
        before.append([["small", "little", "tiny"], [], ["large", "big", "huge"]][said.size][rng.integers(3)])
    adjectives = [colour] if said.colour >= 0 else []
    if said.texture >= 0:
        if group.texture and rng.random() < 0.25:
            after = " with " + {"striped": "stripes", "dotted": "dots"}[texture]
        else:
            adjectives.insert(0 if rng.random() < 0.5 else len(adjectives), texture)
    if adjectives and said.size < 0 and not after and rng.random() < 0.06:
        after = (" that are " if group.count > 1 else " that is ") + " and ".join(adjectives)
        adjectives = []
    words = " ".join(before + adjectives + [noun + plural]) + after
    if group.count == 1:
        return ("a " + words if rng.random() < 0.15 else with_article(words)), said  # prompts say "a photo of a {}"
    number = NUMBERS[group.count][0 if rng.random() < 0.85 else 1]
    return f"{number} {words}" if rng.random() < 0.9 else f"a group of {number} {words}", said


def caption(scene, rng):
    """A caption that is true of the scene, and a Scene of what it says (-1 where it says nothing)."""
    told = Scene([], -1, -1)
    phrases = []
    for group in scene.groups:
        words, said = describe(group, rng)
        phrases.append(words)
        told.groups.append(said)
    text = phrases[0]
    if len(phrases) == 2:
        a, b = phrases
        if rng.random() < 0.3:
            if rng.random() < 0.5:
                a, b = b, a
            text = [f"{a} and {b}", f"{a} next to {b}"][0 if scene.relation == 1 else rng.integers(2)]
        else:
            told.relation = scene.relation
            text = [[f"{a} to the left of {b}", f"{a} left of {b}", f"{b} to the right of {a}", f"{b} right of {a}"],
                    [f"{a} above {b}", f"{a} over {b}", f"{b} below {a}", f"{b} under {a}"]][scene.relation][
                rng.integers(4)]
    name = BACKGROUNDS[scene.background]
    if name in PLACES and rng.random() < 0.25:
        told.background = scene.background
        text += " " + PLACES[name][rng.integers(2)]
    text = WRAPPERS[rng.integers(len(WRAPPERS))].format(text)
    if rng.random() < 0.4:
        text += "."
    return text, told


# ---------------------------------------------------------------------------- which caption fits which scene

def encode(scene):
    """A scene, or what a caption says, as 12 integers: two groups of five, relation, background."""
    row = []
    for k in range(2):
        g = scene.groups[k] if k < len(scene.groups) else Group(-2, -2, -2, -2, -2)  # -2: there is none
        row += [g.colour, g.shape, g.texture, g.size, g.count]
    return row + [scene.relation, scene.background]


def agreement(scenes, captions):
    """Which caption is true of which scene.

    scenes [N, 12] and captions [M, 12] are rows of `encode`; gives int8 [N, M]: 1 true, 0 false, -1 partly true
    (the caption names one of the scene's two objects), which is neither to be learned nor to be held against.
    """
    s, c = scenes[:, None, :], captions[None, :, :]

    def fits(a, b):
        want, have = c[..., 5 * b:5 * b + 5], s[..., 5 * a:5 * a + 5]
        return ((want == -1) | (want == have)).all(-1)

    place_fits = (c[..., 11] == -1) | (c[..., 11] == s[..., 11])
    same = fits(0, 0) & fits(1, 1) & ((c[..., 10] == -1) | (c[..., 10] == s[..., 10]))
    swapped = fits(1, 0) & fits(0, 1) & (c[..., 10] == -1)
    two_scene, two_caption = s[..., 5] != -2, c[..., 5] != -2
    true = np.where(two_caption, two_scene & (same | swapped), ~two_scene & fits(0, 0)) & place_fits
    partly = ~two_caption & two_scene & (fits(0, 0) | fits(1, 0)) & place_fits
    return np.where(true, 1, np.where(partly, -1, 0)).astype(np.int8)


def make(seed, index, pairs=None, size=None, two=0.3):
    """Scene `index` of stream `seed`: (picture, scene, rng), where rng goes on to draw captions."""
    rng = np.random.default_rng([seed, index])
    scene = sample_scene(rng, pairs, two)
    if size:
        return render(scene, size, rng), scene, rng
    size = int(rng.integers(68, 220))
    return render(scene, size, rng, 2 if size < 120 else 1), scene, rng


def only(colour, shape, texture="plain", size="medium", count=1):
    return Group(COLOURS.index(colour), SHAPES.index(shape), TEXTURES.index(texture), SIZES.index(size), count)


# The demo's pictures: groups, relation, background, height in pixels, width / height.
NAMED = {
    "red-striped-circle": ([only("red", "circle", "striped", "large")], "", "grey", 320, 1.0),  # held-out pair
    "blue-heart": ([only("blue", "heart", "plain", "medium")], "", "sand", 240, 4 / 3),  # held-out pair
    "orange-dotted-triangle": ([only("orange", "triangle", "dotted", "large")], "", "black", 300, 1.0),  # held out
    "purple-ring": ([only("purple", "ring", "plain", "large")], "", "grass", 256, 1.25),  # held-out pair
    "green-dotted-square": ([only("green", "square", "dotted", "large")], "", "white", 300, 1.0),
    "small-white-moon": ([only("white", "moon", "plain", "small")], "", "wood", 256, 1.0),
    "three-yellow-stars": ([only("yellow", "star", count=3)], "", "black", 320, 1.5),
    "red-heart-left-of-blue-star": ([only("red", "heart"), only("blue", "star")], "left", "beige", 300, 1.0),
    "black-cross-above-white-circle": ([only("black", "cross"), only("white", "circle")], "above", "sand", 360, 1.0),
}


def named_picture(index):
    """(name, picture) of the demo's picture `index`."""
    name, (groups, relation, background, height, aspect) = list(NAMED.items())[index]
    scene = Scene(groups, RELATIONS.index(relation) if relation else -1, BACKGROUNDS.index(background))
    return name, render(scene, height, np.random.default_rng([7, index]), 2, aspect)


def main():
    parser = argparse.ArgumentParser(description="render some scenes with their captions")
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--named", action="store_true", help="render the demo's own pictures")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    if args.named:
        for i in range(len(NAMED)):
            name, picture = named_picture(i)
            picture.save(os.path.join(args.out, name + ".png"), optimize=True)
        return
    for i in range(args.count):
        picture, scene, rng = make(args.seed, i, size=args.size)
        picture.save(os.path.join(args.out, f"{i:04}.png"))
        print(f"{i:04}.png  {caption(scene, rng)[0]}")


if __name__ == "__main__":
    main()
