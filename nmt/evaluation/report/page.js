const browse = (data) => {
  const { sentences, values, levels } = data;
  const [layer, head, units, shift] = ["layer", "head", "units", "shift"].map(byId);
  const [sourceLine, targetLine, matrix, weight] = ["source-line", "target-line", "matrix", "weight"].map(byId);
  const table = weightsOf(levels), list = byId("list");
  const state = { order: [], index: -1, bytes: null, layers: 0, heads: 0, view: null };
  const heads = byId("heads"), examples = byId("example-cards");
  const { enter: enterMatrix } = traced({ sourceLine, targetLine, matrix, weight }, () => state.view);
  const lines = byId("weights").textContent.split("\n");

  // --- attention -----------------------------------------------------------------------------------------------------
  const linksOf = ({ k }) => new Set(k.map(([i, j]) => j + "," + i));
  const rowsOf = (l, h) => {
    const { tp, sp } = sentences[state.index];
    return meanRows(state.bytes, table, [state.layers, state.heads, tp.length, sp.length], l, h);
  };
  const showHeads = () => {
    heads.parentNode.hidden = state.layers * state.heads === 1;
    if (heads.parentNode.hidden) return;
    drawHeads(heads, state.layers, state.heads, rowsOf);
    enterHeads();
  };
  const draw = () => {
    const sentence = sentences[state.index], rows = rowsOf(Number(layer.value), Number(head.value));
    const view = state.view = projected(sentence, shift.checked ? rows.slice(1) : rows, units.value);
    const links = units.value === "words" ? linksOf(sentence) : new Set();
    const numbers = drawMatrix(matrix, view, links);
    enterMatrix();
    tokens(sourceLine, view.source);
    tokens(targetLine, view.target);
    weight.textContent = "Point at a word or a cell, or move to one with Tab and the arrow keys.";
    const truncated = view.source.length > MAX || view.target.length > MAX;
    byId("legend").textContent = "Rows are the hypothesis, columns the source; a stronger shade is more weight, from 0 to 1." + (numbers ? " Numbers are hundredths." : "")
      + (links.size ? ` Outlined: links, from ${data.alignment_source_text}.` : "")
      + (truncated ? ` Only the first ${MAX} rows and columns are drawn; the two lines above have them all.` : "");
    const step = shift.checked ? "1" : "0";
    markHead(heads, Number(layer.value), Number(head.value));
    for (const { classList, dataset } of document.querySelectorAll(".map:not(.heads) td[data-layer]"))
      classList.toggle("here", dataset.layer === layer.value && dataset.head === head.value && (dataset.shift ?? step) === step);
  };

  // --- texts ---------------------------------------------------------------------------------------------------------
  const showTexts = (place, { s, r, h, rs = [] }) => {
    const texts = { source: s, reference: r, hypothesis: h }, paragraphs = {};
    rs.forEach((text, i) => { texts[`reference ${i + 2}`] = text; });
    const names = Object.keys(texts).filter((name) => texts[name] !== null);
    place.replaceChildren(...names.map((name) => {
      const div = element("div", undefined, { class: name }), p = element("p", texts[name], { dir: "auto" });
      if (!texts[name]) p.append(element("i", "(empty)", { class: "soft" }));
      div.append(element("span", name, { class: "soft small" }), p);
      paragraphs[name] = p;
      return div;
    }));
    const [reference, hypothesis] = [parts(r ?? ""), parts(h)], size = reference.length * hypothesis.length;
    if (!size || size > 1e6) return;
    const [inReference, inHypothesis] = common(reference, hypothesis);
    paragraphs.reference.replaceChildren();
    paragraphs.hypothesis.replaceChildren();
    marked(paragraphs.reference, reference, inReference, "missing", "only in the reference");
    marked(paragraphs.hypothesis, hypothesis, inHypothesis, "extra", "only in the hypothesis");
  };

  // --- selection -----------------------------------------------------------------------------------------------------
  const number = (value) => (value === null ? "–" : value.toFixed(2).replace("-", "−"));

  const show = async (index) => {
    const sentence = sentences[index];
    select(list, index);
    if (state.index === index) return;
    state.index = index;
    history.replaceState(null, "", "#sentence-" + (index + 1));
    byId("name").textContent = `Sentence ${index + 1}`;
    byId("values").textContent = values.map((name, i) => `${name} ${number(sentence.v[i])}`).join(" · ");
    showTexts(byId("texts-shown"), sentence);
    byId("attention").hidden = true;
    if (!data.layers) return;
    const bytes = await unpacked(lines[index]).catch(() => undefined);
    if (state.index !== index) return;
    if (bytes === undefined) byId("values").textContent += " · this browser cannot unpack its attention";
    if (!bytes) return;
    const full = index < data.full;
    Object.assign(state, { bytes, layers: full ? data.layers : 1, heads: full ? data.heads : 1 });
    layer.disabled = state.layers === 1;
    head.disabled = state.heads === 1;
    byId("attention").hidden = false;
    showHeads();
    draw();
  };

  // A sentence with the matrix of the alignment source, which is not compressed: a page may be printed once it is loaded.
  const example = (name, index, bytes) => {
    const sentence = sentences[index], card = element("article", undefined, { class: "example" });
    const bar = element("div", undefined, { class: "bar" }), texts = element("div", undefined, { class: "texts" });
    const link = element("a", `sentence ${index + 1}`, { href: "#sentence-" + (index + 1), class: "small" });
    link.addEventListener("click", (event) => { event.preventDefault(); show(index); byId("sentence").scrollIntoView(); });
    bar.append(element("h3", name), element("span", `chrF ${number(sentence.v[values.indexOf("chrF")])}`, { class: "soft small" }), link);
    showTexts(texts, sentence);
    card.append(bar, texts);
    if (!bytes) return card;
    const rows = meanRows(bytesOf(bytes), table, [1, 1, sentence.tp.length, sentence.sp.length], 0, 0);
    const matrix = element("table", undefined, { class: "heat", dir: "ltr", "aria-label": "Attention" });
    const scroll = element("div", undefined, { class: "scroll", role: "region", tabindex: "0", "aria-label": "Attention of sentence " + (index + 1) });
    const view = projected(sentence, data.shift ? rows.slice(1) : rows, "words");
    drawMatrix(matrix, view, linksOf(sentence));
    scroll.append(matrix);
    card.append(scroll);
    return card;
  };

  const update = () => {
    const query = byId("search").value.toLowerCase(), [key, direction] = byId("sort").value.split(" ");
    const matches = ({ s, r, h, rs = [] }) => [s, r ?? "", h, ...rs].some((text) => text.toLowerCase().includes(query));
    state.order = [...sentences.keys()].filter((i) => !query || matches(sentences[i]));
    const valueOf = (i) => (key === "length" ? sentences[i].s.length : sentences[i].v[Number(key)]);
    if (key !== "order") state.order.sort((a, b) => {
      const [x, y] = [valueOf(a), valueOf(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return (direction === "down" ? y - x : x - y) || a - b;
    });
    const column = /^\d+$/.test(key) ? Number(key) : 0;
    list.replaceChildren(...state.order.map((i) => listed(i, i + 1, sentences[i].s,
      ...(values.length ? [element("span", number(sentences[i].v[column]), { class: "number" })] : []))));
    const total = sentences.length.toLocaleString("en"), count = state.order.length.toLocaleString("en");
    byId("match-count").textContent = (query ? `${count} of ${total} found` : `${total} sentences`)
      + (values.length ? `; right: ${values[column]}` : "");
    if (state.order.length) show(state.order.includes(state.index) ? state.index : state.order[0]);
  };
  const go = (steps) => {
    const position = state.order.indexOf(state.index) + steps;
    if (state.order.length) show(state.order[within(position, 0, state.order.length - 1)]);
  };

  byId("browser").hidden = false;
  fill(byId("sort"), [["order", "order in the file"],
    ...values.flatMap((name, i) => [[`${i} up`, `${name}, lowest first`], [`${i} down`, `${name}, highest first`]]),
    ["length up", "shortest source first"], ["length down", "longest source first"]], "order");
  for (const [input, name] of [[layer, "layer"], [head, "head"]])
    fill(input, counted(name, data[name + "s"]), data[name + "s"] === 1 ? "1" : String(data[name]));
  shift.checked = Boolean(data.shift);
  for (const input of [layer, head, units, shift]) input.addEventListener("change", draw);
  byId("search").addEventListener("input", update);
  byId("sort").addEventListener("change", update);
  steered(list, show, go);
  for (const map of document.querySelectorAll("table.map:not(.plain, .heads)"))
    grid(map, () => {}, (td) => {
      if (td.dataset.layer === undefined || !data.layers) return;
      if (!layer.disabled) layer.value = td.dataset.layer;
      if (!head.disabled) head.value = td.dataset.head;
      if (td.dataset.shift !== undefined) shift.checked = td.dataset.shift === "1";
      if (state.bytes) draw();
      byId("sentence").scrollIntoView();
    })();
  const enterHeads = grid(heads, () => {}, (td) => {
    layer.value = td.dataset.layer;
    head.value = td.dataset.head;
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (state.bytes) showHeads(); });
  const chosen = Object.entries(data.examples);
  examples?.append(...chosen.map(([name, of]) => example(chosen.length === 1 ? "The only sentence" : name, ...of)));
  const requested = sentences[addressed() - 1] ? addressed() - 1 : -1;
  update();
  if (requested >= 0) { show(requested); scrollToElement(byId("sentence")); }
};

if (byId("texts")) browse(JSON.parse(byId("texts").textContent));
