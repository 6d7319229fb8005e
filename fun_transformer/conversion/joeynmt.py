"""JoeyNMT 2: a run's folder with config.yaml, NUMBER.ckpt, src_vocab.txt and trg_vocab.txt.

Its Transformer is the paper's or its pre-norm form.
"""

from pathlib import Path
from typing import Any

import yaml
from tokenizers import Regex, Tokenizer, decoders, normalizers

from ..configuration_fun_transformer import FunTransformerConfig
from .source import Converted, Options, load_weights, words_in
from .vocabulary import (
    Vocabulary,
    build_tokenizer,
    character_backend,
    read_tokens,
    sentencepiece_backend,
    whitespace_backend,
    with_lowercase,
)
from .weights import build_model, rename

ATTENTION = {"q_layer": "q_proj", "k_layer": "k_proj", "v_layer": "v_proj", "output_layer": "out_proj"}
SUBLAYERS = {
    "encoder": {
        **{rf"src_src_att\.{theirs}": f"self_attn.{ours}" for theirs, ours in ATTENTION.items()},
        "layer_norm": "self_attn_layer_norm",
    },
    "decoder": {
        **{rf"trg_trg_att\.{theirs}": f"self_attn.{ours}" for theirs, ours in ATTENTION.items()},
        **{rf"src_trg_att\.{theirs}": f"encoder_attn.{ours}" for theirs, ours in ATTENTION.items()},
        "x_layer_norm": "self_attn_layer_norm",
        "dec_layer_norm": "encoder_attn_layer_norm",
    },
}
FEED_FORWARD = {
    r"feed_forward\.layer_norm": "final_layer_norm",
    r"feed_forward\.pwff_layer\.0": "feed_forward.fc1",
    r"feed_forward\.pwff_layer\.3": "feed_forward.fc2",
}
ACTIVATIONS: dict[str, Any] = {"relu": "relu", "gelu": "gelu", "swish": "silu"}
SYMBOLS = {"unk": "<unk>", "pad": "<pad>", "bos": "<s>", "eos": "</s>"}
SPACES: list[tuple[Any, str]] = [  # what `normalize: True` does to spaces, in texts and in outputs
    ("\u200b", ""),
    (Regex("[ \u3000]+"), " "),
    *((f" {mark}", mark) for mark in "?!,.:"),
]
QUOTES = [("\u2019", "'"), ("\u201c", '"'), ("\u201d", '"')]


def is_source(path: Path) -> bool:
    """Tell whether a folder is that of a run, or a file is a checkpoint in one."""
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.suffix != ".ckpt":
        return False
    try:
        read_run(folder)
    except (OSError, ValueError):
        checkpoints = [path] if path.is_file() else sorted(folder.glob("*.ckpt"))[:1]
        return any("model_state" in words_in(checkpoint) for checkpoint in checkpoints)
    return True


def read_run(folder: Path) -> dict[str, Any]:
    """Return the configuration of a run.

    Raises:
        ValueError: It is damaged, or that of something else.
        OSError: There is none.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no config.yaml, as JoeyNMT writes beside checkpoints: copy it there.")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read as YAML. Copy it again.") from error
    if not isinstance(config, dict) or not config.keys() >= {"data", "model", "training"}:
        raise ValueError(f"{file} is none of JoeyNMT's: it must have data, model and training. Copy that of the run.")
    return config


def read(path: Path, options: Options) -> Converted:
    """Convert a run.

    Raises:
        ValueError: It has what a model of ours cannot say, or is damaged.
        OSError: A file is missing.
    """
    folder = path if path.is_dir() else path.parent
    config = read_run(folder)
    sides = [Side(folder, config["data"], name) for name in ("src", "trg")]
    notes: list[str] = []
    backends = [side.build_backend(notes) for side in sides]
    shared = sides[0].is_like(sides[1])
    tokenizer = build_tokenizer(backends[0], sides[0].vocabulary, None if shared else backends[1])
    checkpoint = path if path.is_file() else find_checkpoint(folder, options.checkpoint)
    state = load_weights(checkpoint)
    if not isinstance(state, dict) or "model_state" not in state:
        raise ValueError(f"{checkpoint} is no checkpoint of JoeyNMT: it has no model_state.")
    weights = rename(state["model_state"], name_patterns())
    model = build_model(read_config(config, sides), weights)
    set_generation(model, config.get("testing") or {}, sides[1], notes)
    return Converted(model, tokenizer, notes)


def find_checkpoint(folder: Path, name: str | None) -> Path:
    """Return the checkpoint that is asked for, or the best one, or the last.

    Raises:
        FileNotFoundError: There is none.
    """
    numbered = sorted(folder.glob("[0-9]*.ckpt"), key=lambda file: (len(file.name), file.name))
    choices = [folder / name] if name else [folder / "best.ckpt", folder / "latest.ckpt", *numbered[::-1]]
    for file in choices:
        if file.is_file():
            return file
    raise FileNotFoundError(f"{folder} has no {name or 'checkpoint, such as best.ckpt'}.")


def name_patterns() -> dict[str, str | None]:
    """Return JoeyNMT's names of weights, and ours."""
    patterns: dict[str, str | None] = {
        r"src_embed\.lut\.weight": "model.encoder.embed_tokens.weight",
        r"trg_embed\.lut\.weight": "model.decoder.embed_tokens.weight",
        r"decoder\.output_layer\.weight": "lm_head.weight",
        r"(encoder|decoder)\.layer_norm\.(.+)": r"model.\1.layer_norm.\2",
        r"(encoder|decoder)\.pe\.pe": None,  # sinusoids
    }
    for stack, sublayers in SUBLAYERS.items():
        for theirs, ours in (sublayers | FEED_FORWARD).items():
            patterns[rf"{stack}\.layers\.(\d+)\.{theirs}\.(weight|bias)"] = rf"model.{stack}.layers.\1.{ours}.\2"
    return patterns


