// The answer: what was found and when, drawn, heard and told.

import { recognizeSpeech } from "./api.js";
import { offerCorrection } from "./correction.js";
import { $, make, percent, span, spans } from "./dom.js";
import { setLabel, setText } from "./i18n.js";
import { drawScale, loudestOf, peakOf, Plot } from "./plot.js";
import { transport } from "./transport.js";
import { decodeAt } from "./wav.js";

const MOST_BARS = 10;
const SHORT = 12; // of a digest: enough to tell models apart

const seek = (seconds) => player.seek(seconds);
const mixturePlot = new Plot($("mixture-figure"), seek);
const estimatePlot = new Plot($("estimate-figure"), seek);
const player = transport($("listening"), () => [mixturePlot, estimatePlot]);
let shown = null; // {answer, recording, mixture, estimate, rateHz}
let soundUrl = "";

/** Shows {answer, tripMs, serviceMs} to a recording. */
export async function present({ answer, tripMs, serviceMs }, recording) {
  const sound = Uint8Array.from(atob(answer.audio_wav_base64), (letter) => letter.charCodeAt(0));
  offerDownload(new Blob([sound], { type: "audio/wav" }), answer);
  const estimate = (await decodeAt(sound.buffer, answer.sample_rate_hz)).samples;
  const mixture = await mixtureLike(estimate, answer.sample_rate_hz, recording);
  shown = { answer, recording, mixture, estimate, rateHz: answer.sample_rate_hz };
  $("result").hidden = false;
  tell(answer);
  draw([]);
  hear();
  bars(answer.pictured.probabilities);
  details(answer, tripMs, serviceMs);
  offerCorrection(answer);
  $("words-list").replaceChildren();
  $("verdict").focus({ preventScroll: true });
  $("result").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

/** forgetFault(): takes back what was said of an attempt before. */
export function setUpResult(onFault, forgetFault) {
  for (const radio of document.querySelectorAll("input[name=listen]")) {
    radio.addEventListener("change", () => player.choose(radio.value === "mixture" ? 0 : player.tracks.length - 1));
  }
  $("loop").addEventListener("change", ({ target }) => player.loop(target.checked));
  const words = async () => {
    if ($("words").getAttribute("aria-disabled") === "true") return;
    forgetFault();
    $("words").setAttribute("aria-disabled", "true"); // not disabled: it keeps the focus
    await showWords().catch((fault) => onFault(fault, words)).finally(() => {
      $("words").setAttribute("aria-disabled", "false");
    });
  };
  $("words").addEventListener("click", words);
  drawScale($("scale"));
}

/** The recording at the answer's rate and length; null where this browser cannot decode it. */
async function mixtureLike(estimate, rateHz, { blob, sound }) {
  if (!sound) return null;
  const { samples } = sound.rateHz === rateHz ? sound : await decodeAt(await blob.arrayBuffer(), rateHz);
  if (samples.length === estimate.length) return samples;
  const fitted = new Float32Array(estimate.length); // decoders of MP3 differ in what they leave out at the ends
  fitted.set(samples.subarray(0, estimate.length));
  return fitted;
}

function tell({ pictured, present, presence, intervals, heard }) {
  const word = pictured.label;
  const state = word === null ? "unknown" : present ? "found" : "absent";
  const verdict = { found: "verdictFound", absent: "verdictAbsent", unknown: "verdictUnknown" }[state];
  const note = { found: heard ? "heardAs" : "notHeard", absent: "absentNote", unknown: "unknownNote" }[state];
  setText($("badge"), state);
  $("result").dataset.state = state;
  setText($("verdict"), verdict, { word, when: spans(intervals) });
  const values = { word: heard?.label, p: percent(heard ? heard.probability : presence) };
  setText($("verdict-note"), note, values);
}

function draw(words) {
  const { answer, mixture, estimate, rateHz } = shown;
  const widest = mixture ?? estimate;
  const scene = { rateHz, intervals: answer.intervals, peak: peakOf(widest), loudestDb: loudestOf(widest, rateHz) };
  $("mixture-figure").hidden = !mixture;
  if (mixture) mixturePlot.show({ ...scene, samples: mixture, words });
  estimatePlot.show({ ...scene, samples: estimate });
  mixturePlot.describe("plotMixture", answer.intervals);
  estimatePlot.describe("plotEstimate", answer.intervals);
}

function hear() {
  const { mixture, estimate, rateHz } = shown;
  player.load(mixture ? [mixture, estimate] : [estimate], rateHz);
  $("listen-mixture").checked = Boolean(mixture);
  $("listen-estimate").checked = !mixture;
  $("listen-mixture").disabled = !mixture;
}

function offerDownload(blob, { pictured }) {
  URL.revokeObjectURL(soundUrl);
  soundUrl = URL.createObjectURL(blob);
  Object.assign($("download"), { href: soundUrl, download: `${pictured.label ?? "nothing"}.wav` });
}

function bars(probabilities) {
  const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const rest = rows.slice(MOST_BARS).reduce((sum, [, share]) => sum + share, 0);
  const none = Math.max(0, 1 - rows.reduce((sum, [, share]) => sum + share, 0));
  const items = rows.slice(0, MOST_BARS).map(([label, share]) => bar(make("span", { textContent: label }), share));
  for (const [key, share] of [["others", rest], ["none", none]]) {
    const name = make("span");
    setText(name, key);
    if (key === "none" || rest) items.push(bar(name, share));
  }
  $("probabilities").replaceChildren(...items);
}

function bar(name, share) {
  const track = make("span", { className: "bar" }, make("span"));
  track.firstChild.style.width = `${100 * share}%`;
  return make("li", {}, name, track, make("span", { className: "figure", textContent: percent(share) }));
}

function details(answer, tripMs, serviceMs) {
  const presence = make("span", { className: "bar" }, make("span"));
  presence.firstChild.style.width = `${100 * answer.presence}%`;
  const latency = make("span");
  const times = { trip: Math.round(tripMs), service: serviceMs === null ? 0 : Math.round(serviceMs) };
  setText(latency, serviceMs === null ? "tookTrip" : "tookBoth", times);
  const heard = make("span");
  if (answer.heard) heard.textContent = `${answer.heard.label} (${percent(answer.heard.probability)})`;
  else setText(heard, "nothing");
  $("details").replaceChildren(
    ...row("presence", presence, ` ${percent(answer.presence)}`),
    ...row("heard", heard),
    ...row("latency", latency),
    ...row("model", ...copyable(answer.model, "copyModel")),
    ...row("request", ...copyable(answer.request_id, "copyRequest")),
  );
}

function row(key, ...value) {
  const name = make("dt");
  setText(name, key);
  return [name, make("dd", {}, ...value)];
}

function copyable(whole, label) {
  const code = make("code", { textContent: whole.slice(0, SHORT), title: whole });
  const button = make("button", { type: "button", className: "small" });
  setText(button, "copy");
  setLabel(button, label);
  button.addEventListener("click", async () => {
    if (!navigator.clipboard) return select(code, whole); // browsers lend the clipboard only over https
    await navigator.clipboard.writeText(whole);
    setText(button, "copied");
    setLabel(button, "copied");
  });
  return [code, button];
}

function select(code, whole) {
  code.textContent = whole;
  getSelection().selectAllChildren(code);
}

async function showWords() {
  const asked = shown;
  const { words } = await recognizeSpeech(asked.recording.blob);
  if (asked !== shown) return; // another answer has come meanwhile
  draw(words);
  const none = make("li");
  setText(none, "wordsNone");
  $("words-list").replaceChildren(...(words.length ? words.map(wordItem) : [none]));
}

function wordItem(word) {
  const button = make("button", { type: "button", className: "small" },
    make("strong", { textContent: word.label }), ` ${span(word)}`);
  setLabel(button, "wordAt", { word: word.label, when: span(word), p: percent(word.probability) });
  button.addEventListener("click", () => {
    player.seek(word.start_s);
    player.play();
  });
  return make("li", {}, button);
}
