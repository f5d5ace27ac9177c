"""Send traces to an OpenTelemetry collector (``--otlp-endpoint``)."""
