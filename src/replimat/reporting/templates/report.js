"use strict";
const words = document.getElementById("words");
const chips = [...document.querySelectorAll("#chips button")];
const articles = [...document.querySelectorAll("article")];

function filter() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const verdicts = chips.filter(chip => chip.ariaPressed === "true").map(chip => chip.dataset.verdict);
  const active = wanted.length > 0 || verdicts.length > 0;
  for (const article of articles) {
    const heading = article.querySelector("h3").textContent.toLowerCase();
    let left = 0;
    for (const row of article.querySelectorAll("table.comparison tbody tr")) {
      const text = heading + " " + row.textContent.toLowerCase();
      const keep = wanted.every(word => text.includes(word)) && (!verdicts.length || verdicts.includes(row.dataset.verdict));
      row.hidden = !keep;
      left += keep;
    }
    const named = wanted.length > 0 && !verdicts.length && wanted.every(word => heading.includes(word));
    article.hidden = active && !left && !named;
    const absent = article.querySelector("details.absent");
    if (absent) absent.open = active && Boolean(absent.querySelector("tbody tr:not([hidden])"));
  }
}

for (const chip of chips) chip.addEventListener("click", () => {
  chip.ariaPressed = chip.ariaPressed === "true" ? "false" : "true";
  filter();
});
words.addEventListener("input", filter);

for (const heading of document.querySelectorAll("table.comparison thead th")) heading.addEventListener("click", () => {
  const body = heading.closest("table").tBodies[0], column = heading.cellIndex;
  const sign = heading.ariaSort === "ascending" ? -1 : 1;
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => (a === "") - (b === "") || sign * (Number(a) - Number(b) || a.localeCompare(b));
  [...body.rows].sort((a, b) => compare(key(a), key(b))).forEach(row => body.append(row));
});

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => { one.open = true; }));
