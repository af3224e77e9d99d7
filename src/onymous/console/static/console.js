"use strict";
// Everything but the live page works without this file; it makes some of it quicker.
(function () {
  const say = (text) => { const to = document.getElementById("say"); if (to) to.textContent = text; };

  // "/" goes to the search from anywhere but a field
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    const typing = at instanceof HTMLElement && at.matches("input:not([type=checkbox]), textarea, select");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) {
      return;
    }
    const field = document.getElementById("who") || document.getElementById("q");
    if (event.key === "/" && field) {
      event.preventDefault();
      field.focus();
    } else if (event.key === "p" && pause) {
      event.preventDefault();
      pause.click();
    } else if (event.key === "Escape") {
      document.querySelectorAll("details.menu[open]").forEach((menu) => { menu.open = false; });
    }
  });

  // a menu closes when something else is used
  document.addEventListener("click", (event) => {
    document.querySelectorAll("details.menu[open]").forEach((menu) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const menu = document.activeElement && document.activeElement.closest("details.menu");
    if (menu) menu.querySelector("summary").focus();
  });

  // reveal in place
  function show(values) {
    for (const [handle, text] of Object.entries(values)) {
      document.querySelectorAll(`[data-v="${CSS.escape(handle)}"]`).forEach((place) => {
        const most = Number(place.dataset.most || 0);
        place.textContent = most && text.length > most ? text.slice(0, most - 1) + "…" : text;
        place.classList.remove("masked");
      });
    }
  }
  document.querySelectorAll("form.reveal").forEach((form) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      try {
        const answer = await fetch(form.action, {
          method: "POST",
          body: new URLSearchParams(new FormData(form)),
          headers: { Accept: "application/json" },
        });
        if (answer.status === 401) { location.reload(); return; }
        if (!answer.ok) throw new Error(String(answer.status));
        show(await answer.json());
        const row = form.closest("tr, .head");
        form.remove();
        if (row && row.matches("tr")) { row.tabIndex = -1; row.focus({ preventScroll: true }); }
        document.querySelectorAll("tr form.reveal").forEach((other) => {
          if (!other.closest("tr").querySelector(".masked")) other.remove();
        });
        say("Revealed; this was written into the audit.");
      } catch (error) {
        button.disabled = false;
        say("This could not be revealed. Reload the page and try again.");
      }
    });
  });

  // copy
  document.querySelectorAll("button.copy").forEach((button) => {
    if (!navigator.clipboard) return;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText("link" in button.dataset ? location.href : button.dataset.copy);
      say("Copied.");
      button.textContent = "Copied";
    });
  });

  // live
  const list = document.getElementById("live");
  const pause = document.getElementById("pause");
  if (!list) return;
  const state = document.getElementById("state");
  const MOST = 200;
  let source = null;
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text) node.textContent = text;
    return node;
  };
  function add(it) {
    const item = make("li", it.kind);
    const line = make("p", "line");
    line.append(make("b", "", it.title), " ", make("span", "quiet", it.from), " ");
    const person = make("a", "mpid", it.mpid);
    person.href = list.dataset.person + encodeURIComponent(it.mpid);
    line.append(person, " ");
    line.append(make("time", "", new Date(it.at).toISOString().slice(0, 19).replace("T", " ")));
    const changes = make("ul", "changes");
    it.lines.forEach((text) => changes.append(make("li", "", text)));
    item.append(line, changes);
    if (it.why && it.why.length) {
      const details = make("details");
      const reasons = make("ul", "why");
      it.why.forEach((text) => reasons.append(make("li", "", text)));
      details.append(make("summary", "", "why?"), reasons);
      item.append(details);
    }
    if (it.batch) {
      const link = make("a", "small", "JSON");
      link.href = person.href + "/batch/" + it.batch;
      item.append(link);
    }
    list.prepend(item);
    while (list.children.length > MOST) list.lastElementChild.remove();
    document.getElementById("empty").hidden = true;
  }
  function start() {
    source = new EventSource(list.dataset.stream);
    source.onopen = () => { state.textContent = "live"; state.className = "state on"; };
    source.onmessage = (event) => add(JSON.parse(event.data));
    source.onerror = () => {
      const gone = source.readyState === EventSource.CLOSED;
      state.textContent = gone ? "ended: reload the page" : "connecting again …";
      state.className = "state";
    };
    source.addEventListener("over", () => { source.close(); location.reload(); });
  }
  function stop() {
    if (source) source.close();
    source = null;
    state.textContent = "paused";
    state.className = "state";
  }
  pause.addEventListener("click", () => {
    const running = source !== null;
    if (running) stop(); else start();
    pause.setAttribute("aria-pressed", String(running));
    pause.textContent = running ? "Go on" : "Pause";
  });
  document.getElementById("clear").addEventListener("click", () => list.replaceChildren());
  for (const kind of ["identity", "events"]) {
    document.getElementById("with-" + kind).addEventListener("change", (event) => {
      list.classList.toggle("no-" + kind, !event.target.checked);
    });
  }
  addEventListener("pagehide", () => { if (source) source.close(); });
  start();
})();
