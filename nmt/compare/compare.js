
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
    for (const span of document.querySelectorAll(".trace span")) { shade(span, 0); span.classList.remove("on"); }
    for (const th of document.querySelectorAll(".heat th.on")) th.classList.remove("on");
    for (const card of cards) card.say("");
  };
  const best = (names, weights) => [...names.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3)
    .filter((i) => weights[i] >= 0.01).map((i) => `${isolated(names[i])} ${weights[i].toFixed(2)}`).join(", ") || "nothing";

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

    const self = { card, view: null, bytes: null, say: (said) => { told.textContent = said; } };
    const enter = grid(matrix, (td, row, column) => trace(row, column), () => {});
    const heads = () => matrix.tHead.rows[0].cells, rows = () => matrix.tBodies[0].rows;
    const shared = () => self.view && self.view.source.join("\n") === state.names.join("\n");
    // A row of the matrix, and one of its cells.
    const trace = (t, s) => {
      const { target, rows: weights, source: names } = self.view;
      clear();
      line.children[t]?.classList.add("on");
      rows()[t]?.cells[0].classList.add("on");
      if (shared()) weights[t].forEach((weight, i) => shade(source.children[i], weight));
      if (s === undefined) { self.say(`${isolated(target[t])} ← ${best(names, weights[t])}`); return; }
      heads()[s + 1]?.classList.add("on");
      if (shared()) source.children[s].classList.add("on");
      self.say(`${isolated(target[t])} ← ${isolated(names[s])}: ${weights[t][s].toFixed(2)}`);
    };
    // A column of the matrix, by a word of the source.
    self.receive = (s) => {
      if (!shared()) return;
      const column = self.view.rows.map((row) => row[s]);
      heads()[s + 1]?.classList.add("on");
      column.forEach((weight, t) => shade(line.children[t], weight));
      self.say(`${isolated(state.names[s])} → ${best(self.view.target, column)}`);
    };
    walk(line, (t) => trace(t), null, clear);

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
    list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    const option = byId("option-" + index);
    option.setAttribute("aria-selected", "true");
    list.scrollTop = within(list.scrollTop, option.offsetTop - list.clientHeight + option.offsetHeight, option.offsetTop);
    list.setAttribute("aria-activedescendant", option.id);
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

  walk(source, (s) => { clear(); source.children[s].classList.add("on"); for (const card of cards) card.receive(s); }, null, clear);
  list.replaceChildren(...sentences.map((sentence, i) => {
    const row = element("div", undefined, { role: "option", id: "option-" + i, "aria-selected": "false" });
    row.append(element("span", String(sentence.n), { class: "number" }), element("span", sentence.s, { class: "text", dir: "auto" }));
    if (sentence.why !== "by length") row.append(element("span", sentence.why.replace("chrF differs by ", "Δ "), { class: "why", title: sentence.why }));
    return row;
  }));
  const at = () => sentences.findIndex((_, i) => byId("option-" + i).getAttribute("aria-selected") === "true");
  byId("browser").hidden = false;
  units.addEventListener("change", redraw);
  steered(list, show, go);
  const asked = /^#sentence-(\d+)$/.exec(location.hash);
  show(Math.max(0, asked ? sentences.findIndex(({ n }) => n === Number(asked[1])) : 0));
};

if (byId("texts")) sideBySide(JSON.parse(byId("texts").textContent));
