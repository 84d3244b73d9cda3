/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests ask of a page; evaluated in it, past its policy. */
(() => {
const shown = (element) => element.checkVisibility({visibilityProperty: true, opacityProperty: true})
  && !element.closest("svg.defs") && element.getBoundingClientRect().width > 0;

const rgb = (text) => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const known = new Map();
const colour = (text) => {
  if (!known.has(text)) known.set(text, rgb(text));
  return known.get(text);
};
const luminance = (channels) => {
  const [red, green, blue] = channels.slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const contrast = (one, other) => {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
};

/* Of SVG text the last shape before it that lies under its middle, else the background around. */
const under = (element) => {
  const svg = element.closest("svg");
  if (svg) {
    const box = element.getBoundingClientRect();
    const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
    const shapes = [...svg.querySelectorAll("rect")].filter((shape) => {
      const there = shape.getBoundingClientRect();
      const before = shape.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING;
      const fill = getComputedStyle(shape).fill;
      return before && fill !== "none" && !fill.startsWith("url")
        && there.left <= x && x <= there.right && there.top <= y && y <= there.bottom;
    });
    if (shapes.length) return colour(getComputedStyle(shapes[shapes.length - 1]).fill);
  }
  for (let at = svg ?? element; at; at = at.parentElement) {
    const found = colour(getComputedStyle(at).backgroundColor);
    if (found[3] === 255) return found;
  }
  return [255, 255, 255, 255];
};

window.texts = (most) => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode() && found.length < most) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, title") || !shown(element)) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ink = colour(element.closest("svg") ? style.fill : style.color);
    const least = large ? 3 : 4.5;
    const ratio = contrast(ink, under(element));
    found.push({text: walker.currentNode.data.trim().slice(0, 40), size, ratio, good: ratio >= least});
  }
  return found;
};

window.overflowing = () => {
  const width = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll("body *")].filter((element) => shown(element)
    && !element.closest(".scroll") && element.getBoundingClientRect().right > width + 0.5);
  const far = document.documentElement.scrollWidth > width ? ["the page itself"] : [];
  return [...far, ...wide.map((element) => element.outerHTML.slice(0, 100))].slice(0, 5);
};

/* Each CPU's cell with its texts: where they are, and how large. */
window.cells = () => [...document.querySelectorAll("svg g")]
  .filter((group) => group.querySelector(":scope > title") && shown(group))
  .map((group) => {
    const box = group.querySelector(":scope > rect").getBoundingClientRect();
    const texts = [...group.querySelectorAll(":scope > text")].map((text) => {
      const there = text.getBoundingClientRect();
      const inside = there.left >= box.left && there.right <= box.right && there.top >= box.top && there.bottom <= box.bottom + 1;
      return {text: text.textContent, size: parseFloat(getComputedStyle(text).fontSize), inside};
    });
    return {title: group.querySelector("title").textContent, left: box.left, top: box.top, right: box.right, bottom: box.bottom, texts};
  });

window.column = (id, number) => [...document.getElementById(id).tBodies[0].rows]
  .filter((row) => !row.hidden).map((row) => row.cells[number].textContent.trim());
window.press = (id, title) => [...document.querySelectorAll(`#${id} th button`)]
  .find((button) => button.textContent.trim() === title).click();
window.type = (id, words) => {
  const input = document.querySelector(`[data-for="${id}"] input[type=search]`);
  input.value = words;
  input.dispatchEvent(new Event("input"));
  return document.querySelector(`[data-for="${id}"] output`).value;
};
})();
