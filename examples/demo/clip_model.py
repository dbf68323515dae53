"""CLIP in plain PyTorch for the demo: model, byte-pair tokenizer and its training, preprocessing.

The model has the parameter names, shapes and arithmetic of OpenAI's CLIP with a Vision Transformer (Radford et al.,
"Learning Transferable Visual Models From Natural Language Supervision", 2021): heads of 64 channels, quick GELU
x * sigmoid(1.702 x), LayerNorm with eps 1e-5, causal text mask, text pooled at the end token.
"""

import collections
import gzip
import re

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

# ----------------------------------------------------------------------------------------------------- model


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width ** -0.5)

    def forward(self, x, causal, keep):
        """x [B, T, C]; gives the attention output of the first `keep` tokens."""
        b, t, c = x.shape
        weight, bias = self.in_proj_weight.split([c, 2 * c]), self.in_proj_bias.split([c, 2 * c])
        q = F.linear(x[:, :keep], weight[0], bias[0]).view(b, keep, c // 64, 64).transpose(1, 2)
        k, v = F.linear(x, weight[1], bias[1]).view(b, t, 2, c // 64, 64).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / 8  # the square root of the head width
        if causal:
            scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -torch.inf)
        y = scores.softmax(-1) @ v
        return self.out_proj(y.transpose(1, 2).reshape(b, keep, c))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.c_proj(F.silu(1.702 * self.c_fc(x)) / 1.702)  # quick GELU


class Block(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width)
        self.ln_2, self.mlp = nn.LayerNorm(width), Mlp(width)
        nn.init.normal_(self.attn.out_proj.weight, std=(2 * layers * width) ** -0.5)
        nn.init.normal_(self.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.mlp.c_proj.weight, std=(2 * layers * width) ** -0.5)
        for bias in (self.attn.out_proj.bias, self.mlp.c_fc.bias, self.mlp.c_proj.bias):
            nn.init.zeros_(bias)

    def forward(self, x, causal, keep):
        x = x[:, :keep] + self.attn(self.ln_1(x), causal, keep)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, layers) for _ in range(layers))

    def forward(self, x, causal=False, pooled=None):
        """x [B, T, C]; the last block computes only the first `pooled` tokens (None: all), which saves its work."""
        for block in self.resblocks[:-1]:
            x = block(x, causal, x.shape[1])
        return self.resblocks[-1](x, causal, pooled or x.shape[1])


