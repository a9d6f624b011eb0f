// An exported model in the browser; the same stages as ovseg/runtime, a function each:
// image -> proposals -> crops -> CLIP -> ensemble -> segmentation

import { bicubic, bilinear, smooth } from "./resize.js";
import { Tokenizer } from "./tokenizer.js";

const TEXTS = 64; // that go through the encoder together
const CROPS = 8;

export class Segmenter {
  // ort: onnxruntime-web; folder: the address of the export, with a / at its end
  static async load(ort, folder, progress) {
    const manifest = await (await fetched(`${folder}manifest.json`)).json();
    const reason = refusal(manifest);
    if (reason) throw new Error(`this export cannot run in the browser: ${reason}`);
    const segmenter = new Segmenter();
    Object.assign(segmenter, { ort, manifest, known: new Map() });
    for (const name of ["proposals", "regions", "text"]) {
      const file = manifest.files[`${name}.onnx`];
      if (!file) continue; // a model without CLIP ensemble has no regions
      progress(`loading ${name}.onnx (${(file.bytes / 1e6).toFixed(0)} MB)`);
      const bytes = await (await fetched(`${folder}${name}.onnx`)).arrayBuffer();
      segmenter[name] = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    }
    const merges = await fetched(`${folder}bpe_simple_vocab_16e6.txt.gz`);
    segmenter.tokenizer = new Tokenizer(await unzipped(await merges.arrayBuffer()));
    return segmenter;
  }

  // image: an ImageData; names: of the classes, synonyms as in "sofa | couch". Gives labels
  // (Int32Array, -1: no class), row by row
  async segment(image, names, progress = () => {}) {
    progress("words");
    const synonyms = names.map((name) => name.split("|").map((word) => word.trim()).filter(Boolean));
    if (synonyms.some((group) => !group.length)) throw new Error("a class name is empty");
    const words = synonyms.flat();
    const classOf = synonyms.flatMap((group, label) => group.map(() => label));
    if (names.length === 1) { // classification is by contrast
      words.push("others");
      classOf.push(-1);
    }
    const text = await this.textFeatures(words);
    progress("proposals");
    const proposals = await this.propose(image);
    const probs = proposals.embeddings.map((row) => this.probabilities(row, text, true));
    if (this.manifest.classification.clip_ensemble) await this.ensemble(proposals, probs, text, progress);
    progress("segmentation");
    const best = labelMap(proposals, probs, words.length, [image.height, image.width]);
    const labels = best.map((word) => (word < 0 ? -1 : classOf[word]));
    return { labels, width: image.width, height: image.height };
  }

  async textFeatures(words) {
    const { templates } = this.manifest.text;
    for (const word of words) {
      if (this.known.has(word)) continue;
      const texts = templates.map((t) => this.tokenizer.encode(t.replaceAll("{}", word)));
      if (texts.some((ids) => ids.length > this.manifest.text.context_length)) {
        throw new Error(`class name ${word} is longer than CLIP reads; give a shorter one`);
      }
      let mean = null;
      for (let i = 0; i < texts.length; i += TEXTS) {
        const part = texts.slice(i, i + TEXTS);
        const length = Math.max(...part.map((ids) => ids.length));
        const tokens = new BigInt64Array(part.length * length);
        part.forEach((ids, row) => ids.forEach((id, k) => (tokens[row * length + k] = BigInt(id))));
        const input = new this.ort.Tensor("int64", tokens, [part.length, length]);
        const { features } = await this.text.run({ tokens: input });
        for (const row of rows(features).map(unit)) mean = mean ? mean.map((v, k) => v + row[k]) : row;
      }
      this.known.set(word, unit(mean));
    }
    return [...words.map((word) => this.known.get(word)), this.manifest.classification.no_object];
  }

  async propose(image) {
    const about = this.manifest.image;
    const size = resizedSize(image, about);
    const planes = [0, 1, 2].map((c) => {
      const plane = new Float32Array(image.width * image.height);
      for (let i = 0; i < plane.length; i++) plane[i] = image.data[4 * i + c];
      return smooth(plane, [image.height, image.width], size);
    });
    if (about.channels === "BGR") planes.reverse();
    const step = about.size_divisibility;
    const padded = size.map((side) => Math.ceil(side / step) * step);
    const input = new Float32Array(3 * padded[0] * padded[1]);
    planes.forEach((plane, c) => {
      const channel = input.subarray(c * padded[0] * padded[1], (c + 1) * padded[0] * padded[1]);
      channel.fill(about.mean[c]);
      for (let y = 0; y < size[0]; y++) {
        channel.set(plane.subarray(y * size[1], (y + 1) * size[1]), y * padded[1]);
      }
    });
    const images = new this.ort.Tensor("float32", input, [1, 3, ...padded]);
    const { mask_logits: logits, embeddings } = await this.proposals.run({ images });
    const [, count, h, w] = logits.dims;
    const masks = Array.from({ length: count }, (_, q) => {
      const large = bilinear(logits.data.subarray(q * h * w, (q + 1) * h * w), [h, w], padded);
      const mask = new Float32Array(size[0] * size[1]);
      for (let y = 0; y < size[0]; y++) {
        for (let x = 0; x < size[1]; x++) {
          mask[y * size[1] + x] = 1 / (1 + Math.exp(-large[y * padded[1] + x]));
        }
      }
      return mask;
    });
    return { planes, masks, size, embeddings: rows(embeddings) };
  }

