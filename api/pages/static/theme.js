// Which colours the page has: the system's, or those chosen with the switch, which this browser remembers.
"use strict";

(() => {
  const KEY = "apportion-theme";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  function held() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // Storage may be switched off; the switch then holds for one page.
    }
  }

  function dark() {
    return (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  }

  function press() {
    document.getElementById("theme")?.setAttribute("aria-pressed", String(dark()));
  }

  function say() {
    press();
    document.dispatchEvent(new CustomEvent("apportion:theme", { detail: dark() ? "dark" : "light" }));
  }

  const chosen = held();
  if (chosen === "dark" || chosen === "light") {
    root.dataset.theme = chosen; // Before the first paint: this script stands in the head and is not deferred.
  }
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (button) {
      button.hidden = false;
      button.addEventListener("click", () => {
        root.dataset.theme = dark() ? "light" : "dark";
        try {
          localStorage.setItem(KEY, root.dataset.theme);
        } catch {
          // As above.
        }
        say();
      });
    }
    press();
  });
  system.addEventListener("change", say);
  window.apportionTheme = () => (dark() ? "dark" : "light");
})();
