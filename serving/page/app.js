// The try-it page: a client of the public API and of nothing else. Here its parts are put together.

import { Fault } from "./api.js";
import { ask, forgetFault, setUpAsking, showFault } from "./ask.js";
import { setUpCorrection } from "./correction.js";
import { $ } from "./dom.js";
import { offerExamples } from "./examples.js";
import { onLanguage, sayEverything, switchLanguage } from "./i18n.js";
import { setUpMixing, showValues } from "./mixing.js";
import { choosePicture, setUpPicture } from "./picture.js";
import { chooseRecording, setUpRecording, takeMixture } from "./recording.js";
import { setUpResult } from "./result.js";

const SOUND = /\.(wav|flac|ogg|oga|opus|mp3|aiff?|au|m4a|mp4|webm|aac)$/i;
const PICTURE = /\.(png|jpe?g|gif|webp|bmp|tiff?|heic|heif|avif|svg|ico|ppm|pgm)$/i;

/** A file from wherever: uploaded, dropped or pasted. */
async function takeFile(file) {
  if (file.type.startsWith("image/") || PICTURE.test(file.name)) return choosePicture(file, file.name);
  if (file.type.startsWith("audio/") || SOUND.test(file.name)) return chooseRecording(file, file.name);
  throw new Fault("notMedia", { name: file.name });
}

async function takeFiles(files) {
  for (const file of files) await takeFile(file).catch((fault) => showFault(fault));
}

function setUpDropping() {
  const over = (on) => document.body.classList.toggle("dragging", on);
  addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    takeFiles([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => takeFiles([...event.clipboardData.files]));
}

function setUpLanguage() {
  $("language").addEventListener("click", switchLanguage);
  onLanguage(showValues);
}

setUpPicture();
setUpRecording(showFault);
setUpMixing(takeMixture, showFault);
setUpAsking();
setUpResult(showFault, forgetFault);
setUpCorrection();
setUpDropping();
setUpLanguage();
sayEverything();
offerExamples(ask).catch((fault) => {
  if (!(fault instanceof Fault)) return showFault(fault);
  const reason = fault.key ? { t: fault.key, values: fault.values } : fault.message;
  showFault(new Fault("examplesAway", { reason }));
});
