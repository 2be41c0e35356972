// What keeps somebody who cannot see a page from using it, as a list of sentences.
() => {
  const faults = [];
  const seen = (e) => e.checkVisibility?.() ?? true;
  for (const control of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (seen(control) && !control.labels?.length && !control.getAttribute("aria-label")) faults.push(`no label: ${control.outerHTML.slice(0, 90)}`);
  }
  for (const one of document.querySelectorAll("a[href], button, summary")) {
    if (seen(one) && !(one.getAttribute("aria-label") || one.textContent.trim())) faults.push(`no name: ${one.outerHTML.slice(0, 90)}`);
  }
  let last = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    if (!seen(heading)) continue;
    const level = Number(heading.tagName[1]);
    if (level > last + 1) faults.push(`heading skips a level: ${heading.textContent.trim()}`);
    last = level;
  }
  if (document.querySelectorAll("h1").length !== 1) faults.push("not exactly one h1");
  if (!document.documentElement.lang) faults.push("no language");
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) faults.push(`id twice: ${id}`);
  for (const e of document.querySelectorAll("[aria-labelledby]")) {
    for (const id of e.getAttribute("aria-labelledby").split(" ")) if (id && !document.getElementById(id)) faults.push(`refers to nothing: ${id}`);
  }
  return faults;
}
