// Asking for the word: progress, cancelling, faults and trying again. What was given stays, whatever happens.

import { extract, Fault } from "./api.js";
import { $ } from "./dom.js";
import { setPlain, setText } from "./i18n.js";
import { markObjects } from "./objects.js";
import { currentPicture, pictures } from "./picture.js";
import { currentRecording } from "./recording.js";
import { present } from "./result.js";

const WORTH_ANOTHER_TRY = [0, 401, 429, 500, 502, 503, 504]; // 0: no answer came at all
let running = null;
let countdown = 0;
let again = null; // what is tried again

/** number: which of several objects in the picture is asked for; the service's own choice where there is none. */
export async function ask(number = "") {
  if (running) return;
  const mine = (running = new AbortController());
  quiet();
  try {
    const asked = pictures();
    const picture = await currentPicture();
    if (!picture) throw new Fault("needPicture");
    const recording = await currentRecording();
    if (!recording) throw new Fault("needRecording");
    waiting(true);
    const answered = await extract(picture, recording.blob, number, mine.signal);
    if (running !== mine) return;
    if (asked === pictures()) markObjects(answered.answer, ask);
    await present(answered, recording);
    setPlain($("message"), "");
  } catch (fault) {
    if (running === mine) showFault(fault, () => ask(number));
  } finally {
    if (running === mine) {
      waiting(false);
      running = null;
    }
  }
}

export const cancel = () => running?.abort();

/** What is shown is about to be another example: an answer that is still awaited is no longer wanted. */
export function forget() {
  cancel();
  running = null;
  waiting(false);
}

/** Says what went wrong; where trying again may help, offers it, after as long as the service asked for.
 *  retry: does again what failed, null where that is not to be offered. */
export function showFault(fault, retry = null) {
  quiet();
  const { key, values, status, retryAfterS } = fault instanceof Fault ? fault : new Fault("broken");
  $("message").classList.toggle("bad", key !== "cancelled");
  if (key) setText($("message"), key, values);
  else setPlain($("message"), values.message);
  again = WORTH_ANOTHER_TRY.includes(status) ? retry : null;
  if (again) offerAgain(retryAfterS ?? 0);
  if (key === "broken") throw fault; // a mistake of this page, which its console is to name
}

/** Takes back what was said of an attempt that is over. */
export function forgetFault() {
  if (!running) quiet();
}

function quiet() {
  clearInterval(countdown);
  hide($("again"));
  $("message").classList.remove("bad");
  setPlain($("message"), "");
}

/** The focus of a button that goes is handed to the one that asks, so that it does not fall to the page's beginning. */
function hide(button) {
  if (document.activeElement === button) $("go").focus();
  button.hidden = true;
}

function waiting(on) {
  $("go").setAttribute("aria-disabled", String(on)); // not disabled: it keeps the focus
  $("waiting").hidden = !on;
  if (on) $("cancel").hidden = false;
  else hide($("cancel"));
  if (on) setText($("message"), "waiting");
}

function offerAgain(seconds) {
  const until = performance.now() + 1000 * seconds;
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    $("again").setAttribute("aria-disabled", String(left > 0));
    if (left > 0) return setText($("again"), "againIn", { s: left });
    clearInterval(countdown);
    setText($("again"), "again");
  };
  $("again").hidden = false;
  countdown = setInterval(tick, 250);
  tick();
}

export function setUpAsking() {
  $("go").addEventListener("click", () => ask());
  $("cancel").addEventListener("click", cancel);
  $("again").addEventListener("click", () => $("again").getAttribute("aria-disabled") === "false" && again());
}
