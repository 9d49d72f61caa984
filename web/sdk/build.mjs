// node build.mjs: the ES module and the script-tag file. node build.mjs test: what `node --test` runs. node build.mjs check:
// that the script-tag file that is kept here, since `headwater demo --page` serves it, is what the sources make.
import { build } from 'esbuild';
import { readFileSync, readdirSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const NOTICE = '/* Headwater SDK (Apache-2.0 OR MIT). Contains protobuf-es (Apache-2.0 AND BSD-3-Clause, Buf Technologies). */';
const MOST_GZIPPED_BYTES = 60_000;

const common = { bundle: true, minify: true, target: 'es2022', sourcemap: true, legalComments: 'none', banner: { js: NOTICE } };
const script = { ...common, entryPoints: ['src/script.ts'], format: 'iife', outfile: 'dist/headwater.js' };

if (process.argv[2] === 'test') {
  const entryPoints = readdirSync('test').filter((f) => f.endsWith('.test.ts')).map((f) => `test/${f}`);
  await build({ entryPoints, bundle: true, platform: 'node', format: 'esm', outdir: 'out/test', outExtension: { '.js': '.mjs' } });
} else if (process.argv[2] === 'check') {
  const { outputFiles } = await build({ ...script, write: false });
  const made = outputFiles.find((f) => f.path.endsWith('headwater.js')).text;
  if (made !== readFileSync(script.outfile, 'utf8')) {
    console.error(`${script.outfile} is not what the sources make: npm run build, and commit it`);
    process.exit(1);
  }
} else {
  await build({ ...common, entryPoints: ['src/index.ts'], format: 'esm', outfile: 'dist/headwater.mjs' });
  await build(script);
  for (const file of ['dist/headwater.mjs', 'dist/headwater.js']) {
    const bytes = gzipSync(readFileSync(file)).length;
    console.log(`${file}: ${bytes} bytes gzipped`);
    if (bytes > MOST_GZIPPED_BYTES) throw new Error(`${file} is larger than ${MOST_GZIPPED_BYTES} bytes`);
  }
}
