// Plays sounds of equal length as one: all run at once and all but one are turned down, so a switch leaves no gap.

const FADE_S = 0.005; // short enough to hear as a switch, long enough not to click
const LEAD_S = 0.02; // between asking for sound and its start, so that all sources start on the same sample

export class Player {
  static active = null; // only one plays at a time

  /** context: where to play; null opens the loudspeaker at the first play(). */
  constructor(context = null) {
    this.context = context;
    this.tracks = [];
    this.rateHz = 0;
    this.chosen = 0;
    this.looping = false;
    this.running = null;
    this.startS = 0; // where the next play() starts
    this.onChange = () => {};
  }

  /** tracks: Float32Arrays of equal length, full scale at 1. */
  load(tracks, rateHz) {
    this.pause();
    Object.assign(this, { tracks, rateHz, startS: 0, chosen: 0 });
    this.onChange();
  }

  get durationS() {
    return this.tracks.length ? this.tracks[0].length / this.rateHz : 0;
  }

  get playing() {
    return this.running !== null;
  }

  get positionS() {
    if (!this.running) return this.startS;
    const passed = Math.max(0, this.context.currentTime - this.running.zero);
    return this.looping ? passed % this.durationS : Math.min(passed, this.durationS);
  }

  play() {
    if (this.playing || !this.durationS) return;
    Player.active?.pause();
    Player.active = this;
    this.context ??= new AudioContext();
    if (this.context instanceof AudioContext) this.context.resume();
    if (this.startS >= this.durationS - 0.01) this.startS = 0;
    const when = this.context.currentTime + LEAD_S;
    const voices = this.tracks.map((samples, i) => this.voice(samples, i === this.chosen, when));
    this.running = { voices, zero: when - this.startS };
    const running = this.running;
    voices[0].source.onended = () => this.running === running && this.ended();
    this.onChange();
  }

  voice(samples, audible, when) {
    const buffer = this.context.createBuffer(1, samples.length, this.rateHz);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.context, { buffer, loop: this.looping });
    const gain = new GainNode(this.context, { gain: audible ? 1 : 0 });
    source.connect(gain).connect(this.context.destination);
    source.start(when, this.startS);
    return { source, gain };
  }

  pause() {
    if (!this.running) return;
    this.startS = this.positionS;
    const now = this.context.currentTime;
    for (const { source, gain } of this.running.voices) {
      fade(gain.gain, 0, now);
      source.stop(now + FADE_S);
    }
    this.running = null;
    this.onChange();
  }

  ended() {
    this.running = null;
    this.startS = 0;
    this.onChange();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  seek(seconds) {
    const wasPlaying = this.playing;
    this.pause();
    this.startS = Math.max(0, Math.min(seconds, this.durationS));
    if (wasPlaying) this.play();
    this.onChange();
  }

  /** Which track is heard, from now on. */
  choose(index) {
    this.chosen = index;
    this.running?.voices.forEach(({ gain }, i) => fade(gain.gain, i === index ? 1 : 0, this.context.currentTime));
    this.onChange();
  }

  loop(on) {
    if (this.running) this.running.zero = this.context.currentTime - this.positionS; // forget the rounds so far
    this.looping = on;
    this.running?.voices.forEach(({ source }) => { source.loop = on; });
  }
}

function fade(gain, to, now) {
  gain.cancelScheduledValues(now);
  gain.setValueAtTime(gain.value, now);
  gain.linearRampToValueAtTime(to, now + FADE_S);
}
