// The video of a sample in the place of its first frame, while the pointer or the focus is on it.
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const running = new WeakMap(); // frame -> what stops its strip

// preview plays in a frame. Where no browser plays the video, it shows the frames of its strip one after the other.
export function preview(frame, { video, strip, seconds }, failed = () => {}) {
  if (calm.matches || !frame || frame.querySelector(".preview")) return;
  if (video) {
    const player = Object.assign(document.createElement("video"), { className: "preview", src: video, muted: true,
      loop: true, playsInline: true, ariaHidden: "true" });
    player.addEventListener("error", () => { if (player.isConnected) { still(frame); failed(); } });
    frame.append(player);
    player.play().catch(() => { /* it was removed meanwhile */ });
  } else if (strip?.length) {
    const pictures = strip.map((src) => Object.assign(new Image(), { src, alt: "" }));
    const shown = Object.assign(new Image(), { className: "preview", alt: "" });
    let at = 0;
    frame.append(shown);
    const stop = () => {
      clearInterval(timer);
      for (const picture of pictures) picture.removeAttribute("src"); // ends its download
    };
    const next = () => {
      if (!shown.isConnected) { stop(); return; } // its tile was removed
      const picture = pictures[at % pictures.length];
      if (picture.complete && picture.naturalWidth) { shown.src = picture.src; at++; }
    };
    pictures[0].addEventListener("error", () => { if (shown.isConnected) { still(frame); failed(); } });
    const timer = setInterval(next, Math.max(80, 1000 * (seconds || 4) / pictures.length));
    running.set(frame, stop);
  }
}

// still shows the first frame again.
export function still(frame) {
  running.get(frame)?.();
  running.delete(frame);
  const shown = frame?.querySelector(".preview");
  if (shown?.tagName === "VIDEO") {
    shown.removeAttribute("src");
    shown.load(); // ends its download
  }
  shown?.remove();
}
