"""The other runtimes: how each is prepared from the checkpoint, and how one computes embeddings. Started by peers.py.

  python runtimes.py prepare WHAT FOLDER     WHAT: onnx, ort_int8, openvino_int8, litert, ncnn, mnn
  python runtimes.py serve PEER FOLDER THREADS

FOLDER holds checkpoint/ (a Hugging Face or open_clip folder), the inputs that peers.py wrote, and what `prepare` adds. `serve` speaks the
protocol of worker.cpp: a command a line on stdin, a JSON object a line on stdout.

  open TOWER BATCH OUT     loads for that batch, computes once, writes float32 [BATCH, E] to OUT
  open decode|prepare|tokenize BATCH OUT FILE     the same for inputs: see worker.cpp. Each call takes the next BATCH
  time SECONDS CALLS       computes for so long, at least so often; milliseconds of each call, by the wall and of the CPU
"""
import json
import os
import resource
import sys
import time

import numpy as np

from peers import config

INPUT = {"image": "pixel_values", "text": "input_ids"}
MEAN = {"clip": (0.48145466, 0.4578275, 0.40821073), "siglip": (0.5, 0.5, 0.5)}
STD = {"clip": (0.26862954, 0.26130258, 0.27577711), "siglip": (0.5, 0.5, 0.5)}
CALIBRATION = 8  # inputs for static quantisation, as many as the published recipes need at the least


def inputs(folder, tower, batch):
    """pixels float32 [B, 3, H, W], normalised, or ids int64 [B, T], padded to the model's context as these runtimes need."""
    c = config(folder)
    if tower == "text":
        t = c["text_config"]["max_position_embeddings"]
        return np.fromfile(f"{folder}/ids.i32", np.int32, batch * t).reshape(batch, t).astype(np.int64)
    size, kind = c["vision_config"]["image_size"], c["model_type"]
    rgb = np.fromfile(f"{folder}/rgb.u8", np.uint8, batch * size * size * 3).reshape(batch, size, size, 3)
    x = (rgb.astype(np.float32) / 255 - np.float32(MEAN[kind])) / np.float32(STD[kind])
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def batches(folder, tower):
    with open(f"{folder}/batches.json") as f:
        return json.load(f)[tower]


def is_resnet(folder):
    return "resnet_layers" in config(folder)["vision_config"]


def torch_tower(folder, tower, attention="sdpa"):
    import torch
    torch.set_grad_enabled(False)
    if is_resnet(folder):
        import open_clip
        model = open_clip.create_model(f"local-dir:{folder}/checkpoint").eval()

        class Half(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, x):
                return self.model.encode_image(x) if tower == "image" else self.model.encode_text(x)
        return Half().eval()
    import transformers
    transformers.logging.set_verbosity_error()
    kind = {("clip", "image"): transformers.CLIPVisionModelWithProjection,
            ("clip", "text"): transformers.CLIPTextModelWithProjection,
            ("siglip", "image"): transformers.SiglipVisionModel,
            ("siglip", "text"): transformers.SiglipTextModel}[config(folder)["model_type"], tower]
    key = {"image": "image_embeds", "text": "text_embeds"}[tower]

    class Tower(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = kind.from_pretrained(f"{folder}/checkpoint", attn_implementation=attention, dtype=torch.float32)

        def forward(self, x):
            out = self.model(**{INPUT[tower]: x})
            return getattr(out, key) if hasattr(out, key) else out.pooler_output

    return Tower().eval()


# Preparation ----------------------------------------------------------------------------------------------------

def prepare_onnx(folder):
    """One graph a tower, float32, with a free batch axis; and PyTorch's own embeddings, which all are compared with."""
    import torch
    for tower in INPUT:
        model = torch_tower(folder, tower, "eager")
        x = torch.from_numpy(inputs(folder, tower, 2))
        torch.onnx.export(model, (x,), f"{folder}/{tower}.onnx", input_names=[INPUT[tower]], output_names=["embeds"],
                          dynamic_axes={INPUT[tower]: {0: "batch"}, "embeds": {0: "batch"}}, opset_version=17, dynamo=False,
                          do_constant_folding=True)
        x = torch.from_numpy(inputs(folder, tower, max(batches(folder, tower))))
        model(x).numpy().astype(np.float32).tofile(f"{folder}/{tower}.reference.f32")


def prepare_ort_int8(folder):
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self, tower):
            x = inputs(folder, tower, CALIBRATION)
            self.rows = iter([{INPUT[tower]: x[i:i + 1]} for i in range(CALIBRATION)])

        def get_next(self):
            return next(self.rows, None)

    for tower in INPUT:
        options = {"per_channel": True, "weight_type": q.QuantType.QInt8, "extra_options": {"MatMulConstBOnly": True}}
        q.quantize_dynamic(f"{folder}/{tower}.onnx", f"{folder}/{tower}.dynamic.onnx", **options)
        q.quantize_static(f"{folder}/{tower}.onnx", f"{folder}/{tower}.static.onnx", Reader(tower), quant_format=q.QuantFormat.QDQ,
                          op_types_to_quantize=["MatMul", "Gemm", "Conv"], activation_type=q.QuantType.QUInt8, **options)


