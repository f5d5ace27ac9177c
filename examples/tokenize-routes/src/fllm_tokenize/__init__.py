"""`/tokenize` and `/detokenize`: what the server's tokenizer makes of a text, and of tokens."""
