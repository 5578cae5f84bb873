// Parts of a page that the server replaces: an element with data-events names where their events come from.
import { say } from "/static/app.js";

for (const part of document.querySelectorAll("[data-events]")) follow(part);

function follow(part) {
  let source = null, ended = false, lost = false;
  const show = (event) => { part.innerHTML = event.data; }; // the server's own templates have escaped it
  function connect() {
    source = new EventSource(part.dataset.events);
    source.addEventListener("open", () => {
      if (lost) say("connected again");
      lost = false;
    });
    source.addEventListener("update", show);
    source.addEventListener("end", (event) => {
      source.close();
      ended = true;
      show(event);
      say(`ended: ${event.lastEventId}`);
    });
    source.addEventListener("error", () => {
      if (!lost) say(source.readyState === EventSource.CLOSED ? "the server does not answer: load the page again" : "the connection is lost, trying again");
      lost = true;
    });
  }
  // A tab that nobody sees needs no events, and a browser has few connections to a server.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source?.close();
    else if (!ended) connect();
  });
  if (!document.hidden) connect();
}
