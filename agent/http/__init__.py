"""HTTP/1.1 in the agent's own event loop: connections, requests, answers and routes.

h11 knows the protocol; here is what carries its events between a socket and a function that
answers. Applications are ASGI's (``asgi.py``): whatever speaks ASGI can call them, the tests too.
What is asked, and who may ask it, is ``agent/api/``'s.
"""
