"""Where the jobs run: images, cluster files and submission."""
