// Draws the figures of a page from its data-figures address, in the page's colours, and again when they change.
"use strict";

window.apportion = (() => {
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  let running = false;
  let again = false;

  function address(path) {
    const url = new URL(path, window.location.href);
    url.searchParams.set("theme", window.apportionTheme());
    return url;
  }

  function lead(place) {
    // A point that is a trial leads to its page; the tables have the same links for the keyboard.
    const trials = document.querySelector("[data-trials]")?.dataset.trials;
    if (trials && !place.dataset.leads) {
      place.dataset.leads = "yes";
      place.on("plotly_click", (event) => {
        const number = event.points[0].customdata;
        if (typeof number === "number") window.location.assign(`${trials}${number}`);
      });
    }
  }

  async function draw() {
    // One request at a time; what is asked for meanwhile is one more.
    if (running) {
      again = true;
      return;
    }
    running = true;
    const holder = document.querySelector("[data-figures]");
    try {
      const response = await fetch(address(holder.dataset.figures));
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
    const places = new Map();
    for (const place of document.querySelectorAll("[data-figure]")) {
      const wanted = place.dataset.figure in figures;
      place.closest("figure").hidden = !wanted;
      if (wanted) places.set(place.dataset.figure, place);
    }
    // All places are shown before the first figure is drawn: a figure takes the width its place has then.
    for (const [name, place] of places) {
      await Plotly.react(place, figures[name].data, figures[name].layout, config);
      Plotly.Plots.resize(place);
      lead(place);
    }
  }

  document.addEventListener("apportion:theme", draw);
  draw();
  return { draw };
})();
