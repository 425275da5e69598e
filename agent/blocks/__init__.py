"""Files and large values, in blocks of 1 MiB that lie on several devices.

``block_store.py`` has the bodies on this device, ``transfers.py`` takes them to other devices and
fetches them, ``file_writer.py`` and ``file_reader.py`` make a stream of bytes into blocks and back,
``named_files.py`` knows names, and ``service.py`` is all of it, for the rest of the agent.
"""
