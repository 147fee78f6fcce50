// Spectrograms: power over time and frequency, in colours whose lightness rises evenly with the level.

export const RANGE_DB = 70; // what lies this far below the loudest point is black
const WINDOW_S = 0.032;
const PADDING = 2; // the transform is this many windows long, which draws formants as curves and not as steps

// After magma of matplotlib (CC0): nine of its colours, and straight lines between them.
const ANCHORS = [
  [0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122],
  [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191],
];
const LEVELS = 256;
export const COLOURS = Array.from({ length: LEVELS }, (_, level) => {
  const at = (level / (LEVELS - 1)) * (ANCHORS.length - 1);
  const below = Math.min(Math.floor(at), ANCHORS.length - 2);
  return ANCHORS[below].map((value, i) => Math.round(value + (at - below) * (ANCHORS[below + 1][i] - value)));
});

/** Power spectra, in dB. Returns {columns, bins, topHz, db: Float32Array (columns x bins)}; topHz ends the last bin. */
export function spectrogram(samples, rateHz, columns, highestHz) {
  const window = 2 ** Math.round(Math.log2(WINDOW_S * rateHz));
  const size = PADDING * window;
  const bins = Math.min(size / 2, Math.ceil((highestHz / rateHz) * size));
  const transform = fourier(size);
  const shape = Float64Array.from({ length: window }, (_, i) => Math.sin((Math.PI * (i + 0.5)) / window) ** 2); // Hann
  const step = samples.length / columns;
  const framesEach = Math.max(1, Math.ceil(step / window)); // no sound falls between two columns
  const db = new Float32Array(columns * bins);
  for (let x = 0; x < columns; x++) {
    const power = new Float64Array(bins);
    for (let frame = 0; frame < framesEach; frame++) {
      const middle = (x + (frame + 0.5) / framesEach) * step;
      addPower(power, samples, Math.round(middle - window / 2), shape, transform);
    }
    for (let bin = 0; bin < bins; bin++) db[x * bins + bin] = 10 * Math.log10(power[bin] / framesEach + 1e-12);
  }
  return { columns, bins, topHz: (bins * rateHz) / size, db };
}

function addPower(power, samples, start, shape, { real, imaginary, run }) {
  real.fill(0);
  imaginary.fill(0);
  for (let i = 0; i < shape.length; i++) {
    const value = samples[start + i]; // none before the start and after the end; a file of floats may hold NaN
    real[i] = Number.isFinite(value) ? value * shape[i] : 0;
  }
  run();
  for (let bin = 0; bin < power.length; bin++) power[bin] += real[bin] ** 2 + imaginary[bin] ** 2;
}

/** ImageData of a spectrogram, lowest frequency at the bottom. loudestDb is shown as the lightest colour. */
export function paint({ columns, bins, db }, loudestDb) {
  const image = new ImageData(columns, bins);
  for (let x = 0; x < columns; x++) {
    for (let bin = 0; bin < bins; bin++) {
      const level = Math.max(0, Math.min(1, 1 + (db[x * bins + bin] - loudestDb) / RANGE_DB));
      image.data.set(COLOURS[Math.round(level * (LEVELS - 1))], 4 * ((bins - 1 - bin) * columns + x));
      image.data[4 * ((bins - 1 - bin) * columns + x) + 3] = 255;
    }
  }
  return image;
}

// Radix-2 Fourier transform in place, after Cooley and Tukey (1965).
function fourier(size) {
  const [real, imaginary] = [new Float64Array(size), new Float64Array(size)];
  const cosine = Float64Array.from({ length: size / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / size));
  const sine = Float64Array.from({ length: size / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / size));
  function reorder() {
    for (let i = 1, j = 0; i < size; i++) {
      let bit = size >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) [real[i], real[j]] = [real[j], real[i]]; // the imaginary part is all zero yet
    }
  }
  function butterfly(a, b, turn) {
    const r = real[b] * cosine[turn] - imaginary[b] * sine[turn];
    const i = real[b] * sine[turn] + imaginary[b] * cosine[turn];
    real[b] = real[a] - r;
    imaginary[b] = imaginary[a] - i;
    real[a] += r;
    imaginary[a] += i;
  }
  function run() {
    reorder();
    for (let half = 1; half < size; half *= 2) {
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) butterfly(start + k, start + k + half, (k * size) / (2 * half));
      }
    }
  }
  return { real, imaginary, run };
}
