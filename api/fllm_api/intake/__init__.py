"""Request intake: validates, renders and tokenizes a request body for the pipeline."""
