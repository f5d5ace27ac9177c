"""A decoder for CPUs with int8 or int4 weights, whose layers run as one compiled call in each thread."""
