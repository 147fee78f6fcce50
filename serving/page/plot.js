// One sound as a picture: waveform above, spectrogram below, one axis of time under both.

import { spans } from "./dom.js";
import { onLanguage, setLabel, t } from "./i18n.js";
import { COLOURS, paint, spectrogram } from "./spectrogram.js";

const LEFT = 42; // room for the axis of frequency
const RIGHT = 10;
const WORD_HEIGHT = 18; // of a row of words
const WAVE_HEIGHT = 62;
const GAP = 8;
const AXIS_HEIGHT = 34;
const HIGHEST_HZ = 8000; // speech has little above

const drawn = []; // everything on a canvas, which no style sheet recolours
const redrawAll = () => drawn.forEach((part) => part.redraw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
onLanguage(redrawAll);

function keepDrawn(part) {
  new ResizeObserver(() => part.redraw()).observe(part.canvas);
  drawn.push(part);
}

export class Plot {
  /** figure: an element that holds a canvas and a .position line; onSeek(seconds) is called for a press on the plot. */
  constructor(figure, onSeek, spectrumHeight = 150) {
    this.spectrumHeight = spectrumHeight;
    this.canvas = figure.querySelector("canvas");
    this.line = figure.querySelector(".position");
    this.scene = null;
    this.at = 0; // seconds, of the line
    this.canvas.addEventListener("pointerdown", (event) => this.scene && onSeek(this.secondsAt(event)));
    keepDrawn(this);
  }

  /** scene: {samples, rateHz, intervals, words, peak, loudestDb}; the last two are null to take this sound's own. */
  show(scene) {
    this.scene = { intervals: [], words: [], peak: null, loudestDb: null, ...scene };
    this.redraw();
  }

  /** Says in words what the plot shows. name: of a text; intervals: null where none were looked for. */
  describe(name, intervals) {
    const found = { t: intervals?.length ? "plotFound" : "plotNothing", values: { when: spans(intervals ?? []) } };
    setLabel(this.canvas, "plotLabel", { name: { t: name }, s: this.scene ? this.durationS.toFixed(2) : 0, found });
  }

  get durationS() {
    return this.scene.samples.length / this.scene.rateHz;
  }

  get width() {
    return this.canvas.clientWidth - LEFT - RIGHT;
  }

  secondsAt(event) {
    const share = (event.clientX - this.canvas.getBoundingClientRect().left - LEFT) / this.width;
    return Math.max(0, Math.min(1, share)) * this.durationS;
  }

  moveTo(seconds) {
    this.at = seconds;
    if (this.scene) this.line.style.transform = `translateX(${this.x(seconds)}px)`;
  }

  x(seconds) {
    return LEFT + (seconds / this.durationS) * this.width;
  }

  redraw() {
    if (!this.scene || this.width <= 0) return; // hidden
    const rows = rowsOf(this.scene.words);
    const top = rows.length * WORD_HEIGHT;
    const height = top + WAVE_HEIGHT + GAP + this.spectrumHeight + AXIS_HEIGHT;
    const draw = blank(this.canvas, height);
    const below = top + WAVE_HEIGHT + GAP;
    this.drawWave(draw, top);
    const topHz = this.drawSpectrum(draw, below);
    this.drawIntervals(draw, top, below);
    rows.forEach((words, row) => this.drawWords(draw, words, row * WORD_HEIGHT));
    this.drawAxes(draw, below, topHz);
    this.line.style.height = `${height - AXIS_HEIGHT}px`;
    this.moveTo(this.at);
  }

  colour(name) {
    return colourOf(this.canvas, name);
  }

  drawWave(draw, top) {
    const { samples } = this.scene;
    const peak = Math.max(this.scene.peak ?? peakOf(samples), 1e-4);
    const middle = top + WAVE_HEIGHT / 2;
    draw.fillStyle = this.colour("--plot");
    draw.fillRect(LEFT, top, this.width, WAVE_HEIGHT);
    draw.fillStyle = this.colour("--wave");
    const step = 1 / (window.devicePixelRatio || 1);
    const each = samples.length / this.width;
    for (let x = 0; x < this.width; x += step) {
      const [low, high] = extremes(samples, x * each, (x + step) * each);
      const [up, down] = [(high / peak) * 0.46 * WAVE_HEIGHT, (low / peak) * 0.46 * WAVE_HEIGHT];
      draw.fillRect(LEFT + x, middle - Math.max(up, 0.5), step, Math.max(up - down, 1));
    }
  }

  drawSpectrum(draw, top) {
    const { samples, rateHz } = this.scene;
    const found = spectrogram(samples, rateHz, Math.round(this.width), HIGHEST_HZ);
    const image = document.createElement("canvas");
    [image.width, image.height] = [found.columns, found.bins];
    image.getContext("2d").putImageData(paint(found, this.scene.loudestDb ?? loudest(found.db)), 0, 0);
    draw.imageSmoothingQuality = "high";
    draw.drawImage(image, LEFT, top, this.width, this.spectrumHeight);
    if (!peakOf(samples)) this.drawSilence(draw, top);
    return found.topHz;
  }

  drawSilence(draw, top) {
    draw.fillStyle = "#d8d2e4"; // on black in either scheme
    draw.textAlign = "center";
    draw.textBaseline = "middle";
    draw.fillText(t("silence"), LEFT + this.width / 2, top + this.spectrumHeight / 2);
  }

  drawIntervals(draw, top, below) {
    for (const { start_s, end_s } of this.scene.intervals) {
      const [left, right] = [this.x(start_s), this.x(end_s)];
      draw.fillStyle = this.colour("--found-band");
      draw.fillRect(left, top, right - left, WAVE_HEIGHT);
      draw.fillStyle = this.colour("--found-line");
      draw.fillRect(left, top, right - left, 3);
      for (const edge of [left, right - 2]) {
        draw.fillRect(edge, top, 2, WAVE_HEIGHT);
        draw.fillStyle = this.colour("--found-on-spectrum");
        draw.fillRect(edge, below, 2, this.spectrumHeight);
        draw.fillStyle = this.colour("--found-line");
      }
    }
  }

  drawWords(draw, words, top) {
    draw.textBaseline = "middle";
    draw.textAlign = "center";
    for (const { label, start_s, end_s } of words) {
      const [left, right] = [this.x(start_s), this.x(end_s)];
      draw.fillStyle = this.colour("--word");
      draw.fillRect(left, top, Math.max(right - left - 1, 2), WORD_HEIGHT - 3);
      draw.fillStyle = this.colour("--on-word");
      const fits = draw.measureText(label).width + 4 < right - left;
      if (fits) draw.fillText(label, (left + right) / 2, top + WORD_HEIGHT / 2 - 1);
    }
  }

  drawAxes(draw, top, topHz) {
    const bottom = top + this.spectrumHeight;
    draw.fillStyle = draw.strokeStyle = this.colour("--soft");
    draw.textBaseline = "middle";
    draw.textAlign = "right";
    const stepKhz = topHz > 5000 ? 2 : 1;
    for (let khz = 0; khz * 1000 <= topHz + 1; khz += stepKhz) {
      const y = bottom - ((khz * 1000) / topHz) * this.spectrumHeight;
      draw.fillRect(LEFT - 4, Math.min(y, bottom - 1), 4, 1);
      draw.fillText(String(khz), LEFT - 7, y);
    }
    this.drawTimes(draw, bottom);
    draw.textAlign = "center";
    draw.fillText(t("axisTime"), LEFT + this.width / 2, bottom + 27);
    draw.save();
    draw.translate(9, top + this.spectrumHeight / 2);
    draw.rotate(-Math.PI / 2);
    draw.fillText(t("axisFrequency"), 0, 0);
    draw.restore();
  }

  drawTimes(draw, bottom) {
    const step = tickStep(this.durationS, this.width / 64);
    draw.textAlign = "center";
    for (let i = 0; i * step <= this.durationS + 1e-9; i++) {
      draw.fillRect(Math.min(this.x(i * step), LEFT + this.width - 1), bottom, 1, 4);
      draw.fillText((i * step).toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0), this.x(i * step), bottom + 12);
    }
  }
}

