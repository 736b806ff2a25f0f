// The page: what is asked, and a column for each model with its translations and its attention.
"use strict";
const numeral = (value) => value.toFixed(3).replace("-", "−");
const plural = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
const sleep = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, 1000 * seconds);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

// An answer of the server; when too many wait, it is asked again.
const ask = async (path, content, signal) => {
  for (;;) {
    const response = await fetch(path, { method: "POST", signal, body: JSON.stringify(content),
      headers: { "Content-Type": "application/json" } });
    if (response.ok) return response;
    const wait = response.headers.get("Retry-After");
    if (response.status !== 503 || !wait) throw new Error((await response.json()).error);
    await sleep(Number(wait), signal);
  }
};

// The lines of a streamed answer as they come.
const linesOf = async function* (response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let begun = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const whole = (begun + value).split("\n");
    begun = whole.pop();
    for (const line of whole) yield JSON.parse(line);
  }
};

const column = (model, limits) => {
  const root = byId("column").content.cloneNode(true).firstElementChild;
  const part = (name) => root.querySelector("." + name);
  const [layer, head, units, shift] = ["layer", "head", "units", "shift"].map(part);
  const [sourceLine, targetLine, matrix, weight] = ["source-line", "target-line", "matrix", "weight"].map(part);
  const state = { parts: [], now: 0, rank: 0, attention: null, view: null, traced: null };
  let translating = new AbortController(), looking = new AbortController();

  const fail = (error) => {
    if (error.name === "AbortError") return;
    part("error").textContent = error.message;
    part("error").hidden = false;
  };

  // --- attention -----------------------------------------------------------------------------------------------------
  const reading = () => ({ layer: Number(layer.value), head: Number(head.value) });
  const sole = ({ layer: l, head: h }) => [model.layers === 1 ? 1 : l, model.heads === 1 ? 1 : h].join();
  const isChosen = () => sole(reading()) === sole(model.alignment_source) && Number(shift.checked) === model.alignment_source.shift;
  const setReading = (to) => {
    layer.value = model.layers === 1 ? "1" : String(to.layer);
    head.value = model.heads === 1 ? "1" : String(to.head);
    if (to.shift !== undefined) shift.checked = to.shift === 1;
  };
  // The matrix of a layer and head, 0 being the mean of all that are there.
  const matrixOf = ({ weights, layers, heads }, wanted) => {
    const pick = (list, chosen) => (list.length === 1 ? [0] : chosen ? [list.indexOf(chosen)] : [...list.keys()]);
    const all = pick(layers, wanted.layer).flatMap((l) => pick(heads, wanted.head).map((h) => weights[l][h]));
    if (all.length === 1) return all[0];
    return all[0].map((row, t) => row.map((_, s) => all.reduce((sum, one) => sum + one[t][s], 0) / all.length));
  };
  const fits = () => {
    const { subwords, hypotheses } = state.parts[state.now];
    return model.layers * model.heads * (subwords.length + 1) * (hypotheses[state.rank].subwords.length + 1) <= limits.max_weights;
  };

  const look = async () => {
    looking.abort();
    looking = new AbortController();
    const signal = looking.signal, { source, hypotheses } = state.parts[state.now];
    const content = { model: model.name, source, tokens: hypotheses[state.rank].tokens };
    try {
      state.attention = await (await ask("api/attention", fits() ? content : { ...content, ...reading() }, signal)).json();
      part("attention").hidden = false;
      drawHeads();
      draw();
    } catch (error) {
      fail(error);
    }
  };

  const drawHeads = () => {
    const table = part("heads"), { weights, layers, heads } = state.attention;
    table.parentNode.hidden = model.layers * model.heads === 1;
    if (table.parentNode.hidden) return;
    const top = element("tr"), thead = element("thead"), body = element("tbody");
    top.append(element("th", "layer \\ head", { scope: "col", class: "corner" }));
    for (let h = 1; h <= model.heads; h++) top.append(element("th", String(h), { scope: "col" }));
    thead.append(top);
    for (let l = 1; l <= model.layers; l++) {
      const tr = element("tr");
      tr.append(element("th", String(l), { scope: "row" }));
      for (let h = 1; h <= model.heads; h++) {
        const td = tr.insertCell(), name = `layer ${l}, head ${h}`;
        Object.assign(td.dataset, { layer: l, head: h });
        Object.assign(td, { tabIndex: -1, title: name, ariaLabel: name });
        if (layers.includes(l) && heads.includes(h)) td.append(picture(weights[layers.indexOf(l)][heads.indexOf(h)]));
        else td.append(element("span", "·"));
      }
      body.append(tr);
    }
    table.replaceChildren(thead, body);
    enterHeads();
  };
  const picture = (rows) => {
    const canvas = element("canvas", undefined, { width: rows[0].length, height: rows.length });
    const context = canvas.getContext("2d"), colour = getComputedStyle(root).getPropertyValue("--heat").trim();
    rows.forEach((row, t) => row.forEach((share, s) => {
      context.fillStyle = `rgb(${colour} / ${share})`;
      context.fillRect(s, t, 1, 1);
    }));
    return canvas;
  };

  const draw = () => {
    const segment = state.parts[state.now], hypothesis = segment.hypotheses[state.rank], { attention } = state;
    const sentence = { s: segment.source, h: hypothesis.text, sp: attention.source_subwords, tp: attention.target_subwords,
      sw: attention.source_words, tw: attention.target_words };
    const rows = matrixOf(attention, reading()), view = projected(sentence, shift.checked ? rows.slice(1) : rows, units.value);
    state.view = view;
    state.links = new Set(units.value === "words" && isChosen() ? hypothesis.links.map(([i, j]) => j + "," + i) : []);
    const numbers = drawMatrix(matrix, view, state.links), cut = view.source.length > MAX || view.target.length > MAX;
    tokens(sourceLine, view.source);
    tokens(targetLine, view.target);
    follow.enter();
    for (const td of part("heads").querySelectorAll("td")) {
      const here = Number(td.dataset.layer) === reading().layer && Number(td.dataset.head) === reading().head;
      td.classList.toggle("here", here);
      td.ariaCurrent = here ? "true" : null;
    }
    part("chosen").hidden = isChosen();
    weight.textContent = "Point at a word or a cell, or move to one with Tab and the arrow keys.";
    part("legend").textContent = "Rows are the translation, columns the source." + (numbers ? " Numbers are hundredths." : "")
      + (isChosen() && model.selected_by ? ` This is where links are read from, chosen by ${model.selected_by}.` : "")
      + (state.links.size ? " Outlined and drawn in orange: links." : "")
      + (view.target.length ? "" : " The translation has no words; its subwords can be shown.")
      + (cut ? ` Only the first ${MAX} rows and columns are drawn.` : "");
    join();
  };

  // Lines between the words, as strong as their weights.
  const join = () => {
    const svg = part("links"), view = state.view, lines = [];
    if (!view || part("attention").hidden) return;
    const frame = svg.getBoundingClientRect();
    const place = (line, edge) => [...line.children].map((span) => {
      const box = span.getBoundingClientRect();
      return [box.left + box.width / 2 - frame.left, box[edge] - frame.top];
    });
    const above = place(sourceLine, "bottom"), below = place(targetLine, "top");
    view.rows.forEach((row, t) => row.forEach((share, s) => {
      const isLink = state.links.has(t + "," + s);
      if (share < 0.08 && !isLink) return;
      const [x1, y1] = above[s], [x2, y2] = below[t];
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const attributes = { x1, y1, x2, y2, "stroke-width": (0.75 + 2.5 * share).toFixed(2),
        opacity: Math.max(share, isLink ? 0.6 : 0.15).toFixed(2) };
      for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, value);
      line.classList.toggle("link", isLink);
      line.classList.toggle("on", state.traced !== null && state.traced[1] === (state.traced[0] ? t : s)
        && (state.traced[2] === undefined || state.traced[2] === s));
      lines.push(line);
    }));
    svg.classList.toggle("traced", state.traced !== null);
    svg.replaceChildren(...lines);
  };

  const follow = traced({ sourceLine, targetLine, matrix, weight }, () => state.view, (...what) => {
    state.traced = what.length ? what : null;
    join();
  });
  for (const one of [part("pair"), matrix]) one.addEventListener("mouseleave", follow.clear);
  new ResizeObserver(join).observe(part("pair"));
  const enterHeads = grid(part("heads"), () => {}, (td) => {
    setReading({ layer: Number(td.dataset.layer), head: Number(td.dataset.head) });
    changed();
  });
  // Another layer or head: drawn from what is there, or asked for.
  const changed = () => (fits() ? draw() : look());
  for (const input of [layer, head]) input.addEventListener("change", changed);
  for (const input of [units, shift]) input.addEventListener("change", draw);
  part("chosen").addEventListener("click", () => { setReading(model.alignment_source); changed(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (state.attention) { drawHeads(); draw(); } });

  // --- translations --------------------------------------------------------------------------------------------------
  const choose = (rank) => {
    state.rank = rank;
    [...part("n-best").tBodies[0].rows].forEach((tr, i) => {
      tr.classList.toggle("here", i === rank);
      tr.querySelector("input").checked = i === rank;
    });
    part("no-attention").hidden = model.layers > 0;
    if (model.layers) look();
  };
  const show = (now) => {
    state.now = now;
    const { hypotheses } = state.parts[now], best = parts(hypotheses[0].text);
    part("n-best").tBodies[0].replaceChildren(...hypotheses.map((one, rank) => {
      const tr = element("tr"), first = element("th", undefined, { scope: "row" }), text = element("td", undefined, { dir: "auto" });
      first.append(element("input", undefined, { type: "radio", name: "rank-" + model.name, "aria-label": `translation ${rank + 1}` }));
      const words = parts(one.text);
      if (!one.text) text.append(element("i", "(empty)", { class: "soft" }));
      else if (!rank || words.length * best.length > 1e6) text.append(one.text);
      else marked(text, words, common(best, words)[1], "extra", "not in the best");
      if (one.truncated) text.append(element("span", " (cut at the longest length)", { class: "soft small" }));
      tr.append(first, element("td", numeral(one.score)), element("td", numeral(one.log_prob)), text);
      tr.addEventListener("click", () => { if (state.rank !== rank) choose(rank); });
      first.firstChild.addEventListener("change", () => choose(rank));
      return tr;
    }));
    choose(0);
  };
  const sentence = part("sentence");
  sentence.addEventListener("change", () => show(Number(sentence.value)));

  const done = ({ sentences }) => {
    const text = part("translation");
    text.textContent = sentences.map((one) => one.translation).join("\n");
    text.setAttribute("aria-busy", "false");
    const failed = sentences.filter((one) => one.error);
    if (failed.length) fail(new Error(failed.map((one) => `Line ${one.line}: ${one.error}`).join(" ")));
    state.parts = sentences.flatMap((one) => one.details).filter((one) => one.source.trim());
    const names = state.parts.map(({ source }, i) => [String(i), `${i + 1}: ${source.length > 60 ? source.slice(0, 60) + "…" : source}`]);
    part("which").hidden = names.length < 2;
    fill(sentence, names, "0");
    part("found").hidden = !names.length;
    if (names.length) show(0);
  };

  const translate = async (content) => {
    translating.abort();
    looking.abort();
    translating = new AbortController();
    const { signal } = translating, text = part("translation"), lines = [];
    part("error").hidden = true;
    part("found").hidden = true;
    part("attention").hidden = true;
    state.traced = null;
    text.textContent = "";
    text.setAttribute("aria-busy", "true");
    try {
      for await (const one of linesOf(await ask("api/stream", { ...content, model: model.name }, signal))) {
        if (one.error) throw new Error(one.error);
        if (one.result) return done(one.result);
        lines[one.line - 1] = one.text;
        text.textContent = Array.from(lines, (line) => line ?? "").join("\n");
      }
      throw new Error("The server went away before it was done.");
    } catch (error) {
      if (!signal.aborted) text.setAttribute("aria-busy", "false");
      fail(error);
    }
  };

  const scores = [model.score].flat(2).join(", ");
  part("about").textContent = model.layers ? `${model.architecture}, ${scores}, ${plural(model.layers, "layer")} × ${plural(model.heads, "head")}`
    : `${model.architecture}, ${scores}`;
  part("about").textContent += `, ${plural(model.parameters, "parameter")}`;
  root.querySelector("h2").textContent = model.name;
  part("translation").lang = model.target_lang;
  fill(layer, counted("layer", model.layers), "1");
  fill(head, counted("head", model.heads), "1");
  if (model.alignment_source) setReading(model.alignment_source);
  for (const [select, count] of [[layer, model.layers], [head, model.heads]]) select.parentNode.hidden = count === 1;
  return { root, translate, stop: () => { translating.abort(); looking.abort(); } };
};

