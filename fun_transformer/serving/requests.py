"""What clients may send: the fields of each request, how its body is read, and what is refused."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from starlette.formparsers import MultiPartException, MultiPartParser

from .limits import ALTERNATIVES, TERMS, Limits

FIELDS_OF_A_FORM = 20
# Control characters that no text has: they mean nothing to a model, and much to terminals and databases.
NO_CONTROL = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u0084\u0086-\u009f]*$"
CONTROL = re.compile("[\\0-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x84\\x86-\\x9f]")
Text = Annotated[str, StringConstraints(min_length=1)]
Language = Annotated[str, StringConstraints(min_length=1, max_length=32)]
Key = Annotated[str, StringConstraints(max_length=1_000), BeforeValidator(lambda key: "" if key is None else key)]
Count = Annotated[  # JSON has one kind of number
    int, BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
]
Texts = Annotated[list[str], Field(min_length=1, fail_fast=True)]


class TranslateRequest(BaseModel):
    """LibreTranslate's request for translations."""

    q: Text | Texts = Field(description="A text, or several", examples=["今天吃什么好"])
    source: Language = Field(description='The language of the texts, or "auto"', examples=["zh"])
    target: Language = Field(description="The language to translate into", examples=["en"])
    format: Literal["text", "html"] = Field("text", description="In HTML, tags stay as they are")
    alternatives: Count = Field(0, ge=0, lt=ALTERNATIVES, description="Further translations of each text")
    api_key: Key = Field("", description="Where the server asks for one")


class DetectRequest(BaseModel):
    """LibreTranslate's request for the language of a text."""

    q: Text = Field(description="A text", examples=["今天吃什么好"])
    api_key: Key = Field("", description="Where the server asks for one")


class FullRequest(BaseModel):
    """Our own request for translations, with all that is known about each."""

    model_config = ConfigDict(extra="forbid")

    texts: Texts = Field(description="Texts of one language", examples=[["今天吃什么好"]])
    source: Language = Field(description='The language of the texts, or "auto"', examples=["zh"])
    target: Language = Field(description="The language to translate into", examples=["en"])
    nbest: Count = Field(1, ge=1, le=ALTERNATIVES, description="Translations of each text, best first")
    scores: bool = Field(False, description="Add how probable each translation and each of its tokens is")
    alignments: bool = Field(False, description="Add which source word each target word translates")
    protect: bool = Field(False, description="Copy addresses, numbers, code and tags letter by letter")
    glossary: dict[Text, str] = Field(
        {},
        max_length=TERMS,
        description='Terms of the source and what they must be; "" leaves a term as it is, "|" parts alternatives',
        examples=[{"北京": "Peking"}],
    )


Form = TypeVar("Form", bound=BaseModel)


async def read_json(request: Request, form: type[Form], limits: Limits) -> Form:
    """Return the request in a JSON body.

    Raises:
        HTTPException: The body is too long or too slow, or is something else.
    """
    if media_type(request) != "application/json" and not media_type(request).endswith("+json"):
        raise HTTPException(415, "Send JSON, with the header Content-Type: application/json.")
    body = await read_body(request, limits)
    try:
        found = checked(form.model_validate_json(body, strict=True), limits)
        json.loads(body.decode(), object_pairs_hook=unique, parse_int=str)  # of up to 4,300 digits otherwise
        return found
    except ValidationError as error:
        raise HTTPException(400, describe(error)) from None


