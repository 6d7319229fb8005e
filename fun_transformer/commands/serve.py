"""`fun-transformer serve`: models as a web server."""

import argparse
import ipaddress
import logging
from pathlib import Path
from typing import Any

from .arguments import add_generation_arguments, positive
from .models import load_model
from .translate import text_pipeline

PORT = 5000  # LibreTranslate's
LAST_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `serve`."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a model folder, or a name on the Hub; MODEL=zh-en says its languages, where it does not do so itself",
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="run a Python file first, which a model needs"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=PORT, help=f"port (default: {PORT}; 0: any that is free)")
    parser.add_argument("--api-keys", metavar="FILE", help="a key a line; requests must have one of them")
    parser.add_argument(
        "--max-characters", type=positive, default=10_000, help="of all texts of a request (default: 10000)"
    )
    parser.add_argument(
        "--max-texts", type=positive, help="of a request (default: 100, or --max-waiting if that is less)"
    )
    parser.add_argument(
        "--max-waiting", type=positive, default=1_000, help="texts that wait for one model (default: 1000)"
    )
    parser.add_argument("--batch-tokens", type=positive, default=800, help="of texts answered together (default: 800)")
    parser.add_argument("--timeout", type=positive, default=60, help="seconds that a request may take (default: 60)")
    add_generation_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Serve models until the process is told to stop.

    Raises:
        ValueError: An argument or a model is wrong.
        ImportError: What a server needs is not installed.
    """
    try:
        from ..serving import ApiKeys, Limits, build_app, open_socket, run_server
        from ..serving.logs import log, log_as_json
    except ModuleNotFoundError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'fun-transformer[serve]'") from error
    if args.src_lang or args.tgt_lang:
        raise ValueError("serve takes languages with each model: write MODEL=zh-en, not --src-lang and --tgt-lang.")
    check_arguments(args)
    limits = Limits(
        characters=args.max_characters,
        texts=args.max_texts or min(Limits.texts, args.max_waiting),
        waiting=args.max_waiting,
        batch_tokens=args.batch_tokens,
        seconds=args.timeout,
    )
    keys = ApiKeys.load(args.api_keys) if args.api_keys else None
    opened = open_socket(args.host, args.port)
    app = build_app(load_translators(args), limits, keys)
    log_as_json()
    if not keys and not is_loopback(opened.getsockname()[0]):
        log("anybody who reaches this address can use the models: give --api-keys", level=logging.WARNING)
    run_server(app, opened, limits)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse what no server can have, before any model is loaded.

    Raises:
        ValueError: Naming the option.
    """
    if not 0 <= args.port <= LAST_PORT:
        raise ValueError(
            f"--port {args.port} is no port. Choose one from 1 to {LAST_PORT}, or 0 for any that is free."
        )
    if args.max_texts and args.max_texts > args.max_waiting:
        raise ValueError(
            f"--max-texts {args.max_texts} is more than --max-waiting {args.max_waiting}: such a request could never "
            "be answered. Allow fewer texts, or let more wait."
        )
    if args.api_keys and not Path(args.api_keys).is_file():
        raise ValueError(
            f"--api-keys {args.api_keys} is no file. Write one with a key a line, or leave the option out."
        )
    if args.glossary and not Path(args.glossary).is_file():
        raise ValueError(
            f"--glossary {args.glossary} is no file. Write one with two columns, source and target, or leave the "
            "option out."
        )


def load_translators(args: argparse.Namespace) -> list[Any]:
    """Return all models.

    Raises:
        ValueError: Two translate the same languages, or one is damaged.
    """
    translators: list[Any] = []
    given: dict[tuple[str, str], str] = {}
    for argument in args.models:
        translators.append(load_translator(args, argument))
        for pair in translators[-1].pipes:
            if pair in given:
                raise ValueError(
                    f"{given[pair]} and {argument} both translate {'-'.join(pair)}. Leave one of them out, or say "
                    "which languages it has: MODEL=zh-en"
                )
            given[pair] = argument
    return translators


def load_translator(args: argparse.Namespace, argument: str) -> Any:
    """Return a model with its languages.

    Args:
        args: Of the command.
        argument: MODEL or MODEL=zh-en.

    Raises:
        ValueError: The model is damaged, or its languages are not known.
    """
    from ..pipeline_fun_transformer import takes_languages
    from ..serving import Translator
    from ..serving.languages import pairs_of, split_argument

    name, pairs = split_argument(argument)
    model, tokenizer, _ = load_model(name, args.plugin, dtype=args.dtype)
    pairs = pairs or pairs_of(name, tokenizer)
    pipes = {}
    for source, target in pairs:
        knows_languages = takes_languages(model, tokenizer, f"translation_{source}_to_{target}")
        if not knows_languages and len(pairs) > 1:
            raise ValueError(f"{name} has one language on each side: name one pair of languages, not {len(pairs)}.")
        languages = {"src_lang": source, "tgt_lang": target} if knows_languages else {}
        pipe = text_pipeline(argparse.Namespace(**vars(args) | {"model": name} | languages), model, tokenizer)
        if knows_languages:
            pipe.encode("a", src_lang=source, tgt_lang=target)  # refuses unknown ones
        pipes[source, target] = pipe
    return Translator(short_name(name), pipes, args.num_beams)


def short_name(name: str) -> str:
    """Return what to call a model in answers and metrics: no path, of runs/mine/model "mine/model"."""
    folder = Path(name).resolve()
    if not folder.is_dir():
        return name
    return f"{folder.parent.name}/{folder.name}" if folder.name == "model" else folder.name


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine alone."""
    return ipaddress.ip_address(host.split("%")[0]).is_loopback
