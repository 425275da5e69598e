"""Golden transcripts: a scenario in plain words, and the reaction that was recorded."""
