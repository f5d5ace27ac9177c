"""From the pipeline's outputs to OpenAI's objects. A whole answer is the fold of its stream's chunks."""
