"""Chat in the API of Cohere."""
