"""Objects in S3 through boto3: one client, requests that wait for a busy bucket, whole objects and ranges.

May import: errors, and of storage backend, errors, limits, patience and range_reader.
"""
