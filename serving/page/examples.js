// Ready examples: the golden requests of the model that answers, and two of their words mixed.

import * as api from "./api.js";
import { forget } from "./ask.js";
import { $, make } from "./dom.js";
import { setLabel, setText } from "./i18n.js";
import { mixThese, offerForMixing, remix } from "./mixing.js";
import { choosePicture } from "./picture.js";
import { SmallWave } from "./plot.js";
import { chooseRecording, setSource, takeMixture } from "./recording.js";
import { decode } from "./wav.js";

const MIX_SIR_DB = 0;
const WAVE_HEIGHT = 22;
const MIX_OFFSET = 0.3; // of the first word's length: they overlap, and neither hides the other
let clicks = 0;
let prepared = Promise.resolve(); // once what was clicked before stands in its place

/** ask: what to do once picture and recording are in place. */
export async function offerExamples(ask) {
  const examples = await Promise.all((await api.examples()).map(fetched));
  examples.forEach(({ recording }, i) => offerForMixing(recording, nameOf(i)));
  if (examples.length > 1) {
    const { sound } = await remix(takeMixture, MIX_OFFSET);
    const button = card(examples[0].picture, sound, { t: "exampleMix" }, () => mixTwo(examples[0], ask));
    const note = make("span", { className: "note" });
    setText(note, "exampleMixNote");
    button.querySelector("strong").after(note);
  }
  examples.forEach((example, i) => {
    const button = card(example.picture, example.sound, nameOf(i), () => askFor(example, nameOf(i), ask));
    setLabel(button, "exampleLabel", { n: i + 1 });
  });
}

const nameOf = (i) => ({ t: "example", values: { n: i + 1 } });

async function fetched(paths) {
  const [picture, recording] = await Promise.all([api.example(paths.picture), api.example(paths.recording)]);
  return { picture, recording, sound: await decode(recording) };
}

function card(picture, sound, name, act) {
  const [title, canvas] = [make("strong"), make("canvas")];
  setText(title, name.t, name.values);
  canvas.setAttribute("aria-hidden", "true");
  const image = make("img", { src: URL.createObjectURL(picture), alt: "" });
  const button = make("button", { type: "button", className: "example" }, image, make("span", {}, title, canvas));
  button.addEventListener("click", act);
  $("examples").append(button);
  new SmallWave(canvas, "--soft", WAVE_HEIGHT).show(sound.samples);
  return button;
}

const askFor = ({ picture, recording }, name, ask) =>
  newest(ask, () => Promise.all([choosePicture(picture, name), chooseRecording(recording, name)]));

const mixTwo = ({ picture }, ask) =>
  newest(ask, async () => {
    await choosePicture(picture, nameOf(0));
    await mixThese(0, 1, MIX_SIR_DB, MIX_OFFSET, takeMixture);
    setSource("mix");
  });

/** Of several examples clicked one after another the last one is asked. */
async function newest(ask, prepare) {
  const mine = ++clicks;
  forget();
  prepared = prepared.catch(() => {}).then(() => mine === clicks && prepare());
  await prepared;
  if (mine === clicks) await ask();
}
