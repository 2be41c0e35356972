// Shows only the fields of the chosen alternative, and brings a faulty form's summary into view.
"use strict";

function showChosen(chooser) {
  for (const variant of document.querySelectorAll(`.variant[data-chooser="${chooser.id}"]`)) {
    variant.hidden = variant.dataset.tag !== chooser.value;
  }
}

for (const id of new Set([...document.querySelectorAll(".variant")].map((v) => v.dataset.chooser))) {
  const chooser = document.getElementById(id);
  chooser.addEventListener("change", () => showChosen(chooser));
  showChosen(chooser);
}

// Links of the summary lead to a control: focus it, as its fault is read out with it.
for (const link of document.querySelectorAll("#summary a")) {
  link.addEventListener("click", (event) => {
    const target = document.querySelector(link.hash);
    if (target) {
      event.preventDefault();
      target.scrollIntoView({ block: "center" });
      (target.matches("input, select, textarea") ? target : target.querySelector("input, select, textarea"))?.focus({ preventScroll: true });
    }
  });
}
document.getElementById("summary")?.focus();