def prepare_openvino_int8(folder):
    import nncf
    import openvino as ov
    for tower in INPUT:
        x = inputs(folder, tower, CALIBRATION)
        kind = None if tower == "image" and is_resnet(folder) else nncf.ModelType.TRANSFORMER
        model = nncf.quantize(ov.Core().read_model(f"{folder}/{tower}.onnx"), nncf.Dataset([x[i:i + 1] for i in range(CALIBRATION)]),
                              model_type=kind, subset_size=CALIBRATION)
        ov.save_model(model, f"{folder}/{tower}.nncf.xml", compress_to_fp16=False)


def prepare_litert(folder):
    """LiteRT has fixed shapes: a file for each batch. int8 weights, activations quantised as they come (XNNPACK's qd8-f32-qc8w)."""
    import litert_torch
    import torch
    from ai_edge_quantizer import quantizer, recipe
    for tower in INPUT:
        model = torch_tower(folder, tower, "eager")
        for batch in batches(folder, tower):
            x = torch.from_numpy(inputs(folder, tower, batch))
            x = x.to(torch.int32) if tower == "text" else x
            f32, s8 = f"{folder}/{tower}.{batch}.f32.tflite", f"{folder}/{tower}.{batch}.s8.tflite"
            litert_torch.convert(model, (x,)).export(f32)
            q = quantizer.Quantizer(f32)
            q.load_quantization_recipe(recipe.dynamic_wi8_afp32())
            if os.path.exists(s8):
                os.remove(s8)
            q.quantize().export_model(s8)


def prepare_ncnn(folder):
    """Image only: ncnn has no argmax to find the end of a text."""
    import pnnx
    import torch
    pnnx.export(torch_tower(folder, "image"), f"{folder}/ncnn.pt", (torch.from_numpy(inputs(folder, "image", 1)),), fp16=False)


def prepare_mnn(folder):
    import subprocess
    for tower in INPUT:
        subprocess.run([os.path.join(os.path.dirname(sys.executable), "mnnconvert"), "-f", "ONNX", "--modelFile",
                        f"{folder}/{tower}.onnx", "--MNNModel", f"{folder}/{tower}.mnn", "--bizCode", "peers"], check=True)


# Computing: each returns a function of no arguments that gives [B, E] ---------------------------------------------

def open_ort(folder, variant, tower, batch, threads):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_free_dimension_override_by_name("batch", batch)
    name = {"f32": "", "dynamic": ".dynamic", "static": ".static"}[variant]
    session = ort.InferenceSession(f"{folder}/{tower}{name}.onnx", options, providers=["CPUExecutionProvider"])
    x = {INPUT[tower]: inputs(folder, tower, batch)}
    return lambda: session.run(None, x)[0]


