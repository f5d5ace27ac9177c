"""Turn a request into events: detokenize, stop, parse, merge; the same path for every endpoint."""
