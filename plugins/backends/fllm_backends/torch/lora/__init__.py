"""LoRA adapters (arXiv 2106.09685): small products that are added to those of a decoder's matrices."""
