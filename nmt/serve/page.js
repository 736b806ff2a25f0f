// The page: the form, and a column for each model with its translations and attention.
"use strict";
const numeral = (value) => value.toFixed(3).replace("-", "−");
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const sleep = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, 1000 * seconds);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

// Return the response to a request, which is repeated while the queue is full.
const post = async (path, content, signal) => {
  for (;;) {
    const response = await fetch(path, { method: "POST", signal, body: JSON.stringify(content),
      headers: { "Content-Type": "application/json" } });
    if (response.ok) return response;
    const wait = response.headers.get("Retry-After");
    if (response.status !== 503 || !wait) throw new Error((await response.json()).error);
    await sleep(Number(wait), signal);
  }
};

// Yield the lines of a streamed response as they arrive.
const linesOf = async function* (response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let incomplete = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (incomplete + value).split("\n");
    incomplete = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
};

// The direction of a model into a language: from its own source language where it has that, or from another.
const directionInto = ({ source_lang, target_lang, directions }, language) => {
  const into = directions.filter(([, target]) => target === (language ?? target_lang));
  return into.find(([source]) => source === source_lang) ?? into[0] ?? [source_lang, target_lang];
};
const distinct = (lists) => [...new Set(lists.flat())];

// --- markup ----------------------------------------------------------------------------------------------------------
const SHOWN = { b: "b", strong: "b", i: "i", em: "i", u: "u", code: "code", tt: "code", kbd: "code", samp: "code" };
const NO_END = /^<[!?]|\/>$|^<(?:area|base|br|col|embed|hr|img|input|link|source|track|wbr)(?=[\s/>])/i;
// Append a translation with tags, its text escaped, as elements without attributes of its own. `spans` are those of the answer;
// `trace` gets the one pointed at, or nothing. What is no tag of a span is text.
const appendMarked = (root, translation, spans, trace) => {
  const left = [...spans].sort((a, b) => a.start - b.start || b.end - a.end), open = [root];
  for (let i = 0; i < translation.length;) {
    const node = open.at(-1), index = translation[i] === "<" ? left.findIndex(({ tag }) => translation.startsWith(tag, i)) : -1;
    if (index >= 0) {
      const [span] = left.splice(index, 1), name = /^<([^\s/>]*)/.exec(span.tag)[1].toLowerCase(), hasEnd = !NO_END.test(span.tag);
      const child = element(name === "br" ? "br" : (Object.hasOwn(SHOWN, name) ? SHOWN[name] : "span"));
      node.append(child);
      i += span.tag.length;
      if (!hasEnd) continue;
      open.push(child);
      if (!span.text) continue;
      child.title = `${span.tag} confidence ${span.confidence.toFixed(2)}`;
      child.tabIndex = 0;
      const enter = (event) => { event.stopPropagation(); trace(span); };
      for (const type of ["mouseover", "focusin"]) child.addEventListener(type, enter);
      for (const type of ["mouseleave", "focusout"]) child.addEventListener(type, () => trace());
    } else if (translation.startsWith("</", i) && open.length > 1) {
      open.pop();
      i = translation.indexOf(">", i) + 1;
    } else {
      const text = /^[^]?[^<]*/.exec(translation.slice(i))[0];
      node.append(text.replace(/&(amp|lt|gt);/g, (_, entity) => ({ amp: "&", lt: "<", gt: ">" })[entity]));
      i += text.length;
    }
  }
};
// The numbers of the words, between spaces, that have characters (code points, as in Python) of a range of a text.
const wordsIn = (text, start, end) => {
  const found = new Set();
  let word = -1, before = " ";
  Array.from(text).forEach((character, i) => {
    word += character !== " " && before === " ";
    if (character !== " " && i >= start && i < end) found.add(word);
    before = character;
  });
  return found;
};
const MAX_ADDRESS = 4000; // characters; a longer text is not kept in the address