def unique(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a request.

    Raises:
        HTTPException: One is there twice.
    """
    found = dict(fields)
    if len(found) < len(fields):
        names = [name for name, _ in fields]
        twice = next(name for name in names if names.count(name) > 1)
        raise HTTPException(400, f"{twice[:32]!r} is there twice. Send it once; several texts are a list, in JSON.")
    return found


async def read_json_or_form(request: Request, form: type[Form], limits: Limits) -> Form:
    """Return the request in a body that is JSON or a form, as LibreTranslate takes them.

    Raises:
        HTTPException: The body is too long or too slow, or is something else.
    """
    kind = media_type(request)
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return await read_json(request, form, limits)
    body = await read_body(request, limits)
    try:
        if kind == "multipart/form-data":
            fields = await read_multipart(request, body)
        else:
            fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_OF_A_FORM)
        given = unique([(name, value.replace("\r\n", "\n")) for name, value in fields])
        return checked(form.model_validate(given), limits)
    except ValidationError as error:
        raise HTTPException(400, describe(error)) from None
    except (ValueError, MultiPartException):
        raise HTTPException(400, f"The form has an error. Send up to {FIELDS_OF_A_FORM} fields in UTF-8.") from None


async def read_multipart(request: Request, body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a form in parts; files are refused."""

    async def chunks():
        yield body
        yield b""

    try:
        form = await MultiPartParser(
            request.headers, chunks(), max_files=0, max_fields=FIELDS_OF_A_FORM, max_part_size=len(body) + 1
        ).parse()
    except (KeyError, AssertionError) as error:  # no boundary
        raise ValueError from error
    return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: It is too long, or takes too long.
    """
    too_long = HTTPException(
        413, f"The request is longer than {limits.body:,} bytes. Send fewer texts at a time.", {"Connection": "close"}
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 15 or int(length) > limits.body):
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(limits.slow_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body:
                    raise too_long
    except TimeoutError:
        raise HTTPException(
            408, f"The request did not come within {limits.slow_seconds:g} seconds.", {"Connection": "close"}
        ) from None
    return bytes(body)


def checked(form: Form, limits: Limits) -> Form:
    """Return a request that keeps the limits and has no control characters.

    Raises:
        HTTPException: It has too many texts or characters, or a control character.
    """
    texts = texts_of(form)
    if len(texts) > limits.texts:
        raise HTTPException(400, f"{len(texts)} texts are more than the {limits.texts} that a request may have.")
    if (characters := sum(map(len, texts))) > limits.characters:
        raise HTTPException(
            400, f"{characters:,} characters are more than the {limits.characters:,} that a request may have."
        )
    for text in strings_of(form):
        if found := CONTROL.search(text):
            raise HTTPException(
                400, f"There is the control character U+{ord(found[0]):04X} in the request. Leave it out."
            )
    return form


def texts_of(form: BaseModel) -> list[str]:
    """Return the texts of a request."""
    found = form.texts if isinstance(form, FullRequest) else getattr(form, "q", [])
    return [found] if isinstance(found, str) else found


def strings_of(form: BaseModel) -> Iterator[str]:
    """Yield all strings of a request."""
    for value in dict(form).values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, dict)):
            yield from value
            yield from value.values() if isinstance(value, dict) else []


def media_type(request: Request) -> str:
    """Return what kind of body a request says that it has."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def describe(error: ValidationError) -> str:
    """Return what is wrong with a request, without what was in it."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = next((one for one in errors if one["type"] == "too_short"), errors[0])
    name, *rest = first["loc"] or [""]
    place = ".".join(str(part) for part in (name, *rest) if part == name or isinstance(part, int))
    if first["type"] == "too_short":
        return f"{place}: the list is empty and needs a text."
    if first["type"] == "too_long" and name == "glossary":
        return f"glossary: there are more than the {TERMS:,} terms that a request may have. Send fewer."
    return f"{place}: {first['msg']}" if place else first["msg"]


def body_schema(form: type[BaseModel], limits: Limits, languages: dict[str, list[str]], has_forms: bool) -> dict:
    """Return how OpenAPI describes the body of a request.

    Args:
        form: What is in it.
        limits: Those of the server.
        languages: The values of its fields "source" and "target".
        has_forms: Whether it may be a form, too.
    """
    schema = form.model_json_schema()
    fields: dict[str, Any] = schema["properties"]
    for name, field in fields.items():
        for kind in field.get("anyOf", [field]):
            limit_schema(kind, limits)
        if name in languages:
            field["enum"] = languages[name]
    content = {"application/json": {"schema": schema}}
    if has_forms:  # which have strings alone
        only_strings = {name: field.get("anyOf", [field])[0] for name, field in fields.items()}
        as_form = {"schema": schema | {"properties": only_strings, "maxProperties": FIELDS_OF_A_FORM}}
        content |= {"application/x-www-form-urlencoded": as_form, "multipart/form-data": as_form}
    return {"requestBody": {"required": True, "content": content}}


def limit_schema(field: dict[str, Any], limits: Limits) -> None:
    """Add to the schema of a field what `checked` looks at."""
    if field.get("type") == "array":
        field |= {"maxItems": limits.texts}
        field["items"] |= {"pattern": NO_CONTROL, "maxLength": limits.characters}
    elif field.get("type") == "string" and "const" not in field and "enum" not in field:
        field.setdefault("maxLength", limits.characters)
        field["pattern"] = NO_CONTROL
    elif field.get("type") == "object":
        field["additionalProperties"] = {"type": "string", "pattern": NO_CONTROL}
        field["propertyNames"] = {"pattern": NO_CONTROL, "minLength": 1}
