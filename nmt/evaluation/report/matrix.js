// What all pages with matrices share: cells and tables, weights as they are packed (matrices.py), and marked texts.
"use strict";
const byId = (id) => document.getElementById(id);
const within = (value, low, high) => Math.max(low, Math.min(value, high));
const isolated = (text) => "\u2068" + text + "\u2069"; // a text of either direction keeps to itself
const element = (tag, text, attributes = {}) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

// Shades a cell; the classes keep its text readable, see markup.py.
const shade = (cell, share) => {
  cell.classList.toggle("hi", share >= 0.64);
  cell.classList.toggle("mid", share >= 0.5 && share < 0.64);
  if (share < 0.0005) cell.style.removeProperty("--w");
  else cell.style.setProperty("--w", Math.min(share, 1).toFixed(3));
};

// One cell of a table is in the tab order; the arrow keys, Home and End move from there.
const grid = (table, show, choose) => {
  const cells = () => [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("td")]);
  const place = (td) => [td.parentNode.sectionRowIndex, td.cellIndex - 1];
  let current = null;
  const enter = (td) => { if (current) current.tabIndex = -1; current = td; td.tabIndex = 0; };
  const move = (row, column) => {
    const rows = cells(), r = within(row, 0, rows.length - 1), c = within(column, 0, rows[r].length - 1);
    enter(rows[r][c]);
    rows[r][c].focus();
  };
  const cellOf = (event) => (event.target.closest("tbody") ? event.target.closest("td") : null);
  table.addEventListener("mouseover", (e) => { const td = cellOf(e); if (td) show(td, ...place(td)); });
  table.addEventListener("focusin", (e) => { const td = cellOf(e); if (td) { enter(td); show(td, ...place(td)); } });
  table.addEventListener("click", (e) => {
    const td = cellOf(e);
    if (td) { move(...place(td)); choose(td); }
  });
  table.addEventListener("keydown", (e) => {
    const td = cellOf(e);
    if (!td) return;
    const [r, c] = place(td);
    const to = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1],
      Home: [r, 0], End: [r, Infinity] }[e.key];
    if (to) { e.preventDefault(); move(...to); }
    else if (e.key === "Enter" || e.key === " ") { e.preventDefault(); choose(td); }
  });
  return () => { current = null; const first = table.querySelector("tbody td"); if (first) enter(first); };
};

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));

// --- weights ---------------------------------------------------------------------------------------------------------
// What the bytes of matrices.py stand for.
const weightsOf = (levels) => Float64Array.from({ length: levels }, (_, i) => (i / (levels - 1)) ** 2);

