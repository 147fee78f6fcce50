// Putting a wrong answer right.

import { feedback, Fault } from "./api.js";
import { $, make } from "./dom.js";
import { setPlain, setText } from "./i18n.js";

let answered = null;

/** Offers the labels that the answer knows. */
export function offerCorrection(answer) {
  answered = answer;
  say("");
  for (const id of ["really-pictured", "really-heard"]) {
    const first = make("option", { value: "" });
    setText(first, "asAnswered");
    const labels = Object.keys(answer.pictured.probabilities);
    $(id).replaceChildren(first, ...labels.map((label) => new Option(label, label)));
  }
  $("consent").checked = false;
}

export function setUpCorrection() {
  $("correction").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [pictured, heard] = ["really-pictured", "really-heard"].map((id) => $(id).value || null);
    if (!pictured && !heard) return say("correctionEmpty", {}, true);
    try {
      await feedback({ request_id: answered.request_id, pictured, heard, consent: $("consent").checked });
      say("thanks");
    } catch (fault) {
      const isOurs = !(fault instanceof Fault);
      say(isOurs ? "broken" : fault.key, fault.values, true);
      if (isOurs) throw fault;
    }
  });
}

function say(key, values = {}, bad = false) {
  $("thanks").classList.toggle("bad", bad);
  if (key) setText($("thanks"), key, values);
  else setPlain($("thanks"), values.message ?? "");
}