const column = (model, limits) => {
  const root = byId("column").content.cloneNode(true).firstElementChild;
  const part = (name) => root.querySelector("." + name);
  const [layer, head, units, shift, sentence] = ["layer", "head", "units", "shift", "sentence"].map(part);
  const [sourceLine, targetLine, matrix, weight] = ["source-line", "target-line", "matrix", "weight"].map(part);
  const state = { segments: [], index: 0, rank: 0, attention: null, view: null, traced: null, wanted: {} };
  let translationRequest = new AbortController(), attentionRequest = new AbortController(), trialRequest = new AbortController();

  const showError = (error) => {
    if (error.name === "AbortError") return;
    part("error").textContent = error.message.replace(/\bn_best=/, "Translations ").replace(/\bbeam_size=/, "Beam size ")
      .replace(/^lines\.(\d+)/, (_, i) => `sentence ${Number(i) + 1}`); // as the page names them
    part("error").hidden = false;
  };

  // --- attention -----------------------------------------------------------------------------------------------------
  const selectedHead = () => ({ layer: Number(layer.value), head: Number(head.value) });
  // with one layer or head, it and the mean of all are the same
  const headKey = ({ layer: l, head: h }) => [model.layers === 1 ? 1 : l, model.heads === 1 ? 1 : h].join();
  const isAlignmentSource = () => headKey(selectedHead()) === headKey(model.alignment_source)
    && Number(shift.checked) === model.alignment_source.shift;
  const selectHead = (selected) => {
    [layer.value, head.value] = headKey(selected).split(",");
    if (selected.shift !== undefined) shift.checked = selected.shift === 1;
  };
  // Return the matrix of a layer and head, 0 being the mean of all.
  const matrixOf = ({ weights, layers, heads }, selected) => {
    const indices = (list, number) => (list.length === 1 ? [0] : number ? [list.indexOf(number)] : [...list.keys()]);
    const all = indices(layers, selected.layer).flatMap((l) => indices(heads, selected.head).map((h) => weights[l][h]));
    if (all.length === 1) return all[0];
    return all[0].map((row, t) => row.map((_, s) => all.reduce((sum, rows) => sum + rows[t][s], 0) / all.length));
  };
  const fitsInResponse = () => {
    const { subwords, hypotheses } = state.segments[state.index];
    return model.layers * model.heads * (subwords.length + 1) * (hypotheses[state.rank].subwords.length + 1) <= limits.max_weights;
  };

  // Interventions: for "layer,head", the last of which acts, "zero", "uniform", or rows of weights by target position.
  const changes = new Map(), selectedKey = () => `${layer.value},${head.value}`;
  const interventions = () => [...changes].map(([key, value]) => {
    const [l, h] = key.split(",").map(Number), length = value instanceof Map ? Math.max(...value.keys()) + 1 : 0;
    return { layer: l, head: h, weights: length ? Array.from({ length }, (_, t) => value.get(t) ?? null) : value };
  });
  const change = (key, value) => {
    part("error").hidden = true;
    changes.delete(key);
    if (value) changes.set(key, value);
    tryChanges();
  };
  const toggle = (value) => change(selectedKey(), changes.get(selectedKey()) === value ? null : value);
  const showChanges = () => {
    const value = changes.get(selectedKey()), chips = part("changes"), these = [layer.value, head.value].includes("0");
    part("silence").textContent = `Silence ${these ? "these heads" : "this head"}`;
    part("level").textContent = `Make ${these ? "them" : "it"} uniform`;
    part("silence").ariaPressed = String(value === "zero");
    part("level").ariaPressed = String(value === "uniform");
    const number = (name, text) => (text === "0" ? `all ${name}s` : `${name} ${text}`);
    chips.hidden = !changes.size;
    chips.replaceChildren(...[...changes].map(([key, what]) => {
      const [l, h] = key.split(","), done = { zero: "silenced", uniform: "uniform" }[what] ?? `${plural(what.size, "row")} changed`;
      const button = element("button", `${number("layer", l)}, ${number("head", h)}: ${done} ✕`, { type: "button", title: "take it back" });
      button.addEventListener("click", () => { change(key, null); (chips.querySelector("button") ?? part("silence")).focus(); });
      return button;
    }));
    for (const td of part("heads").querySelectorAll("td")) td.classList.toggle("changed",
      [td.dataset.layer, "0"].some((l) => [td.dataset.head, "0"].some((h) => changes.has(`${l},${h}`))));
  };
  // Put all weight of a cell's row on its column.
  const moveWeight = (td) => {
    const { pair } = state, isWords = units.value === "words", row = td.parentNode.sectionRowIndex, column = td.cellIndex - 1;
    const targets = isWords ? wordsOf(pair.h, pair.tp, pair.tw, false)[1][row] : [row];
    const sources = isWords ? wordsOf(pair.s, pair.sp, pair.sw, true)[1][column] : [column];
    const known = changes.get(selectedKey()), rows = known instanceof Map ? known : new Map();
    for (const t of targets.map((i) => i + Number(shift.checked)).filter((i) => i < pair.tp.length))
      rows.set(t, pair.sp.map((_, s) => (sources.includes(s) ? 1 / sources.length : 0)));
    state.focus = matrix.contains(document.activeElement) ? [row, column] : null;
    if (rows.size && sources.length) change(selectedKey(), rows);
  };
  // Compare with the translation under the changes; show their attention.
  const tryChanges = async () => {
    trialRequest.abort();
    trialRequest = new AbortController();
    const { signal } = trialRequest, compare = part("compare"), after = part("after"), before = part("before");
    if (!changes.size) compare.hidden = true;
    await loadAttention();
    if (!changes.size || signal.aborted || !state.attention) return;
    const { source, hypotheses } = state.segments[state.index], { text, log_prob } = hypotheses[state.rank];
    const content = { model: model.name, ...state.wanted, lines: [source], beam_size: state.beamSize, n_best: 1, interventions: interventions() };
    after.setAttribute("aria-busy", "true");
    try {
      const [sentence] = (await (await post("api/translate", content, signal)).json()).sentences;
      if (sentence.error) throw new Error(sentence.error);
      const words = [parts(text), parts(sentence.translation)], [inBefore, inAfter] = common(...words);
      for (const node of [before, after]) { node.replaceChildren(); node.lang = part("translation").lang; }
      marked(before, words[0], inBefore, "missing", "not after the change");
      marked(after, words[1], inAfter, "extra", "not before the change");
      const now = state.attention.log_prob;
      part("before-p").textContent = `log p ${numeral(log_prob)}` + (now == null ? "" : `; with the change ${numeral(now)}`);
      part("after-p").textContent = `log p ${numeral(sentence.log_prob)}` + (sentence.translation === text ? ", the same translation" : "");
      compare.hidden = false;
    } catch (error) {
      compare.hidden = true;
      showError(error);
    }
    if (!signal.aborted) after.setAttribute("aria-busy", "false");
  };

  const loadAttention = async () => {
    attentionRequest.abort();
    attentionRequest = new AbortController();
    const { source, tokens, hypotheses } = state.segments[state.index];
    const content = { model: model.name, ...state.wanted, source, source_tokens: tokens, tokens: hypotheses[state.rank].tokens,
      interventions: interventions(), ...(fitsInResponse() ? {} : selectedHead()) };
    try {
      state.attention = await (await post("api/attention", content, attentionRequest.signal)).json();
      part("attention").hidden = false;
      showHeads();
      draw();
    } catch (error) {
      showError(error);
    }
  };

  const showHeads = () => {
    const table = part("heads"), { weights, layers, heads } = state.attention;
    table.parentNode.hidden = model.layers * model.heads === 1;
    if (table.parentNode.hidden) return;
    const isLoaded = (l, h) => layers.includes(l) && heads.includes(h);
    drawHeads(table, model.layers, model.heads,
      (l, h) => (isLoaded(l, h) ? weights[layers.indexOf(l)][heads.indexOf(h)] : null));
    enterHeads();
  };

  const draw = () => {
    const segment = state.segments[state.index], hypothesis = segment.hypotheses[state.rank], { attention } = state;
    const pair = state.pair = { s: segment.source, h: hypothesis.text, sp: attention.source_subwords, tp: attention.target_subwords,
      sw: attention.source_words, tw: attention.target_words };
    const selected = selectedHead(), isSource = isAlignmentSource(), rows = matrixOf(attention, selected);
    const view = state.view = projected(pair, shift.checked ? rows.slice(1) : rows, units.value);
    state.links = new Set(units.value === "words" && isSource ? hypothesis.links.map(([i, j]) => j + "," + i) : []);
    const hasNumbers = drawMatrix(matrix, view, state.links);
    tokens(sourceLine, view.source);
    tokens(targetLine, view.target);
    follow.enter();
    markHead(part("heads"), selected.layer, selected.head);
    showChanges();
    if (state.focus) matrix.tBodies[0].rows[state.focus[0]]?.cells[state.focus[1] + 1]?.focus({ preventScroll: true });
    state.focus = null;
    part("chosen").hidden = isSource;
    weight.textContent = "Point at a word or a cell, or move to one with Tab and the arrow keys.";
    part("legend").textContent = "Rows are the translation, columns the source." + (hasNumbers ? " Numbers are hundredths." : "")
      + (isSource && model.selected_by ? ` This is the alignment source, selected by ${model.selected_by}.` : "")
      + (state.links.size ? " Links are outlined and drawn in orange." : "")
      + (view.target.length ? "" : " The translation has no words; its subwords can be shown.")
      + (view.source.length > MAX || view.target.length > MAX ? ` Only the first ${MAX} rows and columns are drawn.` : "");
    drawLines();
  };

  // Lines between the words, as strong as their weights. A line would pass behind other words where a side wraps: then
  // the sides are columns, and the lines run between them.
  const drawLines = () => {
    const svg = part("links"), view = state.view, lines = [], { classList } = part("pair");
    if (!view || part("attention").hidden) return;
    classList.remove("columns");
    const wraps = ({ firstElementChild: first, lastElementChild: last }) => first && last.offsetTop > first.offsetTop + 1;
    classList.toggle("columns", [sourceLine, targetLine].some(wraps));
    const across = classList.contains("columns"), frame = svg.getBoundingClientRect();
    const positions = (line, edge) => [...line.children].map((span) => {
      const box = span.getBoundingClientRect();
      const point = across ? [box[edge[1]], box.top + box.height / 2] : [box.left + box.width / 2, box[edge[0]]];
      return [point[0] - frame.left, point[1] - frame.top];
    });
    const above = positions(sourceLine, ["bottom", "right"]), below = positions(targetLine, ["top", "left"]);
    view.rows.forEach((row, t) => row.forEach((value, s) => {
      const isLink = state.links.has(t + "," + s);
      if (value < 0.08 && !isLink) return;
      const [x1, y1] = above[s], [x2, y2] = below[t];
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const attributes = { x1, y1, x2, y2, "stroke-width": (0.75 + 2.5 * value).toFixed(2),
        opacity: Math.max(value, isLink ? 0.6 : 0.15).toFixed(2) };
      for (const [name, text] of Object.entries(attributes)) line.setAttribute(name, text);
      line.classList.toggle("link", isLink);
      line.classList.toggle("on", state.traced !== null && state.traced(t, s));
      lines.push(line);
    }));
    svg.classList.toggle("traced", state.traced !== null);
    svg.replaceChildren(...lines);
  };

  const follow = traced({ sourceLine, targetLine, matrix, weight }, () => state.view, (isTarget, index, across = null) => {
    state.traced = index === undefined ? null : (t, s) => index === (isTarget ? t : s) && (across === null || across === s);
    drawLines();
  }, (td) => { if (part("move").checked) moveWeight(td); });
  // A cell of the same row can be dragged to with the mouse.
  let dragged = null;
  matrix.addEventListener("pointerdown", ({ target, pointerType }) => { dragged = pointerType === "mouse" ? target.closest("tbody td") : null; });
  matrix.addEventListener("pointerup", ({ target }) => {
    const td = target.closest("tbody td");
    if (dragged && td && td !== dragged && td.parentNode === dragged.parentNode) moveWeight(td);
    dragged = null;
  });
  part("silence").addEventListener("click", () => toggle("zero"));
  part("level").addEventListener("click", () => toggle("uniform"));
  for (const node of [part("pair"), matrix]) node.addEventListener("mouseleave", follow.clear);
  new ResizeObserver(() => requestAnimationFrame(drawLines)).observe(part("pair"));
  // Between columns of words the arrow keys swap their directions.
  part("pair").addEventListener("keydown", (event) => {
    const key = { ArrowUp: "ArrowLeft", ArrowDown: "ArrowRight", ArrowLeft: "ArrowUp", ArrowRight: "ArrowDown" }[event.key];
    if (!key || !event.isTrusted || !part("pair").classList.contains("columns")) return;
    event.preventDefault();
    event.stopPropagation();
    event.target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  }, true);
  const update = () => (fitsInResponse() ? draw() : loadAttention());
  const selectAndUpdate = (selected) => { selectHead(selected); update(); };
  const enterHeads = grid(part("heads"), () => {}, (td) => selectAndUpdate({ layer: Number(td.dataset.layer), head: Number(td.dataset.head) }));
  for (const input of [layer, head]) input.addEventListener("change", update);
  for (const input of [units, shift]) input.addEventListener("change", draw);
  part("chosen").addEventListener("click", () => selectAndUpdate(model.alignment_source));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (state.attention) { showHeads(); draw(); } });

  // --- translations --------------------------------------------------------------------------------------------------
  const showHypothesis = (rank) => {
    state.rank = rank;
    [...part("n-best").tBodies[0].rows].forEach((tr, i) => {
      tr.classList.toggle("here", i === rank);
      tr.querySelector("input").checked = i === rank;
    });
    part("no-attention").hidden = model.layers > 0;
    if (model.layers) tryChanges();
  };
  const showSegment = (index) => {
    state.index = index;
    changes.clear();
    const { hypotheses } = state.segments[index], best = parts(hypotheses[0].text);
    part("n-best").tBodies[0].replaceChildren(...hypotheses.map(({ text, score, log_prob, truncated }, rank) => {
      const tr = element("tr"), th = element("th", undefined, { scope: "row" }), td = element("td", undefined, { dir: "auto" });
      th.append(element("input", undefined, { type: "radio", name: "rank-" + model.name, "aria-label": `translation ${rank + 1}` }));
      const words = parts(text);
      if (!text) td.append(element("i", "(empty)", { class: "soft" }));
      else if (!rank || words.length * best.length > 1e6) td.append(text);
      else marked(td, words, common(best, words)[1], "extra", "not in the best");
      if (truncated) td.append(element("span", " (truncated at the maximum length)", { class: "soft small" }));
      tr.append(th, element("td", numeral(score)), element("td", numeral(log_prob)), td);
      tr.addEventListener("click", () => { if (state.rank !== rank) showHypothesis(rank); });
      th.firstChild.addEventListener("change", () => showHypothesis(rank));
      return tr;
    }));
    showHypothesis(0);
  };
  sentence.addEventListener("change", () => showSegment(Number(sentence.value)));

  // Mark the words of an element of a translation of one segment, where that is shown, and its words in the source.
  const traceSpan = ({ source, details: [segment, ...others] }, span) => {
    follow.clear();
    if (!span || others.length || segment !== state.segments[state.index] || state.rank || units.value !== "words" || !state.view) return;
    const skipped = /^ */.exec(source.replace(/<(?:"[^"]*"|'[^']*'|[^'">])*>/g, ""))[0].length; // a segment begins behind them
    const sources = wordsIn(segment.source, span.source_start - skipped, span.source_end - skipped), targets = wordsIn(segment.hypotheses[0].text, span.start, span.end);
    for (const [line, words] of [[sourceLine, sources], [targetLine, targets]]) for (const i of words) line.children[i]?.classList.add("on");
    state.traced = (t, s) => targets.has(t) && sources.has(s);
    drawLines();
  };
  const showResult = ({ sentences }) => {
    const text = part("translation"), tagged = part("tagged"), failed = sentences.filter(({ error }) => error);
    text.replaceChildren();
    sentences.forEach((sentence, i) => {
      if (i) text.append("\n");
      if (sentence.spans) appendMarked(text, sentence.translation, sentence.spans, (span) => traceSpan(sentence, span));
      else text.append(sentence.translation);
    });
    tagged.textContent = sentences.map(({ translation }) => translation).join("\n");
    tagged.hidden = !sentences.some(({ spans }) => spans?.length);
    const entry = ({ source, target, used }) => `${source} → ${target}${used ? "" : " (not there as whole words)"}`;
    const terms = distinct(sentences.map((found) => (found.terms ?? []).map(entry)));
    part("terms").textContent = `Terms of the glossary: ${terms.join(", ")}`;
    part("terms").hidden = !terms.length;
    text.setAttribute("aria-busy", "false");
    if (failed.length) showError(new Error(failed.map(({ line, error }) => `Line ${line}: ${error}`).join(" ")));
    state.segments = sentences.flatMap(({ details }) => details).filter(({ source }) => source.trim());
    const names = state.segments.map(({ source }, i) => [String(i), `${i + 1}: ${source.length > 60 ? source.slice(0, 60) + "…" : source}`]);
    part("sentence-label").hidden = names.length < 2;
    fill(sentence, names, "0");
    part("result").hidden = !names.length;
    if (names.length) showSegment(0);
  };

  const stop = () => { translationRequest.abort(); attentionRequest.abort(); trialRequest.abort(); };
  // Shows the translation; returns whether there was no error.
  const translate = async ({ target_lang, tag, ...content }) => {
    stop();
    state.wanted = { target_lang, tag };
    state.beamSize = content.beam_size;
    part("translation").lang = target_lang ?? model.target_lang;
    translationRequest = new AbortController();
    const { signal } = translationRequest, text = part("translation"), lines = [];
    for (const name of ["error", "result", "attention", "tagged", "terms"]) part(name).hidden = true;
    state.traced = null;
    text.textContent = "";
    text.setAttribute("aria-busy", "true");
    try {
      for await (const event of linesOf(await post("api/stream", { ...content, ...state.wanted, model: model.name }, signal))) {
        if (event.error) throw new Error(event.error);
        if (event.result) { showResult(event.result); return true; }
        lines[event.line - 1] = event.text;
        text.textContent = Array.from(lines, (line) => line ?? "").join("\n");
      }
      throw new Error("The server closed the connection before the translation was complete.");
    } catch (error) {
      if (!signal.aborted) text.setAttribute("aria-busy", "false");
      showError(error);
      return false;
    }
  };

  const sizes = model.layers ? [`${plural(model.layers, "layer")} × ${plural(model.heads, "head")}`] : [];
  const describe = (names) => {
    part("about").textContent = [...names, model.architecture, ...[model.score].flat(2), ...sizes, plural(model.parameters, "parameter")].join(", ");
  };
  root.querySelector("h2").textContent = model.name;
  for (const [select, name, count] of [[layer, "layer", model.layers], [head, "head", model.heads]]) {
    fill(select, counted(name, count), "1");
    select.parentNode.hidden = count === 1;
  }
  if (model.alignment_source) selectHead(model.alignment_source);
  return { root, translate, stop, describe };
};

