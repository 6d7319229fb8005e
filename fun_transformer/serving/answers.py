"""What the server sends back, for OpenAPI."""

from pydantic import BaseModel, Field


class Detection(BaseModel):
    """A language that a text may be in."""

    language: str
    confidence: float = Field(description="In percent; only scripts are told apart")


class TranslateAnswer(BaseModel):
    """LibreTranslate's answer: strings for a string, lists for a list."""

    translatedText: str | list[str]
    alternatives: list[str] | list[list[str]] | None = None
    detectedLanguage: Detection | list[Detection] | None = None


class Language(BaseModel):
    """A source language, with what it can be translated into."""

    code: str
    name: str
    targets: list[str]


class Translation(BaseModel):
    """A translation with what was asked for; None is what a text that is copied or put together does not have."""

    translation_text: str
    score: float | None = None
    log_probability: float | None = None
    mean_log_probability: float | None = None
    min_log_probability: float | None = None
    entropy: float | None = None
    token_log_probabilities: list[float] | None = None
    target_tokens: list[str] | None = None
    alignment: str | None = Field(None, description="Pharaoh format: 1-4 links source word 1 to target word 4, from 0")
    source_words: list[str] | None = None
    target_words: list[str] | None = None
    utility: float | None = None
    faults: list[str] | None = None
    fallbacks: list[str] | None = None
    faults_left: list[str] | None = None


class TranslatedText(Translation):
    """The best translation of a text, and all that were asked for."""

    nbest: list[Translation] | None = None


class FullAnswer(BaseModel):
    """A translation for each text."""

    source: str = Field(description='The language of the texts; "auto" where they have several')
    target: str
    model: str
    translations: list[TranslatedText]
    detections: list[Detection] | None = Field(None, description='Of each text, where the source is "auto"')


class Health(BaseModel):
    """Whether the server can translate."""

    status: str


class SourceAndTarget(BaseModel):
    """The languages that a page begins with."""

    source: dict[str, str]
    target: dict[str, str]


class Settings(BaseModel):
    """What LibreTranslate's clients ask before they show anything."""

    charLimit: int
    frontendTimeout: int
    apiKeys: bool
    keyRequired: bool
    suggestions: bool
    filesTranslation: bool
    supportedFilesFormat: list[str]
    language: SourceAndTarget


class Problem(BaseModel):
    """Why there is no answer."""

    error: str
