#!/usr/bin/env python3
"""Models that cannot be are refused when a program is compiled, and the first line that the compiler prints as an error
says why in one sentence: a wrong model for each static_assert with a sentence in models/compose.hpp and
models/static_model.hpp, and right ones that compile. So are ways to compile that the library cannot work in.

Usage: refused.py [COMPILER...]      (nothing given: c++)
"""
import concurrent.futures
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADERS = ["include/ocellus/models/compose.hpp", "include/ocellus/models/static_model.hpp"]

START = """
#include <ocellus/generic/scalar.hpp>
#include <ocellus/micro.hpp>
#include <ocellus/models/compose.hpp>
using namespace ocellus;
using namespace ocellus::compose;
using kernel_set = pinned<kernels::scalar>;
using patches = patch_embed<64, 8, 128>;
constexpr vit eye = vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64);
constexpr text_transformer reader = text_transformer{}.vocab(772).context(32).width(128).layers(3).heads(2);
template <auto Change>
constexpr model_config changed = [] { model_config m = clip_model(eye, reader); Change(m); return m; }();
"""


def layers(code):
    return f"constexpr int n = {code}::in;"


def image(config, weights="dtype::s8"):
    return f"constexpr model_config m = {config};\nvision_tower<m, kernel_set, {weights}> t;"


def text(config, weights="dtype::s8"):
    return f"constexpr model_config m = {config};\ntext_tower<m, kernel_set, {weights}> t;"


def set_to(change):
    return f"changed<[](model_config& m) {{ {change}; }}>"


RIGHT = [
    layers("residual<layer_norm<128>, attention<128, 2>>"),
    "tower<seq<patches, repeat<2, residual<linear<128, 128>>>, attention_pool<128, 4>>, kernel_set> t;",
    image("eye"), text("clip_model(eye, reader)"),
]
WRONG = [  # sentence, model
    ("a layer's width is a positive number", layers("linear<0, 128>")),
    ("attention's width is no multiple of its number of heads", layers("attention<128, 3>")),
    ("attention_pool's width is no multiple of its number of heads", layers("attention_pool<128, 3>")),
    ("class_attention's width is no multiple of 16", layers("class_attention<24, 3>")),
    ("patch_embed: the picture is smaller than a patch", layers("patch_embed<16, 32, 128>")),
    ("seq needs at least one layer", layers("seq<>")),
    ("seq: a layer's width differs from what the layer before it gives", layers("seq<patches, linear<64, 128>>")),
    ("residual: the layers inside do not return to the width they began with", layers("residual<linear<128, 64>>")),
    ("residual: the layers inside give other rows than those that they are added to", layers("residual<attention_pool<128, 2>>")),
    ("repeat: at least once", layers("repeat<0, linear<128, 128>>")),
    ("repeat: the layer does not return to the width it began with", layers("repeat<2, linear<128, 64>>")),
    ("repeat: the layer changes the number of rows", layers("repeat<2, first_token<128>>")),
    ("a tower begins with patch_embed", "tower<linear<128, 64>, kernel_set> t;"),
    ("weights are f32, f16, bf16 or s8", "tower<patches, kernel_set, static_cast<dtype>(9)> t;"),

    ("the image tower of a compile-time model is a ViT", image(set_to("m.vision.kind = vision_kind::resnet"))),
    ("the image is smaller than a patch", image("eye.image(4)")),
    ("the image tower has no width or no layers", image("eye.width(0)")),
    ("the image tower's width is no multiple of its number of heads", image("eye.heads(3)")),
    ("pooling by the class token needs a class token", image("eye.class_token(false)")),
    ("the image tower's width is no multiple of the MAP head's number of heads",
     image(set_to("m.vision.pool = pooling::map, m.vision.map_heads = 3, m.vision.map_mlp = 128"))),
    ("the position table has another grid than the image", image(set_to("m.vision.grid_h = 4"))),
    ("the embedding has no width", image("eye.embed(-1)")),
    ("the configuration makes no sense (models/config.hpp: valid)", image("eye.mlp(-1)")),
    ("a convolutional stem keeps f32 weights beside int8 ones: open the model at run time",
     image("eye.patch(16).with([](vision_config& v) { v.conv_stem = 1, v.stem_width = 16; })")),
    ("weights are f32, f16, bf16 or s8", image("eye", "static_cast<dtype>(9)")),

    ("the model has no text tower", text("eye")),
    ("the text tower has no width or no layers", text("clip_model(eye, reader.layers(0))")),
    ("the text tower's width is no multiple of its number of heads", text("clip_model(eye, reader.heads(3))")),
    ("the text tower has no vocabulary or no context", text("clip_model(eye, reader.vocab(0))")),
    ("the configuration makes no sense (models/config.hpp: valid)", text("clip_model(eye, reader.mlp(-1))")),
    ("weights are f32, f16, bf16 or s8", text("clip_model(eye, reader)", "static_cast<dtype>(9)")),
]
UNFIT = [  # sentence, flags of the compiler
    ("min and max are macros: define NOMINMAX before <windows.h>, or include ocellus first", ["-Dmin(a,b)=(a)"]),
]
if platform.machine() == "x86_64":
    UNFIT.append(("float arithmetic is wider than float (x87): build for 32-bit x86 with -msse2 -mfpmath=sse",
                  ["-m32", "-mno-sse"]))


