"""What the authors of parsers use."""
