"""Endpoints of models that pool: `/v1/embeddings`, `/rerank`, `/score` and `/classify`."""
