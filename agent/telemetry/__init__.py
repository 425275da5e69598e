"""Readings on their way in: the forms they are written in, and the service that takes them."""
