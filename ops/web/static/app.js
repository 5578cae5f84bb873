// What all pages share. A page's own script is loaded by its template.

let clearing = 0;

// say shows a line at the bottom for a while; a screen reader reads it.
export function say(text) {
  const line = document.getElementById("message");
  line.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => { line.textContent = ""; }, 6000);
}

// ask fetches JSON from this server. The error has the server's sentence, and what to do.
export async function ask(address, options = {}) {
  const answer = await fetch(address, { ...options, headers: { Accept: "application/json", ...options.headers } });
  const text = await answer.text();
  if (answer.ok) return text ? JSON.parse(text) : null;
  let problem = { error: text.trim() };
  try { problem = JSON.parse(text); } catch { /* a plain sentence */ }
  throw new Error(problem.way ? `${problem.error}. Try: ${problem.way}` : problem.error);
}

// make returns an element with properties and children.
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && typeof value !== "string") element[key] = value;
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// typing reports whether a key press goes into a field, or is a shortcut of the browser.
export function typing(event) {
  return event.ctrlKey || event.metaKey || event.altKey || event.isComposing ||
    event.target.closest?.("input:not([type=checkbox]):not([type=range]), textarea, select") !== null;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    say("copied");
  } catch {
    say("the browser refuses to copy: select the text");
  }
});

document.addEventListener("change", (event) => {
  if (event.target.matches("select[data-submit]")) event.target.form.requestSubmit();
});