def open_openvino(folder, variant, tower, batch, threads):
    import openvino as ov
    core, x = ov.Core(), inputs(folder, tower, batch)
    model = core.read_model(f"{folder}/{tower}.nncf.xml" if variant == "int8" else f"{folder}/{tower}.onnx")
    model.reshape({INPUT[tower]: list(x.shape)})
    compiled = core.compile_model(model, "CPU", {
        "INFERENCE_PRECISION_HINT": "f32" if variant == "int8" else variant, "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False})
    request, tensor = compiled.create_infer_request(), ov.Tensor(x)

    def run():
        request.infer([tensor], share_inputs=True, share_outputs=True)
        return request.get_output_tensor(0).data
    return run


def open_torch(folder, variant, tower, batch, threads):
    import torch
    torch.set_num_threads(threads)
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[variant]
    model, x = torch_tower(folder, tower).to(dtype), torch.from_numpy(inputs(folder, tower, batch))
    x = x.to(dtype) if tower == "image" else x

    def run():
        with torch.inference_mode():
            return model(x).float().numpy()
    return run


def open_litert(folder, variant, tower, batch, threads):
    from ai_edge_litert.interpreter import Interpreter
    it = Interpreter(f"{folder}/{tower}.{batch}.{variant}.tflite", num_threads=threads)
    it.allocate_tensors()
    source, target = it.get_input_details()[0], it.get_output_details()[0]
    x = inputs(folder, tower, batch).astype(source["dtype"])

    def run():
        it.set_tensor(source["index"], x)
        it.invoke()
        return it.get_tensor(target["index"])
    return run


def open_ncnn(folder, variant, tower, batch, threads):
    import ncnn  # has no batch axis: a loop
    net, x = ncnn.Net(), inputs(folder, tower, batch)
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = variant == "bf16"
    net.load_param(f"{folder}/ncnn.ncnn.param")
    net.load_model(f"{folder}/ncnn.ncnn.bin")

    def one(row):
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(row))
        return np.array(extractor.extract("out0")[1]).ravel()
    return lambda: np.stack([one(row) for row in x])


def open_mnn(folder, variant, tower, batch, threads):
    import MNN.expr as expr
    import MNN.nn as nn
    manager = nn.create_runtime_manager(({"backend": "CPU", "numThread": threads, "precision": "normal"},))
    module = nn.load_module_from_file(f"{folder}/{tower}.mnn", [INPUT[tower]], ["embeds"], runtime_manager=manager)
    x = inputs(folder, tower, batch)
    x = x.astype(np.int32) if tower == "text" else x

    def run():
        v = expr.placeholder(list(x.shape), expr.NCHW, expr.int if tower == "text" else expr.float)
        v.write(x)
        return np.array(module.forward(v).read())
    return run


# Inputs: each call takes the next `batch` of what the lines of a file are or name -----------------------------------

def open_pillow(folder, variant, what, batch, threads, file):
    """To RGB; for `prepare` with CLIP's resize and crop, as openai/CLIP's transform (torchvision) does it."""
    import io
    from PIL import Image
    size = config(folder)["vision_config"]["image_size"]
    with open(file) as f:
        pictures = [open(line.rstrip("\n"), "rb").read() for line in f]

    def one(data):
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        if what == "decode":
            return picture
        w, h = picture.size
        w, h = (size, size * h // w) if w <= h else (size * w // h, size)
        left, top = round((w - size) / 2), round((h - size) / 2)
        return picture.resize((w, h), Image.BICUBIC).crop((left, top, left + size, top + size))
    return in_turn(pictures, batch, lambda items: [one(data) for data in items],
                   lambda made: b"".join(p.tobytes() for p in made))


def open_tokenizers(folder, variant, what, batch, threads, file):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers
    t = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    context = config(folder)["text_config"]["max_position_embeddings"]
    t.enable_truncation(context)
    t.enable_padding(length=context, pad_id=t.token_to_id("<|endoftext|>"))
    with open(file) as f:
        texts = f.read().splitlines()
    return in_turn(texts, batch, t.encode_batch, lambda made: np.array([e.ids for e in made], np.int32).tobytes())


def in_turn(items, batch, work, to_bytes):
    turn = [0]

    def run():
        begin = turn[0] * batch
        turn[0] = (turn[0] + 1) % (len(items) // batch)
        return work(items[begin:begin + batch])

    def first():  # the bytes of the first batch; the next call begins anew
        made = to_bytes(run())
        turn[0] = 0
        return made
    run.first = first
    return run


OPEN = {"ort": open_ort, "openvino": open_openvino, "torch": open_torch, "litert": open_litert, "ncnn": open_ncnn, "mnn": open_mnn,
        "pillow": open_pillow, "tokenizers": open_tokenizers}
PREPARE = {"onnx": prepare_onnx, "ort_int8": prepare_ort_int8, "openvino_int8": prepare_openvino_int8, "litert": prepare_litert,
           "ncnn": prepare_ncnn, "mnn": prepare_mnn}


def memory():
    """MiB: the most that was resident, and what is now of it without mapped files."""
    with open("/proc/self/status") as f:
        anonymous = next(int(line.split()[1]) for line in f if line.startswith("RssAnon"))
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "anonymous_mib": anonymous / 1024}


def serve(peer, folder, threads):
    runtime, _, variant = peer.partition("_")
    # Libraries print what they like; only answers may reach the pipe.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = None
    for line in sys.stdin:
        command = line.split()
        if command[0] == "open":
            start = time.perf_counter()
            run = None  # the one before is released first
            run = OPEN[runtime](folder, variant, command[1], int(command[2]), threads, *command[4:])
            ready = time.perf_counter()
            if hasattr(run, "first"):
                made = np.frombuffer(run.first(), np.uint8)
            else:
                made = np.asarray(run(), np.float32).reshape(int(command[2]), -1)
            answer = {"load_ms": (ready - start) * 1e3, "first_ms": (time.perf_counter() - ready) * 1e3, **memory()}
            made.tofile(command[3])
        else:
            wall, cpu = [], []
            end = time.perf_counter() + float(command[1])
            while len(wall) < int(command[2]) or time.perf_counter() < end:
                c, w = time.process_time(), time.perf_counter()
                run()
                wall.append((time.perf_counter() - w) * 1e3)
                cpu.append((time.process_time() - c) * 1e3)
            answer = {"wall_ms": wall, "cpu_ms": cpu}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        PREPARE[sys.argv[2]](sys.argv[3])
    else:
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        os._exit(0)  # some runtimes hang in their destructors
