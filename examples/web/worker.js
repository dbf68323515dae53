// The work, off the page's thread. A message {id, name, args} calls one of `calls`; the answer is {id, value} or
// {id, error}.
import { Ocellus, bestKernels, runs } from './ocellus.js';

let eye, texts;

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

function timed(work) {
  const start = performance.now();
  const value = work();
  return [value, performance.now() - start];
}

/** What only the browser can decode (WebP, AVIF, ...): its pixels, on white where they are transparent. */
async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: 'none' });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
  context.fillStyle = 'white';
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

const calls = {
  /** Loads the module `kernels`, or the best. */
  async start(kernels) {
    if (kernels && !runs(kernels)) throw new Error(`this browser does not run the module ${kernels}`);
    eye = await Ocellus.start(await fetched(`ocellus-${kernels || bestKernels()}.wasm`));
    return eye.kernels;
  },
  /** Opens a model from a URL or a Blob. */
  async open(from) {
    const file = typeof from === 'string' ? await fetched(from) : new Uint8Array(await from.arrayBuffer());
    texts = undefined;
    eye.open(file);
    return { bytes: file.length, independent: eye.independent };
  },
  /** Embeds the prompts that pictures are compared with. */
  read(prompts) {
    const [embeddings, ms] = timed(() => eye.read(prompts));
    texts = embeddings;
    return { ms };
  },
  /** Probabilities of the prompts for a picture file. */
  async classify(blob) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    try {
      eye.takeFile(bytes);
    } catch (error) {
      const pixels = await pixelsOf(blob).catch(() => {
        throw error;
      });
      eye.takePixels(pixels);
    }
    const [image, ms] = timed(() => eye.see());
    return { ms, scores: eye.score(image, texts) };
  },
};

onmessage = async ({ data: { id, name, args } }) => {
  try {
    postMessage({ id, value: await calls[name](...args) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
