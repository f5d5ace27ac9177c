"""Find out how the weights of a checkpoint are quantized, and which tensors hold each of them."""
