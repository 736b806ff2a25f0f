
// The translations of one source beside each other, each with its attention.
const sideBySide = ({ levels, shift, sentences }) => {
  const choice = byId("sentences"), source = byId("source-line"), place = byId("models"), table = weightsOf(levels);
  let cards = [];
  const clear = () => {
    unmark([source, ...cards.map(({ line }) => line)], cards.map(({ matrix }) => matrix));
    for (const { output } of cards) output.textContent = "";
  };

  const makeCard = ({ s: text, lang }, translation) => {
    const name = `${lang} → ${translation.to}`;
    const rows = meanRows(bytesOf(translation.w), table, [1, 1, translation.tp.length, translation.sp.length], 0, 0);
    const view = projected({ s: text, ...translation }, shift ? rows.slice(1) : rows, "words");
    view.source.splice(-1, 1, "</s>"); // with the tag, in which the languages differ
    const card = element("article", undefined, { "aria-label": name }), scroll = element("div", undefined, { class: "scroll" });
    const line = element("div", undefined, { class: "trace", "aria-label": "translation" }), output = element("output", undefined, { "aria-live": "polite" });
    const matrix = element("table", undefined, { class: "heat", dir: "ltr", "aria-label": "Attention, " + name });
    const words = element("p", translation.h, { class: "translation", dir: "auto" });
    if (!translation.h) words.append(element("i", "(empty)", { class: "soft" }));
    scroll.append(matrix);
    card.append(element("h3", name + (translation.seen ? "" : " (zero-shot)")), words, line, output, scroll);
    drawMatrix(matrix, view, new Set(translation.k.map(([i, j]) => j + "," + i)));
    tokens(line, view.target);
    const mark = marker({ sourceLine: source, targetLine: line, matrix, weight: output }, () => view);
    grid(matrix, (td, row, column) => { clear(); mark(true, row, column); }, () => {})();
    walk(line, (t) => { clear(); mark(true, t); }, null, clear);
    return { card, line, matrix, output, mark, view };
  };

  const show = () => {
    const sentence = sentences[Number(choice.value)];
    cards = sentence.of.map((translation) => makeCard(sentence, translation));
    tokens(source, cards[0].view.source);
    place.replaceChildren(...cards.map(({ card }) => card));
  };

  fill(choice, sentences.map(({ s, lang }, i) => [String(i), `${lang}: ${s}`]), "0");
  choice.addEventListener("change", show);
  walk(source, (s) => { clear(); source.children[s].classList.add("on"); for (const { mark } of cards) mark(false, s); }, null, clear);
  byId("side-by-side").hidden = false;
  show();
};

if (byId("texts")) sideBySide(JSON.parse(byId("texts").textContent));
