// The grid of samples: only the rows that are seen, and a few around them, are in the page and are asked for.
import { ask, make, say, typing } from "./app.js";
import { preview, still } from "./preview.js";

const block = 50;          // samples of one request
const kept = 40;           // blocks
const tallest = 8_000_000; // pixels that browsers surely can scroll
const around = 2;          // rows above and below those that are seen

const grid = document.getElementById("grid");
const extent = document.getElementById("extent");
const tiles = document.getElementById("tiles");
const search = new URLSearchParams(location.search);
const readOnly = "readOnly" in document.body.dataset;
const selected = new Map(); // "generator:index" -> item
let view = { total: 0, version: "" };
let blocks = new Map();     // number -> items, or the promise of them
let columns = 1, rowHeight = 200, rows = 0, top = 0; // top: the first row that is seen, with a fraction
let cursor = 0;             // place of the tile that Tab reaches
let asking = 0;
let scrolledByUs = false;

for (const name of ["at", "index"]) search.delete(name);

function address(path, values = {}) {
  const q = new URLSearchParams(search);
  for (const [name, value] of Object.entries(values)) q.set(name, value);
  return `${path}?${q}`;
}

function measure() {
  const size = Number(document.getElementById("tile").value);
  const width = extent.clientWidth;
  columns = Math.max(1, Math.floor((width + 8) / (size + 8)));
  const tile = Math.floor((width + 8) / columns) - 8;
  rowHeight = tile + 34;
  grid.style.setProperty("--columns", columns);
  grid.style.setProperty("--tile", `${tile}px`);
  rows = Math.ceil(view.total / columns);
  extent.style.height = `${Math.max(1, Math.min(tallest, rows * rowHeight))}px`;
}

const seen = () => grid.clientHeight / rowHeight;
const lastTop = () => Math.max(0, rows - seen());

// Where there are more rows than pixels, the scroll bar stands for a part of all rows.
function fromScroll() {
  const high = rows * rowHeight;
  if (high <= tallest) return grid.scrollTop / rowHeight;
  return grid.scrollTop / Math.max(1, tallest - grid.clientHeight) * lastTop();
}

function scrollToRow(row) {
  top = Math.min(Math.max(0, row), lastTop());
  const high = rows * rowHeight;
  const before = grid.scrollTop;
  grid.scrollTop = high <= tallest ? top * rowHeight : top / Math.max(1, lastTop()) * (tallest - grid.clientHeight);
  scrolledByUs = grid.scrollTop !== before; // else there is no event
  draw();
}

// load asks for a block, once.
function load(number) {
  if (blocks.has(number)) return;
  const version = view.version;
  const asked = ask(address("/api/samples", { from: number * block, count: block })).then((page) => {
    if (version !== view.version) return;
    blocks.set(number, page.items);
    while (blocks.size > kept) blocks.delete(blocks.keys().next().value);
    if (page.version !== version) poll();
    draw();
  }, (error) => {
    blocks.delete(number);
    fail(error);
  });
  blocks.set(number, asked);
}

const itemAt = (place) => {
  const items = blocks.get(Math.floor(place / block));
  return Array.isArray(items) ? items[place % block] : undefined;
};

let wait = 0;
function draw() {
  const first = Math.max(0, Math.floor(top) - around) * columns;
  const last = Math.min(view.total, (Math.ceil(top + seen()) + around) * columns);
  const shift = grid.scrollTop - (top - Math.floor(first / columns)) * rowHeight;
  tiles.style.transform = `translateY(${shift}px)`;
  const focused = document.activeElement?.closest?.("#tiles li")?.dataset.place;
  const there = new Map([...tiles.children].map((tile) => [tile.dataset.key, tile]));
  const list = [];
  for (let place = first; place < last; place++) {
    const item = itemAt(place);
    const key = `${view.version} ${place} ${item ? "item" : "none"}`;
    list.push(there.get(key) ?? tile(place, item, key));
  }
  if (list.length !== tiles.children.length || list.some((tile, i) => tile !== tiles.children[i])) {
    tiles.replaceChildren(...list);
    if (focused !== undefined) tiles.querySelector(`li[data-place="${focused}"] a`)?.focus({ preventScroll: true });
  }
  cursor = Math.min(Math.max(cursor, first), Math.max(first, last - 1));
  for (const tile of list) {
    const link = tile.querySelector("a");
    if (link) link.tabIndex = Number(tile.dataset.place) === cursor ? 0 : -1;
  }
  clearTimeout(wait);
  const from = Math.floor(first / block), to = Math.floor(Math.max(first, last - 1) / block);
  wait = setTimeout(() => { for (let n = from; n <= to && view.total > 0; n++) load(n); }, asking++ ? 60 : 0);
}

