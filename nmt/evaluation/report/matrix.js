// Shared by all pages with matrices: cells and tables, packed weights (weight_encoding.py), and marked texts.
"use strict";
const byId = (id) => document.getElementById(id);
const within = (value, low, high) => Math.max(low, Math.min(value, high));
const isolated = (text) => "\u2068" + text + "\u2069"; // bidirectional isolate
const element = (tag, text, attributes = {}) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

// Shades a cell; the classes keep its text readable, as in the macro `grid` of parts.html.
const shade = (cell, share) => {
  cell.classList.toggle("hi", share >= 0.64);
  cell.classList.toggle("mid", share >= 0.5 && share < 0.64);
  if (share < 0.0005) cell.style.removeProperty("--w");
  else cell.style.setProperty("--w", Math.min(share, 1).toFixed(3));
};

// Keyboard navigation of a table, of which one cell is in the tab order. `show` gets a cell, its row and column, `choose`
// a cell that is clicked or entered. Returns a function that makes the first cell the current one.
const grid = (table, show, choose) => {
  const position = (td) => [td.parentNode.sectionRowIndex, td.cellIndex - 1];
  let current = null;
  const enter = (td) => { if (current) current.tabIndex = -1; current = td; td.tabIndex = 0; };
  const move = (row, column) => {
    const { rows } = table.tBodies[0], { cells } = rows[within(row, 0, rows.length - 1)];
    const td = cells[within(column + 1, 1, cells.length - 1)];
    enter(td);
    td.focus();
  };
  const on = (type, act) => table.addEventListener(type, (event) => {
    const td = event.target.closest("tbody td");
    if (td) act(td, event);
  });
  on("mouseover", (td) => show(td, ...position(td)));
  on("focusin", (td) => { enter(td); show(td, ...position(td)); });
  on("click", (td) => { move(...position(td)); choose(td); });
  on("keydown", (td, event) => {
    const [r, c] = position(td);
    const target = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1],
      Home: [r, 0], End: [r, Infinity] }[event.key];
    if (!target && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (target) move(...target);
    else choose(td);
  });
  return () => { current = null; const first = table.querySelector("tbody td"); if (first) enter(first); };
};

addEventListener("beforeprint", () => document.querySelectorAll("details:not(.folded, .screen *)").forEach((details) => { details.open = true; }));

