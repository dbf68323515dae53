#!/usr/bin/env python3
"""Results of bench/peers/peers.py as Markdown tables (stdout) and a plot.

  python3 bench/report.py bench/results/*.json [--svg bench/results/plot.svg] [--model clip-vit-b32] > tables.md

Ratios are best against best of the same interleaved run; "CV" marks cells whose calls scattered by more than 5 %."""
import argparse
import html
import json
import sys

NAMES = {"ocellus": "ocellus", "ort": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT", "torch": "PyTorch", "ncnn": "ncnn",
         "mnn": "MNN", "pillow": "Pillow", "tokenizers": "tokenizers"}
VARIANTS = {"dynamic": "int8 dynamic", "static": "int8 static", "s8": "int8", "int8": "int8"}
# What each dtype of ocellus has to beat: the peers of these kinds.
RIVALS = {"f32": {"f32"}, "f16": {"f32", "f16", "bf16"}, "bf16": {"f32", "f16", "bf16"}, "s8": {"s8"}}


def kind(peer):
    variant = peer.split("_")[1]
    return {"dynamic": "s8", "static": "s8", "int8": "s8"}.get(variant, variant)


def title(peer):
    runtime, variant = peer.split("_")
    return f"{NAMES[runtime]} {VARIANTS.get(variant, variant)}"


