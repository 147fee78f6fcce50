// The recording: from the microphone, from a file, or mixed of two. One of the two sources is the chosen one.

import { Fault } from "./api.js";
import { $, icon, make } from "./dom.js";
import { sayNote, setText } from "./i18n.js";
import { levelOf, openMicrophone } from "./microphone.js";
import { Plot } from "./plot.js";
import { transport } from "./transport.js";
import { decode, encodeWav } from "./wav.js";

const READ_BY_SERVICE = /\.(wav|flac|ogg|oga|opus|mp3|aiff?|au)$/i;
const LONGEST_S = 60; // what the service takes by default
const SHORTEST_S = 0.1;
const PREVIEW_HEIGHT = 96; // of the spectrogram

const given = { own: null, mix: null }; // each {blob, sound: {samples, rateHz} | null, note}
let source = "own";
let open = null; // {rateHz, stop, blocks} while the microphone is on
let opening = false; // while the browser asks whether it may
let choices = 0;

const plot = new Plot($("preview"), (seconds) => player.seek(seconds), PREVIEW_HEIGHT);
const player = transport($("preview"), () => [plot]);

/** {blob, sound, note} or null; a recording under way is ended first. */
export async function currentRecording() {
  if (open) await stopRecording();
  return given[source];
}

/** file: a File, or a Blob of a WAV. Rejects with a Fault where neither browser nor service can read it. */
export async function chooseRecording(file, note) {
  const choice = ++choices;
  const forService = !file.name || READ_BY_SERVICE.test(file.name);
  const sound = await decode(file).catch(() => null);
  if (!sound && !forService) throw new Fault("unreadable", { name: note });
  if (open && choice === choices) await endMicrophone(); // not before: what is spoken would be lost for nothing
  if (choice !== choices) return; // another has been chosen meanwhile
  const unseen = { t: "recordingUnseen", values: { name: note } };
  take("own", { blob: forService ? file : encodeWav(sound.samples, sound.rateHz), sound, note: sound ? note : unseen });
  setSource("own");
}

export function takeMixture(mixture) {
  take("mix", mixture);
}

export function setSource(name) {
  source = name;
  if (open && name !== "own") stopRecording().catch(() => {}); // what was recorded stays, if it is long enough
  for (const radio of document.querySelectorAll("input[name=source]")) radio.checked = radio.value === name;
  $("own-panel").hidden = name !== "own";
  $("mix-panel").hidden = name !== "mix";
  preview();
}

export function setUpRecording(onFault) {
  for (const radio of document.querySelectorAll("input[name=source]")) {
    radio.addEventListener("change", () => setSource(radio.value));
  }
  $("recording-file").addEventListener("change", ({ target }) => {
    if (target.files[0]) chooseRecording(target.files[0], target.files[0].name).catch(onFault);
    target.value = "";
  });
  $("record").addEventListener("click", () => toggle().catch(onFault));
  showMicrophone(false);
  setSource("own");
}

function take(name, recording) {
  given[name] = recording;
  if (name === source) preview();
}

function preview() {
  const recording = given[source];
  $("preview").hidden = !recording?.sound;
  $("preview-empty").hidden = Boolean(recording?.sound);
  sayNote($("recording-note"), recording?.note ?? { t: source === "own" ? "recordingEmpty" : "mixNeedsTwo" });
  if (!recording?.sound) return player.load([], 1);
  const { samples, rateHz } = recording.sound;
  player.load([samples], rateHz);
  plot.show({ samples, rateHz });
  plot.describe("plotMixture", null);
}

async function toggle() {
  if (open) return stopRecording();
  if (opening) return;
  opening = true;
  await startRecording().finally(() => { opening = false; });
}

async function startRecording() {
  const blocks = [];
  let samples = 0;
  const microphone = await openMicrophone((block) => {
    blocks.push(block);
    samples += block.length;
    const seconds = samples / microphone.rateHz;
    $("level").value = levelOf(block);
    setText($("recording-note"), "recordingNow", { s: Math.floor(seconds), max: LONGEST_S });
    if (seconds >= LONGEST_S && open?.blocks === blocks) stopRecording();
  });
  player.pause();
  setSource("own"); // another may have been chosen while the browser asked
  open = { ...microphone, blocks };
  showMicrophone(true);
  $("preview").hidden = true; // what was given before is not what is being recorded
  $("preview-empty").hidden = false;
}

async function stopRecording() {
  const { samples, rateHz } = await endMicrophone();
  preview();
  if (samples.length < SHORTEST_S * rateHz) throw new Fault("micSilent");
  choices++; // a file that is still being read comes too late
  take("own", { blob: encodeWav(samples, rateHz), sound: { samples, rateHz }, note: { t: "recordingDone" } });
}

/** Returns what the microphone has taken, {samples, rateHz}. */
async function endMicrophone() {
  const { blocks, rateHz, stop } = open;
  open = null;
  showMicrophone(false);
  await stop();
  const recorded = blocks.reduce((sum, block) => sum + block.length, 0);
  const samples = new Float32Array(Math.min(recorded, LONGEST_S * rateHz));
  let at = 0;
  for (const block of blocks) {
    samples.set(block.subarray(0, samples.length - at), at);
    at = Math.min(at + block.length, samples.length);
  }
  return { samples, rateHz };
}

function showMicrophone(on) {
  const said = make("span");
  setText(said, on ? "stop" : "record");
  $("record").replaceChildren(icon(on ? "stop" : "record"), said);
  $("record").classList.toggle("recording", on);
  $("level").hidden = !on;
  $("recording-note").setAttribute("aria-live", on ? "off" : "polite"); // the seconds are not read out
}
