"""Sinks: where anonymized frames go."""
