// Tests the page's modules: embeddings of the sample pictures and of the labels' prompts must be this machine's, bit
// for bit, and the best label that of `ocellus classify`.
//   node test.mjs node SITE OCELLUS               the modules in node
//   node test.mjs chromium SITE OCELLUS CHROMIUM [PNG]
//                                                 the page and the kernel tests in a headless browser; its screenshot
// SITE: build-wasm/web; OCELLUS: the host's program.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { availableParallelism, tmpdir } from 'node:os';
import { extname, join, resolve, sep } from 'node:path';
import { setFlagsFromString } from 'node:v8';

const [where, siteArgument, program, browser, screenshot] = process.argv.slice(2);
const site = resolve(siteArgument);
const scratch = mkdtempSync(join(tmpdir(), 'ocellus-web-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }));

const read = (name) => new Uint8Array(readFileSync(join(site, name)));
const lines = (name) => readFileSync(join(site, name), 'utf8').split('\n').filter((line) => line !== '');
const pictures = lines('pictures.txt'), labels = lines('labels.txt');
const prompts = labels.map((label) => `a photo of a ${label}.`);

/** The host's answer: rows of a .npy file of float32, as hexadecimal bytes. */
function expectedRows(...options) {
  const file = join(scratch, 'expected.npy');
  execFileSync(program, ['embed', join(site, 'demo.oc'), ...options, '-o', file]);
  const npy = readFileSync(file);
  const header = npy.subarray(10, 10 + npy.readUInt16LE(8)).toString();
  const [rows, width] = header.match(/\((\d+), ?(\d+),?\)/).slice(1).map(Number);
  const data = npy.subarray(npy.length - rows * width * 4);
  return Array.from({ length: rows }, (_, i) => data.subarray(i * width * 4, (i + 1) * width * 4).toString('hex'));
}

function expectedAnswers() {
  writeFileSync(join(scratch, 'prompts.txt'), prompts.join('\n'));
  const files = pictures.map((name) => join(site, 'pictures', name));
  const answer = execFileSync(program, ['classify', join(site, 'demo.oc'), '--json', '--labels-file', join(site, 'labels.txt'),
    '--image', ...files], { maxBuffer: 1 << 26 });
  return {
    images: expectedRows('--image', ...files),
    texts: expectedRows('--texts', join(scratch, 'prompts.txt')),
    best: JSON.parse(answer).images.map((image) => image.labels[0].label),
  };
}

/** What a module gives. Runs in node and, sent as text, in the page. */
async function answersOf({ Ocellus }, wasm, model, files, prompts, labels) {
  const hex = (floats) => Array.from(new Uint8Array(floats.buffer), (b) => b.toString(16).padStart(2, '0')).join('');
  const eye = await Ocellus.start(wasm);
  eye.open(model);
  const texts = eye.read(prompts);
  const found = { kernels: eye.kernels, images: [], texts: [], best: [], ms: Infinity };
  for (let i = 0; i < prompts.length; i++) found.texts.push(hex(texts.slice(i * eye.width, (i + 1) * eye.width)));
  for (const file of files) {
    eye.takeFile(file);
    const image = eye.see();
    const scores = eye.score(image, texts);
    found.images.push(hex(image));
    found.best.push(labels[scores.indexOf(Math.max(...scores))]);
  }
  for (let i = 0; i < 20; i++) {
    const start = performance.now();
    eye.see();
    found.ms = Math.min(found.ms, performance.now() - start);
  }
  return found;
}

function compare(found, expected, what) {
  assert.deepEqual(found.images, expected.images, `${what}: pictures' embeddings`);
  assert.deepEqual(found.texts, expected.texts, `${what}: texts' embeddings`);
  assert.deepEqual(found.best, expected.best, `${what}: best labels`);
  console.log(`${what}: ${pictures.length} pictures and ${prompts.length} texts bit-equal to the host's; a frame ${
    found.ms.toFixed(2)} ms (kernels: ${found.kernels})`);
}

async function inNode() {
  setFlagsFromString('--experimental-wasm-relaxed-simd');  // before node 21
  const source = readFileSync(join(site, 'ocellus.js'), 'utf8');
  const ocellus = await import(`data:text/javascript,${encodeURIComponent(source)}`);
  const expected = expectedAnswers();
  const files = pictures.map((name) => read(join('pictures', name)));
  for (const kernels of ['scalar', 'simd128', 'relaxed']) {
    if (!ocellus.runs(kernels)) {
      console.log(`skipped: ${kernels}, which this node does not run`);
      continue;
    }
    const found = await answersOf(ocellus, read(`ocellus-${kernels}.wasm`), read('demo.oc'), files, prompts, labels);
    assert.equal(found.kernels, kernels);
    compare(found, expected, `node ${process.versions.node}, ${kernels}`);
  }
  const eye = await ocellus.Ocellus.start(read('ocellus-simd128.wasm'));
  assert.throws(() => eye.open(new Uint8Array(100)), /^Error: not an ocellus file$/);
  assert.throws(() => eye.see(), /^Error: an argument is out of range$/);
  assert.throws(() => eye.takeFile(new TextEncoder().encode('no picture')), /^Error: the image is damaged or not an image$/);
}

/** Serves the site, and what lies beside it, to this machine alone. */
function serve(folder) {
  const types = { '.html': 'text/html', '.js': 'text/javascript', '.wasm': 'application/wasm', '.png': 'image/png' };
  const server = createServer((request, response) => {
    const path = resolve(folder, `.${decodeURIComponent(new URL(request.url, 'http://localhost').pathname)}`);
    try {
      if (!path.startsWith(folder + sep)) throw new Error('outside');
      const body = readFileSync(path);
      response.writeHead(200, { 'Content-Type': types[extname(path)] ?? 'application/octet-stream' }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((ready) => server.listen(0, '127.0.0.1', () => ready(server)));
}

/** A headless browser, spoken to over a pipe in the DevTools protocol. */
class Browser {
  #id = 0;
  #waiting = new Map();
  #session;

  constructor(path) {
    this.process = spawn(path, ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
      `--user-data-dir=${join(scratch, 'profile')}`, '--remote-debugging-pipe', 'about:blank'],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    this.process.on('exit', () => this.#waiting.forEach(({ reject }) => reject(new Error('the browser ended'))));
    this.process.on('error', (error) => this.#waiting.forEach(({ reject }) => reject(error)));
    let text = '';
    this.process.stdio[4].on('data', (chunk) => {
      const messages = (text + chunk).split('\0');
      text = messages.pop();
      for (const message of messages.map((m) => JSON.parse(m))) {
        const { resolve: done, reject } = this.#waiting.get(message.id) ?? {};
        this.#waiting.delete(message.id);
        if (message.error) reject?.(new Error(message.error.message));
        else done?.(message.result);
      }
    });
  }

  send(method, params = {}) {
    const id = ++this.#id;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.#session })}\0`);
    return new Promise((done, reject) => this.#waiting.set(id, { resolve: done, reject }));
  }

  async open(url) {
    if (this.#session === undefined) {
      const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
      this.#session = (await this.send('Target.attachToTarget', { targetId, flatten: true })).sessionId;
      await this.send('Emulation.setDeviceMetricsOverride', { width: 1100, height: 900, deviceScaleFactor: 1, mobile: false });
    }
    await this.send('Page.navigate', { url });
  }

  /** The value of a function, called in the page. */
  async call(f, ...args) {
    const expression = `(${f})(...${JSON.stringify(args)})`;
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until the page says that it is done with picture `name`: its best label, or its error. */
  async answer(name) {
    for (let i = 0; i < 600; i++) {
      const page = await this.call(() => ({
        state: document.body?.dataset.state, name: document.getElementById('name')?.textContent,
        best: document.querySelector('#results .best .label')?.textContent, error: document.getElementById('error')?.textContent,
        running: document.getElementById('running')?.textContent,
      }));
      if (page.name === name && page.state !== 'busy' && page.state !== undefined) return page;
      if (page.state === 'failed' && page.name === '') throw new Error(page.error);
      await new Promise((done) => setTimeout(done, 100));
    }
    throw new Error(`the page has no answer for ${name}`);
  }
}

/** Runs a test program built for WASI in the page: what it prints, and its exit code. */
async function runInPage(url, args) {
  const wasm = await (await fetch(url)).arrayBuffer();
  let memory, output = '', code = 0;
  const words = new TextEncoder(), view = () => new DataView(memory.buffer);
  const strings = args.map((arg) => words.encode(`${arg}\0`));
  const own = {
    args_sizes_get: (count, size) => (view().setUint32(count, strings.length, true),
      view().setUint32(size, strings.reduce((n, s) => n + s.length, 0), true), 0),
    args_get(pointers, at) {
      strings.forEach((s, i) => {
        view().setUint32(pointers + 4 * i, at, true);
        new Uint8Array(memory.buffer).set(s, at);
        at += s.length;
      });
      return 0;
    },
    environ_sizes_get: (count, size) => (view().setUint32(count, 0, true), view().setUint32(size, 0, true), 0),
    environ_get: () => 0,
    clock_time_get: (id, precision, at) => (view().setBigUint64(at, BigInt(Math.round(performance.now() * 1e6)), true), 0),
    fd_write(fd, vectors, count, written) {
      let total = 0;
      for (let i = 0; i < count; i++) {
        const at = view().getUint32(vectors + 8 * i, true), n = view().getUint32(vectors + 8 * i + 4, true);
        output += new TextDecoder().decode(new Uint8Array(memory.buffer, at, n));
        total += n;
      }
      view().setUint32(written, total, true);
      return 0;
    },
    proc_exit(status) {
      code = status;
      throw new Error('exit');
    },
  };
  const missing = () => 52;  // ENOSYS
  const imports = new Proxy(own, { get: (functions, name) => functions[name] ?? missing, has: () => true });
  const { instance } = await WebAssembly.instantiate(wasm, { wasi_snapshot_preview1: imports });
  memory = instance.exports.memory;
  try {
    instance.exports._start();
  } catch (error) {
    if (error.message !== 'exit') throw error;
  }
  return { output, code };
}

async function inChromium() {
  const expected = expectedAnswers();
  const server = await serve(resolve(site, '..'));
  const base = `http://127.0.0.1:${server.address().port}`;
  const chromium = new Browser(browser);
  const version = (await chromium.send('Browser.getVersion')).product;
  try {
    for (const kernels of ['simd128', 'relaxed']) {
      // The page as its user sees it.
      await chromium.open(`${base}/web/index.html?kernels=${kernels}&picture=${pictures[0]}`);
      for (const [i, name] of pictures.entries()) {
        if (i > 0) await chromium.call((title) => document.querySelector(`#samples [title="${title}"]`).click(), name);
        const page = await chromium.answer(name);
        assert.equal(page.error, '');
        assert.equal(page.best, expected.best[i], `the page's best label of ${name}`);
        assert.equal(page.running, kernels);
      }
      // The same module's numbers.
      const found = await chromium.call(`async (kernels, pictures, prompts, labels) => {
        const bytes = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
        const files = await Promise.all(pictures.map((name) => bytes('pictures/' + name)));
        return (${answersOf})(await import('./ocellus.js'), await bytes('ocellus-' + kernels + '.wasm'), await bytes('demo.oc'), files,
          prompts, labels);
      }`, kernels, pictures, prompts, labels);
      compare(found, expected, `${version}, ${kernels}`);
      const test = await chromium.call(runInPage, `${base}/kernel-tests-${kernels}.wasm`, ['kernel-tests', '--no-version', '--no-colors']);
      assert.equal(test.code, 0, test.output);
      assert.match(test.output, /Status: SUCCESS/);
      console.log(`${version}: ${test.output.match(/kernel sets ran: .*/)[0]}; ${test.output.match(/test cases.*/)[0]}`);
    }
    // What the browser chooses by itself; new labels; a picture that only the browser decodes; a file that is none.
    await chromium.open(`${base}/web/index.html?picture=three-yellow-stars.png`);
    const chosen = await chromium.answer('three-yellow-stars.png');
    assert.equal(chosen.running, await chromium.call(async () => (await import('./ocellus.js')).bestKernels()));
    if (screenshot) {
      await new Promise((done) => setTimeout(done, 500));
      const shot = await chromium.send('Page.captureScreenshot', { captureBeyondViewport: true });
      writeFileSync(screenshot, Buffer.from(shot.data, 'base64'));
    }
    const drop = async (name, make) => {
      await chromium.call(`async (name) => {
        const data = new DataTransfer();
        data.items.add(new File([await (${make})()], name));
        document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true }));
      }`, name);
      return chromium.answer(name);
    };
    const red = async () => {
      const context = new OffscreenCanvas(200, 150).getContext('2d');
      context.fillStyle = 'white';
      context.fillRect(0, 0, 200, 150);
      context.fillStyle = 'red';
      context.fillRect(60, 35, 80, 80);
      return context.canvas.convertToBlob({ type: 'image/webp', quality: 1 });
    };
    await chromium.call(() => {
      document.getElementById('labels').value = 'red square\nblue circle';
      document.getElementById('labels').dispatchEvent(new InputEvent('input'));
    });
    const webp = await drop('square.webp', red);
    assert.deepEqual([webp.error, webp.best], ['', 'red square']);
    const text = await drop('letter.txt', () => 'This is a letter.');
    assert.deepEqual([text.error, text.best], ['the image is damaged or not an image', undefined]);
    console.log(`${version}: chose ${chosen.running}; new labels, a WebP, and a file that is no picture do what they should`);
  } finally {
    await chromium.send('Browser.close').catch(() => {});
    server.close();
  }
}

await (where === 'node' ? inNode() : inChromium());
