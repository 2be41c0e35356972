// Draws the figures of a page from its data-figures address, in the page's colours, and again when they change.
"use strict";

window.apportion = (() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  let running = false;
  let again = false;

  async function draw() {
    // One request at a time; what is asked for meanwhile is one more.
    if (running) {
      again = true;
      return;
    }
    running = true;
    const holder = document.querySelector("[data-figures]");
    try {
      const response = await fetch(`${holder.dataset.figures}?theme=${dark.matches ? "dark" : "light"}`);
      if (response.ok) {
        await show(await response.json());
      }
    } catch (error) {
      console.warn("figures could not be loaded", error);
    } finally {
      running = false;
      if (again) {
        again = false;
        draw();
      }
    }
  }

  async function show(figures) {
    for (const [name, figure] of Object.entries(figures)) {
      const place = document.querySelector(`[data-figure="${name}"]`);
      if (place) {
        place.closest("figure").hidden = false;
        await Plotly.react(place, figure.data, figure.layout, config);
      }
    }
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn || 0) + 1);
  }

  dark.addEventListener("change", draw);
  draw();
  return { draw };
})();
