"""Responses of the server, compared with the commands of the project."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nmt
from nmt import checkpoint
from nmt.alignment import StoredAlignmentSource
from nmt.data import EOS, Tokenizer, TokenizerConfig
from nmt.inference.glossary import load_glossary
from nmt.inference.interventions import Intervention
from nmt.inference.line_request import LineRequest
from nmt.inference.line_translator import LineTranslator, json_line
from nmt.inference.translator import Translator
from nmt.serve.schemas import AttentionResponse, ModelsResponse, StreamEvent, TranslateResponse

CPU = torch.device("cpu")
LINES = [
    "the old man reads a long book",
    "",
    "   ",
    "seven red dogs see a small house in the green garden",
    "unbekannte Wörter: Ärger, 123 — ja!",
    "two  spaces and </s> and <unk> \t tab",
    "日本語 and emoji 😀\u200d\u0301",
    "\u202eשלום\u2066 עולם \u200f",
    "a\x00b \x01\x7f\x1b[31m red",
    "line\u2028separator\x85next\rreturn\x0b",
    "the old man reads. " * 9,
]


def translator(runs: Path, name: str, **search: object) -> Translator:
    loaded = Translator.from_checkpoint(checkpoint.load(runs / name / "checkpoints" / "best.pt"), None, CPU)
    loaded.config = dataclasses.replace(loaded.config, **search)
    return loaded


def test_models(client, runs):
    reply = client.get("/api/models")
    response = ModelsResponse.model_validate(reply.json)
    assert reply.status == 200
    assert [model.name for model in response.models] == ["deep", "plain", "none"]
    assert [(model.layers, model.heads) for model in response.models] == [(2, 2), (1, 1), (0, 0)]
    assert [model.architecture for model in response.models] == ["transformer", "rnn", "rnn"]
    assert [model.score for model in response.models] == ["scaled", "additive", "none"]
    assert response.models[0].alignment_source.model_dump() == {
        "layer": 2,
        "head": 1,
        "shift": 0,
        "null": False,
        "threshold": 0,
    }
    assert response.models[2].alignment_source is None
    assert response.models[0].examples == ["the old man", "seven red houses"]
    plain = translator(runs, "plain").model
    assert response.models[1].parameters == sum(parameter.numel() for parameter in plain.parameters())
    assert (response.models[0].source_lang, response.models[0].target_lang) == ("en", "de")
    assert response.limits.max_sentences == 50


def by_command(run: Path, text: str, folder: Path) -> list[Any]:
    """Return the output of `nmt.translate` in a separate process."""
    arguments = [f"checkpoint={run}", "format=jsonl", "search.beam_size=3", "search.n_best=2", "num_threads=1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "nmt.translate", *arguments, "device=cpu"],
        input=text.encode(), capture_output=True, cwd=folder, env=environment, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]


@pytest.mark.parametrize("name", ["deep", "plain", "none"])
def test_translations_equal_those_of_the_command(client, runs, name, tmp_path):
    text = "\n".join(LINES) + "\n"
    if name == "deep":
        expected = by_command(runs / name, text, tmp_path)
    else:
        lines = LineTranslator(translator(runs, name, beam_size=3, n_best=2), 40)
        translations = lines.translate_lines([line.encode() for line in LINES])
        expected = [json.loads(json_line(lines.to_json(*numbered))) for numbered in enumerate(translations, 1)]
    request = {"model": name, "beam_size": 3, "n_best": 2}
    by_lines = client.post("/api/translate", {**request, "lines": LINES}).json
    by_text = client.post("/api/translate", {**request, "text": text[: text.index("unbekannte")]}).json
    assert by_lines["sentences"][:4] == by_text["sentences"]
    assert TranslateResponse.model_validate(by_lines).model == name
    assert len(by_lines["sentences"]) == len(expected) == len(LINES)
    for sentence, by_translate in zip(by_lines["sentences"], expected, strict=True):
        details = sentence.pop("details")
        assert sentence == by_translate
        assert len(details) == by_translate["parts"]


def test_hypotheses_and_their_links(client, runs):
    reference = translator(runs, "deep", beam_size=4, n_best=4)
    (sentence,) = client.post("/api/translate", {"text": LINES[0], "beam_size": 4, "n_best": 4}).json["sentences"]
    (part,) = sentence["details"]
    (ranked,) = reference.n_best([LINES[0]])
    tokenizer = reference.tokenizer
    (source,) = tokenizer.encode_source([LINES[0]])
    assert part["source"] == LINES[0]
    assert part["subwords"] == tokenizer.source_subwords(source)
    assert [hypothesis["tokens"] for hypothesis in part["hypotheses"]] == [t.tokens for t in ranked]
    assert len({tuple(hypothesis["tokens"]) for hypothesis in part["hypotheses"]}) == 4
    for hypothesis, t in zip(part["hypotheses"], ranked, strict=True):
        assert (hypothesis["text"], hypothesis["score"], hypothesis["log_prob"]) == (t.text, t.score, t.log_prob)
        assert hypothesis["subwords"] == tokenizer.target_subwords(t.tokens)
        ((_, weights),) = reference.attention_weights([source], [t.tokens])
        expected = reference.stored_source.source.word_matrix(
            weights, tokenizer.target_word_ids([*t.tokens, EOS]), tokenizer.source_word_ids([*source, EOS])
        )
        best = expected[:, :-1].argmax(-1)  # </s> does not count with this alignment source
        assert hypothesis["links"] == [[int(s), j] for j, s in enumerate(best)]


def test_a_byte_order_mark_and_lines_that_only_look_blank(client):
    (plain,) = client.post("/api/translate", {"lines": LINES[:1]}).json["sentences"]
    blank = ["\t", "\u00a0", "\u200b", "\u3000 "]
    lines = ["\ufeff" + LINES[0], *blank]
    for content in ({"lines": lines}, {"text": "\n".join(lines)}):
        first, *others = client.post("/api/translate", content).json["sentences"]
        assert first == plain
        assert [(other["source"], other["translation"], other["links"]) for other in others] == [
            (line, "", []) for line in blank
        ]
        assert [other["details"][0]["subwords"] for other in others] == [[]] * len(blank)
    pair = {"source": LINES[0], "target": "SEVEN DOGS"}
    marked = {name: "\ufeff" + text for name, text in pair.items()}
    assert client.post("/api/attention", marked).json == client.post("/api/attention", pair).json


def test_words_are_those_of_the_text_as_given(serve):
    def normalize(served):
        pieces = [f"{a}{b}{c}" for a in "abcdef" for b in "ghijk" for c in "lmnop"]
        config = TokenizerConfig(type="bpe", vocab_size=400, normalization="nfkc")
        served[0].translator.tokenizer = Tokenizer.train(config, [(" ".join(pieces), " ".join(pieces[::-1]))])

    client = serve("deep", change=normalize)
    line = "ab\u00a0c d\u3000\u00bd e"
    (sentence,) = client.post("/api/translate", {"lines": [line]}).json["sentences"]
    (part,) = sentence["details"]
    words = [word for word in dict.fromkeys(part["words"]) if word >= 0]
    assert words == list(range(len(line.split(" "))))
    assert sentence["links"]
    for links in (sentence["links"], *(hypothesis["links"] for hypothesis in part["hypotheses"])):
        assert all(0 <= i < len(words) for i, _ in links)
    attention = client.post("/api/attention", {"source": line, "target": line}).json
    assert attention["source_words"] == attention["target_words"] == [*part["words"], -1]


def test_search_options_change_the_translations(client, runs):
    lines = LINES[:1] + LINES[3:5]
    for options in ({"beam_size": 1}, {"beam_size": 6, "n_best": 3}, {"beam_size": 4, "length_penalty": 0.0}):
        response = client.post("/api/translate", {"model": "plain", "lines": lines, **options}).json["sentences"]
        ranked = translator(runs, "plain", **options).n_best(lines)
        for sentence, expected in zip(response, ranked, strict=True):
            hypotheses = sentence["details"][0]["hypotheses"]
            assert [(h["text"], h["score"]) for h in hypotheses] == [(t.text, t.score) for t in expected]


@pytest.mark.parametrize("name", ["deep", "plain"])
def test_attention_is_from_one_forced_pass(client, runs, name):
    reference = translator(runs, name)
    (sentence,) = client.post("/api/translate", {"model": name, "text": LINES[3]}).json["sentences"]
    part = sentence["details"][0]
    (hypothesis, *_) = part["hypotheses"]
    request = {"model": name, "source": part["source"], "tokens": hypothesis["tokens"]}
    response = AttentionResponse.model_validate(client.post("/api/attention", request).json)
    ((_, weights),) = reference.attention_weights(reference.tokenizer.encode_source([LINES[3]]), [hypothesis["tokens"]])
    np.testing.assert_allclose(response.weights, weights, atol=6e-6)
    assert (response.layers, response.heads) == (list(range(1, len(weights) + 1)), list(range(1, len(weights[0]) + 1)))
    assert response.source_subwords == [*part["subwords"], "</s>"]
    assert response.target_subwords == [*hypothesis["subwords"], "</s>"]
    assert response.source_words == [*part["words"], -1]
    assert response.target_words == [*hypothesis["words"], -1]
    for layer in range(len(weights) + 1):
        for head in range(len(weights[0]) + 1):
            single = client.post("/api/attention", {**request, "layer": layer, "head": head}).json
            kept = weights[layer - 1 : layer] if layer else weights
            kept = kept[:, head - 1 : head] if head else kept
            np.testing.assert_allclose(np.array(single["weights"])[0, 0], kept.mean((0, 1)), atol=6e-6)
            assert (single["layers"], single["heads"]) == ([layer], [head])
    by_text = client.post("/api/attention", {"model": name, "source": LINES[3], "target": "SEVEN DOGS"}).json
    assert by_text["target_subwords"][:-1] == reference.tokenizer.target_subwords(
        reference.tokenizer.encode_target(["SEVEN DOGS"])[0]
    )


@pytest.mark.parametrize("name", ["deep", "none"])
def test_a_stream_grows_and_ends_with_the_result(client, name):
    request = {"model": name, "lines": LINES[:4], "n_best": 2}
    lines = [StreamEvent.model_validate_json(line) for line in client.post("/api/stream", request).body.splitlines()]
    complete = client.post("/api/translate", request).json
    assert json.loads(lines[-1].model_dump_json())["result"] == TranslateResponse.model_validate(complete).model_dump(
        mode="json"
    )
    partial = [event for event in lines[:-1] if event.line == 1]
    assert len(partial) > 3
    assert len({event.text for event in partial}) > 3
    assert partial[-1].text == complete["sentences"][0]["translation"]
    assert [event.line for event in lines[:-1]] == sorted(event.line for event in lines[:-1])


def test_the_schema_lists_every_path_and_field(client):
    schema = client.get("/openapi.json").json
    assert set(schema["paths"]) == {"/api/models", "/api/translate", "/api/stream", "/api/attention"}
    fields = schema["components"]["schemas"]["TranslateRequest"]["properties"]
    names = {"model", "target_lang", "tag", "text", "lines", "beam_size", "n_best", "length_penalty", "interventions"}
    assert set(fields) == names | {
        *("prefix", "suffix_of", "markup", "placeholders", "alignment", "glossary", "glossary_mode")
    }
    for name in ("/docs", "/redoc"):
        assert client.get(name).status == 404


def test_the_page_is_complete_and_refers_to_no_other_site(client):
    page = client.get("/")
    assert (page.status, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("page.css", "page.js", "matrix.js", "report.css", "icon.svg"):
        assert f'"{name}"'.encode() in page.body
        reply = client.get("/" + name)
        assert reply.status == 200
        assert reply.headers["x-content-type-options"] == "nosniff"
        text = reply.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text


# --- interventions ---


def acting(runs, name, interventions):
    wanted = [Intervention(one["layer"], one["head"], one["weights"]) for one in interventions]
    return translator(runs, name).intervene(wanted)


@pytest.mark.parametrize("name", ["deep", "plain"])
def test_interventions_are_those_of_the_translator(client, runs, name):
    num = len(translator(runs, name).tokenizer.encode_source([LINES[0]])[0]) + 1
    row = [round(2 / num, 5), *[round((1 - 2 / num) / (num - 1), 5)] * (num - 1)]
    wanted = [{"layer": 0, "head": 0, "weights": "uniform"}, {"layer": 1, "head": 1, "weights": [None, row]}]
    reference, request = acting(runs, name, wanted), {"model": name, "text": LINES[0], "interventions": wanted}
    before = client.post("/api/translate", {"model": name, "text": LINES[0]}).json
    (sentence,) = client.post("/api/translate", request).json["sentences"]
    ((best, *_),) = reference.n_best([LINES[0]])
    assert (sentence["translation"], sentence["log_prob"]) == (best.text, pytest.approx(best.log_prob, abs=1e-6))
    assert sentence["log_prob"] != before["sentences"][0]["log_prob"]
    streamed = client.post("/api/stream", request).body.splitlines()
    assert json.loads(streamed[-1])["result"]["sentences"] == [sentence]
    asked = {"model": name, "source": LINES[0], "tokens": best.tokens, "interventions": wanted}
    response = AttentionResponse.model_validate(client.post("/api/attention", asked).json)
    ((_, weights),) = reference.attention_weights(reference.tokenizer.encode_source([LINES[0]]), [best.tokens])
    np.testing.assert_allclose(response.weights, weights, atol=6e-6)
    np.testing.assert_allclose(response.weights[0][0][1], row, atol=6e-6)
    assert response.log_prob == pytest.approx(best.log_prob, abs=1e-4)
    assert client.post("/api/translate", {"model": name, "text": LINES[0]}).json == before  # nothing is kept
    assert client.post("/api/attention", asked | {"interventions": []}).json["log_prob"] is None


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (
            {"layer": 3, "weights": "zero"},
            "interventions: layer=3: attention to the source has layers 1 to 2; 0 is all",
        ),
        ({"head": 1}, "interventions.0.weights: must be given"),
        ({"head": "1", "weights": "zero"}, 'interventions.0.head="1": input should be a valid integer'),
        ({"weights": "none"}, "interventions: weights=none: must be zero, uniform"),
        ({"weights": None}, "interventions: weights=None: must be zero, uniform"),
        ({"weights": [[0.5, 0.4]]}, "interventions: weights[0]: sums to 0.9; a row sums to 1"),
        ({"weights": [{"0": 1}]}, "interventions: weights: must be zero"),
        ({"weights": "zero", "haed": 1}, "interventions.0.haed: unknown"),
    ],
)
def test_interventions_that_are_not_allowed(client, one, message):
    for path, request in (
        ("translate", {"text": "a"}),
        ("stream", {"text": "a"}),
        ("attention", {"source": "a", "target": "A"}),
    ):
        reply = client.post(f"/api/{path}", request | {"model": "deep", "interventions": [one]})
        assert (reply.status, reply.error[: len(message)]) == (422, message)


def test_interventions_need_attention_and_the_length_of_the_source(client):
    zero, short = [{"weights": "zero"}], [{"weights": [[1.0]]}]
    reply = client.post("/api/translate", {"model": "none", "text": "a", "interventions": zero})
    assert (reply.status, reply.error[:58]) == (422, "interventions: the model has no attention to the source (m")
    message = "weights have 1 columns, and the source has 4 subwords, </s> included"
    reply = client.post("/api/attention", {"source": "red red red", "target": "A", "interventions": short})
    assert (reply.status, reply.error) == (422, f"interventions: {message}")
    (sentence,) = client.post("/api/translate", {"text": "red red red", "interventions": short}).json["sentences"]
    assert sentence["error"] == f"not translated: {message}"
    assert client.post("/api/translate", {"text": "a", "interventions": zero * 101}).status == 422


# --- markup, placeholders and prefixes ---

TAGGED = ["the <b>old man</b> reads <i>a <u>long</u></i> book", "seven <code>{red}</code> dogs &amp; %s", "no <b>end"]


@pytest.mark.parametrize("path", ["translate", "stream"])
def test_tags_and_placeholders_are_those_of_the_line_translator(client, runs, path):
    wanted = LineRequest(markup=True, placeholders=True)
    lines = LineTranslator(translator(runs, "deep"), 40, wanted)
    translations = lines.translate_lines([line.encode() for line in TAGGED])
    expected = [json.loads(json_line(lines.to_json(*numbered))) for numbered in enumerate(translations, 1)]
    request = {"model": "deep", "lines": TAGGED, "markup": True, "placeholders": True}
    response = json.loads(client.post(f"/api/{path}", request).body.splitlines()[-1])
    response = response.get("result", response)
    assert TranslateResponse.model_validate(response).sentences[0].spans
    for sentence in response["sentences"]:
        sentence.pop("details")
    assert response["sentences"] == expected
    first, second, last = expected
    (bold, *_), plain = first["spans"], TAGGED[0].replace("<b>", "").replace("</b>", "")
    assert plain[bold["source_start"] : bold["source_end"]] == "old man"
    assert f"<b>{bold['text']}</b>" in first["translation"]
    assert second["lost_placeholders"]
    assert second["translation"].count("%s") == 1
    assert (last["translation"], last["error"][:28]) == (TAGGED[2], "markup: <b> at character 4 i")
    alone = client.post("/api/translate", {"model": "deep", "lines": TAGGED[:1]}).json["sentences"][0]
    assert not {"spans", "lost_placeholders"} & set(alone)


@pytest.mark.parametrize("name", ["deep", "none"])
def test_a_prefix_and_what_is_continued(client, runs, name):
    (best,) = translator(runs, name).n_best([LINES[0]], prefixes=["SEVEN DOGS"])[0][:1]
    request = {"model": name, "text": LINES[0]}
    (begun,) = client.post("/api/translate", request | {"prefix": "SEVEN DOGS"}).json["sentences"]
    assert begun["translation"] == best.text
    assert best.text.startswith("SEVEN DOGS")
    continued = request | {"suffix_of": "SEVEN DOGS "}
    (rest,) = client.post("/api/translate", continued).json["sentences"]
    assert rest["translation"] == best.text.removeprefix("SEVEN DOGS").removeprefix(" ")
    events = [json.loads(line) for line in client.post("/api/stream", continued).body.splitlines()]
    assert events[-1]["result"]["sentences"] == [rest]
    assert events[0]["text"] == ""
    assert events[-2]["text"] == rest["translation"]
    assert not any("SEVEN DOGS" in event["text"] for event in events[:-1])


@pytest.mark.parametrize(
    ("model", "one", "status", "message"),
    [
        ("none", {"markup": True}, 422, "markup=true: the model has no attention to the source"),
        ("none", {"placeholders": True}, 422, "placeholders=true: the model has no attention to the source"),
        ("deep", {"markup": "yes"}, 422, 'markup="yes": input should be a valid boolean'),
        ("deep", {"prefix": None}, 422, "prefix=null: input should be a valid string"),
        ("deep", {"prefix": "A\nB"}, 422, "prefix: the vocabulary writes 'A\\nB' as 'A B'"),
        ("deep", {"suffix_of": "A\n", "prefix": "B"}, 422, "suffix_of: the vocabulary writes 'A\\nB' as 'A B'"),
        ("deep", {"prefix": "A" * 2001}, 413, "prefix: 2,001 characters are more than 2,000 (max_sentence_chars)"),
        ("deep", {"sufix_of": "A"}, 422, "sufix_of: unknown; did you mean suffix_of?"),
    ],
)
def test_wrong_prefixes_and_markup(client, model, one, status, message):
    for path in ("translate", "stream"):
        reply = client.post(f"/api/{path}", {"model": model, "text": "a"} | one)
        assert (reply.status, reply.error[: len(message)]) == (status, message)


# --- glossaries, and the layer and head of a request ---


@pytest.mark.parametrize("path", ["translate", "stream"])
def test_terms_of_a_request_and_of_the_server(client, serve, runs, path, tmp_path):
    (tmp_path / "terms.tsv").write_text("red\tBLUE\nold man\tHOUSE\n", "utf-8")
    terms, base = {"red": "BLUE", "old man": "HOUSE"}, translator(runs, "deep")
    lines = LineTranslator(base, 40, LineRequest(markup=True), glossary=load_glossary(terms, base))
    texts = [TAGGED[0], "seven red dogs", "a book"]
    results = lines.translate_lines([text.encode() for text in texts])
    expected = [json.loads(json_line(lines.to_json(*numbered))) for numbered in enumerate(results, 1)]
    request = {"model": "deep", "lines": texts, "markup": True}
    asked = [
        (client, {"glossary": terms}),
        (serve("deep", glossary=str(tmp_path / "terms.tsv")), {}),
        (serve("deep", glossary=str(tmp_path / "terms.tsv")), {"glossary": terms}),
    ]
    for server, further in asked:
        response = json.loads(server.post(f"/api/{path}", request | further).body.splitlines()[-1])
        response = response.get("result", response)
        TranslateResponse.model_validate(response)
        for sentence in response["sentences"]:
            sentence.pop("details")
        assert response["sentences"] == expected
    assert [term["source"] for term in expected[0]["terms"]] == ["old man"]
    assert "BLUE" in expected[1]["translation"]
    own = asked[1][0].post("/api/translate", request | {"glossary": {}}).json["sentences"]
    assert [sentence["terms"] for sentence in own] == [[], [], []]
    assert own[2]["translation"] == expected[2]["translation"]


@pytest.mark.parametrize(
    ("one", "status", "message"),
    [
        ({"glossary": {"red": ""}}, 422, "glossary: 'red': the target term is empty or has a line break"),
        (
            {"glossary": {"red": "日" * 3000}},
            413,
            "glossary: 3,000 characters are more than 2,000 (max_sentence_chars)",
        ),
        ({"glossary": {f"x{i}": "A" for i in range(201)}}, 422, "glossary: dictionary should have at most 200 items"),
        ({"glossary": {"red": 3}}, 422, "glossary.red=3: input should be a valid string"),
        (
            {"glossary": {"red": "A"}, "glossary_mode": "soft"},
            422,
            "glossary_mode=soft: this model was trained without",
        ),
        ({"glossary_mode": "soft"}, 422, "glossary_mode=soft: there is no glossary; give one"),
        ({"glossary_mode": "firm"}, 422, "glossary_mode=firm: must be one of hard, soft"),
        ({"alignment": {"layer": 3}}, 422, "alignment: layer=3: must be 0 (the mean) to 2"),
        ({"alignment": {"head": 2}}, 422, "alignment: head=2: every layer has one; give layer, 1 to 2, too"),
        ({"alignment": {"lair": 2}}, 422, "alignment: must have a layer, and a head where wanted, as in "),
        ({"model": "none", "alignment": {"layer": 1}}, 422, "alignment: the model has no attention to the source"),
    ],
)
def test_wrong_glossaries_and_heads(client, one, status, message):
    for path in ("translate", "stream"):
        reply = client.post(f"/api/{path}", {"text": "a"} | one)
        assert (reply.status, reply.error[: len(message)]) == (status, message)


def test_a_request_has_its_layer_and_head(client, runs):
    base = translator(runs, "deep")
    base.stored_source = StoredAlignmentSource(base.stored_source.source._replace(layer=1, head=2))
    lines = LineTranslator(base, 40, LineRequest(markup=True))
    expected = json.loads(json_line(lines.to_json(1, lines.translate_lines([TAGGED[0].encode()])[0])))
    request = {"text": TAGGED[0], "markup": True, "alignment": {"layer": 1, "head": 2}}
    (sentence,) = client.post("/api/translate", request).json["sentences"]
    details = sentence.pop("details")
    assert sentence == expected
    assert sentence["alignment_source_text"].startswith("layer 1, head 2")
    assert details[0]["hypotheses"][0]["links"] == expected["links"]
    model = nmt.load(runs / "deep", device="cpu")
    python = model.translate(TAGGED[0], markup=True, alignment={"layer": 1, "head": 2})
    assert python.text == expected["translation"]
    assert [span.to_json(python.n_best[0].text) for span in python.spans] == expected["spans"]
    with pytest.raises(ValueError, match=r"alignment: layer=5: must be 0 \(the mean\) to 2"):
        model.translate("a", alignment={"layer": 5})
