// Keeps the list of studies current: whenever something happens in any of them, the list is loaded again.
"use strict";

(() => {
  const REFRESH_MS = 1500;
  let source = null;
  let waiting = null;
  let refreshed = 0;

  async function refresh() {
    waiting = null;
    refreshed = Date.now();
    try {
      const response = await fetch(window.location.href, { headers: { Accept: "text/html" } });
      if (!response.ok) return;
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("live-studies");
      const held = document.getElementById("live-studies");
      if (!fresh || !held || fresh.innerHTML === held.innerHTML) return;
      // What somebody is about to delete is left alone until they are through.
      if (held.querySelector("details[open]")) return;
      const focused = held.contains(document.activeElement) ? document.activeElement : null;
      const label = focused?.getAttribute("aria-label");
      const href = focused?.getAttribute("href");
      held.replaceWith(fresh);
      const again = label ? fresh.querySelector(`[aria-label="${CSS.escape(label)}"]`) : href && fresh.querySelector(`a[href="${CSS.escape(href)}"]`);
      again?.focus({ preventScroll: true });
    } catch (error) {
      console.warn("the list could not be loaded again", error);
    }
  }

  function soon() {
    waiting ??= setTimeout(refresh, Math.max(50, refreshed + REFRESH_MS - Date.now()));
  }

  function follow() {
    if (source) return;
    source = new EventSource("/api/v1/events");
    for (const kind of ["phase", "plan", "status"]) source.addEventListener(kind, soon);
    // What happened before the connection stood, or while it was lost.
    source.addEventListener("open", soon);
  }

  // A browser opens only six connections to one host: hidden pages give theirs back.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else {
      follow();
    }
  });
  follow();
})();
