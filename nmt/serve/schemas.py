"""The types of requests and responses, from which FastAPI makes /openapi.json. Indices count from 0 unless noted."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_TERMS = 200
"""Most entries of a request's glossary."""


class InterventionRequest(BaseModel):
    """Other attention to the source, in a layer and head: see `nmt.inference.interventions.Intervention`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    layer: int = Field(0, description="counted from 1; 0: all")
    head: int = Field(0, description="counted from 1; 0: all")
    weights: Any = Field(
        description="zero, uniform, or rows of weights, one for each target token, null where they are the model's own"
    )


Interventions = Annotated[list[InterventionRequest], Field(max_length=100, description="of a head the last one acts")]


class RequestModel(BaseModel):
    """Base class of requests, which have no other fields than these, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = Field(None, description="a name of /api/models; null: the first")
    target_lang: str | None = Field(
        None, max_length=100, description="one of the model's `target_langs`; null: its `target_lang`"
    )
    tag: str | None = Field(
        None, max_length=100, description="one of the model's `tags`: text as of its corpora; null: none"
    )
    interventions: Interventions = []


class ResponseModel(BaseModel):
    """Base class of responses."""

    model_config = ConfigDict(extra="forbid")


PlainText = Annotated[str, Field(min_length=0), AfterValidator(lambda text: text.removeprefix("\ufeff"))]
"""Text without byte-order mark, which UTF-8 can encode: pydantic accepts half of a surrogate pair in a string without
constraints."""
WordNumbers = Annotated[list[int], Field(description="the word of each subword, -1 for none")]
WordLinks = Annotated[list[tuple[int, int]] | None, Field(description="(source word, target word); null: no attention")]
OneOrAll = Annotated[int | None, Field(description="counted from 1; 0: the mean of all; null: all of them")]


class TranslateRequest(RequestModel):
    """`text` or `lines`, and search options; see `ModelInfo` for their defaults."""

    text: PlainText | None = Field(None, description="text; each line of it, ended by a line feed, is one sentence")
    lines: list[PlainText] | None = Field(None, description="sentences, none of which holds a line feed")
    beam_size: int | None = Field(None, ge=1, description="hypotheses kept at every step; 1 is greedy")
    n_best: int | None = Field(None, ge=1, description="translations of each sentence")
    length_penalty: float | None = Field(
        None, ge=0, le=10, description="exponent of the length by which log-probabilities are divided"
    )
    prefix: PlainText = Field("", description="each translation begins with it")
    suffix_of: PlainText = Field("", description="each translation continues this text, which is not in it")
    markup: bool = Field(False, description="carry tags of XML or HTML over to the translation")
    placeholders: bool = Field(False, description="put back {names}, addresses and `code` that the translation lacks")
    alignment: dict[str, int] | None = Field(
        None, description="`layer` and `head` of markup, placeholders and links; null: as in `alignment_source`"
    )
    glossary: dict[PlainText, PlainText] | None = Field(
        None,
        max_length=MAX_TERMS,
        description="target terms by source terms; null: the server's glossary, if it has one",
    )
    glossary_mode: str | None = Field(
        None, description="hard or soft; null: hard for `glossary`, for the server's glossary as it was started"
    )


class AttentionRequest(RequestModel):
    """A source, and a translation of it as token ids or as text."""

    source: PlainText = Field(description="one segment, as in `details` of /api/translate")
    source_tokens: list[int] | None = Field(None, description="ids as there, with soft terms; null: those of `source`")
    tokens: list[int] | None = Field(None, description="ids of the translation, without end token")
    target: PlainText | None = Field(None, description="the translation as text, instead of `tokens`")
    layer: OneOrAll = None
    head: OneOrAll = None


class AlignmentSourceSchema(ResponseModel):
    """The attention head used for alignment: layer and head counted from 1, 0 = the mean; shift 1 = the row of the next
    token; null = a word that attends to the end token most has no link; threshold = weight from which a source word is
    linked, 0 = a word is linked to the one it attends to most."""

    layer: int
    head: int
    shift: int
    null: bool
    threshold: float


