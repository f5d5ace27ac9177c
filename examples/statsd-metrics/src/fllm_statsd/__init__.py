"""Metrics of the server, sent to StatsD over UDP."""
