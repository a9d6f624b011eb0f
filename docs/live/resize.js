// Resizing: as Pillow for images, as PyTorch for masks and crops. Arrays are planes, row by row.

// a plane resized by weighted sums along its columns, then along its rows
function along(plane, height, width, rows, columns, between) {
  const [down, across] = [flat(rows), flat(columns)];
  const wide = new Float32Array(height * columns.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < columns.length; x++) {
      let sum = 0;
      for (let k = x * across.count; k < (x + 1) * across.count; k++) {
        sum += plane[y * width + across.places[k]] * across.weights[k];
      }
      wide[y * columns.length + x] = between ? between(sum) : sum;
    }
  }
  const result = new Float32Array(rows.length * columns.length);
  for (let y = 0; y < rows.length; y++) {
    const row = result.subarray(y * columns.length, (y + 1) * columns.length);
    for (let k = y * down.count; k < (y + 1) * down.count; k++) {
      const [from, weight] = [down.places[k] * columns.length, down.weights[k]];
      for (let x = 0; x < row.length; x++) row[x] += wide[from + x] * weight;
    }
    if (between) for (let x = 0; x < row.length; x++) row[x] = between(row[x]);
  }
  return result;
}

// lists of [place, weight], made as long as the longest, in two arrays
function flat(lists) {
  const count = Math.max(...lists.map((taps) => taps.length));
  const places = new Int32Array(lists.length * count);
  const weights = new Float32Array(lists.length * count);
  lists.forEach((taps, i) => {
    taps.forEach(([place, weight], k) => {
      places[i * count + k] = place;
      weights[i * count + k] = weight;
    });
  });
  return { count, places, weights };
}

const range = (length) => Array.from({ length }, (_, i) => i);
const centre = (i, old, size) => Math.fround(Math.fround(i + 0.5) * Math.fround(old / size)) - 0.5;

function linearTaps(old, size) {
  return range(size).map((i) => {
    const position = Math.max(centre(i, old, size), 0);
    const near = Math.min(Math.floor(position), old - 1);
    const share = position - near;
    return [[near, 1 - share], [Math.min(near + 1, old - 1), share]];
  });
}

function cubicTaps(old, size) {
  const a = -0.75;
  const near = (x) => ((a + 2) * x - (a + 3)) * x * x + 1;
  const far = (x) => ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return range(size).map((i) => {
    const position = centre(i, old, size);
    const before = Math.floor(position);
    const t = position - before;
    const weights = [far(t + 1), near(t), near(1 - t), far(2 - t)];
    return weights.map((weight, k) => [Math.min(Math.max(before - 1 + k, 0), old - 1), weight]);
  });
}

// a triangle as wide as the reduction, as Pillow's BILINEAR
function smoothTaps(old, size) {
  const scale = old / size;
  const support = Math.max(scale, 1);
  return range(size).map((i) => {
    const middle = (i + 0.5) * scale;
    const first = Math.max(Math.floor(middle - support + 0.5), 0);
    const last = Math.min(Math.floor(middle + support + 0.5), old);
    const taps = range(last - first).map((k) => {
      const distance = Math.abs(first + k - middle + 0.5) / support;
      return [first + k, Math.max(1 - distance, 0)];
    });
    const sum = taps.reduce((total, [, weight]) => total + weight, 0);
    return taps.map(([place, weight]) => [place, weight / sum]);
  });
}

export function bilinear(plane, [h, w], [height, width]) {
  return along(plane, h, w, linearTaps(h, height), linearTaps(w, width));
}

export function bicubic(plane, [h, w], [height, width]) {
  return along(plane, h, w, cubicTaps(h, height), cubicTaps(w, width));
}

export function smooth(plane, [h, w], [height, width]) {
  const whole = (value) => Math.min(Math.max(Math.floor(value + 0.5), 0), 255);
  return along(plane, h, w, smoothTaps(h, height), smoothTaps(w, width), whole);
}
