const browse = (data) => {
  const { sentences, values, levels } = data;
  const [layer, head, units, shift] = ["layer", "head", "units", "shift"].map(byId);
  const table = weightsOf(levels);
  const state = { order: [], now: -1, bytes: null, layers: 0, heads: 0, view: null };
  let lines = null;

  // --- attention -----------------------------------------------------------------------------------------------------
  const draw = () => {
    const sentence = sentences[state.now], shape = [state.layers, state.heads, sentence.tp.length, sentence.sp.length];
    const weights = meanRows(state.bytes, table, shape, Number(layer.value), Number(head.value));
    const view = state.view = projected(sentence, shift.checked ? weights.slice(1) : weights, units.value);
    const links = new Set(units.value === "words" ? sentence.k.map(([i, j]) => j + "," + i) : []);
    const numbers = drawMatrix(byId("matrix"), view, links);
    enterMatrix();
    tokens(byId("source-line"), view.source);
    tokens(byId("target-line"), view.target);
    byId("weight").textContent = "Point at a word or a cell, or move to one with Tab and the arrow keys.";
    const cut = view.source.length > MAX || view.target.length > MAX;
    byId("legend").textContent = "Rows are the hypothesis, columns the source." + (numbers ? " Numbers are hundredths." : "")
      + (links.size ? ` Outlined: links, read from ${data.alignment_source_text}.` : "")
      + (cut ? ` Only the first ${MAX} rows and columns are drawn; the two lines above have them all.` : "");
    for (const td of document.querySelectorAll(".map td[data-layer]"))
      td.classList.toggle("here", td.dataset.layer === layer.value && td.dataset.head === head.value
        && (td.dataset.shift ?? String(Number(shift.checked))) === String(Number(shift.checked)));
  };

  const { enter: enterMatrix } = traced({ sourceLine: byId("source-line"), targetLine: byId("target-line"),
    matrix: byId("matrix"), weight: byId("weight") }, () => state.view);

  // --- texts ---------------------------------------------------------------------------------------------------------
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
  const first = (count, chosen) => (count === 1 ? "1" : String(chosen));

  const show = async (index) => {
    const sentence = sentences[index];
    select(list, index);
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
      lines ??= byId("weights").textContent.split("\n");
      bytes = await unpacked(lines[index]);
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
    list.replaceChildren(...state.order.map((i) => listed(i, i + 1, sentences[i].s,
      ...(values.length ? [element("span", number(sentences[i].v[shown]), { class: "number" })] : []))));
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
  steered(list, show, go);
  for (const map of document.querySelectorAll("table.map:not(.plain)"))
    grid(map, () => {}, (td) => {
      if (td.dataset.layer === undefined || !data.layers) return;
      if (!layer.disabled) layer.value = td.dataset.layer;
      if (!head.disabled) head.value = td.dataset.head;
      if (td.dataset.shift !== undefined) shift.checked = td.dataset.shift === "1";
      if (state.bytes) draw();
      byId("sentence").scrollIntoView();
    })();
  const asked = addressed();
  if (asked) state.now = -1;
  update();
  if (sentences[asked - 1]) show(asked - 1);
};

if (byId("texts")) browse(JSON.parse(byId("texts").textContent));
