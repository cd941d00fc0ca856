"""X-rays, networks, metrics, the bundle and the results table: plain Python, no cluster."""
