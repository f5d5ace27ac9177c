"""A decoder for CPUs whose layers run as one compiled call in each thread, on int8 weights."""
