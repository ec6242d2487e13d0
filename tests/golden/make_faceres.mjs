// Write faceres.json: what TensorFlow.js itself computes with the published face-pretrained network, up to the pooled
// features, for a few synthetic pictures at the co-teacher's size. Run it only when that is meant to change, in a folder
// outside the repository:
//
//   npm install @tensorflow/tfjs@4.22.0 @vladmandic/human@3.3.6 && node REPOSITORY/tests/golden/make_faceres.mjs

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.cwd(), 'package.json'));
const tf = require('@tensorflow/tfjs');
const published = join(process.cwd(), 'node_modules', '@vladmandic', 'human');

const SEED = 20261122;
const PICTURES = 2;
const SIZE = 48;
const BLOCK = 8;
const MEANS = [103.939, 116.779, 123.68];

/** Numerical Recipes' 32-bit linear congruential generator; the highest byte of each state. */
function* bytes(seed) {
  for (let state = seed; ; ) {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    yield state >>> 24;
  }
}

/** Grey pictures of coarse blocks and fine noise in equal parts; tests/train/init/test_pretrained.py makes the same. */
function pictures() {
  const source = bytes(SEED);
  const next = () => source.next().value;
  return Array.from({ length: PICTURES }, () => {
    const blocks = Array.from({ length: (SIZE / BLOCK) ** 2 }, next);
    return Array.from({ length: SIZE * SIZE }, (_, at) => {
      const [row, column] = [Math.floor(at / SIZE / BLOCK), Math.floor((at % SIZE) / BLOCK)];
      return (blocks[(row * SIZE) / BLOCK + column] + next()) >> 1;
    });
  });
}

/** The published graph. Its convolutions take any size; only the placeholder says 224, so that alone is opened. */
async function graph() {
  const model = JSON.parse(readFileSync(join(published, 'models', 'faceres.json')));
  const placeholder = model.modelTopology.node.find((node) => node.op === 'Placeholder');
  for (const side of [1, 2]) placeholder.attr.shape.shape.dim[side].size = '-1';
  delete model.signature; // it repeats the 224
  const [group] = model.weightsManifest;
  const values = readFileSync(join(published, 'models', group.paths[0]));
  return tf.loadGraphModel({
    load: async () => ({
      modelTopology: model.modelTopology,
      weightSpecs: group.weights,
      weightData: values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength),
    }),
  });
}

const version = (name) => JSON.parse(readFileSync(join(process.cwd(), 'node_modules', name, 'package.json'))).version;

await tf.setBackend('cpu');
const model = await graph();
const grey = tf.tensor4d(pictures().flat(), [PICTURES, SIZE, SIZE, 1]);
const big = tf.image.resizeBilinear(grey, [3 * SIZE, 3 * SIZE], false, true);
const features = model.execute(tf.sub(tf.concat([big, big, big], 3), MEANS), 'global_pooling/Mean');
writeFileSync(
  new URL('faceres.json', import.meta.url),
  `${JSON.stringify({
    published: `@vladmandic/human ${version('@vladmandic/human')} models/faceres`,
    computed_by: `@tensorflow/tfjs ${version('@tensorflow/tfjs')}, cpu, node ${process.version}`,
    seed: SEED,
    shape: features.shape,
    features_float32_base64: Buffer.from((await features.data()).buffer).toString('base64'),
  })}\n`,
);
console.log(features.shape, 'mean', (await features.mean().data())[0], 'max', (await features.max().data())[0]);
