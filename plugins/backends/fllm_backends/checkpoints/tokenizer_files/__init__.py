"""Find the tokenizer of a model directory, and convert other formats to ``tokenizer.json``."""
