"""Traces, sent to an OpenTelemetry collector: ``--otlp-endpoint``."""
