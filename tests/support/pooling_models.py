"""Tiny random models that pool, in the layouts in which they are published, with a tokenizer of 40 words."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from support.model_families import spread
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
"""The padding is the first token, so that positions of RoBERTa begin at 1."""
VOCAB = {token: i for i, token in enumerate((*SPECIAL, *WORDS))}
SIZES = {
    "vocab_size": len(VOCAB),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 65,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODER = {"num_key_value_heads": 2, "head_dim": 8}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("BertConfig", {}),
    "XLMRoberta": ("XLMRobertaConfig", {"type_vocab_size": 1}),
    "DistilBert": ("DistilBertConfig", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "MPNet": ("MPNetConfig", {}),
    "ModernBert": ("ModernBertConfig", {"local_attention": 8, "cls_token_id": 1, "sep_token_id": 2}),
    "Qwen3": ("Qwen3Config", DECODER),
    "T5": ("T5Config", {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}),
    "Gemma3Text": ("Gemma3TextConfig", {**DECODER, "use_bidirectional_attention": True, "sliding_window": 8}),
}
"""Configuration class and values of each family."""
TEXTS = [" ".join(WORDS[:n]) for n in (1, 3, 20, 3)] + ["w7 w7 w1 unknown w9", "w39 w2"]
PAIRS = [("w1 w2", "w3"), ("w1 w2", "w4 w5 w6 w7 w8 w9"), ("w9", "w9 w10")]
LEGACY = "sentence_transformers.models."
"""Package of the modules in files that older releases of Sentence Transformers wrote."""


def save_pooling_model(directory: Path, family: str, head: str = "Model", **changes: Any) -> Path:
    """Write a model, such as ``Bert`` with the head ``ForSequenceClassification``, and its tokenizer."""
    config_name, values = CONFIGS[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        config = getattr(transformers, config_name)(**SIZES | values | changes)
        torch.manual_seed(1)
        model = getattr(transformers, family + head)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                spread(parameter)
        model.save_pretrained(directory)
    save_tokenizer(directory, "roberta" if family == "XLMRoberta" else "bert" if "Bert" in family else "eos")
    return directory


def save_tokenizer(directory: Path, kind: str) -> None:
    """Write a tokenizer that adds special tokens like BERT, like RoBERTa, or only ``[SEP]`` at the end."""
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel(VOCAB, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single, pair = {
        "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        "roberta": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
        "eos": ("$A [SEP]", "$A $B [SEP]"),
    }[kind]
    inner.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, VOCAB[token]) for token in SPECIAL]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=64,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        model_input_names=["input_ids", "attention_mask", *(["token_type_ids"] if kind == "bert" else [])],
    )
    fast.save_pretrained(directory)


def write_modules(directory: Path, *kinds: str, **pooling: Any) -> None:
    """Write ``modules.json`` and the pooling as older releases do; ``pooling`` is its configuration."""
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": LEGACY + kind}
        for i, kind in enumerate(("Transformer", *kinds))
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    content = {"word_embedding_dimension": 32, **(pooling or {"pooling_mode_mean_tokens": True})}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(content))


def save_with_modules(directory: Path, *modules: Any, **settings: Any) -> None:
    """Save a model of the directory with more modules, as the installed Sentence Transformers does."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.transformer import Transformer

    whole = SentenceTransformer(modules=[Transformer(str(directory)), *modules], device="cpu", **settings)
    whole.save(str(directory), create_model_card=False)


def reference(directory: Path) -> Any:
    """Return the model in Sentence Transformers."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), device="cpu", local_files_only=True)


def cross_encoder(directory: Path) -> Any:
    """Return the cross-encoder in Sentence Transformers."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(directory), device="cpu", local_files_only=True)
