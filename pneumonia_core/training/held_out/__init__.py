"""Held-out images: how a training loads, varies and scores those that a network was not trained on.

There may be more of them than memory holds. Of all of them at once there are only numbers.
"""
