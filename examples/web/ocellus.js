// ocellus in JavaScript: one WebAssembly module without imports (glue.cpp), for browsers, workers and node.
//
//   const eye = await Ocellus.start(await (await fetch(`ocellus-${bestKernels()}.wasm`)).arrayBuffer());
//   eye.open(new Uint8Array(modelBytes));               // a packed file (.oc) with both towers and its tokenizer
//   const texts = eye.read(['a photo of a cat.', 'a photo of a dog.']);
//   eye.takeFile(new Uint8Array(jpegBytes));
//   const probabilities = eye.score(eye.see(), texts);  // Float32Array, one a text
//
// What cannot be done throws an Error whose message names the reason.

// The smallest modules that use what the real ones use: an i8x16.splat, an i32x4.relaxed_dot_i8x16_i7x16_add.
const head = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0];
const zero = [0x41, 0, 0xfd, 0x0f];
const simd128 = [...head, 0x0a, 8, 1, 6, 0, ...zero, 0x0b];
const relaxed = [...head, 0x0a, 19, 1, 17, 0, ...zero, ...zero, ...zero, 0xfd, 0x93, 2, 0x0b];

/** Whether this engine can run the module `kernels`: 'relaxed', 'simd128' or 'scalar'. */
export function runs(kernels) {
  if (kernels === 'scalar') return true;
  return WebAssembly.validate(new Uint8Array(kernels === 'relaxed' ? relaxed : simd128));
}

/** The quickest module that this engine can run. */
export const bestKernels = () => ['relaxed', 'simd128', 'scalar'].find(runs);

export class Ocellus {
  /** From the bytes of an ocellus-*.wasm. */
  static async start(bytes) {
    const { instance } = await WebAssembly.instantiate(bytes, {});
    instance.exports._initialize();
    return new Ocellus(instance.exports);
  }

  constructor(module) {
    this.module = module;
  }

  /** The kernel set that runs. */
  get kernels() {
    return this.#phrase(this.module.kernels());
  }
  /** Values of an embedding; 0 before `open`. */
  get width() {
    return this.module.width();
  }
  /** Whether each label's probability stands alone (SigLIP), or all add up to 1 (CLIP). */
  get independent() {
    return this.module.independent() !== 0;
  }

  /** Opens a packed file: Uint8Array. Closes the model before. */
  open(file) {
    this.#check(this.module.open(this.#put(file), file.length));
  }

  /** Decodes a picture file, Uint8Array, upright: JPEG, PNG, BMP, GIF, TGA, PNM. */
  takeFile(file) {
    const at = this.#put(file);
    const code = this.module.take_file(at, file.length);
    this.module.release(at);
    this.#check(code);
  }

  /** Takes pixels as canvases give them: {data: RGBA, width, height}. */
  takePixels({ data, width, height }) {
    const at = this.#put(data);
    const code = this.module.take_pixels(at, width, height);
    this.module.release(at);
    this.#check(code);
  }

  /** The embedding of the picture taken last: Float32Array [width], of length 1. */
  see() {
    return this.#floats(this.width, (out) => this.module.see(out));
  }

  /** The embeddings of texts: Float32Array [texts.length * width], each of length 1. */
  read(texts) {
    const bytes = new TextEncoder().encode(texts.map((text) => `${text.replaceAll('\0', ' ')}\0`).join(''));
    const at = this.#put(bytes);
    try {
      return this.#floats(texts.length * this.width, (out) => this.module.read(at, texts.length, out));
    } finally {
      this.module.release(at);
    }
  }

  /** Probabilities of texts for a picture, by the model's rule, from their embeddings. */
  score(image, texts) {
    const count = texts.length / image.length;
    const a = this.#put(image), b = this.#put(texts);
    try {
      return this.#floats(count, (out) => (this.module.score(a, b, count, out), 0));
    } finally {
      this.module.release(a);
      this.module.release(b);
    }
  }

  // Memory may grow, and with it move, in any call: views are made when they are needed.

  #allocate(bytes) {
    const at = this.module.allocate(bytes);
    if (at === 0) throw new Error('out of memory');
    return at;
  }

  #put(array) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    const at = this.#allocate(bytes.length);
    new Uint8Array(this.module.memory.buffer).set(bytes, at);
    return at;
  }

  #floats(count, fill) {
    const out = this.#allocate(4 * count);
    try {
      this.#check(fill(out));
      return new Float32Array(this.module.memory.buffer, out, count).slice();
    } finally {
      this.module.release(out);
    }
  }

  #phrase(at) {
    const bytes = new Uint8Array(this.module.memory.buffer, at);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }

  #check(code) {
    if (code !== 0) throw new Error(this.#phrase(this.module.message(code)));
  }
}
