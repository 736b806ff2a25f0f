"""The types of requests and answers, from which FastAPI makes /openapi.json. Indices count from 0 unless said."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class RequestModel(BaseModel):
    """The base of requests: they hold nothing but the fields named, of the types named."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseModel(BaseModel):
    """The base of answers."""

    model_config = ConfigDict(extra="forbid")


PlainText = Annotated[str, Field(min_length=0)]
"""Text that UTF-8 can hold: pydantic lets half of a surrogate pair pass where nothing is required of a text."""


class TranslateRequest(RequestModel):
    """`text` or `lines`, and how to search; what is not given is as the model was trained, see `Model`."""

    model: str | None = Field(None, description="a name of /api/models; null: the first")
    text: PlainText | None = Field(None, description="text; every line of it, ended by a line feed, is one sentence")
    lines: list[PlainText] | None = Field(None, description="sentences, none of which holds a line feed")
    beam_size: int | None = Field(None, ge=1, description="hypotheses kept at every step; 1 is greedy")
    n_best: int | None = Field(None, ge=1, description="translations of each sentence")
    length_penalty: float | None = Field(
        None, ge=0, le=10, description="exponent of the length by which log-probabilities are divided"
    )


class AttentionRequest(RequestModel):
    """A source, and a translation of it as token ids or as text."""

    model: str | None = Field(None, description="a name of /api/models; null: the first")
    source: PlainText = Field(description="one part, as /api/translate has cut it")
    tokens: list[int] | None = Field(None, description="ids of the translation, without end token")
    target: PlainText | None = Field(None, description="a translation as text, in the place of `tokens`")
    layer: int | None = Field(None, description="counted from 1; 0: the mean of all; null: every one")
    head: int | None = Field(None, description="counted from 1; 0: the mean of all; null: every one")


class AlignmentSourceSchema(ResponseModel):
    """Where links are read from: layer and head counted from 1, 0 = the mean; shift 1 = the row of the next token;
    null = a word whose attention is on the end token has no link; threshold = what a source word must receive to be
    linked, 0 = a word is linked to the one it attends to most."""

    layer: int
    head: int
    shift: int
    null: bool
    threshold: float


class ModelInfo(ResponseModel):
    """A model, and how it searches when nothing else is asked for."""

    name: str
    architecture: str
    score: Any = Field(description="of the attention to the source: a name; a list of one a head, or one a layer")
    normalizer: str
    layers: int = Field(description="with attention to the source; 0: none")
    heads: int
    source_lang: str
    target_lang: str
    parameters: int
    vocabulary: int = Field(description="entries of the target vocabulary; ids are below")
    longest: int = Field(description="source tokens beyond which a line is translated in parts")
    method: str
    beam_size: int
    n_best: int
    length_penalty: float
    alignment_source: AlignmentSourceSchema | None
    alignment_source_text: str = Field(description="the reading in words")
    selected_by: str = Field(
        description="on what the reading was chosen; empty for the mean, which none was chosen for"
    )
    examples: list[str]


class Limits(ResponseModel):
    """What a request may be at most."""

    max_bytes: int
    max_sentences: int
    max_sentence_chars: int
    max_beam: int
    max_weights: int
    timeout: float
    queue_size: int


class ModelsResponse(ResponseModel):
    """The answer of /api/models."""

    version: str
    models: list[ModelInfo]
    limits: Limits


class NBestItem(ResponseModel):
    """One of the translations of a line."""

    text: str
    score: float
    log_prob: float
    truncated: bool = Field(description="the longest length allowed ended it")


class HypothesisResult(NBestItem):
    """One of the translations of a part, with its alignment."""

    tokens: list[int]
    subwords: list[str] = Field(description="its subwords")
    words: list[int] = Field(description="the word of each piece")
    links: list[tuple[int, int]] | None = Field(
        description="(source word, target word), read from the model's `alignment_source`; null without attention"
    )


class Segment(ResponseModel):
    """A line, or a part of one that was too long for the model."""

    source: str
    subwords: list[str]
    words: list[int] = Field(description="the word of each piece")
    hypotheses: list[HypothesisResult] = Field(description="the best first")


class SentenceResult(BaseModel):
    """A line: the fields of `nmt.translate format=jsonl`, and its parts."""

    line: int = Field(description="counted from 1")
    source: str
    translation: str
    error: str | None = Field(None, description="why there is no translation; then nothing but `details` follows")
    score: float | None = None
    log_prob: float | None = None
    truncated: bool | None = None
    parts: int | None = None
    n_best: list[NBestItem] | None = Field(None, description="where n_best is above 1")
    source_subwords: list[str] | None = None
    target_subwords: list[str] | None = None
    links: list[tuple[int, int]] | None = Field(None, description="of words")
    subword_links: list[tuple[int, int]] | None = None
    alignment_source_text: str | None = Field(None, description="where these links are read from, in words")
    details: list[Segment]


class TranslateResponse(ResponseModel):
    """The answer of /api/translate."""

    model: str
    sentences: list[SentenceResult]


class StreamEvent(ResponseModel):
    """A line of what /api/stream answers: the translation of a line so far; at last the result, or an error."""

    line: int | None = None
    text: str | None = None
    result: TranslateResponse | None = None
    error: str | None = None


class AttentionResponse(ResponseModel):
    """The answer of /api/attention: one teacher-forced pass over the translation given."""

    model: str
    layers: list[int] = Field(description="which the matrices are of, counted from 1; [0]: the mean of all")
    heads: list[int] = Field(description="likewise")
    source_subwords: list[str] = Field(description="S subwords, the end token among them")
    target_subwords: list[str] = Field(description="T subwords, the end token among them")
    source_words: list[int] = Field(description="the word of each piece, -1 for none")
    target_words: list[int] = Field(description="likewise")
    weights: list[list[list[list[float]]]] = Field(
        description="layers x heads x T x S; row t is what token t was predicted with"
    )


class ErrorResponse(ResponseModel):
    """The answer to a request that could not be answered."""

    error: str
