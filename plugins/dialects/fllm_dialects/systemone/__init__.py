"""Typed decisions: TypeSafe's `/v1/systemone` and OpenAI's `/v1/decisions`, read from log-probabilities."""