const unpacked = async (line) => {
  if (!line) return null;
  const packed = Uint8Array.from(atob(line), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

// Rows of weights between subwords: the mean of the layers and heads chosen, counted from 1; 0 is all of them.
const meanRows = (bytes, weights, [numLayers, numHeads, T, S], layer, head) => {
  const pick = (chosen, count) => (count === 1 ? [0] : chosen ? [chosen - 1] : [...Array(count).keys()]);
  const layers = pick(layer, numLayers), heads = pick(head, numHeads), size = T * S, sum = new Float64Array(size);
  for (const l of layers) for (const h of heads) {
    const start = (l * numHeads + h) * size;
    for (let i = 0; i < size; i++) sum[i] += weights[bytes[start + i]];
  }
  return Array.from({ length: T }, (_, t) => sum.slice(t * S, (t + 1) * S).map((x) => x / layers.length / heads.length));
};

// Names of words, and the subwords of each; a source's last one is what belongs to no word.
const wordsOf = (text, pieces, of, last) => {
  const num = Math.max(-1, ...of) + 1, groups = Array.from({ length: num + 1 }, () => []);
  of.forEach((word, piece) => groups[word < 0 ? num : word].push(piece));
  const split = text.split(" ").filter((word) => word);
  const names = split.length === num ? split
    : groups.slice(0, num).map((group) => group.map((piece) => pieces[piece]).join("").replaceAll("▁", ""));
  if (!last) return [names, groups.slice(0, num)];
  return [[...names, groups[num].map((piece) => pieces[piece]).join("") || "–"], groups];
};

// What is shown: labels, and a row of weights for each of the target's. A source word receives the sum of its
// subwords, a target word the mean over its own.
const projected = (sentence, rows, units) => {
  if (units === "pieces") return { source: sentence.sp, target: sentence.tp.slice(0, rows.length), rows };
  const [source, columns] = wordsOf(sentence.s, sentence.sp, sentence.sw, true);
  const [target, groups] = wordsOf(sentence.h, sentence.tp, sentence.tw, false);
  const found = groups.map((group) => {
    const inside = group.filter((t) => t < rows.length);
    return columns.map((column) => inside.reduce((a, t) => a + column.reduce((b, s) => b + rows[t][s], 0), 0) / Math.max(inside.length, 1));
  });
  return { source, target, rows: found };
};

const label = (text, scope) => {
  const th = element("th", undefined, { scope, title: text }), span = element("span", text, { dir: "auto" });
  if (text === "</s>") th.className = "end";
  th.append(span);
  return th;
};

const MAX = 150; // rows and columns of a matrix that are drawn

// Fills a table with a matrix, whose rows are the target's; links are outlined. Tells whether it has numbers.
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
  table.replaceChildren(thead, body);
  return numbers;
};

// A line of words or subwords, of which one is in the tab order.
const tokens = (line, names) => {
  line.dir = "auto";
  line.replaceChildren(...names.map((name, i) => {
    const span = element("span", name, { tabindex: i ? "-1" : "0" });
    if (name === "</s>") span.className = "end";
    return span;
  }));
};

// The place of the token that is pointed at or has the focus is told to `reach`. The arrow keys, Home and End move along
// the line, up and down to the line `across` where there is one; Escape calls `leave`.
const walk = (line, reach, across, leave) => {
  const indexOf = (span) => [...line.children].indexOf(span);
  const told = (e) => { if (e.target.parentNode === line) reach(indexOf(e.target)); };
  line.addEventListener("mouseover", told);
  line.addEventListener("focusin", (e) => {
    for (const span of line.children) span.tabIndex = span === e.target ? 0 : -1;
    told(e);
  });
  line.addEventListener("click", (e) => { if (e.target.parentNode === line) e.target.focus(); });
  line.addEventListener("keydown", (e) => {
    const step = getComputedStyle(line).direction === "rtl" ? -1 : 1, i = indexOf(e.target), last = line.children.length - 1;
    const to = { ArrowLeft: i - step, ArrowRight: i + step, Home: 0, End: last }[e.key];
    if (to !== undefined) { e.preventDefault(); line.children[within(to, 0, last)].focus(); }
    else if (across && (e.key === "ArrowUp" || e.key === "ArrowDown")) {
      e.preventDefault();
      across.children[within(i, 0, across.children.length - 1)]?.focus();
    } else if (e.key === "Escape") leave();
  });
};

// --- tracing ---------------------------------------------------------------------------------------------------------
// A line of source words, one of target words, their matrix and the weight that is told: pointing at a word or a cell,
// or moving to one with the keyboard, marks it and shades the other side by its weights. `viewOf` gives what is shown.
const unmark = (lines, matrices) => {
  for (const line of lines) for (const span of line.children) { shade(span, 0); span.classList.remove("on"); }
  for (const matrix of matrices) for (const th of matrix.querySelectorAll("th.on")) th.classList.remove("on");
};
// Marks a target row or a source column, or the cell of it `at` an index across; `isShared` tells whether the source line
// shows the source of this matrix.
const marker = ({ sourceLine, targetLine, matrix, weight }, viewOf, isShared = () => true) => (isTarget, index, at) => {
  const shared = isShared();
  if (!isTarget && !shared) return;
  const { source, target, rows } = viewOf();
  const [own, other] = (isTarget ? [targetLine, sourceLine] : [sourceLine, targetLine]).map((line) => line.children);
  const mine = isTarget ? target : source, theirs = isTarget ? source : target;
  const weights = isTarget ? rows[index] : rows.map((row) => row[index]);
  own[index].classList.add("on");
  if (shared) theirs.forEach((_, i) => shade(other[i], weights[i]));
  const heads = matrix.tHead.rows[0].cells, bodyRows = matrix.tBodies[0].rows;
  (isTarget ? bodyRows[index]?.cells[0] : heads[index + 1])?.classList.add("on");
  if (at !== undefined) {
    heads[at + 1]?.classList.add("on");
    if (shared) other[at].classList.add("on");
    weight.textContent = `${isolated(mine[index])} ← ${isolated(theirs[at])}: ${weights[at].toFixed(2)}`;
    return;
  }
  const best = [...theirs.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3).filter((i) => weights[i] >= 0.01);
  const shown = best.map((i) => `${isolated(theirs[i])} ${weights[i].toFixed(2)}`).join(", ") || "nothing";
  weight.textContent = `${isolated(mine[index])} ${isTarget ? "←" : "→"} ${shown}`;
};
// `told` hears (isTarget, index) of a word, also the index across for a cell, and nothing when the marks are gone.
const traced = (parts, viewOf, told = () => {}) => {
  const { sourceLine, targetLine, matrix } = parts, mark = marker(parts, viewOf);
  const trace = (...which) => { unmark([sourceLine, targetLine], [matrix]); mark(...which); told(...which); };
  const clear = () => { unmark([sourceLine, targetLine], [matrix]); told(); };
  walk(targetLine, (t) => trace(true, t), sourceLine, clear);
  walk(sourceLine, (s) => trace(false, s), targetLine, clear);
  return { enter: grid(matrix, (td, row, column) => trace(true, row, column), () => {}), clear };
};

// --- texts -----------------------------------------------------------------------------------------------------------
// Words, and single characters where words are not set apart.
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
const marked = (dd, all, kept, className, title) => {
  let run = null;
  all.forEach((text, i) => {
    if (kept[i]) { run = null; dd.append(text); return; }
    if (!run) { run = element("mark", "", { class: className, title }); dd.append(run); }
    run.append(text);
  });
};

// --- a list of sentences ---------------------------------------------------------------------------------------------
// `show` gets the number of the sentence that is clicked, `go` the steps of a key or of the buttons beside the list.
const steered = (list, show, go) => {
  byId("previous").addEventListener("click", () => go(-1));
  byId("next").addEventListener("click", () => go(1));
  list.addEventListener("click", (e) => {
    const row = e.target.closest("[role=option]");
    if (row) show(Number(row.id.slice("option-".length)));
  });
  list.addEventListener("keydown", (e) => {
    const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[e.key];
    if (steps !== undefined) { e.preventDefault(); go(steps); }
  });
};

// Marks a sentence in the list and scrolls to it; scrollIntoView would have Tab go on from there.
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
// The number of the sentence that the page's address asks for; 0 for none.
const addressed = () => Number(/^#sentence-(\d+)$/.exec(location.hash)?.[1] ?? 0);

// --- choices ---------------------------------------------------------------------------------------------------------
const fill = (select, names, value) => {
  select.replaceChildren(...names.map(([key, name]) => element("option", name, { value: key })));
  select.value = value;
};
const counted = (name, count) => [["0", "mean"], ...Array.from({ length: count }, (_, i) => [String(i + 1), String(i + 1)])]
  .slice(count === 1 ? 1 : 0);
