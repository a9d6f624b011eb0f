// The page around the segmenter: an image and class names in, a coloured image out.

import { Segmenter } from "./segmenter.js";

const place = (id) => document.getElementById(`ovseg-${id}`);
const folder = new URL("./", import.meta.url).href;
const MOST_PIXELS = 800 * 800;
const CONTROLS = ["run", "file", "sample"];
let loading = null;
place("still").remove(); // said where this script does not run

function load() {
  loading ??= (async () => {
    const ort = await import(`${folder}ort/ort.wasm.min.mjs`);
    ort.env.wasm.wasmPaths = `${folder}ort/`;
    ort.env.wasm.numThreads = 1; // more need a server that isolates the page
    return Segmenter.load(ort, `${folder}model/`, say);
  })();
  loading.catch(() => (loading = null));
  return loading;
}

async function say(text) {
  place("status").textContent = text;
}

function colour(index) {
  const hue = (index * 137.508) % 360; // the golden angle keeps neighbours apart
  const light = 45 + 15 * (index % 3);
  place("canvas").getContext("2d").fillStyle = `hsl(${hue} 85% ${light}%)`;
  const hex = place("canvas").getContext("2d").fillStyle;
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

function draw(image, { labels }, names) {
  const colours = names.map((_, index) => colour(index));
  const shown = new ImageData(new Uint8ClampedArray(image.data), image.width, image.height);
  const areas = names.map(() => 0);
  labels.forEach((label, i) => {
    if (label < 0) return;
    areas[label] += 1;
    for (let c = 0; c < 3; c++) shown.data[4 * i + c] = (image.data[4 * i + c] + colours[label][c]) / 2;
  });
  place("canvas").getContext("2d").putImageData(shown, 0, 0);
  const legend = place("legend");
  legend.replaceChildren();
  names.forEach((name, index) => {
    const item = document.createElement("li");
    const mark = document.createElement("span");
    mark.style.cssText = `display:inline-block;width:1em;height:1em;margin-right:.5em;background:rgb(${colours[index]})`;
    item.append(mark, `${name.split("|")[0].trim()} ${((100 * areas[index]) / labels.length).toFixed(1)} %`);
    legend.append(item);
  });
}

// a Blob or an address of an image as ImageData, reduced where it is large
async function pixels(source) {
  const blob = typeof source === "string" ? await (await fetch(source)).blob() : source;
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const factor = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const [width, height] = [bitmap.width, bitmap.height].map((s) => Math.max(1, Math.round(s * factor)));
  Object.assign(place("canvas"), { width, height });
  const context = place("canvas").getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // under transparency
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

async function run() {
  if (place("run").disabled) return; // until the image before is done
  const names = place("names").value.split("\n").map((name) => name.trim()).filter(Boolean);
  const file = place("file").files[0];
  for (const id of CONTROLS) place(id).disabled = true;
  try {
    if (!names.length) throw new Error("no class names; type at least one, a class a line");
    const image = await pixels(file ?? place("sample").value);
    const segmenter = await load();
    const began = performance.now();
    const result = await segmenter.segment(image, names, say);
    draw(image, result, names);
    window.ovsegResult = result; // for those who look into it by the console
    await say(`done in ${((performance.now() - began) / 1000).toFixed(1)} s, on this machine`);
  } catch (error) {
    await say(`error: ${error.message}`);
  }
  for (const id of CONTROLS) place(id).disabled = false;
}

place("run").addEventListener("click", run);
place("file").addEventListener("change", run);
place("sample").addEventListener("change", () => {
  const option = place("sample").selectedOptions[0];
  place("names").value = option.dataset.names.replaceAll(", ", "\n");
  place("file").value = "";
});
fetch(`${folder}model/manifest.json`, { method: "HEAD" }).then((answer) => {
  if (!answer.ok) say("The model was left out when this site was built; see docs/export.md.");
}).catch(() => say("Open this page from a server, for instance: python -m http.server -d site"));
