"""`/tokenize` and `/detokenize`: the server's tokenizer over HTTP."""
