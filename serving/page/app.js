// The try-it page: a client of the public API and of nothing else.

const $ = (id) => document.getElementById(id);
const VIEW_RATE_HZ = 16000; // what recordings are decoded at to be drawn; what is sent is not touched by it
const SHOWN_HZ = 5000; // top of the spectrograms; speech has little above
const READ_BY_SERVICE = /\.(wav|flac|ogg|oga|opus|mp3|aiff?|au)$/i;

const chosen = { picture: null, drawn: false, recording: null, samples: null };

// ------------------------------------------------------------------------------------------------ picture

const pad = $("pad");
const ink = pad.getContext("2d");

function clearPad() {
  ink.fillStyle = "#000";
  ink.fillRect(0, 0, pad.width, pad.height);
  Object.assign(chosen, { picture: null, drawn: false });
  $("picture-note").textContent = "Draw here, upload, or take an example.";
}

function padPoint(event) {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
}

pad.addEventListener("pointerdown", (event) => {
  if (!chosen.drawn) clearPad();
  chosen.drawn = true;
  pad.setPointerCapture(event.pointerId);
  Object.assign(ink, { strokeStyle: "#fff", lineWidth: 24, lineCap: "round", lineJoin: "round" });
  ink.beginPath();
  ink.moveTo(...padPoint(event));
  ink.lineTo(...padPoint(event));
  ink.stroke();
  $("picture-note").textContent = "Your drawing.";
});
pad.addEventListener("pointermove", (event) => {
  if (!event.buttons || !chosen.drawn) return;
  ink.lineTo(...padPoint(event));
  ink.stroke();
});
$("clear").addEventListener("click", clearPad);

async function choosePicture(blob, note) {
  const bitmap = await createImageBitmap(blob).catch(() => null);
  clearPad();
  chosen.picture = blob;
  $("picture-note").textContent = note;
  if (!bitmap) return; // the service may still read what the browser cannot show
  const scale = Math.min(pad.width / bitmap.width, pad.height / bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  ink.imageSmoothingEnabled = scale < 1;
  ink.drawImage(bitmap, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
}

$("picture-file").addEventListener("change", (event) => {
  const file = event.target.files[0];
  if (file) choosePicture(file, file.name);
});

function pictureToSend() {
  if (chosen.picture) return Promise.resolve(chosen.picture);
  if (!chosen.drawn) return Promise.resolve(null);
  return new Promise((resolve) => pad.toBlob(resolve, "image/png"));
}

// ---------------------------------------------------------------------------------------------- recording

async function decoded(blob) {
  const context = new OfflineAudioContext(1, 1, VIEW_RATE_HZ);
  const sound = await context.decodeAudioData(await blob.arrayBuffer());
  const mono = new Float32Array(sound.length);
  for (let c = 0; c < sound.numberOfChannels; c++) {
    sound.getChannelData(c).forEach((value, i) => { mono[i] += value / sound.numberOfChannels; });
  }
  return mono;
}

function wavOf(samples, rateHz) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rateHz, true); view.setUint32(28, 2 * rateHz, true); view.setUint16(32, 2, true);
  view.setUint16(34, 16, true); text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => {
    view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(value * 32768))), true);
  });
  return new Blob([view], { type: "audio/wav" });
}

async function chooseRecording(blob, note, convert = false) {
  let samples = null;
  try {
    samples = await decoded(blob);
  } catch {
    if (convert) return say("The browser cannot read this recording; a WAV, FLAC, OGG or MP3 will do.", true);
  }
  Object.assign(chosen, { recording: convert ? wavOf(samples, VIEW_RATE_HZ) : blob, samples });
  $("recording-note").textContent = note;
  play("recording-player", chosen.recording);
  show("recording-view", samples, []);
  say("");
}

$("recording-file").addEventListener("change", (event) => {
  const file = event.target.files[0];
  if (file) chooseRecording(file, file.name, !READ_BY_SERVICE.test(file.name));
});

let recorder = null;
$("record").addEventListener("click", async () => {
  if (recorder) return recorder.stop();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false } });
  } catch (fault) {
    return say(`The microphone cannot be used: ${fault.message}`, true);
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    stream.getTracks().forEach((track) => track.stop());
    recorder = null;
    recordingIs(false);
    chooseRecording(new Blob(parts), "Your recording.", true);
  });
  recorder.start();
  recordingIs(true);
});

function recordingIs(on) {
  $("record").setAttribute("aria-pressed", String(on));
  $("record").textContent = on ? "Stop" : "Record";
}

// ------------------------------------------------------------------------------------------------- drawing

