// Runs a WebAssembly program that was built for WASI: node wasi.mjs PROGRAM.wasm [ARGUMENT...]
import { readFile } from 'node:fs/promises';
import { spawnSync } from 'node:child_process';
import { setFlagsFromString } from 'node:v8';

const { WASI } = await import('node:wasi').catch(() => ({}));
if (WASI === undefined) {  // before node 20 behind a flag
  const again = [...process.execArgv, '--experimental-wasi-unstable-preview1', ...process.argv.slice(1)];
  process.exit(spawnSync(process.execPath, again, { stdio: 'inherit' }).status ?? 1);
}
setFlagsFromString('--experimental-wasm-relaxed-simd');  // before node 21; later ones have it anyway

const args = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args, preopens: { '/': '/' }, returnOnExit: true });
const { instance } = await WebAssembly.instantiate(await readFile(args[0]), { wasi_snapshot_preview1: wasi.wasiImport });
process.exitCode = wasi.start(instance);
