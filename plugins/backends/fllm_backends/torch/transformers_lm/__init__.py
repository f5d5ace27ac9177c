"""Every decoder class of transformers, run with our KV cache and scheduler: the library's own code."""
