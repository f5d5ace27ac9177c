"""Read checkpoints: download, safetensors, GGUF, architecture, model card. No torch."""
