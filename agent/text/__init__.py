"""Texts for people and from strangers: escaped, redacted, suggested, with units."""