function tile(place, item, key) {
  const element = make("li", { "data-place": String(place), "data-key": key });
  if (!item) return element;
  const name = `${item.generator}:${item.index}`;
  element.dataset.sample = name;
  const link = make("a", { href: address(`/sample/${item.generator}/${item.index}`), tabIndex: -1, draggable: false });
  const frame = make("span", { class: "frame" });
  if (item.frame) frame.append(make("img", { src: item.frame, alt: "", decoding: "async", draggable: false }));
  else frame.append(make("span", { class: "none" }, item.error ?? "no first frame"));
  if (item.encoded) frame.append(make("span", { class: "badge corner" }, "re-encoded"));
  if (item.strip) frame.append(make("span", { class: "badge corner" }, "frames"));
  if (item.flagged) frame.append(make("span", { class: "badge bad mark", title: item.flag }, "flagged"));
  link.append(frame, make("span", { class: "name" }, make("bdi", {}, item.id ?? `${item.generator} ${item.index}`)));
  element.append(link);
  if (!readOnly) {
    const box = make("input", { type: "checkbox", "aria-label": `select ${item.id ?? item.index}`, tabIndex: -1,
      checked: selected.has(name) });
    box.addEventListener("change", () => select(item, box.checked));
    element.append(box);
  }
  const play = () => preview(frame, item, () => say(`the video of ${item.id} cannot be played`));
  element.addEventListener("mouseenter", play);
  element.addEventListener("mouseleave", () => still(frame));
  link.addEventListener("focus", play);
  link.addEventListener("blur", () => still(frame));
  return element;
}

function select(item, on) {
  const name = `${item.generator}:${item.index}`;
  if (on) selected.set(name, item); else selected.delete(name);
  const form = document.getElementById("selection");
  form.hidden = selected.size === 0;
  document.getElementById("selected").textContent = `${selected.size.toLocaleString("en")} selected`;
}

function fail(error) {
  const box = document.getElementById("problem");
  box.textContent = error.message;
  box.hidden = false;
}

const words = { keys: "receipts listed", receipts: "receipts read", metadata: "receipts' metadata read" };
let timer = 0;

// poll asks how much the search has found, again and again until it is complete, then now and then.
async function poll() {
  clearTimeout(timer);
  try {
    const now = await ask(address("/api/view"));
    document.getElementById("problem").hidden = !now.problem;
    if (now.problem) fail(new Error(now.problem));
    const reading = document.getElementById("reading");
    reading.hidden = now.complete;
    if (!now.complete) {
      reading.firstElementChild.textContent = now.of
        ? `So far ${now.read.toLocaleString("en")} of ${now.of.toLocaleString("en")} ${words[now.reading]}.`
        : "The receipts are being listed: until that is done, all that was asked for is shown.";
      const bar = reading.lastElementChild;
      if (now.of) { bar.max = now.of; bar.value = now.read; } else bar.removeAttribute("value");
    }
    let text = `${now.total.toLocaleString("en")} ${now.total === 1 ? "sample" : "samples"}${now.complete ? "" : " so far"}`;
    if (now.undecided) text += `; ${now.undecided.toLocaleString("en")} have no such metadata`;
    if (now.complete && now.total === 0) text += ". Nothing is like that: show all, or change the filters";
    const count = document.getElementById("count");
    if (count.textContent !== text) count.textContent = text;
    if (now.version !== view.version || now.total !== view.total) {
      view = now;
      blocks = new Map();
      measure();
      scrollToRow(top);
    }
    timer = setTimeout(poll, now.complete ? 15_000 : 700);
  } catch (error) {
    fail(error);
    timer = setTimeout(poll, 5_000);
  }
}