def gmac(c, tower):
    """10^9 multiply-adds of one item as the other runtimes compute it: all tokens, the whole of the last block. c: config.json."""
    v, t = c["vision_config"], c["text_config"]
    siglip = c["model_type"] == "siglip"

    def blocks(tokens, s):
        w, f = s["hidden_size"], s["intermediate_size"]
        return s["num_hidden_layers"] * (tokens * (4 * w * w + 2 * w * f) + 2 * tokens * tokens * w)
    if tower == "text":
        w = t["hidden_size"]
        return (blocks(t["max_position_embeddings"], t) + w * (w if siglip else c["projection_dim"])) / 1e9
    if "resnet_layers" in v:
        w, pixels = v["resnet_width"], (v["image_size"] // 2) ** 2
        macs, k = pixels * 9 * (3 * (w // 2) + (w // 2) ** 2 + w * (w // 2)), w
        pixels //= 4
        for stage, count in enumerate(v["resnet_layers"]):
            n = w << stage
            for b in range(count):
                macs += pixels * (k * n + 9 * n * n)
                pixels //= 4 if stage and not b else 1
                macs += pixels * (4 * n * n + (0 if b else 4 * n * k))
                k = 4 * n
        return (macs + (pixels + 1) * 2 * k * k + k * k + k * c["projection_dim"]) / 1e9
    w, patches = v["hidden_size"], (v["image_size"] // v["patch_size"]) ** 2
    embed = patches * 3 * v["patch_size"] ** 2 * w
    head = (2 * patches * w * w + 2 * w * w + 2 * w * v["intermediate_size"]) if siglip else w * c["projection_dim"]
    return (blocks(patches + (0 if siglip else 1), v) + embed + head) / 1e9


def peak(results, threads, dtype):
    """The best rate of this machine's units for the dtype, GMAC/s; where it has none, of what multiplies it instead."""
    units = next((p["gmac_s"] for p in results["peak"] if p["threads"] == threads), {})
    best = {}
    for u in units.values():
        best[u["type"]] = max(best.get(u["type"], 0), u["best"])
    return best.get(dtype) or (best.get("s16") if dtype == "s8" else 0) or best.get("f32") or 0


def inputs(cells, out):
    """What comes before the towers: a picture or a text on one thread."""
    print("\n### Before the towers, 1 thread: ms per picture or text, best (median)\n\n| | | ms | MB/s of the files | bytes |\n"
          "|---|---|--:|--:|---|", file=out)
    for c in cells:
        name = NAMES[c["peer"].split("_")[0]]
        print(f"| {c['what']} | {name} | {c['min_ms']:.3g} ({c['median_ms']:.3g}) | {c.get('mb_s', '-')} | "
              f"{'the same' if c['same'] else 'others'} |", file=out)


def rows_of(results, model, tower):
    cells = [c for c in results["cells"] if c["model"] == model and c["tower"] == tower]
    columns = sorted({(c["threads"], c["batch"]) for c in cells})
    peers = sorted({c["peer"] for c in cells}, key=lambda p: (p.split("_")[0] != "ocellus", list(NAMES).index(p.split("_")[0])))
    at = {(c["peer"], c["threads"], c["batch"]): c for c in cells}
    return columns, peers, at


def best_rival(at, peers, column, kinds):
    return min((at[p, *column] for p in peers if not p.startswith("ocellus") and kind(p) in kinds and (p, *column) in at),
               key=lambda c: c["min_ms"], default=None)


def cell_text(results, c, work, rival):
    text = f"{c['min_ms']:.1f} ({c['median_ms']:.1f})"
    top = peak(results, c["threads"], kind(c["peer"]))
    whole = not (c["peer"].startswith("ocellus") and c["tower"] == "text")  # ocellus leaves out what is padding
    if top and whole:
        text += f" {100 * work / c['min_ms'] * 1e3 / top:.0f} %"
    if rival:
        text += f" **{rival['min_ms'] / c['min_ms']:.2f}x**"
    return text + (" CV" if c["cv"] > 0.05 else "")


def tables(results, out):
    m = results["machine"]
    print(f"Measured on {m['cpu']} (family {m['family']}, model {m['model']}; {', '.join(m['features'])}), {results['date']}. "
          + (f"{results['note'].rstrip('.')}. " if results["note"] else "")
          + "Versions: " + ", ".join(f"{k} {v}" for k, v in results["versions"].items()) + ".", file=out)
    print("\n| peak | " + " | ".join(f"{p['threads']} thread{'s' * (p['threads'] > 1)}" for p in results["peak"]) + " |\n|---|"
          + "--:|" * len(results["peak"]), file=out)
    for name, u in results["peak"][0]["gmac_s"].items():
        print(f"| {name} ({u['type']}), GMAC/s | " + " | ".join(f"{p['gmac_s'][name]['best']:.0f}" for p in results["peak"]) + " |", file=out)
    for level in results["peak"][0]["read_gb_s"]:
        print(f"| read of {level}, GB/s | " + " | ".join(f"{p['read_gb_s'][level]:.0f}" for p in results["peak"]) + " |", file=out)

    for model in dict.fromkeys(c["model"] for c in results["cells"]):
        for tower in ("image", "text"):
            columns, peers, at = rows_of(results, model, tower)
            if not columns:
                continue
            work = gmac(results["models"][model], tower)
            what = "image" if tower == "image" else "prompt of 8 tokens (the others compute the padded context)"
            print(f"\n### {model}, {what}: ms per item, best (median), % of the unit's peak, "
                  f"**ratio to the best rival**; {work:.2f} GMAC\n", file=out)
            print("| | " + " | ".join(f"{t} thr, batch {b}" for t, b in columns) + " | cos |\n|---|" + "---|" * (len(columns) + 1), file=out)
            for p in peers:
                kinds = RIVALS[kind(p)] if p.startswith("ocellus") else None
                texts, cos = [], ""
                for column in columns:
                    c = at.get((p, *column))
                    texts.append(cell_text(results, c, work, kinds and best_rival(at, peers, column, kinds)) if c else "-")
                    cos = f"{c['cos']:.5f}" if c and c["cos"] is not None else cos
                print(f"| {title(p)} | " + " | ".join(texts) + f" | {cos} |", file=out)

    if results.get("inputs"):
        inputs(results["inputs"], out)
    if results["jobs"]:
        print("\n### 1000 class names x 80 templates, 1 thread\n\n| | texts/s | measured |\n|---|--:|---|", file=out)
        for j in sorted(results["jobs"], key=lambda j: -j["texts_per_s"]):
            print(f"| {title(j['peer'])} | {j['texts_per_s']:.0f} | {j['measured']} |", file=out)
    for threads in sorted({s.get("threads", 1) for s in results["starts"]}):
        print(f"\n### From the start of a process to the first image embedding, {threads} thread{'s' * (threads > 1)}, files in the page cache; memory\n\n"
              "| | start to first, ms | load, ms | first call, ms | peak RSS, MiB | not mapped, MiB |\n|---|" + "--:|" * 5, file=out)
        for s in sorted((s for s in results["starts"] if s.get("threads", 1) == threads), key=lambda s: s["start_to_first_ms"]):
            print(f"| {title(s['peer'])} | {s['start_to_first_ms']:.0f} | {s['load_ms']:.1f} | {s['first_ms']:.0f} | {s['peak_mib']:.0f} | "
                  f"{s['anonymous_mib']:.0f} |", file=out)


# Plot ----------------------------------------------------------------------------------------------------------------

COLOURS = {"f32": "#4c78a8", "bf16": "#72b7b2", "f16": "#54a24b", "s8": "#e45756"}


def plot(results, model, path):
    """GMAC/s of each image cell on one thread, as bars, against the peak of the unit that it uses (dashed)."""
    columns, peers, at = rows_of(results, model, "image")
    columns = [c for c in columns if c[0] == columns[0][0]]
    work = gmac(results["models"][model], "image")
    bars = {column: sorted((at[p, *column] for p in peers if (p, *column) in at), key=lambda c: c["min_ms"]) for column in columns}
    top = max([peak(results, columns[0][0], k) for k in {kind(c["peer"]) for b in bars.values() for c in b}] + [work / c["min_ms"] * 1e3 for b in bars.values() for c in b]) * 1.05
    left, width, line = 190, 520, 20
    height = sum(len(b) * line + 70 for b in bars.values()) + 50
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>']
    text = lambda x, y, s, extra="": out.append(f'<text x="{x:.0f}" y="{y:.0f}" {extra}>{html.escape(s)}</text>')
    y = 24
    text(10, y, f"{model}, image: GMAC/s on {results['machine']['cpu']}, {results['date']}", 'font-weight="bold"')
    for column, cells in bars.items():
        y += 30
        text(10, y, f"{column[0]} thread{'s' * (column[0] > 1)}, batch {column[1]}", 'font-weight="bold"')
        y += 10
        begin = y
        for c in cells:
            rate = work / c["min_ms"] * 1e3
            ours = c["peer"].startswith("ocellus")
            text(left - 8, y + 14, title(c["peer"]), 'text-anchor="end"' + (' font-weight="bold"' if ours else ""))
            out.append(f'<rect x="{left}" y="{y + 3}" width="{rate / top * width:.1f}" height="{line - 6}" fill="{COLOURS[kind(c["peer"])]}"'
                       f' opacity="{1 if ours else 0.55}"/>')
            text(left + rate / top * width + 6, y + 14, f"{rate:.0f}  ({c['min_ms']:.1f} ms)")
            y += line
        seen = {}
        for k in COLOURS:
            if any(kind(c["peer"]) == k for c in cells) and any(u["type"] == k for u in results["peak"][0]["gmac_s"].values()):
                seen[k] = peak(results, column[0], k)
        for k, rate in seen.items():
            x = left + rate / top * width
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{begin}" y2="{y + 4}" stroke="{COLOURS[k]}" stroke-dasharray="4 3"/>')
            text(x, y + 16, f"{k} peak", f'text-anchor="middle" fill="{COLOURS[k]}" font-size="10"')
        y += 20
    out.append("</svg>")
    with open(path, "w") as f:
        f.write("\n".join(out) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+")
    parser.add_argument("--svg", help="where to write the plot of the first results")
    parser.add_argument("--model", help="of the plot (default: the first)")
    args = parser.parse_args()
    plotted = not args.svg
    for path in args.results:
        try:
            with open(path) as f:
                results = json.load(f)
        except (OSError, ValueError) as e:
            sys.exit(f"{path}: {getattr(e, 'strerror', None) or 'not JSON'}")
        if not isinstance(results, dict) or not {"cells", "machine", "peak"} <= results.keys():  # results/ holds other records too: of kernels, sizes, instructions
            print(f"{path}: left out, no results of peers.py", file=sys.stderr)
            continue
        models = [c["model"] for c in results["cells"] if c["tower"] == "image" and args.model in (None, c["model"])]
        if not plotted and models:
            plot(results, models[0], args.svg)
            plotted = True
        tables(results, sys.stdout)
    if not plotted:
        sys.exit("no cells to plot" + (f" of {args.model}" if args.model else ""))


if __name__ == "__main__":
    main()
