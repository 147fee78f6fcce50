// The controls of a player, and the lines that show in its plots where it is.

import { icon } from "./dom.js";
import { setText } from "./i18n.js";
import { Player } from "./player.js";

/** root holds .play, .seek and .time; plots() are the plots to move a line over. Returns the player. */
export function transport(root, plots) {
  const player = new Player();
  const [play, seek, time] = ["play", "seek", "time"].map((name) => root.querySelector(`.${name}`));
  const said = document.createElement("span");
  play.addEventListener("click", () => player.toggle());
  seek.addEventListener("input", () => player.seek(Number(seek.value)));

  let frame = 0;
  function follow() {
    cancelAnimationFrame(frame); // one loop, however often the player changes
    const now = player.positionS;
    seek.value = now;
    time.textContent = `${now.toFixed(2)} / ${player.durationS.toFixed(2)} s`;
    plots().forEach((plot) => plot.moveTo(now));
    if (player.playing) frame = requestAnimationFrame(follow);
  }

  player.onChange = () => {
    play.replaceChildren(icon(player.playing ? "pause" : "play"), said);
    setText(said, player.playing ? "pause" : "play");
    seek.max = player.durationS;
    seek.setAttribute("aria-valuetext", `${player.positionS.toFixed(2)} s`);
    follow();
  };
  player.onChange();
  return player;
}