const urls = {};
function play(id, blob) {
  if (urls[id]) URL.revokeObjectURL(urls[id]);
  urls[id] = URL.createObjectURL(blob);
  $(id).src = urls[id];
}

function show(id, samples, intervals, label = "the word") {
  const canvas = $(id);
  const draw = canvas.getContext("2d");
  const { width, height } = canvas;
  draw.fillStyle = "#0b0f14";
  draw.fillRect(0, 0, width, height);
  if (!samples) return canvas.setAttribute("aria-label", "This recording cannot be drawn here");
  const waveHeight = Math.round(height * 0.35);
  drawSpectrogram(draw, samples, width, waveHeight, height - waveHeight);
  drawWave(draw, samples, width, waveHeight);
  const durationS = samples.length / VIEW_RATE_HZ;
  for (const { start_s, end_s } of intervals) {
    const [left, right] = [(start_s / durationS) * width, (end_s / durationS) * width];
    draw.fillStyle = "rgba(242, 166, 90, .22)";
    draw.fillRect(left, 0, right - left, height);
    draw.fillStyle = "#f2a65a";
    draw.fillRect(left, 0, 2, height);
    draw.fillRect(right - 2, 0, 2, height);
  }
  const when = intervals.map((i) => `${i.start_s.toFixed(2)} to ${i.end_s.toFixed(2)} s`).join(", ");
  canvas.setAttribute("aria-label",
    `Waveform and spectrogram of ${durationS.toFixed(1)} s${when ? `; ${label} at ${when}` : ""}`);
}

function drawWave(draw, samples, width, height) {
  draw.fillStyle = "#b7c6dc";
  const step = samples.length / width;
  for (let x = 0; x < width; x++) {
    let [low, high] = [0, 0];
    for (let i = Math.floor(x * step); i < Math.min(samples.length, (x + 1) * step); i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    const middle = height / 2;
    draw.fillRect(x, middle - Math.min(high, 1) * middle, 1, Math.max(1, (Math.min(high, 1) - Math.max(low, -1)) * middle));
  }
}

const WINDOW = 512;
const hann = Float32Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));

function drawSpectrogram(draw, samples, width, top, height) {
  const image = draw.createImageData(width, height);
  const bins = Math.round((SHOWN_HZ / VIEW_RATE_HZ) * WINDOW);
  for (let x = 0; x < width; x++) {
    const power = powerAt(samples, Math.round((x / width) * samples.length) - WINDOW / 2);
    for (let y = 0; y < height; y++) {
      const level = (10 * Math.log10(power[Math.floor(((height - 1 - y) / height) * bins)] + 1e-9) + 55) / 75;
      image.data.set(colour(Math.max(0, Math.min(1, level))), 4 * (y * width + x));
    }
  }
  draw.putImageData(image, 0, top);
}

function colour(level) {
  return [11 + 244 * Math.min(1, level * 1.4) ** 1.5, 15 + 215 * level ** 1.4, 20 + 130 * Math.sin(level * 2.6), 255];
}

function powerAt(samples, start) {
  const real = new Float32Array(WINDOW);
  const imaginary = new Float32Array(WINDOW);
  for (let i = 0; i < WINDOW; i++) real[i] = (samples[start + i] || 0) * hann[i];
  transform(real, imaginary);
  return real.map((value, i) => value * value + imaginary[i] * imaginary[i]);
}

function transform(real, imaginary) { // radix 2, in place
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]];
  }
  for (let size = 2; size <= n; size <<= 1) {
    const angle = (-2 * Math.PI) / size;
    for (let start = 0; start < n; start += size) {
      for (let k = 0; k < size / 2; k++) {
        const [c, s] = [Math.cos(angle * k), Math.sin(angle * k)];
        const [a, b] = [start + k, start + k + size / 2];
        const [r, i] = [real[b] * c - imaginary[b] * s, real[b] * s + imaginary[b] * c];
        [real[b], imaginary[b]] = [real[a] - r, imaginary[a] - i];
        real[a] += r;
        imaginary[a] += i;
      }
    }
  }
}

// --------------------------------------------------------------------------------------------------- asking

function say(message, bad = false) {
  $("message").textContent = message;
  $("message").classList.toggle("bad", bad);
}

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The service cannot be reached.");
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error.message);
  return body;
}

