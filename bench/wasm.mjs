// What the WebAssembly modules of examples/web take in node: milliseconds of processor time (others use this machine
// too), the best call of several rounds in which the modules take turns. Single thread.
//   cmake --preset wasm && cmake --build --preset wasm && node bench/wasm.mjs | tee bench/results/wasm.txt
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--experimental-wasm-relaxed-simd');  // before node 21
setFlagsFromString('--no-liftoff');                      // optimised code from the start
const root = new URL('..', import.meta.url);
const bytes = (path) => new Uint8Array(readFileSync(new URL(path, root)));
const source = readFileSync(new URL('examples/web/ocellus.js', root), 'utf8');
const { Ocellus, runs } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const picture = (width, height) => ({ width, height, data: Uint8Array.from({ length: width * height * 4 }, (_, i) => (i * 7919) >> 4) });
const photo = picture(4000, 3000);
const labels = readFileSync(new URL('examples/demo/labels.txt', root), 'utf8').split('\n').filter((line) => line !== '');
const prompts = labels.map((label) => `a photo of a ${label}.`);
const columns = [
  ['frame 64x64, s8', 's8', (eye) => eye.takePixels(picture(64, 64)), (eye) => eye.see(), 20],
  ['frame 64x64, f32', 'f32', (eye) => eye.takePixels(picture(64, 64)), (eye) => eye.see(), 4],
  [`${labels.length} texts, s8`, 's8', () => {}, (eye) => eye.read(prompts), 3],
  ['photo 4000x3000, s8', 's8', (eye) => eye.takePixels(photo), (eye) => eye.see(), 2],
];

const rounds = 3;
const modules = ['scalar', 'simd128', 'relaxed'].filter(runs);
const best = modules.map(() => columns.map(() => Infinity));
for (const [c, [, type, prepare, work, calls]] of columns.entries()) {
  const eyes = [];
  for (const name of modules) {
    const eye = await Ocellus.start(bytes(`build-wasm/web/ocellus-${name}.wasm`));
    eye.open(bytes(`build-cross-data/demo-${type}.oc`));
    prepare(eye);
    work(eye);
    eyes.push(eye);
  }
  for (let round = 0; round < rounds; round++)
    for (const [m, eye] of eyes.entries()) {
      for (let i = 0; i < calls; i++) {
        const start = process.cpuUsage();
        work(eye);
        const { user, system } = process.cpuUsage(start);
        best[m][c] = Math.min(best[m][c], (user + system) / 1e3);
      }
    }
}

console.log(`demo model, ms, node ${process.versions.node} (V8 ${process.versions.v8}), ${cpus()[0].model.trim()}, CPU time, best call of ${rounds} rounds`);
console.log(['module    ', ...columns.map(([name]) => name.padStart(20))].join(''));
for (const [m, name] of modules.entries())
  console.log([name.padEnd(10), ...best[m].map((ms) => ms.toFixed(2).padStart(20))].join(''));
