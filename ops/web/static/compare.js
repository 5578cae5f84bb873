// Two datasets side by side: both videos of a pair play together.
import { typing } from "./app.js";
import { preview, still } from "./preview.js";

function play(pair) {
  for (const side of pair.querySelectorAll(".side")) {
    const { video, strip, seconds } = side.dataset;
    preview(side.querySelector(".frame"), { video, strip: strip?.split(" "), seconds: Number(seconds) });
  }
}

function stop(pair) {
  for (const side of pair.querySelectorAll(".side")) still(side.querySelector(".frame"));
}

for (const pair of document.querySelectorAll(".comparison")) {
  pair.addEventListener("mouseenter", () => play(pair));
  pair.addEventListener("mouseleave", () => stop(pair));
  pair.addEventListener("focusin", () => play(pair));
  pair.addEventListener("focusout", () => stop(pair));
}

document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  const link = { ArrowLeft: "before", ArrowRight: "after" }[event.key];
  if (link) document.getElementById(link)?.click();
});
