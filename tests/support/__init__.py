"""What several tests share: synthetic archives, clusters, buckets, killed runs."""