def read_config(config: dict[str, Any], sides: "list[Side]") -> FunTransformerConfig:
    """Return the configuration of a run.

    Raises:
        ValueError: The run has what a model of ours cannot say.
    """
    model = config["model"]
    stacks = [model["encoder"], model["decoder"]]
    fields: dict[str, Any] = {}
    for name, stack in zip(("encoder", "decoder"), stacks):
        if stack.get("type") != "transformer":
            raise ValueError(f"The {name} of the run is {stack.get('type', 'recurrent')}: only transformer is known.")
        if stack.get("alpha", 1.0) != 1.0:
            raise ValueError(f"The {name} weighs residuals by alpha={stack['alpha']}; ours by 1.")
        fields |= {
            f"{name}_layers": stack["num_layers"],
            f"{name}_attention_heads": stack["num_heads"],
            f"{name}_ffn_dim": stack["ff_size"],
        }
    norm = both("layer_norm", [stacks[0].get("layer_norm", "pre"), stacks[1].get("layer_norm", "post")])
    activation = both("activation", [stack.get("activation", "relu") for stack in stacks])
    if activation not in ACTIVATIONS:
        raise ValueError(f"The run has activation: {activation}; ours has {', '.join(ACTIVATIONS)}.")
    tied = bool(model.get("tied_embeddings"))
    decoder_embeddings = stacks[0 if tied else 1]["embeddings"]
    scale = both("scale", [bool(part.get("scale")) for part in (stacks[0]["embeddings"], decoder_embeddings)])
    vocabulary = sides[0].vocabulary
    return FunTransformerConfig(
        **fields,
        vocab_size=len(vocabulary.tokens),
        decoder_vocab_size=len(sides[1].vocabulary.tokens),
        d_model=both("hidden_size", [stack["hidden_size"] for stack in stacks]),
        norm_position=norm,
        layer_norm_eps=1e-6,
        activation_function=ACTIVATIONS[activation],
        scale_embedding=scale,
        share_encoder_decoder_embeddings=tied,
        tie_word_embeddings=bool(model.get("tied_softmax")),
        dropout=stacks[0].get("dropout", 0.0),
        attention_dropout=stacks[0].get("dropout", 0.0),
        activation_dropout=stacks[0].get("dropout", 0.0),
        label_smoothing=config["training"].get("label_smoothing", 0.0),
        pad_token_id=vocabulary.ids[vocabulary.pad],
        bos_token_id=vocabulary.ids[vocabulary.bos],
        eos_token_id=vocabulary.ids[vocabulary.eos],
        decoder_start_token_id=vocabulary.ids[vocabulary.bos],
    )


def both(name: str, values: list[Any]) -> Any:
    """Return what encoder and decoder say.

    Raises:
        ValueError: They differ, which ours cannot.
    """
    if values[0] != values[1]:
        raise ValueError(f"The encoder has {name}: {values[0]}, the decoder {values[1]}; in ours they are alike.")
    return values[0]