/** A cleared canvas as wide as it is shown, in points of the page however fine the screen is. */
function blank(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  [canvas.width, canvas.height] = [Math.round(canvas.clientWidth * ratio), Math.round(height * ratio)];
  const draw = canvas.getContext("2d");
  draw.scale(ratio, ratio);
  draw.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  return draw;
}

function colourOf(element, name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

/** Words in as few rows as it takes for none to lie over another. */
function rowsOf(words) {
  const rows = [];
  for (const word of words) {
    const free = rows.find((row) => row.at(-1).end_s <= word.start_s);
    if (free) free.push(word);
    else rows.push([word]);
  }
  return rows;
}

/** The round number of seconds between ticks that gives at most so many. */
function tickStep(durationS, most) {
  const steps = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300];
  return steps.find((step) => durationS / step <= most) ?? 600;
}

function extremes(samples, from, to) {
  let [low, high] = [0, 0];
  const end = Math.min(samples.length, Math.max(Math.ceil(to), Math.floor(from) + 1));
  for (let i = Math.floor(from); i < end; i++) {
    if (samples[i] < low) low = samples[i];
    else if (samples[i] > high) high = samples[i];
  }
  return [low, high];
}

export function peakOf(samples) {
  return samples.reduce((peak, value) => (Number.isFinite(value) ? Math.max(peak, Math.abs(value)) : peak), 0);
}

const loudest = (db) => db.reduce((most, value) => Math.max(most, value), -60);

/** The level that the lightest colour stands for, so that two plots can share it. */
export function loudestOf(samples, rateHz) {
  return loudest(spectrogram(samples, rateHz, 400, HIGHEST_HZ).db);
}

/** The colours from silence to the loudest, left to right. */
export function drawScale(canvas) {
  const draw = canvas.getContext("2d");
  COLOURS.forEach(([red, green, blue], i) => {
    draw.fillStyle = `rgb(${red} ${green} ${blue})`;
    draw.fillRect((i / COLOURS.length) * canvas.width, 0, canvas.width / COLOURS.length + 1, canvas.height);
  });
}

/** A waveform without axes, for lists; from and to are shares of the width that it takes. */
export class SmallWave {
  constructor(canvas, colour, height) {
    Object.assign(this, { canvas, colour, height, samples: null });
    keepDrawn(this);
  }

  show(samples, from = 0, to = 1) {
    Object.assign(this, { samples, from, to });
    this.redraw();
  }

  redraw() {
    const { canvas, height, samples, from, to } = this;
    if (!samples || canvas.clientWidth === 0) return; // hidden
    const draw = blank(canvas, height);
    draw.fillStyle = colourOf(canvas, this.colour);
    const scale = (0.46 * height) / Math.max(peakOf(samples), 1e-4);
    const [left, wide] = [from * canvas.clientWidth, Math.max((to - from) * canvas.clientWidth, 1)];
    for (let x = 0; x < wide; x += 1) {
      const [low, high] = extremes(samples, (x / wide) * samples.length, ((x + 1) / wide) * samples.length);
      draw.fillRect(left + x, height / 2 - Math.max(high * scale, 0.5), 1, Math.max((high - low) * scale, 1));
    }
  }
}