class ModelInfo(ResponseModel):
    """A model and its default search options."""

    name: str
    architecture: str
    score: Any = Field(description="of the attention to the source: one name, a list per head, or a list per layer")
    normalizer: str
    layers: int = Field(description="with attention to the source; 0: none")
    heads: int
    source_lang: str
    target_lang: str
    directions: list[tuple[str, str]] = Field(description="(source, target) languages that it was made for")
    target_langs: list[str] = Field(description="languages that a request can name")
    tags: list[str] = Field(description="tags that a request can name")
    parameters: int
    vocabulary: int = Field(description="size of the target vocabulary; ids are below")
    max_source_tokens: int = Field(description="source tokens above which a line is translated in segments")
    method: str
    beam_size: int
    n_best: int
    length_penalty: float
    alignment_source: AlignmentSourceSchema | None
    alignment_source_text: str = Field(description="the alignment source in words")
    selected_by: str = Field(description="the criterion that selected the alignment source; empty for the default mean")
    examples: list[str]


class Limits(ResponseModel):
    """Limits of a request."""

    max_bytes: int
    max_sentences: int
    max_sentence_chars: int
    max_beam: int
    max_weights: int
    timeout: float
    queue_size: int


class ModelsResponse(ResponseModel):
    """The response of /api/models."""

    version: str
    models: list[ModelInfo]
    limits: Limits


class NBestItem(ResponseModel):
    """One of the translations of a line."""

    text: str
    score: float
    log_prob: float
    truncated: bool = Field(description="whether it was ended by the maximum length")
    subwords: list[str]


class HypothesisResult(NBestItem):
    """One of the translations of a segment, with its alignment."""

    tokens: list[int]
    words: WordNumbers
    links: WordLinks


class Segment(ResponseModel):
    """A line, or a part of one that is too long for the model."""

    source: str
    tokens: list[int] = Field(description="ids of the source, with the soft terms of the glossary")
    subwords: list[str]
    words: WordNumbers
    hypotheses: list[HypothesisResult] = Field(description="the best first")


class SpanResult(ResponseModel):
    """An element of the markup in the best translation without tags, and in the source without tags, in characters."""

    tag: str = Field(description="the first tag, as it was written")
    text: str
    start: int
    end: int
    source_start: int
    source_end: int
    confidence: float = Field(description="between 0 and 1")


class TermResult(ResponseModel):
    """A term of a line, what the glossary wants for it, and whether the translation has it as whole words."""

    source: str
    target: str
    used: bool


class SentenceResult(BaseModel):
    """A line: the fields of `nmt.translate format=jsonl`, and its segments."""

    line: int = Field(description="counted from 1")
    source: str
    translation: str
    error: str | None = Field(None, description="why there is no translation; only `details` follows then")
    score: float | None = None
    log_prob: float | None = None
    truncated: bool | None = None
    parts: int | None = None
    spans: list[SpanResult] | None = Field(None, description="with markup; the tags are in `translation` only")
    lost_placeholders: list[str] | None = Field(None, description="with placeholders: those that were put back")
    terms: list[TermResult] | None = Field(None, description="with a glossary")
    n_best: list[NBestItem] | None = Field(None, description="where n_best is above 1")
    source_subwords: list[str] | None = None
    target_subwords: list[str] | None = None
    links: WordLinks = None
    subword_links: list[tuple[int, int]] | None = None
    alignment_source_text: str | None = Field(None, description="the alignment source of the links, in words")
    details: list[Segment]


class TranslateResponse(ResponseModel):
    """The response of /api/translate."""

    model: str
    sentences: list[SentenceResult]


class StreamEvent(ResponseModel):
    """A line of the response of /api/stream: the translation of a line so far; at last the result, or an error."""

    line: int | None = None
    text: str | None = None
    result: TranslateResponse | None = None
    error: str | None = None


class AttentionResponse(ResponseModel):
    """The response of /api/attention: the attention weights of one teacher-forced pass over the translation."""

    model: str
    layers: list[int] = Field(description="layers of the matrices, counted from 1; [0]: the mean of all")
    heads: list[int] = Field(description="likewise")
    source_subwords: list[str] = Field(description="S subwords, including the end token")
    target_subwords: list[str] = Field(description="T subwords, including the end token")
    source_words: WordNumbers
    target_words: WordNumbers
    weights: list[list[list[list[float]]]] = Field(
        description="layers x heads x T x S; row t is the attention with which token t was predicted"
    )
    log_prob: float | None = Field(None, description="of the translation under `interventions`; null without them")


class ErrorResponse(ResponseModel):
    """The response to a request that failed."""

    error: str
