"""From a request as it came over HTTP to what the pipeline is asked: checked, rendered and tokenized."""
