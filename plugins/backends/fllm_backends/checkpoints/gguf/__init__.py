"""Convert a GGUF file to a directory in Hugging Face's layout, once."""
