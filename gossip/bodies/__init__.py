"""Files and large values: which blocks there are, who is to have them, and what members say of it.

block_limits       every bound and interval
file_records       what the shared keys hold of files, uploads and blocks, and under which keys
messages           every frame: bodies on their way, and who has which
"""