class Side:
    """Vocabulary and tokenizer of the sources, or of the targets."""

    def __init__(self, folder: Path, data: dict[str, Any], name: str) -> None:
        """Read the vocabulary.

        Args:
            folder: Of the run.
            data: This part of its configuration.
            name: "src" or "trg".
        """
        self.folder, self.settings = folder, data[name]
        self.level = self.settings.get("level", "word")
        self.tokenizer = self.settings.get("tokenizer_cfg") or {}
        self.kind = self.settings.get("tokenizer_type", self.settings.get("bpe_type", "sentencepiece"))
        if self.settings.get("has_prompt"):
            raise ValueError("The run learned with prompts (has_prompt), which add something to embeddings.")
        symbols = data.get("special_symbols") or {}
        special = {key: symbols.get(f"{key}_token", token) for key, token in SYMBOLS.items()}
        separators = [symbols["sep_token"]] if symbols.get("sep_token") else []
        self.others = [*separators, *symbols.get("lang_tags", [])]
        saved = folder / f"{name}_vocab.txt"
        tokens = read_tokens(saved if saved.is_file() else self.file(self.settings["voc_file"]))
        tokens = list(dict.fromkeys([*special.values(), *self.others, *tokens]))  # as JoeyNMT numbers them
        self.vocabulary = Vocabulary(tokens, **special, others=self.others)

    def file(self, name: str) -> Path:
        """Return a file that the configuration names: JoeyNMT puts copies into the run's folder."""
        copy = self.folder / Path(name).name
        return copy if copy.is_file() else Path(name)

    def is_like(self, other: "Side") -> bool:
        """Say whether another side has the same tokens and cuts texts alike."""

        def cutting(side: Side) -> list[Any]:
            settings = [side.settings.get(key) for key in ("lowercase", "normalize")]
            return [side.vocabulary, side.level, side.kind, side.tokenizer, *settings]

        return cutting(self) == cutting(other)

    def build_backend(self, notes: list[str]) -> Tokenizer:
        """Return the tokenizer of the side; what it leaves to others is added to the notes.

        Raises:
            ValueError: Its files cannot be used.
            OSError: They are missing.
        """
        lang = self.settings["lang"]
        if self.level == "char":
            backend = character_backend(self.vocabulary)
        elif self.level == "bpe" and self.kind == "sentencepiece":
            backend = sentencepiece_backend(self.vocabulary, self.file(self.tokenizer["model_file"]))
        elif self.level == "bpe":
            separator = self.tokenizer.get("separator", "@@")
            backend = whitespace_backend(self.vocabulary, separator)
            notes.append(f"{lang}: apply the codes of subword-nmt to texts first; they are cut at spaces")
        else:
            backend = whitespace_backend(self.vocabulary)
            notes.append(f"{lang}: texts are cut at spaces, as JoeyNMT does")
        if self.tokenizer.get("pretokenizer", "none").lower() == "moses":
            notes.append(f"{lang}: texts must be cut by Moses first, and outputs be joined")
        if self.settings.get("lowercase"):
            with_lowercase(backend)
        if self.settings.get("normalize"):
            with_normalized_spaces(backend)
        return backend


def with_normalized_spaces(backend: Tokenizer) -> None:
    """Let a tokenizer do what JoeyNMT's `normalize: True` does."""
    steps = [normalizers.NFKC(), *(normalizers.Replace(*pair) for pair in (*QUOTES, *SPACES)), normalizers.Strip()]
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    backend.normalizer = normalizers.Sequence(steps)
    if backend.decoder is None:
        joined = [decoders.Replace(Regex(r"\A"), " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    else:
        joined = [backend.decoder, decoders.Fuse()]
    backend.decoder = decoders.Sequence([*joined, *(decoders.Replace(*pair) for pair in SPACES)])


def set_generation(model: Any, testing: dict[str, Any], target: Side, notes: list[str]) -> None:
    """Let `generate` search as the run's `testing` says."""
    vocabulary, generation = target.vocabulary, model.generation_config
    never = [vocabulary.bos, *target.others]
    generation.suppress_tokens = [vocabulary.ids[token] for token in never]
    generation.min_new_tokens = testing.get("min_output_length", 1)
    generation.num_beams = testing.get("beam_size", 1)
    alpha = float(testing.get("beam_alpha", -1))
    if generation.num_beams > 1:
        generation.length_penalty = max(0.0, alpha)
        if alpha > 0:
            notes.append(f"beam_alpha: {alpha} divides by ((5 + length) / 6)^alpha in JoeyNMT, by length^alpha here")
    longest = testing.get("max_output_length", -1)
    if longest > 0:
        generation.max_new_tokens = longest
