"""The load generator: the same requests to several servers in turn, and what each made of them."""