// --- weights ---------------------------------------------------------------------------------------------------------
// The weight of each quantization level (weight_encoding.py).
const weightsOf = (levels) => Float64Array.from({ length: levels }, (_, i) => (i / (levels - 1)) ** 2);

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const unpacked = async (line) => {
  if (!line) return null;
  const stream = new Blob([bytesOf(line)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

// Rows of weights between subwords: the mean over the selected layers and heads, counted from 1; 0 is all of them.
const meanRows = (bytes, weights, [numLayers, numHeads, T, S], layer, head) => {
  const pick = (chosen, count) => (count === 1 ? [0] : chosen ? [chosen - 1] : [...Array(count).keys()]);
  const layers = pick(layer, numLayers), heads = pick(head, numHeads), size = T * S, sum = new Float64Array(size);
  for (const l of layers) for (const h of heads) {
    const start = (l * numHeads + h) * size;
    for (let i = 0; i < size; i++) sum[i] += weights[bytes[start + i]];
  }
  return Array.from({ length: T }, (_, t) => sum.slice(t * S, (t + 1) * S).map((x) => x / layers.length / heads.length));
};

// Names of words, and the subwords of each; with `rest` also those that belong to no word.
const wordsOf = (text, subwords, wordIds, rest) => {
  const count = Math.max(-1, ...wordIds) + 1, groups = Array.from({ length: count + 1 }, () => []);
  wordIds.forEach((word, i) => groups[word < 0 ? count : word].push(i));
  const none = groups.at(-1).map((i) => subwords[i]).join(" ") || "–"; // tags and the end token
  const joined = groups.slice(0, count).map((group) => group.map((i) => subwords[i]).join(""));
  const split = text.split(" ").filter((word) => word);
  const names = split.length === count ? split : joined.map((name) => name.replaceAll("▁", ""));
  return rest ? [[...names, none], groups] : [names, groups.slice(0, count)];
};

// A matrix between subwords or words: labels, and a row of weights for each target label. A source word receives the sum
// over its subwords, a target word the mean.
const projected = (sentence, rows, units) => {
  if (units === "pieces") return { source: sentence.sp, target: sentence.tp.slice(0, rows.length), rows };
  const [source, columns] = wordsOf(sentence.s, sentence.sp, sentence.sw, true);
  const [target, groups] = wordsOf(sentence.h, sentence.tp, sentence.tw, false);
  const sum = (indices, weight) => indices.reduce((total, i) => total + weight(i), 0);
  const words = groups.map((group) => group.filter((t) => t < rows.length)).map((group) =>
    columns.map((column) => sum(group, (t) => sum(column, (s) => rows[t][s])) / Math.max(group.length, 1)));
  return { source, target, rows: words };
};

const endClass = (text) => (text === "</s>" ? { class: "end" } : {});
const label = (text, scope) => {
  const th = element("th", undefined, { scope, title: text, ...endClass(text) });
  th.append(element("span", text, { dir: "auto" }));
  return th;
};

const MAX = 150; // largest number of rows and columns that are drawn

// Fills a table with a matrix, its rows those of the target, links outlined; returns whether it shows numbers.
const drawMatrix = (table, view, links) => {
  const source = view.source.slice(0, MAX), target = view.target.slice(0, MAX), numbers = source.length <= 26;
  const top = element("tr"), body = element("tbody"), thead = element("thead");
  top.append(element("td"), ...source.map((text) => label(text, "col")));
  thead.append(top);
  target.forEach((text, t) => {
    const tr = element("tr");
    tr.append(label(text, "row"));
    source.forEach((_, s) => {
      const weight = view.rows[t][s], td = tr.insertCell();
      if (numbers && weight >= 0.095) td.textContent = Math.min(Math.round(100 * weight), 100);
      shade(td, weight);
      td.tabIndex = -1;
      if (links.has(t + "," + s)) td.classList.add("link");
    });
    body.append(tr);
  });
  table.classList.toggle("dense", !numbers);
  table.classList.toggle("tiny", source.length > 45);
  table.style.setProperty("--columns", source.length); // the narrow cards of some pages shrink cells by it
  table.replaceChildren(thead, body);
  return numbers;
};

// A picture of a matrix, one pixel for each weight.
const picture = (rows, [red, green, blue]) => {
  const canvas = element("canvas", undefined, { width: Math.max(rows[0]?.length ?? 0, 1), height: Math.max(rows.length, 1) });
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  rows.forEach((row, t) => row.forEach((weight, s) =>
    image.data.set([red, green, blue, Math.round(255 * Math.min(weight, 1))], 4 * (t * row.length + s))));
  context.putImageData(image, 0, 0);
  return canvas;
};
// Fills a table with pictures of the matrices of all layers and heads, counted from 1; `rowsOf` returns the rows of one, null
// where they are not known.
const drawHeads = (table, numLayers, numHeads, rowsOf) => {
  const top = element("tr"), thead = element("thead"), body = element("tbody");
  const color = getComputedStyle(table).getPropertyValue("--heat").trim().split(" ").map(Number);
  top.append(element("th", "layer \\ head", { scope: "col", class: "corner" }));
  for (let head = 1; head <= numHeads; head++) top.append(element("th", String(head), { scope: "col" }));
  thead.append(top);
  for (let layer = 1; layer <= numLayers; layer++) {
    const tr = element("tr");
    tr.append(element("th", String(layer), { scope: "row" }));
    for (let head = 1; head <= numHeads; head++) {
      const td = tr.insertCell(), name = `layer ${layer}, head ${head}`, rows = rowsOf(layer, head);
      Object.assign(td.dataset, { layer, head });
      Object.assign(td, { tabIndex: -1, title: name, ariaLabel: name });
      td.append(rows ? picture(rows, color) : element("span", "·"));
    }
    body.append(tr);
  }
  table.replaceChildren(thead, body);
};
// Marks the selected one of them; with 0, the mean, none.
const markHead = (table, layer, head) => {
  for (const td of table.querySelectorAll("td")) {
    const isSelected = Number(td.dataset.layer) === layer && Number(td.dataset.head) === head;
    td.classList.toggle("here", isSelected);
    td.ariaCurrent = isSelected ? "true" : null;
  }
};

// Fills a line with words or subwords, of which one is in the tab order.
const tokens = (line, names) => {
  line.dir = "auto";
  const spans = names.map((name, i) => element("span", name, { tabindex: i ? "-1" : "0", ...endClass(name) }));
  line.replaceChildren(...spans);
};

// Calls `reach` with the index of the token under the pointer or with the focus. The arrow keys, Home and End move along
// the line, up and down to the line `across` where there is one; Escape calls `leave`.
const walk = (line, reach, across, leave) => {
  const on = (type, act) => line.addEventListener(type, (event) => {
    if (event.target.parentNode === line) act([...line.children].indexOf(event.target), event);
  });
  on("mouseover", reach);
  on("focusin", (i, { target }) => {
    for (const span of line.children) span.tabIndex = span === target ? 0 : -1;
    reach(i);
  });
  on("click", (i, { target }) => target.focus());
  on("keydown", (i, event) => {
    const step = getComputedStyle(line).direction === "rtl" ? -1 : 1;
    const [to, index] = { ArrowLeft: [line, i - step], ArrowRight: [line, i + step], Home: [line, 0], End: [line, Infinity],
      ArrowUp: [across, i], ArrowDown: [across, i] }[event.key] ?? [];
    if (event.key === "Escape") leave();
    if (!to) return;
    event.preventDefault();
    to.children[within(index, 0, to.children.length - 1)]?.focus();
  });
};

// --- tracing ---------------------------------------------------------------------------------------------------------
// A line of source words, one of target words, their matrix and the text of a weight: pointing at a word or a cell, or
// moving to one with the keyboard, marks it and shades the other side by its weights. `viewOf` returns the matrix shown.
const unmark = (lines, matrices) => {
  for (const line of lines) for (const span of line.children) { shade(span, 0); span.classList.remove("on"); }
  for (const matrix of matrices) for (const th of matrix.querySelectorAll("th.on")) th.classList.remove("on");
};
// Marks a target row or a source column, or its cell `cell`; `isShared` returns whether the source line shows the source
// of this matrix.
const marker = ({ sourceLine, targetLine, matrix, weight }, viewOf, isShared = () => true) => (isTarget, index, cell) => {
  const shared = isShared();
  if (!isTarget && !shared) return;
  const { source, target, rows } = viewOf(), sides = [[targetLine, target], [sourceLine, source]];
  const [[line, labels], [acrossLine, acrossLabels]] = isTarget ? sides : sides.reverse();
  const weights = isTarget ? rows[index] : rows.map((row) => row[index]);
  line.children[index].classList.add("on");
  if (shared) acrossLabels.forEach((_, i) => shade(acrossLine.children[i], weights[i]));
  const heads = matrix.tHead.rows[0].cells, bodyRows = matrix.tBodies[0].rows;
  (isTarget ? bodyRows[index]?.cells[0] : heads[index + 1])?.classList.add("on");
  if (cell !== undefined) {
    heads[cell + 1]?.classList.add("on");
    if (shared) acrossLine.children[cell].classList.add("on");
    weight.textContent = `${isolated(labels[index])} ← ${isolated(acrossLabels[cell])}: ${weights[cell].toFixed(2)}`;
    return;
  }
  const best = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3).filter((i) => weights[i] >= 0.01);
  const shown = best.map((i) => `${isolated(acrossLabels[i])} ${weights[i].toFixed(2)}`).join(", ") || "nothing";
  weight.textContent = `${isolated(labels[index])} ${isTarget ? "←" : "→"} ${shown}`;
};
// `onTrace` gets (isTarget, index) of a word, for a cell also the index across, and nothing when the marks are removed;
// `choose` gets a cell that is clicked or entered.
const traced = (parts, viewOf, onTrace = () => {}, choose = () => {}) => {
  const { sourceLine, targetLine, matrix } = parts, mark = marker(parts, viewOf);
  const clear = () => { unmark([sourceLine, targetLine], [matrix]); onTrace(); };
  const trace = (...place) => { unmark([sourceLine, targetLine], [matrix]); mark(...place); onTrace(...place); };
  walk(targetLine, (t) => trace(true, t), sourceLine, clear);
  walk(sourceLine, (s) => trace(false, s), targetLine, clear);
  return { enter: grid(matrix, (td, row, column) => trace(true, row, column), choose), clear };
};

// --- texts -----------------------------------------------------------------------------------------------------------
// Words, and single characters in scripts without spaces.
const parts = (text) => text.match(
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Khmer}\p{Script=Lao}]|[\p{L}\p{M}\p{N}]+|\s+|[^]/gu) ?? [];
// For each part of both texts, whether it is in a longest common subsequence.
const common = (a, b) => {
  const width = b.length + 1, best = new Uint16Array((a.length + 1) * width), inA = [], inB = [];
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--)
    best[i * width + j] = a[i] === b[j] ? best[(i + 1) * width + j + 1] + 1
      : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) { inA[i++] = inB[j++] = true; }
    else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i++;
    else j++;
  }
  return [inA, inB];
};
// Appends a text to `node`, those of its parts that are not `kept` as marks.
const marked = (node, all, kept, className, title) => {
  let run = null;
  all.forEach((text, i) => {
    if (kept[i]) { run = null; node.append(text); return; }
    if (!run) { run = element("mark", "", { class: className, title }); node.append(run); }
    run.append(text);
  });
};

