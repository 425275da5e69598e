"""The covey's keys, held up to date and turned."""
