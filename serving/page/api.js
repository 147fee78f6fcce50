// The public API: one function per call the page makes. What goes wrong becomes a Fault that says what to tell people.

import { isKnown } from "./i18n.js";
import { askForToken, forgetToken, heldToken } from "./token.js";

const ROOT = new URL("..", document.baseURI);

/** Something that did not work. key, values: what to say; status: of the service's answer, 0: none came, null: it was
 *  not asked; retryAfterS: when it is worth trying again, null: unknown. */
export class Fault extends Error {
  constructor(key, values = {}, { status = null, retryAfterS = null } = {}) {
    super(values.message ?? key);
    Object.assign(this, { key, values, status, retryAfterS });
  }
}

/** Returns {answer, tripMs, serviceMs}; serviceMs is null where the service does not say how long it took. */
export async function extract(picture, recording, object, signal) {
  const form = new FormData();
  form.append("image", picture, "picture");
  form.append("audio", recording, "recording");
  form.append("object", object);
  const started = performance.now();
  const response = await send("extract", { method: "POST", body: form, signal }, picture.size + recording.size);
  const answer = await response.json();
  return { answer, tripMs: performance.now() - started, serviceMs: serviceMs(response) };
}

export async function recognizeSpeech(recording) {
  const form = new FormData();
  form.append("audio", recording, "recording");
  return (await send("recognize_speech", { method: "POST", body: form }, recording.size)).json();
}

export async function feedback(correction) {
  const headers = { "Content-Type": "application/json" };
  return (await send("feedback", { method: "POST", headers, body: JSON.stringify(correction) })).json();
}

export async function examples() {
  return (await send("app/examples")).json();
}

export async function example(path) {
  return (await send(`app/${path}`)).blob();
}

async function send(path, options = {}, bytes = 0) {
  for (;;) {
    const token = heldToken();
    const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${inBytes(token)}` }) };
    const response = await reach(new URL(path, ROOT), { ...options, headers }, bytes);
    if (response.ok) return response;
    if (response.status !== 401) throw await faultOf(response);
    forgetToken(token);
    if (!(await askForToken(Boolean(token)))) throw new Fault("tokenGivenUp", {}, { status: 401 });
  }
}

/** UTF-8 in a header, where a character is a byte. */
const inBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

/** The answer, its body come whole. */
async function reach(url, options, bytes) {
  try {
    const { body, ...answer } = await whole(await fetch(url, options));
    return new Response(body, answer);
  } catch (fault) {
    if (fault.name === "AbortError") throw new Fault("cancelled");
    throw await whyNot(bytes);
  }
}

async function whole(response) {
  return { body: await response.arrayBuffer(), status: response.status, headers: response.headers };
}

// A service that refuses a large body while it is still being sent may close the line before its answer is read.
async function whyNot(bytes) {
  const alive = await fetch(new URL("livez", ROOT)).then((answer) => answer.ok, () => false);
  if (!alive || bytes < 1e6) return new Fault("away", {}, { status: 0 });
  return new Fault("brokenOff", { mb: (bytes / 1e6).toFixed(0) }, { status: 413 });
}

async function faultOf(response) {
  const after = Number(response.headers.get("Retry-After") ?? NaN);
  const more = { status: response.status, retryAfterS: Number.isFinite(after) ? after : null };
  const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
  const { code, message } = (isJson && (await response.json()).error) || {}; // a proxy answers in its own form
  if (!message) return new Fault("odd", { status: response.status }, more);
  if (isKnown(code)) return new Fault(code, { most: /[\d.]+ [kM]B/.exec(message)?.[0] }, more);
  return new Fault("", { message: message[0].toUpperCase() + message.slice(1) }, more);
}

function serviceMs(response) {
  const said = /dur=([\d.]+)/.exec(response.headers.get("Server-Timing") ?? "");
  return said ? Number(said[1]) : null;
}