// --- a list of sentences ---------------------------------------------------------------------------------------------
// `show` gets the index of the sentence that is clicked, `go` the steps of a key or of the buttons beside the list.
const steered = (list, show, go) => {
  byId("previous").addEventListener("click", () => go(-1));
  byId("next").addEventListener("click", () => go(1));
  list.addEventListener("click", (event) => {
    const row = event.target.closest("[role=option]");
    if (row) show(Number(row.id.slice("option-".length)));
  });
  list.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (steps !== undefined) { event.preventDefault(); go(steps); }
  });
};

// Scrolls the page to an element; scrollIntoView would move the start of Tab navigation past all that is above it.
const scrollToElement = (node) => scrollTo(0, scrollY + node.getBoundingClientRect().top);
// Selects a sentence in the list and scrolls the list, not the page, to it.
const select = (list, index) => {
  list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
  list.setAttribute("aria-activedescendant", "option-" + index);
  const option = byId("option-" + index);
  if (!option) return;
  option.setAttribute("aria-selected", "true");
  list.scrollTop = within(list.scrollTop, option.offsetTop - list.clientHeight + option.offsetHeight, option.offsetTop);
};
// A row of the list: number, text and more.
const listed = (index, number, text, ...more) => {
  const row = element("div", undefined, { role: "option", id: "option-" + index, "aria-selected": "false" });
  row.append(element("span", String(number), { class: "number" }), element("span", text, { class: "text", dir: "auto" }), ...more);
  return row;
};
// The number of the sentence in the page's address; 0 for none.
const addressed = () => Number(/^#sentence-(\d+)$/.exec(location.hash)?.[1] ?? 0);

// --- choices ---------------------------------------------------------------------------------------------------------
const fill = (select, names, value) => {
  select.replaceChildren(...names.map(([key, name]) => element("option", name, { value: key })));
  select.value = value;
};
const counted = (name, count) => [["0", "mean"], ...Array.from({ length: count }, (_, i) => [String(i + 1), String(i + 1)])]
  .slice(count === 1 ? 1 : 0);
