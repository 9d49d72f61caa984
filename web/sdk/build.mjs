// node build.mjs: the ES module and the script-tag file. node build.mjs test: what `node --test` runs.
import { build } from 'esbuild';
import { readFileSync, readdirSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const NOTICE = '/* Headwater SDK (Apache-2.0 OR MIT). Contains protobuf-es (Apache-2.0 AND BSD-3-Clause, Buf Technologies). */';
const MOST_GZIPPED_BYTES = 60_000;

if (process.argv[2] === 'test') {
  const entryPoints = readdirSync('test').filter((f) => f.endsWith('.test.ts')).map((f) => `test/${f}`);
  await build({ entryPoints, bundle: true, platform: 'node', format: 'esm', outdir: 'out/test', outExtension: { '.js': '.mjs' } });
} else {
  const common = { bundle: true, minify: true, target: 'es2022', sourcemap: true, legalComments: 'none', banner: { js: NOTICE } };
  await build({ ...common, entryPoints: ['src/index.ts'], format: 'esm', outfile: 'dist/headwater.mjs' });
  await build({ ...common, entryPoints: ['src/script.ts'], format: 'iife', outfile: 'dist/headwater.js' });
  for (const file of ['dist/headwater.mjs', 'dist/headwater.js']) {
    const bytes = gzipSync(readFileSync(file)).length;
    console.log(`${file}: ${bytes} bytes gzipped`);
    if (bytes > MOST_GZIPPED_BYTES) throw new Error(`${file} is larger than ${MOST_GZIPPED_BYTES} bytes`);
  }
}
