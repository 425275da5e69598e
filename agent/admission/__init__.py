"""Letting a device in: tokens, the conversation at the desk, and both of its sides."""