class VisionTransformer(nn.Module):
    def __init__(self, resolution, patch, width, layers, embed_dim):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(width ** -0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width ** -0.5 * torch.randn((resolution // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(width ** -0.5 * torch.randn(width, embed_dim))

    def forward(self, x):  # x [B, 3, R, R] normalised
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], 1)
        x = self.transformer(self.ln_pre(x + self.positional_embedding), pooled=1)
        return self.ln_post(x[:, 0]) @ self.proj


class Clip(nn.Module):
    def __init__(self, vocabulary, resolution=64, patch=8, vision_width=128, vision_layers=3,
                 context=32, text_width=128, text_layers=3, embed_dim=64):
        super().__init__()
        self.visual = VisionTransformer(resolution, patch, vision_width, vision_layers, embed_dim)
        self.transformer = Transformer(text_width, text_layers)
        self.token_embedding = nn.Embedding(vocabulary, text_width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context, text_width))
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(text_width ** -0.5 * torch.randn(text_width, embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    @classmethod
    def from_state_dict(cls, state):
        """A model of the sizes that a state dict's shapes tell, in f32, with its weights."""
        grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
        width, _, patch, _ = state["visual.conv1.weight"].shape

        def layers(prefix):
            return 1 + max(int(k[len(prefix):].split(".")[0]) for k in state if k.startswith(prefix))

        model = cls(state["token_embedding.weight"].shape[0], grid * patch, patch, width,
                    layers("visual.transformer.resblocks."), state["positional_embedding"].shape[0],
                    state["ln_final.weight"].shape[0], layers("transformer.resblocks."),
                    state["text_projection"].shape[1])
        model.load_state_dict({k: v.float() for k, v in state.items()})
        return model.eval()

    def checkpoint(self):
        """The state dict as OpenAI stores it: matrices of linear and convolution layers in f16, the rest in f32."""
        half = ("conv1.weight", "in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias", "c_fc.weight",
                "c_fc.bias", "c_proj.weight", "c_proj.bias", "visual.proj", "text_projection")
        return {k: v.detach().half() if k.endswith(half) else v.detach().clone() for k, v in self.state_dict().items()}

    def encode_image(self, pixels):
        """pixels [B, 3, R, R], normalised; embeddings [B, E], not normalised."""
        return self.visual(pixels)

    def encode_text(self, ids):
        """ids [B, T] padded with 0; embeddings [B, E], not normalised. The end token has the greatest id."""
        last = ids.argmax(-1)
        ids = ids[:, :int(last.max()) + 1]  # causal: what follows the end token has no effect
        x = self.token_embedding(ids) + self.positional_embedding[:ids.shape[1]]
        x = self.ln_final(self.transformer(x, causal=True))
        return x[torch.arange(len(x)), last] @ self.text_projection


# ------------------------------------------------------------------------------------------------- tokenizer

# Splits as CLIP does, for text whose letters and digits Python's re knows (no \p classes there).
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")


def byte_symbols():
    """The printable character that stands for each of the 256 bytes, in the order of CLIP's vocabulary."""
    plain = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    table = {b: chr(b) for b in plain}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(plain))
    return table


def words_of(text):
    return WORDS.findall(" ".join(text.split()).lower())


def train_merges(texts, limit):
    """Byte-pair merges (Sennrich et al. 2016) of the texts' words, most frequent first, ties in alphabetic order."""
    symbol = byte_symbols()
    counts = collections.Counter(w for t in texts for w in words_of(t))
    parts = {w: [symbol[b] for b in w.encode()] for w in counts}
    for p in parts.values():
        p[-1] += "</w>"
    merges = []
    while len(merges) < limit:
        pairs = collections.Counter()
        for word, p in parts.items():
            for pair in zip(p, p[1:]):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for p in parts.values():
            join(p, best)
    return merges


def join(parts, pair):
    """Joins every occurrence of the pair in a list of symbols, in place."""
    i = 0
    while i + 1 < len(parts):
        if (parts[i], parts[i + 1]) == pair:
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        i += 1


def save_merges(path, merges):
    """Writes the file format of CLIP's bpe_simple_vocab_16e6.txt.gz; the same merges give the same bytes."""
    lines = ['"ocellus demo - version 1"'] + [" ".join(m) for m in merges]
    with open(path, "wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        packed.write(("\n".join(lines) + "\n").encode())


class Tokenizer:
    def __init__(self, path):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            self.merges = [tuple(line.split()) for line in file.read().splitlines()[1:]]
        self.symbol = byte_symbols()
        base = list(self.symbol.values())
        names = base + [s + "</w>" for s in base] + ["".join(m) for m in self.merges]
        self.ids = {name: i for i, name in enumerate(names)}
        self.start, self.end = len(names), len(names) + 1
        self.size = len(names) + 2
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.cache = {}

    def word(self, word):
        if word not in self.cache:
            parts = [self.symbol[b] for b in word.encode()]
            parts[-1] += "</w>"
            while len(parts) > 1:
                best = min(zip(parts, parts[1:]), key=lambda pair: self.rank.get(pair, len(self.rank)))
                if best not in self.rank:
                    break
                join(parts, best)
            self.cache[word] = [self.ids[p] for p in parts]
        return self.cache[word]

    def __call__(self, texts, context):
        """int64 ids [N, context]: start, tokens, end, zeros; cut so that the end token stays."""
        out = np.zeros((len(texts), context), np.int64)
        for row, text in zip(out, texts):
            ids = [self.start] + [i for w in words_of(text) for i in self.word(w)]
            ids = ids[:context - 1] + [self.end]
            row[:len(ids)] = ids
        return torch.from_numpy(out)


# --------------------------------------------------------------------------------------------- preprocessing

def to_square(image, side):
    """Shortest side to `side` by Pillow's bicubic, then the centre: a PIL RGB image side x side."""
    w, h = image.size
    short = min(w, h)
    if short != side:
        w, h = (side, int(side * h / w)) if w <= h else (int(side * w / h), side)
        image = image.convert("RGB").resize((w, h), Image.BICUBIC)
    left, top = round((w - side) / 2), round((h - side) / 2)
    return image.convert("RGB").crop((left, top, left + side, top + side))


def normalise(pixels):
    """uint8 [B, R, R, 3] to float32 [B, 3, R, R] with CLIP's mean and standard deviation."""
    x = torch.as_tensor(np.asarray(pixels)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
