"""Who may do what at the HTTP API, and by which token: see ``rights.py`` first.

Tokens and their roles are agreed on by the voters and known to every agent from its copy
(``access_tokens.py``). What was changed, by whom and from where, each agent writes down for itself
(``audit.py``).
"""
