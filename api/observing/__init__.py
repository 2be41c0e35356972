"""Says what the service does: structured logs, Prometheus metrics and OpenTelemetry traces."""