const start = async () => {
  const { models, limits, version } = await (await fetch("api/models")).json();
  const form = byId("form"), text = byId("text"), markup = byId("markup"), beamSize = byId("beam-size"), nBest = byId("n-best"), status = byId("status");
  const choices = byId("models"), first = models[0], columns = new Map(), address = new URLSearchParams(location.search);
  const targetLang = byId("target-lang"), tag = byId("tag"), requested = address.getAll("model");
  const unknown = requested.filter((name) => !models.some((model) => model.name === name));
  beamSize.max = nBest.max = limits.max_beam;
  beamSize.value = first.beam_size;
  nBest.value = Math.min(Math.max(first.n_best, 3), first.beam_size);
  models.forEach(({ name }, i) => {
    const label = element("label"), input = element("input", undefined, { type: "checkbox", value: name });
    input.checked = requested.length > unknown.length ? requested.includes(name) : i < 3;
    label.append(input, " " + name);
    choices.append(label);
  });
  choices.hidden = models.length === 1;
  byId("unknown").hidden = !unknown.length;
  if (unknown.length) byId("unknown").textContent = `The address names a model that is not served (${unknown.join(", ")}); those that are: `
    + models.map(({ name }) => name).join(", ");
  const chosenModels = () => {
    const chosen = new Set([...choices.querySelectorAll("input:checked")].map((input) => input.value));
    return models.filter(({ name }) => chosen.has(name));
  };
  const showExamples = (list) => {
    byId("examples").hidden = !list.length;
    byId("examples").replaceChildren(element("span", "Try", { class: "soft" }), ...list.map((example) => {
      const button = element("button", example, { type: "button", dir: "auto" });
      button.addEventListener("click", () => { text.value = example; form.requestSubmit(); });
      return button;
    }));
  };
  // Offer what the chosen models can be asked for, and keep the choice where they have it.
  const updateMenu = (select, entries, value) => {
    fill(select, entries, entries.some(([name]) => name === select.value) ? select.value : value);
    select.parentNode.hidden = entries.length < 2;
  };
  const wanted = () => ({ target_lang: targetLang.parentNode.hidden ? null : targetLang.value, tag: tag.value || null });
  const updateColumns = () => {
    const chosen = chosenModels(), described = chosen.length ? chosen : [first];
    const hasChoice = described.some(({ target_langs }) => target_langs.length > 1);
    const languages = hasChoice ? distinct(described.map(({ target_langs }) => target_langs)) : [];
    updateMenu(targetLang, languages.map((name) => [name, name]), described[0].target_lang);
    updateMenu(tag, [["", "no tag"], ...distinct(described.map(({ tags }) => tags)).map((name) => [name, name])], "");
    const { target_lang } = wanted(), nameOf = (model) => directionInto(model, target_lang).join(" → ");
    const [source_lang] = directionInto(described[0], target_lang);
    byId("about").textContent = `${distinct(described.map(nameOf)).join(", ")} · nmt ${version}`;
    text.lang = source_lang;
    showExamples(described.find((model) => model.source_lang === source_lang && model.examples.length)?.examples ?? []);
    for (const [name, { root, stop }] of columns)
      if (!chosen.some((model) => model.name === name)) { stop(); root.remove(); columns.delete(name); }
    for (const model of chosen) {
      if (!columns.has(model.name)) columns.set(model.name, column(model, limits));
      columns.get(model.name).describe(distinct(models.map(nameOf)).length > 1 ? [nameOf(model)] : []);
      byId("columns").append(columns.get(model.name).root);
    }
  };
  const updateAddress = () => {
    const names = models.length > 1 ? [...columns.keys()].map((name) => ["model", name]) : [];
    const asked = Object.entries({ ...wanted(), markup: markup.checked ? "1" : "" }).filter(([, value]) => value);
    const query = "?" + new URLSearchParams([["text", text.value], ...names, ...asked]);
    history.replaceState(null, "", query.length > MAX_ADDRESS ? location.pathname : query);
  };
  choices.addEventListener("change", updateColumns);
  for (const select of [targetLang, tag, markup]) select.addEventListener("change", () => {
    updateColumns();
    if (text.value.trim() && columns.size) form.requestSubmit();
  });
  let latest = 0;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const number = ++latest, begin = performance.now();
    if (!text.value.trim()) { status.textContent = "Write something first."; return; }
    updateColumns();
    if (!columns.size) { status.textContent = "Choose a model first."; return; }
    updateAddress();
    const content = { text: text.value, beam_size: Number(beamSize.value), n_best: Number(nBest.value), markup: markup.checked, ...wanted() };
    status.textContent = "Translating …";
    const done = await Promise.all([...columns.values()].map(({ translate }) => translate(content)));
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    if (number === latest) status.textContent = done.every(Boolean) ? `Done in ${seconds} s.` : "";
  });
  form.addEventListener("invalid", ({ target }) => {
    status.textContent = `${target.labels[0].textContent.trim()}: ${target.validationMessage}`;
  }, true);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
  });
  updateColumns();
  for (const [name, select] of [["target_lang", targetLang], ["tag", tag]])
    if ([...select.options].some(({ value }) => value === address.get(name))) select.value = address.get(name);
  updateColumns();
  markup.checked = address.get("markup") === "1";
  if (!address.get("text")?.trim()) return;
  text.value = address.get("text");
  form.requestSubmit();
};

start().catch((error) => { byId("about").textContent = `The server does not respond: ${error.message}`; });
