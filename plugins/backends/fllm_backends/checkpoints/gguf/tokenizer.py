"""Build a tokenizer of the tokenizers library from the vocabulary of a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.metadata import Keys

_CONTROL, _USER_DEFINED = 3, 4  # token types of GGUF
_SPACE = "▁"  # SentencePiece's space
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_2 = _LLAMA_3.replace("{1,3}", "")
_QWEN_3_5 = _QWEN_2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")
_SEED_CODER = _QWEN_2.replace(r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}\r\n]+")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _SUFFIX + r"|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _SUFFIX + r"|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT_BY_DIGIT = (r"\p{N}", _WORDS)
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _WORDS, r"\p{N}+", "[0-9][0-9][0-9]")
_DEEPSEEK_LLM = (
    "[\r\n]",
    r"\s?(?:(?![\x{1D400}-\x{1D7CB}])[\p{Lu}\p{Ll}\p{Lt}])+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    "[一-龥ࠀ-一가-퟿]+",
    r"\p{N}+",
)
_DEEPSEEK_CODER = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")
_DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_LLAMA_3_NAMES = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2")
_PATTERNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*_LLAMA_3_NAMES, "smaug-bpe", "dbrx", "glm4", "chatglm-bpe"), (_LLAMA_3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "grok-2"), (_QWEN_2,)),
    "qwen35": (_QWEN_3_5,),
    "seed-coder": (_SEED_CODER,),
    "tekken": (_TEKKEN,),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), (_GPT_4O,)),
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mellum", "trillion", "exaone4", "mpt", "jais"), (_WORDS,)),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "exaone", "minerva-7b", "codeshell"), _DIGIT_BY_DIGIT
    ),
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-coder": _DEEPSEEK_CODER,
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), _DEEPSEEK_3),
    "default": _DEFAULT,
}
"""Expressions by ``tokenizer.ggml.pre``, which divide a text one after the other, as in llama.cpp.

A name says how the ``tokenizer.json`` of a model divides it.
"""
_NORMALIZED = ("qwen2", "deepseek-r1-qwen", "qwen35", "megrez")
"""Tokenizers that compose characters first (NFC), as their ``tokenizer.json`` says; llama.cpp does not."""
_TAKES_WHOLE_WORDS = (*_LLAMA_3_NAMES, "tekken")
"""Tokenizers that do not merge up to a whole word of their vocabulary."""
_BOS_BY_DEFAULT = _TAKES_WHOLE_WORDS


def tokenizer(metadata: Keys) -> Tokenizer:
    """Build the tokenizer. Raise `ModelError` for an unknown kind."""
    kind = metadata.require("tokenizer.ggml.model")
    if kind not in _KINDS:
        raise ModelError(
            f"the GGUF file's tokenizer kind {kind!r} is not supported; supported: {', '.join(_KINDS)}"
        )
    built: Tokenizer = _KINDS[kind](metadata)
    _add_tokens(built, metadata)
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    if bos is not None and _adds_bos(metadata):
        token = metadata.require("tokenizer.ggml.tokens")[bos]
        built.post_processor = processors.Sequence(
            [
                *([built.post_processor] if built.post_processor else []),
                processors.TemplateProcessing(single=[token, "$A"], special_tokens=[(token, bos)]),
            ]
        )
    return built


def tokenizer_config(metadata: Keys) -> dict[str, Any]:
    """Return the content of ``tokenizer_config.json``: names of special tokens and the chat template."""
    tokens = metadata.require("tokenizer.ggml.tokens")
    ids = {part: metadata.get(f"tokenizer.ggml.{key}_token_id") for part, key in _SPECIAL_TOKENS.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": _adds_bos(metadata),
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.get("{arch}.context_length"),
        "chat_template": metadata.get("tokenizer.chat_template"),
        **{part: tokens[index] for part, index in ids.items() if index is not None},
    }


_SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _byte_level(metadata: Keys) -> Tokenizer:
    """Build a byte-level BPE tokenizer (GPT-2): bytes as characters, merged by rank."""
    pre = metadata.get("tokenizer.ggml.pre", "default")
    model = BPE(
        vocab={token: index for index, token in enumerate(metadata.require("tokenizer.ggml.tokens"))},
        merges=[_pair(merge) for merge in metadata.require("tokenizer.ggml.merges")],
        ignore_merges=pre in _TAKES_WHOLE_WORDS,
    )
    built = Tokenizer(model)
    if pre in _NORMALIZED:
        built.normalizer = normalizers.NFC()
    built.pre_tokenizer = _pre_tokenizer(pre)
    built.decoder = decoders.ByteLevel()
    built.post_processor = processors.ByteLevel(trim_offsets=False)
    return built


def _pre_tokenizer(pre: str) -> pre_tokenizers.PreTokenizer:
    if pre not in _PATTERNS:
        known = ", ".join(sorted(_PATTERNS))
        raise ModelError(f"tokenizer.ggml.pre {pre!r} of the GGUF file is not supported; supported: {known}")
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in _PATTERNS[pre]]
    return pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _sentence_piece(metadata: Keys) -> Tokenizer:
    """Build a SentencePiece tokenizer (Llama 2): pieces merged by score, bytes for text without a piece."""
    tokens = metadata.require("tokenizer.ggml.tokens")
    scores = metadata.require("tokenizer.ggml.scores")
    unknown = tokens[metadata.get("tokenizer.ggml.unknown_token_id", 0)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = list(_merges(tokens, scores, vocabulary))
    built = Tokenizer(
        BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = normalizers.Replace(" ", _SPACE)
    built.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces] if prefix else [spaces])
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    built.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return built


def _merges(tokens: list[str], scores: list[float], vocabulary: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield each pair of pieces that forms a piece, the pieces with the best score first."""
    for index in sorted(range(len(tokens)), key=lambda index: -scores[index]):
        token = tokens[index]
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [(left, right) for left, right in halves if left in vocabulary and right in vocabulary]
        yield from sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _add_tokens(built: Tokenizer, metadata: Keys) -> None:
    """Add the tokens that are found in a text before it is divided. Gemma has thousands of them."""
    tokens, types = metadata.require("tokenizer.ggml.tokens"), metadata.require("tokenizer.ggml.token_type")
    kinds = list(zip(tokens, types, strict=True))
    control = [token for token, kind in kinds if kind == _CONTROL]
    user_defined = [token for token, kind in kinds if kind == _USER_DEFINED]
    built.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    built.add_tokens([AddedToken(token, special=False, normalized=False) for token in user_defined])


def _adds_bos(metadata: Keys) -> bool:
    sentence_piece = metadata.get("tokenizer.ggml.model") == "llama"
    default = sentence_piece or metadata.get("tokenizer.ggml.pre") in _BOS_BY_DEFAULT
    return bool(metadata.get("tokenizer.ggml.add_bos_token", default))


_KINDS = {"gpt2": _byte_level, "llama": _sentence_piece}
