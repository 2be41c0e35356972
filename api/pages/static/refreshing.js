// Loads the marked sections of a page again every few seconds while it is seen; focus and what is open stay.
"use strict";

(() => {
  const sections = [...document.querySelectorAll("section[data-refresh]")].map((s) => s.id);
  if (!sections.length) return;
  const every = 1000 * Number(document.getElementById(sections[0]).dataset.refresh);

  async function refresh() {
    if (document.hidden) return;
    try {
      const response = await fetch(window.location.href, { headers: { Accept: "text/html" } });
      if (!response.ok) return;
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      for (const id of sections) {
        const held = document.getElementById(id);
        const next = fresh.getElementById(id);
        // What somebody works in is left alone until they are through.
        if (held && next && held.innerHTML !== next.innerHTML && !held.contains(document.activeElement)) {
          held.replaceWith(next);
        }
      }
    } catch (error) {
      console.warn("the page could not be loaded again", error);
    }
  }

  window.apportionRefresh = refresh;
  setInterval(refresh, every);
})();
