"""X-rays, networks, metrics, the bundle and the results table: plain Python, no cluster."""

__version__ = "0.1.0"
