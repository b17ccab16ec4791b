// tests/bench/tokenizers.mjs: our GPT-2 tokenizer beside those of the npm registry, in turn on the same machine and text.
//
//   npm install --prefix DIR tiktoken tiktoken-node @anush008/tokenizers @huggingface/tokenizers gpt-tokenizer js-tiktoken
//   node tests/bench/tokenizers.mjs DIR DATA_DIR [ROUNDS] [BUILD_DIR]
//
// The text is every file of DATA_DIR/wikitext, each as one string; packages that are not in DIR are left out.  Rate: bytes
// over the CPU time of the process, threads of a JavaScript engine included; median of ROUNDS (5).  The packages have
// encoded the text once before, so that they are compiled and their caches of words warm; ours begins every file with an
// empty table.  Status 1 where token ids differ.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { cpus } from 'node:os';

const [modules, data, rounds = '5', build = 'build'] = process.argv.slice(2);
if (data === undefined) {
  console.error('usage: node tests/bench/tokenizers.mjs MODULES_DIR DATA_DIR [ROUNDS] [BUILD_DIR]');
  process.exit(2);
}
const load = createRequire(join(resolve(modules), 'x.js'));
const first = (...names) => names.map((n) => join(data, 'gpt2', n)).find(existsSync);
const vocab = () => JSON.parse(readFileSync(first('vocab.json', 'encoder.json'), 'utf8'));
const merges = () => readFileSync(first('merges.txt', 'vocab.bpe'), 'utf8').split('\n').slice(1).filter(Boolean);

/* Hugging Face's description of GPT-2's tokenizer, from the two files. */
const described = () => ({
  version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer: null, post_processor: null,
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
  decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
  model: { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null,
           fuse_unk: false, byte_fallback: false, vocab: vocab(), merges: merges() } });

const packages = {
  'tiktoken': () => {
    const e = load('tiktoken').get_encoding('gpt2');
    return (s) => e.encode_ordinary(s);
  },
  'tiktoken-node': () => {
    const e = load('tiktoken-node').getEncoding('gpt2');
    return (s) => e.encode(s);
  },
  '@anush008/tokenizers': () => {
    const t = load('@anush008/tokenizers').Tokenizer.fromString(JSON.stringify(described()));
    return async (s) => (await t.encode(s, null, { addSpecialTokens: false })).getIds();
  },
  '@huggingface/tokenizers': () => {
    const t = new (load('@huggingface/tokenizers').Tokenizer)(described(), {});
    return (s) => t.encode(s, { add_special_tokens: false }).ids;
  },
  'gpt-tokenizer': () => {
    const e = load('gpt-tokenizer/encoding/r50k_base');
    return (s) => e.encode(s, { disallowedSpecial: new Set() });
  },
  'js-tiktoken': () => {
    const e = load('js-tiktoken').getEncoding('gpt2');
    return (s) => e.encode(s, [], []);
  },
};

const files = readdirSync(join(data, 'wikitext')).filter((f) => f.startsWith('wiki.')).sort()
  .map((f) => join(data, 'wikitext', f));
const texts = files.map((f) => readFileSync(f, 'utf8'));
const bytes = texts.reduce((n, t) => n + Buffer.byteLength(t), 0);

const program = (name) => [join(build, 'tests', name), join(build, name)].find(existsSync);
const env = { ...process.env, SEQSPECTRA_DATA: data };
const expected = files.map((f) =>
  execFileSync(program('seqspectra'), ['data', 'tokenize', f], { env, encoding: 'utf8', maxBuffer: 1 << 28 })
    .trimEnd().split('\n').map(Number));
const ours = () => {
  let s = 0;
  for (const f of files) {
    const out = execFileSync(program('bench-tokenize'), [data, f, '1'], { encoding: 'utf8' });
    s += Number(/cpu_s ([\d.e-]+)/.exec(out)[1]);
  }
  return s;
};
const theirs = async (encode) => {
  const t = process.cpuUsage();
  const ids = [];
  for (const s of texts) ids.push(await encode(s));
  const u = process.cpuUsage(t);
  return [1e-6 * (u.user + u.system), ids];
};
const median = (v) => v.sort((a, b) => a - b)[v.length >> 1];
const differing = (ids) => {
  for (let k = 0; k < files.length; ++k)
    for (let i = 0; i < Math.max(ids[k].length, expected[k].length); ++i)
      if (ids[k][i] !== expected[k][i]) return `token ${i} of ${files[k]}: ${ids[k][i]}, ours ${expected[k][i]}`;
  return null;
};

const versionOf = (name) => JSON.parse(readFileSync(join(modules, 'node_modules', name, 'package.json'), 'utf8')).version;
const rates = { 'seqspectra': [] }, encoders = {};
let bad = 0;
for (const [name, make] of Object.entries(packages)) {
  if (!existsSync(join(modules, 'node_modules', name))) continue;
  encoders[name] = make();
  const why = differing((await theirs(encoders[name]))[1]);
  if (why !== null) console.error(`${name}: ${why}`);
  bad |= why !== null;
  rates[name] = [];
}
for (let k = 0; k < Number(rounds); ++k) {
  rates.seqspectra.push(1e-6 * bytes / ours());
  for (const name of Object.keys(encoders)) rates[name].push(1e-6 * bytes / (await theirs(encoders[name]))[0]);
}
console.log(`${cpus()[0].model}, node ${process.version}: ${files.length} files, ${bytes} bytes, ` +
            `${expected.reduce((n, e) => n + e.length, 0)} tokens`);
for (const [name, v] of Object.entries(rates)) {
  const m = median(v);
  console.log(`${(name + (name in encoders ? ' ' + versionOf(name) : '')).padEnd(32)} ${m.toFixed(2).padStart(8)} MB/s ` +
              ` (${v[0].toFixed(2)} .. ${v[v.length - 1].toFixed(2)})`);
}
process.exit(bad);