def errors_of(compiler, code, *flags):
    """The compiler's lines with an error."""
    with tempfile.TemporaryDirectory() as folder:
        unit = pathlib.Path(folder) / "unit.cpp"
        unit.write_text(("#include <ocellus/config.hpp>" if flags else START + code) + "\n", encoding="ascii")
        done = subprocess.run(compiler.split() + ["-std=c++20", "-fsyntax-only", "-I", ROOT / "include", "-I", ROOT / "kernels",
                                                  *flags, unit], capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    return lines or (["failed without an error"] if done.returncode else [])


def sentences():
    """Each sentence of a static_assert in the headers, as often as it stands there."""
    found = []
    for header in HEADERS:
        code = re.sub(r"^\s*//.*", "", (ROOT / header).read_text(encoding="utf-8"), flags=re.M)
        found += re.findall(r'\bstatic_assert\([^;]*?"([^"]+)"\);', code)
    return sorted(found)


def main():
    wrong = []
    if sentences() != sorted(sentence for sentence, _ in WRONG):
        wrong.append("the sentences of static_asserts and those of this test differ: "
                     + "; ".join(sorted(set(sentences()) ^ {sentence for sentence, _ in WRONG})))
    jobs = [(compiler, sentence, code) for compiler in sys.argv[1:] or ["c++"]
            for sentence, code in [("", code) for code in RIGHT] + WRONG]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (compiler, sentence, code), lines in zip(jobs, pool.map(lambda job: errors_of(job[0], job[2]), jobs)):
            if not sentence and lines:
                wrong.append(f"{compiler} refuses a right model: {code}\n  {lines[0]}")
            if sentence and not (lines and lines[0].endswith(sentence) or lines and lines[0].endswith(f'"{sentence}"')):
                wrong.append(f"{compiler} does not say first \"{sentence}\": {code}\n  {lines[0] if lines else 'it compiles'}")
    for compiler in sys.argv[1:] or ["c++"]:
        for sentence, flags in UNFIT:
            lines = errors_of(compiler, "", *flags)
            if not (lines and sentence in lines[0]):
                wrong.append(f"{compiler} {' '.join(flags)} does not say first \"{sentence}\": {(lines or ['it compiles'])[0]}")
    print("\n".join(wrong) if wrong else f"{len(WRONG)} wrong models are refused, each in a sentence; {len(RIGHT)} right ones compile")
    sys.exit(bool(wrong))


main()
