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

const browse = (data) => {
  const { sentences, values, levels } = data;
  const [layer, head, units, shift] = ["layer", "head", "units", "shift"].map(byId);
  const MAX = 150; // rows and columns of a matrix
  const table = Float64Array.from({ length: levels }, (_, i) => (i / (levels - 1)) ** 2);
  const state = { order: [], now: -1, bytes: null, layers: 0, heads: 0, view: null };
  let lines = null;

  // --- attention -----------------------------------------------------------------------------------------------------
  const unpack = async (index) => {
    lines ??= byId("weights").textContent.split("\n");
    if (!lines[index]) return null;
    const packed = Uint8Array.from(atob(lines[index]), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  // Rows of weights between subwords: the mean of the layers and heads chosen.
  const between = (sentence) => {
    const T = sentence.tp.length, S = sentence.sp.length, size = T * S;
    const pick = (select, count) => (count === 1 ? [0] : select.value === "0" ? [...Array(count).keys()]
      : [Number(select.value) - 1]);
    const layers = pick(layer, state.layers), heads = pick(head, state.heads), sum = new Float64Array(size);
    for (const l of layers) for (const h of heads) {
      const start = (l * state.heads + h) * size;
      for (let i = 0; i < size; i++) sum[i] += table[state.bytes[start + i]];
    }
    const rows = Array.from({ length: T }, (_, t) => sum.slice(t * S, (t + 1) * S).map((x) => x / layers.length / heads.length));
    return shift.checked ? rows.slice(1) : rows;
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
  const project = (sentence) => {
    const rows = between(sentence);
    if (units.value === "pieces") return { source: sentence.sp, target: sentence.tp.slice(0, rows.length), rows };
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

  const draw = () => {
    const sentence = sentences[state.now], view = state.view = project(sentence);
    const source = view.source.slice(0, MAX), target = view.target.slice(0, MAX);
    const links = new Set(units.value === "words" ? sentence.k.map(([i, j]) => j + "," + i) : []);
    const top = element("tr"), body = element("tbody"), thead = element("thead");
    top.append(element("td"), ...source.map((text) => label(text, "col")));
    thead.append(top);
    const numbers = source.length <= 26;
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
    const matrix = byId("matrix");
    matrix.classList.toggle("dense", !numbers);
    matrix.classList.toggle("tiny", source.length > 45);
    matrix.replaceChildren(thead, body);
    enterMatrix();
    tokens(byId("source-line"), view.source);
    tokens(byId("target-line"), view.target);
    byId("weight").textContent = "Point at a word or a cell, or move to one with Tab and the arrow keys.";
    const cut = view.source.length > MAX || view.target.length > MAX;
    byId("legend").textContent = "Rows are the hypothesis, columns the source." + (numbers ? " Numbers are hundredths." : "")
      + (links.size ? ` Outlined: links, read from ${data.read_from}.` : "")
      + (cut ? ` Only the first ${MAX} rows and columns are drawn; the two lines above have them all.` : "");
    for (const td of document.querySelectorAll(".map td[data-layer]"))
      td.classList.toggle("here", td.dataset.layer === layer.value && td.dataset.head === head.value
        && (td.dataset.shift ?? String(Number(shift.checked))) === String(Number(shift.checked)));
  };

  // --- tracing -------------------------------------------------------------------------------------------------------
  const tokens = (line, names) => {
    line.dir = "auto";
    line.replaceChildren(...names.map((name, i) => {
      const span = element("span", name, { tabindex: i ? "-1" : "0" });
      if (name === "</s>") span.className = "end";
      return span;
    }));
  };
  const clear = () => {
    for (const span of document.querySelectorAll(".trace span")) { shade(span, 0); span.classList.remove("on"); }
    for (const th of byId("matrix").querySelectorAll("th.on")) th.classList.remove("on");
  };
  // Marks a target row or a source column, and shades the other side by its weights.
  const trace = (isTarget, index, at) => {
    const { source, target, rows } = state.view;
    clear();
    const [own, other] = [byId("target-line"), byId("source-line")].sort(() => (isTarget ? 0 : -1)).map((l) => l.children);
    const mine = isTarget ? target : source, theirs = isTarget ? source : target;
    const weights = isTarget ? rows[index] : rows.map((row) => row[index]);
    own[index].classList.add("on");
    theirs.forEach((_, i) => shade(other[i], weights[i]));
    const table = byId("matrix"), heads = table.tHead.rows[0].cells, bodyRows = table.tBodies[0].rows;
    if (isTarget) bodyRows[index]?.cells[0].classList.add("on");
    else heads[index + 1]?.classList.add("on");
    if (at !== undefined) {
      heads[at + 1]?.classList.add("on");
      other[at].classList.add("on");
      byId("weight").textContent = `${isolated(mine[index])} ← ${isolated(theirs[at])}: ${weights[at].toFixed(2)}`;
      return;
    }
    const best = [...theirs.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3).filter((i) => weights[i] >= 0.01);
    const shown = best.map((i) => `${isolated(theirs[i])} ${weights[i].toFixed(2)}`).join(", ") || "nothing";
    byId("weight").textContent = `${isolated(mine[index])} ${isTarget ? "←" : "→"} ${shown}`;
  };
  for (const [id, other, isTarget] of [["target-line", "source-line", true], ["source-line", "target-line", false]]) {
    const line = byId(id), indexOf = (span) => [...line.children].indexOf(span);
    const reach = (e) => { if (e.target.parentNode === line) trace(isTarget, indexOf(e.target)); };
    line.addEventListener("mouseover", reach);
    line.addEventListener("focusin", (e) => {
      for (const span of line.children) span.tabIndex = span === e.target ? 0 : -1;
      reach(e);
    });
    line.addEventListener("click", (e) => { if (e.target.parentNode === line) e.target.focus(); });
    line.addEventListener("keydown", (e) => {
      const step = getComputedStyle(line).direction === "rtl" ? -1 : 1, i = indexOf(e.target), last = line.children.length - 1;
      const to = { ArrowLeft: i - step, ArrowRight: i + step, Home: 0, End: last }[e.key];
      if (to !== undefined) { e.preventDefault(); line.children[within(to, 0, last)].focus(); }
      else if (e.key === "ArrowUp" || e.key === "ArrowDown") {
        e.preventDefault();
        const across = byId(other).children;
        across[within(i, 0, across.length - 1)]?.focus();
      } else if (e.key === "Escape") clear();
    });
  }
  const enterMatrix = grid(byId("matrix"), (td, row, column) => trace(true, row, column), () => {});

  // --- texts ---------------------------------------------------------------------------------------------------------
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
  const showTexts = (sentence) => {
    const box = byId("texts-shown"), texts = [["source", sentence.s], ["reference", sentence.r], ["hypothesis", sentence.h]];
    const made = texts.filter(([, text]) => text !== null).map(([name, text]) => {
      const div = element("div", undefined, { class: name }), p = element("p", text, { dir: "auto" });
      div.append(element("span", name, { class: "soft small" }), p);
      if (!text) p.append(element("i", "(empty)", { class: "soft" }));
      return [div, p];
    });
    box.replaceChildren(...made.map(([div]) => div));
    if (sentence.r === null) return;
    const [r, h] = [parts(sentence.r), parts(sentence.h)];
    if (!r.length || !h.length || r.length * h.length > 1e6) return;
    const [inR, inH] = common(r, h);
    made[1][1].replaceChildren();
    made[2][1].replaceChildren();
    marked(made[1][1], r, inR, "missing", "only in the reference");
    marked(made[2][1], h, inH, "extra", "only in the hypothesis");
  };

  // --- choosing ------------------------------------------------------------------------------------------------------
  const list = byId("list");
  const number = (value) => (value === null ? "–" : value.toFixed(2).replace("-", "−"));
  const fill = (select, names, value) => {
    select.replaceChildren(...names.map(([key, name]) => element("option", name, { value: key })));
    select.value = value;
  };
  const counted = (name, count) => [["0", "mean"], ...Array.from({ length: count }, (_, i) => [String(i + 1), String(i + 1)])]
    .slice(count === 1 ? 1 : 0);
  const first = (count, chosen) => (count === 1 ? "1" : String(chosen));

  const show = async (index) => {
    list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    const option = byId("option-" + index), sentence = sentences[index];
    option?.setAttribute("aria-selected", "true");
    if (option) { // scrollIntoView would have Tab go on from there
      const top = option.offsetTop, room = list.clientHeight - option.offsetHeight;
      list.scrollTop = within(list.scrollTop, top - room, top);
    }
    list.setAttribute("aria-activedescendant", "option-" + index);
    if (state.now === index) return;
    state.now = index;
    history.replaceState(null, "", "#sentence-" + (index + 1));
    byId("name").textContent = `Sentence ${index + 1}`;
    byId("values").textContent = values.map((name, i) => `${name} ${number(sentence.v[i])}`).join(" · ");
    showTexts(sentence);
    byId("attention").hidden = true;
    if (!data.layers) return;
    let bytes = null;
    try {
      bytes = await unpack(index);
    } catch (error) {
      byId("values").textContent += " · this browser cannot unpack its attention";
    }
    if (state.now !== index || !bytes) return;
    const whole = index < data.full;
    Object.assign(state, { bytes, layers: whole ? data.layers : 1, heads: whole ? data.heads : 1 });
    layer.disabled = !whole || data.layers === 1;
    head.disabled = !whole || data.heads === 1;
    byId("attention").hidden = false;
    draw();
  };

  const update = () => {
    const wanted = byId("search").value.toLowerCase(), [key, direction] = byId("sort").value.split(" ");
    const has = (text) => text !== null && text.toLowerCase().includes(wanted);
    state.order = [...sentences.keys()].filter((i) => !wanted || has(sentences[i].s) || has(sentences[i].r) || has(sentences[i].h));
    const of = (i) => (key === "length" ? sentences[i].s.length : sentences[i].v[Number(key)]);
    if (key !== "order") state.order.sort((a, b) => {
      const [x, y] = [of(a), of(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return (direction === "down" ? y - x : x - y) || a - b;
    });
    const shown = /^\d+$/.test(key) ? Number(key) : 0;
    list.replaceChildren(...state.order.map((i) => {
      const row = element("div", undefined, { role: "option", id: "option-" + i, "aria-selected": "false" });
      row.append(element("span", String(i + 1), { class: "number" }), element("span", sentences[i].s, { class: "text", dir: "auto" }));
      if (values.length) row.append(element("span", number(sentences[i].v[shown]), { class: "number" }));
      return row;
    }));
    const total = sentences.length.toLocaleString("en");
    byId("found").textContent = wanted ? `${state.order.length.toLocaleString("en")} of ${total} found` : `${total} sentences`;
    if (values.length) byId("found").textContent += `; right: ${values[shown]}`;
    if (state.order.length) show(state.order.includes(state.now) ? state.now : state.order[0]);
  };
  const go = (steps) => {
    const at = state.order.indexOf(state.now);
    if (state.order.length) show(state.order[within(at + steps, 0, state.order.length - 1)]);
  };

  byId("browser").hidden = false;
  fill(byId("sort"), [["order", "order in the file"],
    ...values.flatMap((name, i) => [[`${i} up`, `${name}, lowest first`], [`${i} down`, `${name}, highest first`]]),
    ["length up", "shortest source first"], ["length down", "longest source first"]], "order");
  fill(layer, counted("layer", data.layers), first(data.layers, data.layer));
  fill(head, counted("head", data.heads), first(data.heads, data.head));
  shift.checked = Boolean(data.shift);
  for (const input of [layer, head, units, shift]) input.addEventListener("change", draw);
  byId("search").addEventListener("input", update);
  byId("sort").addEventListener("change", update);
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
  for (const map of document.querySelectorAll("table.map:not(.plain)"))
    grid(map, () => {}, (td) => {
      if (td.dataset.layer === undefined || !data.layers) return;
      if (!layer.disabled) layer.value = td.dataset.layer;
      if (!head.disabled) head.value = td.dataset.head;
      if (td.dataset.shift !== undefined) shift.checked = td.dataset.shift === "1";
      if (state.bytes) draw();
      byId("sentence").scrollIntoView();
    })();
  const asked = /^#sentence-(\d+)$/.exec(location.hash);
  if (asked) state.now = -1;
  update();
  if (asked && sentences[asked[1] - 1]) show(asked[1] - 1);
};

if (byId("texts")) browse(JSON.parse(byId("texts").textContent));
