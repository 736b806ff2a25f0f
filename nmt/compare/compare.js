
// --- charts ----------------------------------------------------------------------------------------------------------
// Shows the selected one of alternative charts.
const choices = [...document.querySelectorAll("[data-choice]")];
const chooseCharts = () => {
  const chosen = Object.fromEntries(choices.map((select) => [select.dataset.choice, select.value]));
  for (const figure of document.querySelectorAll("figure[data-axis], figure[data-cost], figure[data-metric]"))
    figure.hidden = ["axis", "cost", "score", "metric"].some((name) => name in figure.dataset && figure.dataset[name] !== chosen[name]);
};
for (const select of choices) {
  select.parentNode.hidden = false;
  select.addEventListener("change", chooseCharts);
}
chooseCharts();

for (const button of document.querySelectorAll("[data-toggle]"))
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true", members = `[data-group="${button.dataset.toggle}"]`;
    button.setAttribute("aria-pressed", String(shown));
    for (const { classList } of document.querySelectorAll(members)) classList.toggle("off", !shown);
  });

// --- sentences -------------------------------------------------------------------------------------------------------
const sideBySide = ({ models, sentences }) => {
  const lines = byId("weights").textContent.split("\n"), list = byId("list"), source = byId("source-line"), units = byId("units");
  const search = byId("search"), outcome = byId("outcome"), state = { index: -1, selected: -1, order: [], names: [], request: 0 };

  const clear = () => {
    unmark([source, ...cards.map(({ line }) => line)], cards.map(({ matrix }) => matrix));
    for (const card of cards) card.output.textContent = "";
  };

  // A group: its translation and its matrix, with layers and heads to choose from.
  const makeCard = (model, m) => {
    const card = element("article", undefined, { "data-group": m, "aria-label": model.name });
    const bar = element("div", undefined, { class: "bar" }), text = element("p", undefined, { class: "translation", dir: "auto" });
    const value = element("span", "", { class: "soft small" }), line = element("div", undefined, { class: "trace", "aria-label": "hypothesis" });
    const output = element("output", undefined, { "aria-live": "polite" }), scroll = element("div", undefined, { class: "scroll" });
    const matrix = element("table", undefined, { class: "heat", dir: "ltr", "aria-label": "Attention of " + model.name });
    const [layer, head] = ["layer", "head"].map((name) => element("select", undefined, { "data-of": name }));
    const shift = element("input", undefined, { type: "checkbox", "data-of": "shift" }), table = weightsOf(model.levels);
    const labeled = (name, input) => { const node = element("label", name + " "); node.append(input); return node; };
    bar.append(element("h4", model.name, { title: model.about, dir: "auto" }), value);
    const selection = element("div", undefined, { class: "bar" });
    for (const [select, count, name] of [[layer, model.layers, "layer"], [head, model.heads, "head"]]) {
      fill(select, counted(name, count), count === 1 ? "1" : String(model[name]));
      if (count > 1) selection.append(labeled(name[0].toUpperCase() + name.slice(1), select));
    }
    shift.checked = Boolean(model.shift);
    selection.append(labeled("read one step later", shift));
    scroll.append(matrix);
    card.append(bar, text, ...(model.layers ? [selection, line, output, scroll] : [element("p", "no attention", { class: "soft" })]));

    const self = { card, line, matrix, output, view: null, bytes: null };
    const isShared = () => self.view && self.view.source.join("\n") === state.names.join("\n");
    self.mark = marker({ sourceLine: source, targetLine: line, matrix, weight: output }, () => self.view, isShared);
    const enter = grid(matrix, (td, row, column) => { clear(); self.mark(true, row, column); }, () => {});
    walk(line, (t) => { clear(); self.mark(true, t); }, null, clear);

    self.project = (sentence) => {
      const translation = sentence.of[m], full = state.index < model.full;
      self.view = null;
      if (!self.bytes) return;
      const shape = [full ? model.layers : 1, full ? model.heads : 1, translation.tp.length, translation.sp.length];
      const rows = meanRows(self.bytes, table, shape, Number(layer.value), Number(head.value));
      self.view = projected({ s: sentence.s, ...translation }, shift.checked ? rows.slice(1) : rows, units.value);
    };
    self.draw = () => {
      scroll.hidden = line.hidden = !self.view;
      if (!self.view) return;
      drawMatrix(matrix, self.view, new Set(units.value === "words" ? sentences[state.index].of[m].k.map(([i, j]) => j + "," + i) : []));
      tokens(line, self.view.target);
      enter();
    };
    self.unpack = (index) => unpacked(lines[m * sentences.length + index]).catch(() => null);
    self.update = (sentence, bytes) => {
      const { h, v, m: mean, sp } = sentence.of[m], [reference, hypothesis] = [parts(sentence.r), parts(h)];
      self.bytes = bytes;
      output.textContent = "";
      text.replaceChildren();
      if (h && reference.length * hypothesis.length <= 1e6)
        marked(text, hypothesis, common(reference, hypothesis)[1], "extra", "only in the hypothesis");
      else text.append(h || element("i", "(empty)", { class: "soft" }));
      selection.hidden = !sp;
      value.textContent = `chrF ${v.toFixed(1)}` + (model.runs > 1 ? ` (mean of ${model.runs} seeds: ${mean.toFixed(1)})` : "") + (sp && !bytes ? " · its attention is not here, or cannot be unpacked" : "");
    };
    for (const input of [layer, head, shift]) input.addEventListener("change", () => {
      clear();
      self.project(sentences[state.index]);
      self.draw();
    });
    return self;
  };
  const cards = models.map(makeCard);
  byId("models").replaceChildren(...cards.map(({ card }) => card));

  const redraw = () => {
    const sentence = sentences[state.index];
    for (const card of cards) card.project(sentence);
    state.names = cards.find(({ view }) => view)?.view.source ?? sentence.s.split(" ").filter((word) => word);
    tokens(source, state.names);
    for (const card of cards) card.draw();
  };

  const show = async (index) => {
    const request = ++state.request, sentence = sentences[index];
    state.selected = index;
    select(list, index);
    if (state.index === index) return;
    const matrices = await Promise.all(cards.map((card) => card.unpack(index)));
    if (state.request !== request) return; // another sentence was selected meanwhile
    state.index = index;
    history.replaceState(null, "", "#sentence-" + sentence.n);
    byId("name").textContent = `Sentence ${sentence.n}`;
    byId("values").textContent = sentence.why || "without attention";
    byId("reference").textContent = [sentence.r, ...sentence.rs ?? []].join("\n");
    cards.forEach((card, m) => card.update(sentence, matrices[m]));
    redraw();
  };

  // The list: of all sentences, or of those that a group wins, loses or ties against the baseline, the largest difference first.
  const update = () => {
    const query = search.value.toLowerCase(), [m, sign] = outcome.value.split(" ").map(Number);
    const gain = (i) => sentences[i].of[m].d;
    const matches = ({ s, r, rs = [], of }) => [s, r, ...rs, ...of.map(({ h }) => h)].some((text) => text.toLowerCase().includes(query));
    state.order = [...sentences.keys()].filter((i) => (m ? Math.sign(gain(i)) === sign : !sign || sentences[i].why) && (!query || matches(sentences[i])));
    if (m) state.order.sort((a, b) => sign * (gain(b) - gain(a)) || a - b);
    list.replaceChildren(...state.order.map((i) => {
      const { n, s, why } = sentences[i], about = m ? (gain(i) > 0 ? "+" : "") + gain(i).toFixed(2).replace("-", "−")
        : why === "by length" ? "" : why.replace("chrF differs by ", "Δ ");
      return listed(i, n, s, ...(about ? [element("span", about, { class: "why", title: m ? "chrF against the baseline" : why })] : []));
    }));
    byId("match-count").textContent = `${state.order.length.toLocaleString("en")} of ${sentences.length.toLocaleString("en")} sentences`;
    if (state.order.length) show(state.order.includes(state.selected) ? state.selected : state.order[0]);
  };
  const go = (steps) => {
    const position = within(state.order.indexOf(state.selected) + steps, 0, state.order.length - 1);
    if (state.order.length) show(state.order[position]);
  };

  walk(source, (s) => { clear(); source.children[s].classList.add("on"); for (const card of cards) card.mark(false, s); }, null, clear);
  byId("browser").hidden = false;
  units.addEventListener("change", redraw);
  fill(outcome, [["0 0", "all sentences"], ["0 1", "sentences with attention"], ...models.flatMap(({ name }, m) => (m ? [[1, "wins"], [-1, "losses"], [0, "ties"]] : [])
    .map(([sign, result]) => [`${m} ${sign}`, `${name}: ${result}`]))], "0 0");
  search.addEventListener("input", update);
  outcome.addEventListener("change", update);
  steered(list, show, go);
  const found = sentences.findIndex(({ n }) => n === addressed()); // else one of middle length
  state.selected = found < 0 ? Math.floor(sentences.filter(({ why }) => why === "by length").length / 2) : found;
  if (found >= 0) scrollToElement(byId("sentence"));
  update();
};

if (byId("texts")) sideBySide(JSON.parse(byId("texts").textContent));
