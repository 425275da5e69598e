"""Backups of a whole covey: one file of parts, each with a digest of its own."""
