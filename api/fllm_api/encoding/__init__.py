"""Encoders from pipeline outputs to OpenAI's objects. A full response is the fold of its stream's chunks."""
