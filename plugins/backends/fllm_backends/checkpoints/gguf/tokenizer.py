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
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {
    "llama-bpe": _LLAMA_3,
    "smaug-bpe": _LLAMA_3,
    "qwen2": _LLAMA_3.replace("{1,3}", ""),
    "deepseek-r1-qwen": _LLAMA_3.replace("{1,3}", ""),
    "tekken": _TEKKEN,
}
"""Pre-tokenizer expressions by ``tokenizer.ggml.pre``, as in the ``tokenizer.json`` of the models."""
_DIGIT_BY_DIGIT = ("smollm", "starcoder", "refact", "command-r")
_GPT_2 = ("gpt-2", "default")
_BOS_BY_DEFAULT = ("llama-bpe", "tekken")


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
        ignore_merges=pre == "llama-bpe",  # Llama 3 does not merge up to a whole word of its vocabulary
    )
    built = Tokenizer(model)
    if pre in ("qwen2", "deepseek-r1-qwen"):
        built.normalizer = normalizers.NFC()
    built.pre_tokenizer = _pre_tokenizer(pre)
    built.decoder = decoders.ByteLevel()
    built.post_processor = processors.ByteLevel(trim_offsets=False)
    return built


def _pre_tokenizer(pre: str) -> pre_tokenizers.PreTokenizer:
    if pre in _GPT_2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre in _DIGIT_BY_DIGIT:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if pre in _PATTERNS:
        split = pre_tokenizers.Split(Regex(_PATTERNS[pre]), behavior="isolated")
        bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([split, bytes_only])
    known = ", ".join((*_GPT_2, *_DIGIT_BY_DIGIT, *_PATTERNS))
    raise ModelError(f"tokenizer.ggml.pre {pre!r} of the GGUF file is not supported; supported: {known}")


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
