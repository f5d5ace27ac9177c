"""Models that pool, through the classes of transformers: encoders, embedding decoders, rerankers."""