$("go").addEventListener("click", async () => {
  const picture = await pictureToSend();
  if (!picture) return say("Draw or choose a picture first.", true);
  if (!chosen.recording) return say("Record or choose a recording first.", true);
  const form = new FormData();
  form.append("image", picture, "picture");
  form.append("audio", chosen.recording, "recording");
  say("Listening…");
  $("go").disabled = true;
  const started = performance.now();
  try {
    const answer = await call("../extract", { method: "POST", body: form });
    await present(answer, performance.now() - started);
    say("");
  } catch (fault) {
    say(fault.message, true);
  } finally {
    $("go").disabled = false;
  }
});

async function present(answer, latencyMs) {
  const sound = new Blob([Uint8Array.from(atob(answer.audio_wav_base64), (letter) => letter.charCodeAt(0))],
    { type: "audio/wav" });
  $("result").hidden = false;
  tell(answer);
  play("mixture-player", chosen.recording);
  play("estimate-player", sound);
  $("download").href = urls["estimate-player"];
  show("mixture-view", chosen.samples, answer.intervals, `“${answer.pictured.label}”`);
  show("estimate-view", await decoded(sound), answer.intervals, `“${answer.pictured.label}”`);
  bars(answer.pictured.probabilities);
  details(answer, latencyMs);
  offerCorrection(answer);
  $("verdict").focus();
}

function tell({ pictured, present, intervals, heard }) {
  const parts = pictured.label === null
    ? ["The picture shows nothing that is known here."]
    : present
      ? ["“", em(pictured.label), `” is said at ${intervals.map((i) => `${i.start_s.toFixed(2)} s`).join(", ")}` +
          (heard ? `, and heard as “${heard.label}”.` : ".")]
      : ["“", em(pictured.label), "” is pictured, but not said."];
  $("verdict").replaceChildren(...parts);
}

function em(text) {
  const element = document.createElement("em");
  element.textContent = text;
  return element;
}

function bars(probabilities) {
  const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  $("probabilities").replaceChildren(...rows.flatMap(([label, probability]) => {
    const name = document.createElement("span");
    name.textContent = label;
    const meter = document.createElement("meter");
    Object.assign(meter, { value: probability, min: 0, max: 1 });
    meter.setAttribute("aria-label", label);
    const figure = document.createElement("span");
    figure.textContent = `${(100 * probability).toFixed(1)} %`;
    return [name, meter, figure];
  }));
}

function details(answer, latencyMs) {
  const rows = {
    Presence: `${(100 * answer.presence).toFixed(1)} %`,
    When: answer.intervals.map((i) => `${i.start_s.toFixed(2)}–${i.end_s.toFixed(2)} s`).join(", ") || "never",
    Heard: answer.heard ? `${answer.heard.label} (${(100 * answer.heard.probability).toFixed(1)} %)` : "nothing",
    Took: `${Math.round(latencyMs)} ms`,
    Model: answer.model.slice(0, 12),
  };
  $("details").replaceChildren(...Object.entries(rows).flatMap(([term, text]) => {
    const [name, value] = [document.createElement("dt"), document.createElement("dd")];
    [name.textContent, value.textContent] = [term, text];
    return [name, value];
  }));
}

// ----------------------------------------------------------------------------------------------- correction

let answered = null;

function offerCorrection(answer) {
  answered = answer;
  $("thanks").textContent = "";
  const labels = ["(as answered)", ...Object.keys(answer.pictured.probabilities)];
  for (const id of ["really-pictured", "really-heard"]) {
    $(id).replaceChildren(...labels.map((label, i) => new Option(label, i ? label : "")));
  }
}

$("correction").addEventListener("submit", async (event) => {
  event.preventDefault();
  const correction = {
    request_id: answered.request_id,
    pictured: $("really-pictured").value || null,
    heard: $("really-heard").value || null,
    consent: $("consent").checked,
  };
  try {
    await call("../feedback", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(correction),
    });
    $("thanks").textContent = "Thank you; it is noted.";
  } catch (fault) {
    $("thanks").textContent = fault.message;
  }
});

// ------------------------------------------------------------------------------------------------- examples

async function offerExamples() {
  const examples = await call("examples");
  $("examples").replaceChildren(...examples.map((example, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Example ${i + 1}`;
    button.addEventListener("click", async () => {
      const [picture, recording] = await Promise.all(
        [example.picture, example.recording].map(async (path) => (await fetch(path)).blob()));
      await choosePicture(picture, `Example ${i + 1}`);
      await chooseRecording(recording, `Example ${i + 1}`);
      $("go").click();
    });
    return button;
  }));
}

clearPad();
show("recording-view", new Float32Array(VIEW_RATE_HZ), []);
$("recording-view").setAttribute("aria-label", "No recording yet");
offerExamples().catch((fault) => say(fault.message, true));
