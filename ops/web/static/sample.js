// The page of a sample: frame stepping, the difference of first and final frame, keys.
import { say, typing } from "./app.js";

const video = document.getElementById("video");
const by = (id) => document.getElementById(id);

if (video) {
  const fps = Number(video.dataset.fps) || 16;
  const frames = Number(video.dataset.frames);
  const now = () => Math.floor(video.currentTime * fps + 0.01);
  const show = () => {
    by("frame").textContent = `frame ${Math.min(now() + 1, frames || Infinity)}${frames ? ` of ${frames}` : ""}`;
    by("play").textContent = video.paused ? "Play" : "Pause";
  };
  // The middle of a frame is shown surely, its edge may be the one before.
  const step = (n) => {
    video.pause();
    const last = frames ? frames - 1 : Infinity;
    video.currentTime = (Math.min(last, Math.max(0, now() + n)) + 0.5) / fps;
  };
  const toggle = () => { if (video.paused) video.play().catch(() => {}); else video.pause(); };
  for (const name of ["timeupdate", "seeked", "play", "pause", "loadedmetadata"]) video.addEventListener(name, show);
  video.addEventListener("error", () => { by("video-problem").hidden = false; });
  if (video.error) by("video-problem").hidden = false;
  by("step").addEventListener("click", () => step(1));
  by("step-back").addEventListener("click", () => step(-1));
  by("play").addEventListener("click", toggle);
  by("speed").addEventListener("change", (event) => { video.playbackRate = Number(event.target.value); });
  document.addEventListener("keydown", (event) => {
    if (typing(event)) return;
    if (event.key === ".") step(1);
    else if (event.key === ",") step(-1);
    else if (event.key === " " && !event.target.closest("button, a, video, summary, [tabindex='0']")) {
      event.preventDefault();
      toggle();
    }
  });
  show();
}

document.addEventListener("keydown", (event) => {
  if (typing(event) || event.target.closest("video, input")) return;
  const link = { ArrowLeft: "before", ArrowRight: "after", Escape: "grid-link" }[event.key];
  if (link && by(link)) by(link).click();
});

by("link").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    say("copied: it opens for who has opened the address with the token");
  } catch {
    say("the browser refuses to copy: take the address from its bar");
  }
});

by("slider")?.addEventListener("input", (event) => by("over").style.setProperty("--cut", `${event.target.value}%`));

// A frame that failed before this script ran has no event any more.
const broken = () => { by("strip-problem").hidden = false; };
for (const frame of document.querySelectorAll("#strip img")) {
  frame.addEventListener("error", broken);
  if (frame.complete && !frame.naturalWidth) broken();
}

async function difference() {
  const [first, final, canvas] = [by("first"), by("final"), by("difference")];
  if (!first || !final) return;
  await Promise.all([first.decode(), final.decode()]);
  const { naturalWidth: width, naturalHeight: height } = final;
  const pixels = (image) => {
    const draw = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
    draw.drawImage(image, 0, 0, width, height);
    return draw.getImageData(0, 0, width, height);
  };
  const a = pixels(first).data, shown = pixels(final), b = shown.data;
  let changed = 0;
  for (let i = 0; i < b.length; i += 4) {
    const d = Math.max(Math.abs(a[i] - b[i]), Math.abs(a[i + 1] - b[i + 1]), Math.abs(a[i + 2] - b[i + 2]));
    if (d > 8) changed++;
    const grey = (b[i] + b[i + 1] + b[i + 2]) / 3 * 0.25;
    b[i] = Math.min(255, grey + d * 2); b[i + 1] = grey; b[i + 2] = grey; // what differs is red on a dark picture
  }
  Object.assign(canvas, { width, height }).getContext("2d").putImageData(shown, 0, 0);
  by("differs").textContent = `(${(100 * changed / (width * height)).toFixed(1)} % of the pixels)`;
}
difference().catch(() => { const to = by("differs"); if (to) to.textContent = "(a frame cannot be read)"; });
