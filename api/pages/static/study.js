// Follows a study by its events: the activity line at once, tables and figures by loading them again.
"use strict";

(() => {
  const page = document.getElementById("study");
  const base = `/studies/${page.dataset.study}`;
  const REFRESH_MS = 1000;
  let after = page.dataset.after;
  let ended = page.dataset.ended === "yes";
  let source = null;
  let waiting = null;
  let refreshed = 0;

  function replaceSections(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    for (const section of fresh.querySelectorAll("section[data-live]")) {
      const held = document.getElementById(section.id);
      if (!held || held.innerHTML === section.innerHTML) {
        continue;
      }
      const open = new Set([...held.querySelectorAll("details[open] > summary")].map((s) => s.textContent));
      const closed = new Set([...held.querySelectorAll("details:not([open]) > summary")].map((s) => s.textContent));
      const focused = held.contains(document.activeElement) ? document.activeElement : null;
      held.replaceWith(section);
      for (const summary of section.querySelectorAll("details > summary")) {
        if (open.has(summary.textContent)) summary.parentElement.open = true;
        if (closed.has(summary.textContent)) summary.parentElement.open = false;
      }
      if (focused) {
        const href = focused.getAttribute("href");
        const again = focused.id ? document.getElementById(focused.id) : href && section.querySelector(`a[href="${CSS.escape(href)}"]`);
        again?.focus({ preventScroll: true });
      }
    }
  }

  async function refresh() {
    waiting = null;
    refreshed = Date.now();
    try {
      const response = await fetch(page.dataset.live);
      if (response.ok) {
        replaceSections(await response.text());
      }
    } catch (error) {
      console.warn("the study could not be loaded", error);
    }
    await window.apportion.draw();
  }

  function refreshSoon() {
    // At once where the last time is long ago, else as soon as it is.
    waiting ??= setTimeout(refresh, Math.max(50, refreshed + REFRESH_MS - Date.now()));
  }

  function showProgress(event) {
    const data = JSON.parse(event.data);
    const text = document.getElementById("activity-text");
    const bar = document.getElementById("activity-bar");
    if (text && bar) {
      const number = new Intl.NumberFormat("en");
      text.textContent = `: ${data.stage} on ${data.model}, ${number.format(data.done)} of ${number.format(data.total)} prompts, ${number.format(data.draws_per_second)} draws per second`;
      bar.max = data.total;
      bar.value = data.done;
    }
  }

  function lost(isLost) {
    const note = document.getElementById("connection");
    if (note) note.hidden = !isLost;
  }

  function follow() {
    if (ended || source) {
      return;
    }
    source = new EventSource(`/api/v1${base}/events?after=${after}`);
    const seen = (handler) => (event) => {
      after = event.lastEventId || after;
      handler(event);
    };
    source.addEventListener("open", () => lost(false));
    source.addEventListener("error", () => lost(true));
    source.addEventListener("progress", seen(showProgress));
    for (const kind of ["phase", "trial", "proposal", "guideline", "plan", "budget", "status"]) {
      source.addEventListener(kind, seen(refreshSoon));
    }
    source.addEventListener("end", () => {
      ended = true;
      leave();
      clearTimeout(waiting);
      refresh();
    });
  }

  function leave() {
    source?.close();
    source = null;
  }

  // A browser opens only six connections to one host: hidden pages give theirs back.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      leave();
    } else if (!ended) {
      follow();
      refreshSoon();
    }
  });
  follow();
})();
