"""The covey's keyring: held up to date here, and turned where the issuer is.

``rotation`` is the rule (three steps, each a ring of its own), ``messages`` what members say about
it, ``key_service`` does it.
"""
