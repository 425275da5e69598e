"""How far members are (``coordinates``), and which paths to them work (``reachability``)."""
