/* SPDX-License-Identifier: GPL-2.0-or-later */
"use strict";
(() => {
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

const theme = document.getElementById("theme");
if (theme) {
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });
}

// What a cell is sorted by: its number, else its text; what has none is last either way.
const key = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const number = Number(text);
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
};

// web-2 comes before web-10.
const order = new Intl.Collator("en", {numeric: true});
const compare = (one, other) => {
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  return typeof one === "number" ? one - other : order.compare(one, other);
};

const sort = (table, header) => {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  const column = header.cellIndex;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [key(row, column), row]);
  rows.sort(([one], [other]) => {
    if (one === null || other === null) return (one === null) - (other === null);
    return ascending ? compare(one, other) : compare(other, one);
  });
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  body.append(...rows.map(([, row]) => row));
};

for (const table of document.querySelectorAll("table[data-sorted]")) {
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, header));
  }
}

// Filters: rows or blocks that have all the words, and a problem where only those are asked for.
for (const controls of document.querySelectorAll(".controls[data-for]")) {
  const place = document.getElementById(controls.dataset.for);
  const [search] = controls.querySelectorAll("input[type=search]");
  const only = controls.querySelector("input[type=checkbox]");
  const count = controls.querySelector("output");
  const all = [...place.querySelectorAll("[data-row]")].map((row) => [row, row.textContent.toLowerCase()]);
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of all) {
      row.hidden = !words.every((word) => text.includes(word)) || Boolean(only?.checked && row.dataset.row === "");
      shown += row.hidden ? 0 : 1;
    }
    count.value = `${shown} of ${all.length}`;
  };
  controls.hidden = false;
  search.addEventListener("input", filter);
  only?.addEventListener("change", filter);
  filter();
}

// Paper has no clicks: what is closed is opened for it.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of closed) one.open = false;
});
})();
