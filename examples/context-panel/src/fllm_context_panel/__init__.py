"""A panel of the page: how much of the context a text fills."""
