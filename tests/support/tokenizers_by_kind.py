"""Small tokenizers, one for each kind of decoder."""

from __future__ import annotations

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from fllm.tokenizer import Tokenizer

SPECIAL = ["<s>", "</s>", "<|tool|>"]
WORDS = ["Hel", "lo", "Ġworld", "ĠĠ", "âĤ¬", "ðŁ", "ĺĢ"]


def byte_level() -> tokenizers.Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE(vocab={token: i for i, token in enumerate(alphabet + WORDS)}, merges=[])
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL)
    inner.add_tokens(
        [AddedToken("<｜User｜>"), AddedToken("with space"), AddedToken("<think>"), AddedToken("éé")]
    )
    return inner


def sentencepiece(decoder: decoders.Decoder) -> tokenizers.Tokenizer:
    pieces = ["<unk>", "▁", "▁▁", "▁▁▁", "▁Hello", "lo", "é", "€", "😀", "a", "▁a", "▁x▁"]
    vocab = [(piece, -1.0) for piece in pieces + [f"<0x{byte:02X}>" for byte in range(256)]]
    inner = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoder
    inner.add_special_tokens(SPECIAL)
    inner.add_tokens([AddedToken("<think>")])
    return inner


def llama2() -> tokenizers.Tokenizer:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return sentencepiece(decoders.Sequence(steps))


def gemma() -> tokenizers.Tokenizer:
    return sentencepiece(
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    )


def t5() -> tokenizers.Tokenizer:
    return sentencepiece(decoders.Metaspace())


def word_level() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.WordLevel({"one": 0, "two": 1, "[UNK]": 2, "<0x41>": 3}, "[UNK]"))
    inner.add_special_tokens(SPECIAL)
    return inner


def word_piece() -> tokenizers.Tokenizer:
    vocab = {"play": 0, "##ing": 1, ",": 2, "[UNK]": 3, "n't": 4, "do": 5}
    inner = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    inner.decoder = decoders.WordPiece()
    inner.add_special_tokens(SPECIAL)
    return inner


BUILDERS = {f.__name__: f for f in (byte_level, llama2, gemma, t5, word_level, word_piece)}
TOKENIZERS = {name: Tokenizer(build(), {}) for name, build in BUILDERS.items()}
BYTE_LEVEL = TOKENIZERS["byte_level"]


def ids_of(tokenizer: Tokenizer, *tokens: str) -> list[int]:
    """Return the ids of tokens of the vocabulary."""
    ids = [tokenizer.token_to_id(token) for token in tokens]
    return [i for i in ids if i is not None]
