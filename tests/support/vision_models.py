"""Tiny vision-language models with their processors and tokenizers, which have one token for each byte."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from support.model_families import FAMILIES, save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

BYTES = 256
SPECIAL = ["<pad>", "<bos>", "<eos>"]
VOCABULARY = 320
"""Tokens of the models: bytes, special tokens and some that are never used."""
TEMPLATE = (
    "{% for message in messages %}{{ '<bos>' if loop.first }}{{ message.role }}: "
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


class VisionModel(NamedTuple):
    """How the checkpoint of a family is made complete."""

    processor: str
    image_processor: str
    image_settings: dict[str, Any]
    settings: dict[str, Any]
    """Of the processor."""
    tokens: dict[str, str]
    """Special tokens by the attribute of the tokenizer that holds them."""
    ids: dict[str, str]
    """Fields of the configuration, and the tokens whose ids they hold."""
    placeholder: str
    """What the chat template writes for an image."""
    config: dict[str, Any] = {}  # noqa: RUF012
    """Further fields of the configuration."""


_QWEN = VisionModel(
    "Qwen2_5_VLProcessor",
    "Qwen2VLImageProcessorPil",
    {"patch_size": 14, "merge_size": 2, "size": {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 12}},
    {},
    {
        "vision_start": "<|vision_start|>",
        "vision_end": "<|vision_end|>",
        "image": "<|image_pad|>",
        "video": "<|video_pad|>",
    },
    {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
    "<|vision_start|><|image_pad|><|vision_end|>",
)
_CLIP_SIZE = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
_PINPOINTS = {"image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]}
_LLAVA = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
_IDEFICS_IMAGE = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}
_IDEFICS_TOKENS = {
    "image_token": "<image>",
    "fake": "<fake_token_around_image>",
    "global": "<global-img>",
    "end_of_utterance": "<end_of_utterance>",
    **{f"row_{r}_col_{c}": f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)},
}
VISION_MODELS: dict[str, VisionModel] = {
    "llava": VisionModel(
        "LlavaProcessor",
        "CLIPImageProcessorPil",
        _CLIP_SIZE,
        _LLAVA,
        {"image_token": "<image>"},
        {"image_token_index": "<image>"},
        "<image>",
    ),
    "llava-next": VisionModel(
        "LlavaNextProcessor",
        "LlavaNextImageProcessorPil",
        _CLIP_SIZE | _PINPOINTS,
        _LLAVA,
        {"image_token": "<image>"},
        {"image_token_index": "<image>"},
        "<image>",
        _PINPOINTS,
    ),
    "qwen2.5-vl": _QWEN,
    "qwen3-vl": _QWEN._replace(processor="Qwen3VLProcessor"),
    "qwen3.5-vl": _QWEN._replace(processor="Qwen3VLProcessor"),
    "gemma4-vl": VisionModel(
        "Gemma4Processor",
        "Gemma4ImageProcessorPil",
        {"max_soft_tokens": 70},
        {},
        {
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "audio_token": "<|audio|>",
        },
        {
            "image_token_id": "<|image|>",
            "boi_token_id": "<|image>",
            "eoi_token_id": "<image|>",
            "audio_token_id": "<|audio|>",
        },
        "<|image|>",
    ),
    "gemma3-vl": VisionModel(
        "Gemma3Processor",
        "Gemma3ImageProcessorPil",
        {"size": {"height": 28, "width": 28}},
        {"image_seq_length": 4},
        {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        {
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
        "<start_of_image>",
    ),
    "smolvlm": VisionModel(
        "SmolVLMProcessor",
        "SmolVLMImageProcessorPil",
        _IDEFICS_IMAGE,
        {"image_seq_len": 1},
        _IDEFICS_TOKENS,
        {"image_token_id": "<image>"},
        "<image>",
    ),
    "idefics3": VisionModel(
        "Idefics3Processor",
        "Idefics3ImageProcessorPil",
        _IDEFICS_IMAGE,
        {"image_seq_len": 1},
        _IDEFICS_TOKENS,
        {"image_token_id": "<image>"},
        "<image>",
    ),
    "internvl": VisionModel(
        "InternVLProcessor",
        "GotOcr2ImageProcessorPil",
        {"size": {"height": 28, "width": 28}, "crop_to_patches": True, "max_patches": 3},
        {"image_seq_length": 1},
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        {"image_token_id": "<IMG_CONTEXT>"},
        "<IMG_CONTEXT>",
    ),
    "mistral3": VisionModel(
        "PixtralProcessor",
        "PixtralImageProcessorPil",
        {"size": {"longest_edge": 56}, "patch_size": {"height": 14, "width": 14}},
        {"patch_size": 14, "spatial_merge_size": 2},
        {"image": "[IMG]", "break": "[IMG_BREAK]", "end": "[IMG_END]"},
        {"image_token_index": "[IMG]"},
        "[IMG]",
    ),
}


def save_vision(name: str, directory: Path) -> Any:
    """Write a random model with its processor to the directory, and return the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        vision = VISION_MODELS[name]
        tokenizer = _tokenizer(vision)
        ids = {field: tokenizer.token_to_id(token) for field, token in vision.ids.items()}
        text = FAMILIES[name].values["text_config"] | {"vocab_size": VOCABULARY}
        if "vocab_size_per_layer_input" in text:
            text["vocab_size_per_layer_input"] = VOCABULARY
        model = save(name, directory, text_config=text, **ids, **vision.config)
        model.generation_config.eos_token_id = tokenizer.token_to_id("<eos>")
        tokenizer.save(str(directory / "tokenizer.json"))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "extra_special_tokens": {
                key: token for key, token in vision.tokens.items() if key.endswith("_token")
            },
        }
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
        (directory / "chat_template.jinja").write_text(TEMPLATE.replace("IMAGE", vision.placeholder))
        getattr(transformers, vision.image_processor)(**vision.image_settings).save_pretrained(directory)
        (directory / "processor_config.json").write_text(
            json.dumps({"processor_class": vision.processor} | vision.settings)
        )
    return model


def _tokenizer(vision: VisionModel) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL, *vision.tokens.values()])
    return tokenizer
