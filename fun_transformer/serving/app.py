"""The server as an ASGI app: LibreTranslate's routes, one of our own, and a page.

    >>> app = build_app([Translator("zh-en-small", {("zh", "en"): pipe})])

Every error is a JSON object with one field, `error`, as LibreTranslate's are.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from . import answers
from .batching import ClosedError, Options, QueueFullError, Records
from .keys import ApiKeys
from .languages import detect, detect_source, find_language, language_name
from .limits import Limits
from .logs import log
from .markup import Piece, read_markup
from .metrics import CONTENT_TYPE_LATEST, Metrics
from .observing import Observed
from .requests import DetectRequest, FullRequest, TranslateRequest, body_schema, read_json, read_json_or_form
from .translators import Translator, Translators

REASONS = {
    400: "The request has an error",
    403: "The API key is missing or wrong",
    408: "The request came too slowly",
    413: "The request is too long",
    415: "The body is no JSON and no form",
    422: "The model cannot translate this text",
    429: "Too many texts are waiting",
    500: "The translation failed",
    503: "The server is being stopped",
    504: "The translation took too long",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.Problem, "description": reason} for status, reason in REASONS.items()
}
OF_THE_OWNER = re.compile(
    "engine=|max_new_tokens|max_length|max_source_length|long_text|num_beams|num_return_sequences"
)
CLOSED = 499  # in logs and metrics: the client went away


class Service:
    """What the routes share.

    Args:
        translators: The models.
        limits: Those of each request.
        keys: Which open the server.
        metrics: Where texts are counted.
    """

    def __init__(self, translators: Translators, limits: Limits, keys: ApiKeys, metrics: Metrics) -> None:
        self.translators, self.limits, self.keys, self.metrics = translators, limits, keys, metrics

    def check_key(self, request: Request, key: str = "") -> None:
        """Refuse a request without a key, where there are some; it is in the body or in the header Authorization.

        Raises:
            HTTPException: The key is missing or wrong.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not self.keys.allow(token.strip() if scheme.lower() == "bearer" else key):
            raise HTTPException(
                403, "This server needs an API key: api_key in the request, or Authorization: Bearer KEY."
            )

    def find_options(
        self, texts: list[str], source: str, target: str, **asked: Any
    ) -> tuple[list[Options], list[dict[str, Any]]]:
        """Return what is asked of each text, and which languages they are in where that is to be found out.

        Args:
            texts: Without tags.
            source: Their language, or "auto".
            target: The language that they shall have.
            asked: What is wanted.

        Raises:
            HTTPException: No model translates between these languages, or a text is in none of them.
        """
        wishes = {name: value for name, value in asked.items() if value}
        known = find_language(target, self.translators.targets)
        try:
            if source != "auto" or not known:
                return [Options(self.translators.find_pair(source, target), wishes)] * len(texts), []
            detections = [self.detect_source(text, known) for text in texts]
            pairs = [
                (known, known) if one["language"] == known else self.translators.find_pair(one["language"], target)
                for one in detections
            ]
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        return [Options(pair, wishes) for pair in pairs], detections

    def detect_source(self, text: str, target: str) -> dict[str, Any]:
        """Return the language of a text that is to have a language.

        Raises:
            ValueError: It has letters of none of the languages.
        """
        all_sources = [one for one in self.translators.sources if one != target]
        sources = [one for one in all_sources if target in self.translators.targets_of(one)]
        found = detect_source(text, sources, target, [one for one in all_sources if one not in sources])
        if found is None:
            raise ValueError("None of the served languages fits a text of this request. Say its language as source.")
        return {"language": found[0], "confidence": round(found[1], 1)}

    def detect(self, text: str) -> list[dict[str, Any]]:
        """Return which of the languages that can be translated a text may be in, best first."""
        return [
            {"language": language, "confidence": round(percent, 1)}
            for language, percent in detect(text, self.translators.sources)
        ]

    async def translate(self, request: Request, texts: list[str], options: list[Options]) -> list[Records]:
        """Return the translations of each text, in time and while the client waits for them.

        Raises:
            HTTPException: It takes too long, too many texts wait, or a text cannot be translated.
            ClientDisconnect: The client has gone.
        """
        request.scope["facts"] |= {"pair": ",".join(pairs_of(options)), "texts": len(texts)}
        request.scope["facts"]["characters"] = sum(map(len, texts))
        work = asyncio.ensure_future(self.translators.translate(texts, options))
        gone = asyncio.ensure_future(wait_until_gone(request))
        try:
            await asyncio.wait({work, gone}, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                found = work.result()
                for text, records, one in zip(texts, found, options):
                    self.metrics.count_texts(one.pair, [text])
                    self.metrics.count_faults(records[0].get("faults_left") or [])
                return found
            if gone.done():
                raise ClientDisconnect
            raise HTTPException(
                504,
                f"The translation took longer than {self.limits.seconds:g} seconds. Send shorter or fewer texts, or "
                "try again later.",
                {"Retry-After": str(max(round(self.limits.seconds), 1))},
            )
        except QueueFullError as error:
            raise HTTPException(429, str(error), {"Retry-After": str(error.seconds)}) from None
        except ClosedError as error:
            raise HTTPException(503, str(error), {"Retry-After": "10", "Connection": "close"}) from None
        except (ValueError, TypeError) as error:  # the pipeline's words for what the model cannot take
            raise refusal(str(error), options) from None
        except (HTTPException, ClientDisconnect):
            raise
        except Exception as error:
            log("translation failed", level=40, error=error, **request.scope["facts"])
            raise HTTPException(500, "The model failed on a text of this request.") from None
        finally:
            work.cancel()
            gone.cancel()


def pairs_of(options: list[Options]) -> list[str]:
    """Return the pairs of languages of some texts, each once."""
    return list(dict.fromkeys("-".join(one.pair) for one in options))


def refusal(reason: str, options: list[Options]) -> HTTPException:
    """Return the answer to a request that a model cannot do, without advice for the server's owner alone."""
    if not OF_THE_OWNER.search(reason):
        return HTTPException(422, " ".join(reason.split())[:500])
    wishes = [name for name in options[0].asked if options[0].asked[name] != 1 or name != "nbest"] if options else []
    wishes = ["nbest (or alternatives)" if name == "nbest" else name for name in wishes]
    if wishes:
        return HTTPException(400, f"The server's model cannot do what is asked. Leave out: {', '.join(wishes)}.")
    return HTTPException(400, "The server's model cannot translate a text of this request. Send a shorter one.")


async def wait_until_gone(request: Request) -> None:
    """Return when the client, whose request was read, has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def build_app(translators: Iterable[Translator], limits: Limits | None = None, keys: ApiKeys | None = None) -> FastAPI:
    """Return the app that serves some models.

    Args:
        translators: No two for one pair of languages.
        limits: Of requests; the defaults where None.
        keys: Which open the server; None for an open one.

    Raises:
        ValueError: Two models translate the same languages, or there is none.
    """
    limits, metrics = limits or Limits(), Metrics()
    service = Service(Translators(translators, limits, metrics), limits, keys or ApiKeys([]), metrics)

    @asynccontextmanager
    async def closing(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.translators.close)

    app = FastAPI(title="fun-transformer", version=__version__, docs_url=None, redoc_url=None, lifespan=closing)
    app.add_middleware(Observed, metrics=metrics)
    app.add_exception_handler(AnyHTTPException, answer_problem)
    app.add_exception_handler(ClientDisconnect, answer_nobody)
    add_translation_routes(app, service)
    add_full_route(app, service)
    add_facts_routes(app, service)
    add_page(app)
    return app


def answer_problem(request: Request, error: Any) -> Response:
    """Answer with an error, in the form of LibreTranslate's."""
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def answer_nobody(request: Request, error: Exception) -> Response:
    """End a request whose client has gone; the status is for logs and metrics."""
    return Response(status_code=CLOSED)


def add_translation_routes(app: FastAPI, service: Service) -> None:
    """Add `/translate` and `/detect`."""
    known = {"source": [*service.translators.sources, "auto"], "target": service.translators.targets}

    @app.post(
        "/translate",
        response_model=answers.TranslateAnswer,
        response_model_exclude_none=True,
        responses=PROBLEMS,
        openapi_extra=body_schema(TranslateRequest, service.limits, known, has_forms=True),
    )
    async def translate(request: Request):
        """Translate a text or several, as LibreTranslate does."""
        asked = await read_json_or_form(request, TranslateRequest, service.limits)
        service.check_key(request, asked.api_key)
        texts = [asked.q] if isinstance(asked.q, str) else asked.q
        pieces = [read_markup(text) if asked.format == "html" else [Piece(text, text)] for text in texts]
        read = [" ".join(piece.text for piece in one) for one in pieces]
        options, detections = service.find_options(read, asked.source, asked.target, nbest=asked.alternatives + 1)
        flat = [(piece.text, wish) for one, wish in zip(pieces, options) for piece in one if piece.text]
        found = iter(await service.translate(request, [text for text, _ in flat], [wish for _, wish in flat]))
        rows = [put_together(one, found, asked.alternatives + 1, asked.format == "html") for one in pieces]
        answer: dict[str, Any] = {"translatedText": [row[0] for row in rows]}
        answer |= {"alternatives": [row[1:] for row in rows]} if asked.alternatives else {}
        answer |= {"detectedLanguage": detections} if detections else {}
        return answer if isinstance(asked.q, list) else {name: value[0] for name, value in answer.items()}

    @app.post(
        "/detect",
        response_model=list[answers.Detection],
        responses={status: PROBLEMS[status] for status in (400, 403, 408, 413, 415)},
        openapi_extra=body_schema(DetectRequest, service.limits, {}, has_forms=True),
    )
    async def detect_language(request: Request):
        """Tell by the script of a text which of the source languages it may be in."""
        asked = await read_json_or_form(request, DetectRequest, service.limits)
        service.check_key(request, asked.api_key)
        return service.detect(asked.q)


def put_together(pieces: list[Piece], found: Any, count: int, is_html: bool) -> list[str]:
    """Return some texts made of the pieces of one: the i-th has the i-th best translation of each piece.

    Args:
        pieces: Those of a text.
        found: An iterator of the records of all pieces that have a text.
        count: How many texts, fewer where no piece has as many translations.
        is_html: Whether the translations must be written as HTML.
    """
    records = [[one["translation_text"] for one in next(found)] if piece.text else [] for piece in pieces]
    texts = []
    for rank in range(min(count, max(map(len, records), default=0)) or 1):
        parts = []
        for piece, ways in zip(pieces, records):
            way = ways[min(rank, len(ways) - 1)] if ways else ""
            parts.append((piece.with_text(way) if is_html else way) if ways else piece.written)
        texts.append("".join(parts))
    return list(dict.fromkeys(texts))


def add_full_route(app: FastAPI, service: Service) -> None:
    """Add `/v1/translate`."""
    known = {"source": [*service.translators.sources, "auto"], "target": service.translators.targets}

    @app.post(
        "/v1/translate",
        response_model=answers.FullAnswer,
        response_model_exclude_unset=True,
        responses=PROBLEMS,
        openapi_extra=body_schema(FullRequest, service.limits, known, has_forms=False),
    )
    async def translate_fully(request: Request):
        """Translate texts, with n-best lists, scores, alignments and terms."""
        service.check_key(request)
        asked = await read_json(request, FullRequest, service.limits)
        wishes = asked.model_dump(exclude={"texts", "source", "target"})
        options, detections = service.find_options(asked.texts, asked.source, asked.target, **wishes)
        found = await service.translate(request, asked.texts, options)
        translations = [records[0] | ({"nbest": records} if asked.nbest > 1 else {}) for records in found]
        pairs = list(dict.fromkeys(one.pair for one in options))
        sources = [source for source, _ in pairs]
        models = [model.name for pair in pairs if (model := service.translators.by_pair.get(pair))]
        answer: dict[str, Any] = {"source": sources[0] if len(sources) == 1 else "auto", "target": pairs[0][1]}
        answer |= {"model": ", ".join(dict.fromkeys(models)), "translations": translations}
        return answer | ({"detections": detections} if detections else {})


def add_facts_routes(app: FastAPI, service: Service) -> None:
    """Add what clients and machines ask about the server."""
    translators = service.translators

    @app.get("/languages", response_model=list[answers.Language])
    async def languages():
        """Return the languages that can be translated, and into which."""
        return [
            {"code": source, "name": language_name(source), "targets": translators.targets_of(source)}
            for source in translators.sources
        ]

    @app.get("/frontend/settings", response_model=answers.Settings)
    async def settings():
        """Return the limits, and the languages to begin with."""
        pair = next(iter(translators.by_pair))
        first = [{"code": code, "name": language_name(code)} for code in pair]
        return {
            "charLimit": service.limits.characters,
            "frontendTimeout": 1000,
            "apiKeys": bool(service.keys),
            "keyRequired": bool(service.keys),
            "suggestions": False,
            "filesTranslation": False,
            "supportedFilesFormat": [],
            "language": dict(zip(("source", "target"), first)),
        }

    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model=answers.Health, responses={503: PROBLEMS[503]})
    async def health():
        """Tell whether the server can translate."""
        if not translators.are_alive:
            raise HTTPException(503, "A model does not answer any more.")
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses={403: PROBLEMS[403]})
    async def metrics(request: Request):
        """Return counters for Prometheus."""
        service.check_key(request)
        return Response(service.metrics.read(), media_type=CONTENT_TYPE_LATEST)


def add_page(app: FastAPI) -> None:
    """Add the page to try the server."""
    page = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    script = re.search("<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[1].encode() if script else b"").digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; connect-src 'self'"
    policy += "; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def read_page():
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})