async function jump(generator, index) {
  try {
    const found = await ask(address("/api/place", { of: generator, index }));
    if (!found.there) say(`${generator || found.generator} has no sample ${index} here: this is the next one`);
    focusOn(found.place);
  } catch (error) {
    fail(error);
  }
}

// focusOn brings a sample into view and gives it the focus.
function focusOn(place) {
  cursor = Math.min(Math.max(0, place), view.total - 1);
  const row = Math.floor(cursor / columns);
  if (row < top || row + 1 > top + seen()) scrollToRow(row < top ? row : row + 1 - seen());
  else draw();
  const focus = () => tiles.querySelector(`li[data-place="${cursor}"] a`);
  const take = (link) => {
    link.focus({ preventScroll: true });
    link.parentElement.scrollIntoView({ block: "nearest" }); // the grid may be partly outside of the window
  };
  if (focus()) take(focus());
  else { // it is still being asked for
    grid.focus({ preventScroll: true });
    const watch = new MutationObserver(() => {
      const link = focus();
      if (link || document.activeElement !== grid) watch.disconnect();
      if (link && document.activeElement === grid) take(link);
    });
    watch.observe(tiles, { childList: true });
  }
}

grid.addEventListener("scroll", () => {
  if (scrolledByUs) { scrolledByUs = false; return; }
  top = Math.min(fromScroll(), lastTop());
  draw();
}, { passive: true });

grid.addEventListener("keydown", (event) => {
  if (typing(event) || view.total === 0) return;
  const page = Math.max(1, Math.floor(seen()));
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page * columns,
    PageDown: page * columns, Home: -view.total, End: view.total };
  if (event.key in steps) {
    event.preventDefault();
    focusOn(cursor + steps[event.key]);
  } else if (event.key === "x" && !readOnly) {
    const box = tiles.querySelector(`li[data-place="${cursor}"] input`);
    if (box) box.click();
  }
});

tiles.addEventListener("focusin", (event) => {
  const place = event.target.closest("li")?.dataset.place;
  if (place !== undefined && Number(place) !== cursor) { cursor = Number(place); draw(); }
});

document.getElementById("jump").addEventListener("submit", (event) => {
  event.preventDefault();
  const index = document.getElementById("jump-index").value.trim();
  if (!/^\d+$/.test(index)) { say("an index is a whole number"); return; }
  jump(document.getElementById("jump-generator")?.value ?? search.get("generator") ?? "", index);
});

document.getElementById("search").addEventListener("submit", (event) => {
  for (const field of event.target.elements) if (field.name && field.value === "") field.disabled = true; // short addresses
});
addEventListener("pageshow", () => {
  for (const field of document.getElementById("search").elements) field.disabled = false;
});
for (const id of ["generator", "sort", "flagged"]) {
  document.getElementById(id).addEventListener("change", (event) => event.target.form.requestSubmit());
}

document.getElementById("selection")?.addEventListener("submit", (event) => {
  const form = event.target;
  form.querySelectorAll("input[name=sample]").forEach((field) => field.remove());
  for (const name of selected.keys()) form.append(make("input", { type: "hidden", name: "sample", value: name }));
  form.elements.back.value = location.pathname + location.search;
});
document.getElementById("unselect")?.addEventListener("click", () => {
  selected.clear();
  tiles.querySelectorAll("input:checked").forEach((box) => { box.checked = false; });
  select({}, false);
  grid.focus();
});

const size = document.getElementById("tile");
try { size.value = localStorage.getItem("tile") ?? size.value; } catch { /* storage is off */ }
function resize() {
  const place = Math.floor(top) * columns;
  measure();
  scrollToRow(Math.floor(place / columns));
}
size.addEventListener("input", () => {
  try { localStorage.setItem("tile", size.value); } catch { /* storage is off */ }
  resize();
});
new ResizeObserver(resize).observe(grid);

await poll();
const at = new URLSearchParams(location.search).get("at");
if (at) jump(at.slice(0, at.lastIndexOf(":")), at.slice(at.lastIndexOf(":") + 1));
