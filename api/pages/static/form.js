// The study form: shows only the fields of the chosen alternative, says what is wrong and what a study would spend
// while it is filled, and keeps the fields and their YAML the same, whichever of them is typed in.
"use strict";

(() => {
  const form = document.getElementById("study-form");
  const yaml = document.getElementById("spec-yaml");
  const state = document.getElementById("check-state");
  const forecast = document.getElementById("forecast");
  const models = document.getElementById("stage-models");
  const back = document.getElementById("yaml-back");
  const WAIT_MS = 400;
  let waiting = null;
  let asked = 0;
  let typed = null; // What somebody wrote as YAML, until it is theirs no more.

  // Alternatives ---------------------------------------------------------------------------------------------------

  function showChosen(chooser) {
    for (const variant of document.querySelectorAll(`.variant[data-chooser="${chooser.id}"]`)) {
      variant.hidden = variant.dataset.tag !== chooser.value;
    }
  }
  const choosers = [...new Set([...document.querySelectorAll(".variant")].map((v) => v.dataset.chooser))].map((id) => document.getElementById(id));
  for (const chooser of choosers) {
    chooser.addEventListener("change", () => showChosen(chooser));
    showChosen(chooser);
  }

  // Asking the service ----------------------------------------------------------------------------------------------

  async function ask(path, changes) {
    const number = ++asked;
    const body = new URLSearchParams(new FormData(form));
    for (const [name, value] of Object.entries(changes)) body.set(name, value);
    try {
      const response = await fetch(path, { method: "POST", body });
      if (number !== asked) return null; // Something newer was typed meanwhile.
      if (response.ok) return await response.json();
      state.textContent = response.status === 403 ? "This form has expired: load its page again." : `The check failed (status ${response.status}); the form can be sent all the same.`;
    } catch {
      state.textContent = "The service does not answer; what you typed stays here.";
    }
    return null;
  }

  async function checkFields(changes = {}) {
    const answer = await ask("/studies/new/check", changes);
    if (!answer) return;
    const pipeline = form.elements.namedItem("pipeline");
    if (changes.choose_stage && pipeline) pipeline.value = answer.pipeline;
    yaml.value = answer.yaml;
    back.hidden = typed === null || typed === answer.yaml;
    show(answer);
  }

  async function checkYaml() {
    const answer = await ask("/studies/new/fill", {});
    if (!answer) return;
    for (const [name, value] of Object.entries(answer.values ?? {})) {
      const control = form.elements.namedItem(name);
      if (!control || control === yaml) continue;
      if (control.type === "checkbox") control.checked = value === "yes";
      else if (control.tagName === "SELECT" && ![...control.options].some((o) => o.value === value)) control.add(new Option(value || "choose", value));
      if (control.type !== "checkbox") control.value = value;
    }
    choosers.forEach(showChosen);
    show(answer);
  }

  function soon(check) {
    clearTimeout(waiting);
    state.textContent = "Checking …";
    waiting = setTimeout(check, WAIT_MS);
  }

  // Showing what it says --------------------------------------------------------------------------------------------

  function show(answer) {
    clearFaults();
    const groups = new Map();
    for (const fault of answer.faults) groups.set(fault.id, [...(groups.get(fault.id) ?? []), fault]);
    for (const [id, faults] of groups) place(id || "spec-yaml", faults);
    const number = answer.faults.length;
    state.textContent = number === 0 ? "No faults: the study can be started." : number === 1 ? "1 fault, at its field." : `${number} faults, each at its field.`;
    state.classList.toggle("bad", number > 0);
    const links = document.getElementById("fault-links");
    links.replaceChildren(...answer.faults.map((fault) => {
      const link = document.createElement("a");
      link.href = `#${fault.id || "spec-yaml"}`;
      link.textContent = fault.path || "study";
      link.addEventListener("click", (event) => { event.preventDefault(); reach(fault.id || "spec-yaml"); });
      const item = document.createElement("li");
      item.append(link, `: ${fault.message}`);
      return item;
    }));
    forecast.replaceChildren(...(answer.forecast ?? ["Once nothing is wrong with the study."]).map((line) => {
      const item = document.createElement("li");
      item.textContent = line;
      return item;
    }));
    showModels(answer.stages ?? []);
  }

  function clearFaults() {
    document.getElementById("summary")?.remove();
    for (const list of form.querySelectorAll("ul.faults")) list.remove();
    for (const control of form.querySelectorAll("[aria-invalid]")) {
      control.removeAttribute("aria-invalid");
      const words = (control.getAttribute("aria-describedby") ?? "").split(" ");
      control.setAttribute("aria-describedby", words.filter((w) => w && !w.endsWith("-faults")).join(" "));
    }
    for (const field of form.querySelectorAll(".field.wrong")) field.classList.remove("wrong");
  }

  function place(id, faults) {
    const target = document.getElementById(id);
    if (!target) return;
    const list = document.createElement("ul");
    list.className = "faults";
    list.id = `${id}-faults`;
    for (const fault of faults) {
      const item = document.createElement("li");
      const hidden = document.createElement("span");
      hidden.className = "visually-hidden";
      hidden.textContent = "Fault: ";
      item.append(hidden);
      if (fault.path) {
        const code = document.createElement("code");
        code.textContent = fault.path;
        item.append(code, " ");
      }
      item.append(fault.message);
      list.append(item);
    }
    if (target.matches("input, select, textarea")) {
      target.before(list);
      target.closest(".field")?.classList.add("wrong");
      target.setAttribute("aria-invalid", "true");
      target.setAttribute("aria-describedby", `${target.getAttribute("aria-describedby") ?? ""} ${list.id}`.trim());
    } else {
      target.querySelector("legend")?.after(list);
    }
  }

  function showModels(stages) {
    if (models.contains(document.activeElement) && models.dataset.shown === JSON.stringify(stages)) return;
    const focused = document.activeElement?.id;
    models.hidden = !stages.length;
    models.dataset.shown = JSON.stringify(stages);
    const place = models.querySelector(".choices");
    place.replaceChildren(...stages.map(({ stage, models: chosen, offered }) => {
      const group = document.createElement("fieldset");
      const legend = document.createElement("legend");
      legend.textContent = `Models of stage ${stage}`;
      group.append(legend);
      for (const name of offered) {
        const label = document.createElement("label");
        const box = document.createElement("input");
        box.type = "checkbox";
        box.id = `model-${stage}-${name}`;
        box.checked = chosen.includes(name);
        box.addEventListener("change", () => {
          const now = offered.filter((one) => document.getElementById(`model-${stage}-${one}`).checked);
          useFields();
          checkFields({ choose_stage: stage, choose_models: now.join(",") });
        });
        label.append(box, ` ${name}`);
        group.append(label);
      }
      return group;
    }));
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function reach(id) {
    const target = document.getElementById(id);
    if (!target) return;
    target.closest("details")?.setAttribute("open", "");
    target.scrollIntoView({ block: "center" });
    (target.matches("input, select, textarea") ? target : target.querySelector("input, select, textarea"))?.focus({ preventScroll: true });
  }

  // Typing ----------------------------------------------------------------------------------------------------------

  function useFields() {
    document.getElementById("source-fields").checked = true;
  }

  form.addEventListener("input", (event) => {
    const at = event.target;
    if (at === yaml) {
      typed = yaml.value;
      back.hidden = true;
      document.getElementById("source-yaml").checked = true;
      soon(checkYaml);
    } else if (at.name && at.name !== "source" && at.type !== "file") {
      useFields();
      soon(checkFields);
    }
  });
  back.addEventListener("click", () => {
    yaml.value = typed;
    yaml.dispatchEvent(new Event("input", { bubbles: true }));
    yaml.focus();
  });

  // Files -----------------------------------------------------------------------------------------------------------

  document.getElementById("pipeline-file").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    if (!file) return;
    const text = await file.text();
    // A whole study names its pipeline; a pipeline alone has its stages at the left margin.
    const whole = /^(pipeline|"pipeline"|\{)/m.test(text) && !/^stages\s*:/m.test(text);
    const target = whole ? yaml : form.elements.namedItem("pipeline");
    target.closest("details")?.setAttribute("open", "");
    target.value = text;
    target.dispatchEvent(new Event("input", { bubbles: true }));
    target.focus();
  });

  const picked = document.getElementById("dataset");
  function useData(path) {
    const source = document.getElementById("field-data-source");
    source.value = "file";
    showChosen(source);
    const field = document.getElementById("field-data-file-path");
    field.value = path;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  picked.addEventListener("change", () => picked.value && useData(picked.value));

  document.getElementById("data-file").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    const said = document.getElementById("upload-state");
    if (!file) return;
    const name = file.name.toLowerCase().replace(/\.[a-z]+$/, "").replace(/[^a-z0-9_.-]+/g, "-").replace(/^[^a-z0-9]+/, "").slice(0, 64) || "data";
    said.textContent = `Sending ${file.name} …`;
    const body = new FormData();
    body.append("file", file);
    try {
      const response = await fetch(`/api/v1/datasets?name=${encodeURIComponent(name)}`, { method: "POST", body });
      const answer = await response.json();
      if (!response.ok) {
        said.textContent = `Not kept: ${answer.detail} ${(answer.faults ?? []).map((f) => `${f.path}: ${f.message}`).join("; ")}`;
        return;
      }
      said.textContent = `Kept as ${answer.name}: ${answer.rows} rows, fields ${answer.fields.join(", ")}.`;
      picked.add(new Option(`${answer.name} (${answer.rows} rows)`, answer.data.path, true, true));
      useData(answer.data.path);
    } catch {
      said.textContent = "The service does not answer; nothing was kept.";
    }
  });

  // Links of the summary lead to a control: focus it, as its fault is read out with it.
  for (const link of document.querySelectorAll("#summary a")) {
    link.addEventListener("click", (event) => { event.preventDefault(); reach(link.hash.slice(1)); });
  }
  const summary = document.getElementById("summary");
  summary?.focus();
  for (const guided of document.querySelectorAll(".scripted")) guided.hidden = false;
  if (!summary) checkFields();
})();
