"""Golden transcripts: a scenario in plain words, and the reaction that was recorded.

``transcript`` reads the commands and runs them; ``message_text`` has messages in plain words,
``scripted_peer`` is a member that says only what it is told to say, ``actors`` are all of them,
and ``views`` tells what became of whom, in a line.
"""
