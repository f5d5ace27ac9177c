"""`/tokenize`, `/detokenize` and `/apply-template`, in the formats of vLLM and llama.cpp."""