  // cosine similarities x temperature, through a softmax; "no object" is the last feature
  probabilities(embedding, text, withNoObject) {
    const direction = unit(embedding);
    const { temperature } = this.manifest.classification;
    const used = withNoObject ? text : text.slice(0, -1);
    const logits = used.map((f) => temperature * f.reduce((sum, v, k) => sum + v * direction[k], 0));
    const most = Math.max(...logits);
    const powers = logits.map((logit) => Math.exp(logit - most));
    const sum = powers.reduce((total, power) => total + power, 0);
    return powers.map((power) => power / sum).slice(0, text.length - 1);
  }

  // joins CLIP's classification of the crops to probs, in place
  async ensemble({ planes, masks, size }, probs, text, progress) {
    const { crops: about, classification } = this.manifest;
    const weight = classification.ensemble_weight;
    const area = 3 * about.size[0] * about.size[1];
    const valid = [];
    masks.forEach((mask, q) => {
      const crop = cut(planes, mask, size, about);
      if (crop) valid.push({ q, crop });
      else if (weight === 0) probs[q].fill(0);
      else probs[q] = probs[q].map((p) => p ** (1 - weight));
    });
    for (let first = 0; first < valid.length; first += CROPS) {
      progress(`CLIP: crop ${first + 1} of ${valid.length}`);
      const part = valid.slice(first, first + CROPS);
      const data = new Float32Array(part.length * area);
      part.forEach(({ crop }, i) => data.set(crop, i * area));
      const crops = new this.ort.Tensor("float32", data, [part.length, 3, ...about.size]);
      const { features } = await this.regions.run({ crops });
      rows(features).forEach((feature, i) => {
        const clip = this.probabilities(feature, text, false);
        const { q } = part[i];
        probs[q] = clip.map((p, c) => (weight === 0 ? p : probs[q][c] ** (1 - weight) * p ** weight));
      });
    }
  }
}

// why an export cannot run here, as far as it differs from what this file does; null: it can
export function refusal({ version, shared, files, crops, classification }) {
  if (version !== 1) return `its manifest has version ${version}, and 1 is read`;
  if (!files["text.onnx"]) return "it has no text encoder, and knows its own words alone";
  if (shared) return "its CLIP sees the whole image once (REGION_ENCODER shared)";
  if (crops.matting) return "its crops are cut with soft masks (MATTING)";
  if (crops.mask_prompts) return "its CLIP has mask prompts";
  if (classification.reject) return "it leaves pixels without a class (TEST.REJECT)";
  if (classification.best_proposals_only) return "it segments by its best proposals alone (OVSegDEMO)";
  return null;
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address} is not there (${answer.status})`);
  return answer;
}

// what a mask shows, its background filled, at CLIP's size; null without a pixel
function cut(planes, mask, [height, width], { mask_threshold: threshold, fill, size, expand_ratio: ratio }) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  const limit = Math.fround(threshold);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (mask[y * width + x] > limit) {
        left = Math.min(left, x); right = Math.max(right, x + 1);
        top = Math.min(top, y); bottom = Math.max(bottom, y + 1);
      }
    }
  }
  if (right === 0) return null;
  const grow = (low, high, length) => {
    const half = ((high - low) * ratio) / 2;
    const from = Math.max(Math.trunc((low + high) / 2 - half), 0);
    return [from, Math.max(Math.min(Math.trunc((low + high) / 2 + half), length), from + 1)];
  };
  [left, right] = grow(left, right, width);
  [top, bottom] = grow(top, bottom, height);
  const result = new Float32Array(3 * size[0] * size[1]);
  planes.forEach((plane, c) => {
    const part = new Float32Array((bottom - top) * (right - left));
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const inside = mask[y * width + x] > limit;
        part[(y - top) * (right - left) + x - left] = inside ? plane[y * width + x] : fill[c];
      }
    }
    const scaled = bicubic(part, [bottom - top, right - left], size);
    result.set(scaled, c * scaled.length);
  });
  return result;
}

// the class with the largest sum over proposals of probability x mask, at the image's own size
function labelMap({ masks, size }, probs, classes, [height, width]) {
  const large = masks.map((mask) => bilinear(mask, size, [height, width]));
  const labels = new Int32Array(height * width).fill(-1);
  const best = new Float32Array(height * width);
  const scores = new Float32Array(height * width);
  for (let c = 0; c < classes; c++) {
    scores.fill(0);
    large.forEach((mask, q) => {
      const p = probs[q][c];
      for (let i = 0; i < scores.length; i++) scores[i] += p * mask[i];
    });
    for (let i = 0; i < scores.length; i++) {
      if (scores[i] > best[i]) { best[i] = scores[i]; labels[i] = c; }
    }
  }
  return labels;
}

function resizedSize({ height, width }, { short_side: short, longest_side: longest }) {
  if (!short) return [height, width];
  const scale = short / Math.min(height, width);
  let sides = height < width ? [short, scale * width] : [scale * height, short];
  if (Math.max(...sides) > longest) sides = sides.map((side) => (side * longest) / Math.max(...sides));
  return sides.map((side) => Math.max(Math.floor(side + 0.5), 1));
}

function rows({ data, dims }) {
  const width = dims.at(-1);
  return Array.from({ length: data.length / width }, (_, i) => data.slice(i * width, (i + 1) * width));
}

function unit(values) {
  const length = Math.hypot(...values);
  return values.map((value) => value / Math.max(length, 1e-12));
}

async function unzipped(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
