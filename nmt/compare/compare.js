
// --- charts ----------------------------------------------------------------------------------------------------------
// Of charts that stand for one another the one that is chosen.
const choices = [...document.querySelectorAll("[data-choice]")];
const chooseCharts = () => {
  const chosen = Object.fromEntries(choices.map((select) => [select.dataset.choice, select.value]));
  for (const figure of document.querySelectorAll("figure[data-axis], figure[data-cost]"))
    figure.hidden = ["axis", "cost", "score"].some((name) => name in figure.dataset && figure.dataset[name] !== chosen[name]);
};
for (const select of choices) {
  select.parentNode.hidden = false;
  select.addEventListener("change", chooseCharts);
}
chooseCharts();

for (const button of document.querySelectorAll("[data-toggle]"))
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const each of document.querySelectorAll(`[data-group="${button.dataset.toggle}"]`)) each.classList.toggle("off", !shown);
  });

// --- sentences -------------------------------------------------------------------------------------------------------
const sideBySide = ({ models, sentences }) => {
  const lines = byId("weights").textContent.split("\n"), list = byId("list"), source = byId("source-line"), units = byId("units");
  const state = { now: -1, names: [], turn: 0 };

  const clear = () => {
    unmark([source, ...cards.map(({ line }) => line)], cards.map(({ matrix }) => matrix));
    for (const card of cards) card.say("");
  };

  // A group: its translation and its matrix, with layers and heads to choose from.
  const makeCard = (model, m) => {
    const card = element("article", undefined, { "data-group": m, "aria-label": model.name });
    const bar = element("div", undefined, { class: "bar" }), text = element("p", undefined, { class: "translation", dir: "auto" });
    const value = element("span", "", { class: "soft small" }), line = element("div", undefined, { class: "trace", "aria-label": "hypothesis" });
    const told = element("output", undefined, { "aria-live": "polite" }), scroll = element("div", undefined, { class: "scroll" });
    const matrix = element("table", undefined, { class: "heat", dir: "ltr", "aria-label": "Attention of " + model.name });
    const [layer, head] = ["layer", "head"].map((name) => element("select", undefined, { "data-of": name }));
    const shift = element("input", undefined, { type: "checkbox", "data-of": "shift" });
    const table = weightsOf(model.levels), named = (name, input) => { const l = element("label", name + " "); l.append(input); return l; };
    const title = element("h4", model.name, { title: model.about, dir: "auto" });
    bar.append(title, value);
    const chosen = element("div", undefined, { class: "bar" });
    for (const [select, count, name] of [[layer, model.layers, "layer"], [head, model.heads, "head"]]) {
      fill(select, counted(name, count), count === 1 ? "1" : String(model[name]));
      if (count > 1) chosen.append(named(name[0].toUpperCase() + name.slice(1), select));
    }
    shift.checked = Boolean(model.shift);
    chosen.append(named("read one step later", shift));
    scroll.append(matrix);
    card.append(bar, text, ...(model.layers ? [chosen, line, told, scroll] : [element("p", "no attention", { class: "soft" })]));

    const self = { card, line, matrix, view: null, bytes: null, say: (said) => { told.textContent = said; } };
    const shared = () => self.view && self.view.source.join("\n") === state.names.join("\n");
    self.mark = marker({ sourceLine: source, targetLine: line, matrix, weight: told }, () => self.view, shared);
    const enter = grid(matrix, (td, row, column) => { clear(); self.mark(true, row, column); }, () => {});
    walk(line, (t) => { clear(); self.mark(true, t); }, null, clear);

    self.project = (sentence) => {
      const own = sentence.of[m];
      self.view = null;
      if (!self.bytes) return;
      const whole = state.now < model.full, shape = [whole ? model.layers : 1, whole ? model.heads : 1, own.tp.length, own.sp.length];
      const weights = meanRows(self.bytes, table, shape, Number(layer.value), Number(head.value));
      self.view = projected({ s: sentence.s, ...own }, shift.checked ? weights.slice(1) : weights, units.value);
    };
    self.draw = () => {
      scroll.hidden = line.hidden = !self.view;
      if (!self.view) return;
      drawMatrix(matrix, self.view, new Set(units.value === "words" ? sentences[state.now].of[m].k.map(([i, j]) => j + "," + i) : []));
      tokens(line, self.view.target);
      enter();
    };
    self.unpack = (index) => unpacked(lines[m * sentences.length + index]).catch(() => null);
    self.take = (sentence, bytes) => {
      const own = sentence.of[m], [r, h] = [parts(sentence.r), parts(own.h)];
      self.bytes = bytes;
      self.say("");
      text.replaceChildren();
      if (own.h && r.length * h.length <= 1e6) marked(text, h, common(r, h)[1], "extra", "only in the hypothesis");
      else text.append(own.h || element("i", "(empty)", { class: "soft" }));
      value.textContent = `chrF ${own.v.toFixed(1)}` + (own.sp && !bytes ? " · its attention is not here, or cannot be unpacked" : "");
    };
    for (const input of [layer, head, shift]) input.addEventListener("change", () => {
      clear();
      self.project(sentences[state.now]);
      self.draw();
    });
    return self;
  };
  const cards = models.map(makeCard);
  byId("models").replaceChildren(...cards.map(({ card }) => card));

  const redraw = () => {
    const sentence = sentences[state.now];
    for (const card of cards) card.project(sentence);
    state.names = cards.find(({ view }) => view)?.view.source ?? sentence.s.split(" ").filter((word) => word);
    tokens(source, state.names);
    for (const card of cards) card.draw();
  };

  const show = async (index) => {
    const turn = ++state.turn, sentence = sentences[index];
    select(list, index);
    if (state.now === index) return;
    const found = await Promise.all(cards.map((card) => card.unpack(index)));
    if (state.turn !== turn) return; // another one was chosen meanwhile
    state.now = index;
    history.replaceState(null, "", "#sentence-" + sentence.n);
    byId("name").textContent = `Sentence ${sentence.n}`;
    byId("values").textContent = sentence.why;
    byId("reference").textContent = sentence.r;
    cards.forEach((card, m) => card.take(sentence, found[m]));
    redraw();
  };
  const go = (steps) => show(within(at() + steps, 0, sentences.length - 1));

  walk(source, (s) => { clear(); source.children[s].classList.add("on"); for (const card of cards) card.mark(false, s); }, null, clear);
  list.replaceChildren(...sentences.map(({ n, s, why }, i) => listed(i, n, s,
    ...(why === "by length" ? [] : [element("span", why.replace("chrF differs by ", "Δ "), { class: "why", title: why })]))));
  const at = () => sentences.findIndex((_, i) => byId("option-" + i).getAttribute("aria-selected") === "true");
  byId("browser").hidden = false;
  units.addEventListener("change", redraw);
  steered(list, show, go);
  show(Math.max(0, sentences.findIndex(({ n }) => n === addressed())));
};

if (byId("texts")) sideBySide(JSON.parse(byId("texts").textContent));