const start = async () => {
  const { models, limits, version } = await (await fetch("api/models")).json();
  const text = byId("text"), beam = byId("beam"), numBest = byId("num-best"), box = byId("models"), first = models[0];
  const columns = new Map();
  byId("about").textContent = `${first.source_lang} → ${first.target_lang} · nmt ${version}`;
  for (const input of [beam, numBest]) input.max = limits.max_beam;
  beam.value = first.beam_size;
  numBest.value = Math.min(Math.max(first.n_best, 3), first.beam_size);
  text.lang = first.source_lang;
  const examples = models.map((model) => model.examples).find((some) => some.length) ?? [];
  for (const example of examples) {
    const button = element("button", example, { type: "button", dir: "auto" });
    button.addEventListener("click", () => { text.value = example; byId("ask").requestSubmit(); });
    byId("examples").append(button);
  }
  byId("examples").hidden = !examples.length;
  models.forEach((model, i) => {
    const label = element("label"), input = element("input", undefined, { type: "checkbox", value: model.name });
    input.checked = i < 3;
    label.append(input, " " + model.name);
    box.append(label);
  });
  box.hidden = models.length === 1;
  const chosen = () => [...box.querySelectorAll("input")].filter((input) => input.checked).map((input) => input.value);
  const arrange = () => {
    const wanted = chosen();
    for (const [name, one] of columns) if (!wanted.includes(name)) { one.stop(); one.root.remove(); columns.delete(name); }
    for (const model of models) {
      if (!wanted.includes(model.name)) continue;
      if (!columns.has(model.name)) columns.set(model.name, column(model, limits));
      byId("columns").append(columns.get(model.name).root);
    }
  };
  box.addEventListener("change", arrange);
  let latest = 0;
  byId("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    const status = byId("status"), mine = ++latest;
    if (!text.value.trim()) { status.textContent = "Write something first."; return; }
    if (!chosen().length) { status.textContent = "Choose a model first."; return; }
    const begun = performance.now(), content = { text: text.value, beam_size: Number(beam.value), n_best: Number(numBest.value) };
    arrange();
    status.textContent = "Translating …";
    await Promise.all([...columns.values()].map((one) => one.translate(content)));
    if (mine !== latest) return;  // it was asked for something else meanwhile
    status.textContent = `Done in ${((performance.now() - begun) / 1000).toFixed(1)} s.`;
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); byId("ask").requestSubmit(); }
  });
  arrange();
};

start().catch((error) => { byId("about").textContent = `The server does not answer: ${error.message}`; });
