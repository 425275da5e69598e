"""Hosts edge apps: each a process of its own, watched, restarted, its output kept.

Reading order: ``states`` (what an app can be, and how it gets there), ``supervisor`` (one app's
process), ``log`` (what it prints), ``desired`` (what the owner wants, on disk), ``host`` (all of
them, behind the four verbs that the API needs).
"""
