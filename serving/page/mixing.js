// Two recordings mixed in the page: how loud the first is over the second, and when the second starts.

import { Fault } from "./api.js";
import { $, make } from "./dom.js";
import { sayNote, setLabel, setText, t } from "./i18n.js";
import { peakOf, SmallWave } from "./plot.js";
import { decode, decodeAt, encodeWav } from "./wav.js";

const HIGHEST_PEAK = 0.999;
const TRACK_HEIGHT = 34;
const firstTrack = new SmallWave($("track-first"), "--first", TRACK_HEIGHT);
const secondTrack = new SmallWave($("track-second"), "--second", TRACK_HEIGHT);
const choices = []; // {blob, note}
let pair = null; // the two chosen, decoded at one rate
let turn = 0;

/** samples of first + gain * second, the second moved by offsetSamples, and what both were turned down by.
 *
 * sirDb: power of the first over that of the second, each averaged over its own length. Returns {samples, downDb}. */
export function mix(first, second, sirDb, offsetSamples) {
  const [loud, other] = [power(first), power(second)];
  const gain = loud && other ? Math.sqrt(loud / other / 10 ** (sirDb / 10)) : 1;
  const [firstAt, secondAt] = [Math.max(0, -offsetSamples), Math.max(0, offsetSamples)];
  const samples = new Float32Array(Math.max(firstAt + first.length, secondAt + second.length));
  first.forEach((value, i) => { samples[firstAt + i] += value; });
  second.forEach((value, i) => { samples[secondAt + i] += gain * value; });
  const peak = peakOf(samples);
  if (peak <= HIGHEST_PEAK) return { samples, downDb: 0 };
  const down = HIGHEST_PEAK / peak;
  return { samples: samples.map((value) => value * down), downDb: -20 * Math.log10(down) };
}

function power(samples) {
  return samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
}

export function setUpMixing(onMixture, onFault) {
  for (const id of ["mix-first", "mix-second"]) $(id).addEventListener("change", () => remix(onMixture).catch(onFault));
  for (const id of ["mix-sir", "mix-offset"]) $(id).addEventListener("input", () => pair && render(onMixture));
  $("mix-file").addEventListener("change", async ({ target }) => {
    const file = target.files[0];
    target.value = "";
    if (!file) return;
    const readable = await decode(file).then(() => true, () => false);
    if (!readable) return onFault(new Fault("unreadable", { name: file.name }));
    offerForMixing(file, file.name);
    $("mix-second").value = String(choices.length - 1);
    await remix(onMixture).catch(onFault);
  });
  showValues();
}

/** Adds one recording to choose from. */
export function offerForMixing(blob, note) {
  choices.push({ blob, note });
  for (const id of ["mix-first", "mix-second"]) {
    const option = make("option", { value: String(choices.length - 1) });
    sayNote(option, note);
    $(id).append(option);
  }
  if (choices.length === 2) $("mix-second").value = "1";
}

/** Mix these two of the choices; offsetShare: of the first's length, where the second starts. */
export async function mixThese(first, second, sirDb, offsetShare, onMixture) {
  [$("mix-first").value, $("mix-second").value] = [String(first), String(second)];
  $("mix-sir").value = sirDb;
  await remix(onMixture, offsetShare);
}

/** Mix what is chosen. Returns the mixture, null where there is none, or where another has been asked for meanwhile. */
export async function remix(onMixture, offsetShare = null) {
  const mine = ++turn;
  const [first, second] = ["mix-first", "mix-second"].map((id) => choices[Number($(id).value)]);
  if (!first || !second) return null;
  const sound = await decode(first.blob);
  const other = await decodeAt(await second.blob.arrayBuffer(), sound.rateHz);
  if (mine !== turn) return null;
  pair = { first: sound.samples, second: other.samples, rateHz: sound.rateHz };
  setRange(offsetShare);
  return render(onMixture);
}

function setRange(offsetShare) {
  const [firstS, secondS] = [pair.first.length / pair.rateHz, pair.second.length / pair.rateHz];
  const slider = $("mix-offset");
  Object.assign(slider, { min: (-secondS).toFixed(2), max: firstS.toFixed(2) });
  if (offsetShare !== null) slider.value = (offsetShare * firstS).toFixed(2);
}

function render(onMixture) {
  const offset = Math.round(Number($("mix-offset").value) * pair.rateHz);
  const { samples, downDb } = mix(pair.first, pair.second, Number($("mix-sir").value), offset);
  showValues();
  showTracks(samples.length, offset);
  $("mix-down").hidden = downDb === 0;
  if (downDb) setText($("mix-down"), "mixTurnedDown", { db: downDb.toFixed(1) });
  const sound = { samples, rateHz: pair.rateHz };
  const mixture = { blob: encodeWav(samples, pair.rateHz), sound, note: { t: "mixNote" } };
  onMixture(mixture);
  return mixture;
}

export function showValues() {
  const signed = (value, digits) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}`;
  for (const [id, key, digits] of [["mix-sir", "sirValue", 1], ["mix-offset", "offsetValue", 2]]) {
    const values = { v: signed(Number($(id).value), digits) };
    setText($(`${id}-value`), key, values);
    $(id).setAttribute("aria-valuetext", t(key, values));
  }
}

function showTracks(length, offset) {
  const firstAt = Math.max(0, -offset) / length;
  const secondAt = Math.max(0, offset) / length;
  const [firstTo, secondTo] = [firstAt + pair.first.length / length, secondAt + pair.second.length / length];
  firstTrack.show(pair.first, firstAt, firstTo);
  secondTrack.show(pair.second, secondAt, secondTo);
  const s = (share) => ((share * length) / pair.rateHz).toFixed(2);
  setLabel($("tracks"), "mixLabel", { a: s(firstAt), b: s(firstTo), c: s(secondAt), d: s(secondTo) });
}
