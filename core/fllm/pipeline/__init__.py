"""Turn a request into events: generate, detokenize, stop, parse, merge. One path for every endpoint."""
