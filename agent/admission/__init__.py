"""Who is let in, and stays in: tokens, joining, certificates, removal.

The conversation is drawn in ``messages``. The device's side: ``newcomer``, ``member_search``,
``client``, ``joining``; the member's: ``server`` and, where the authority's key lies, ``issuer``.
Then what becomes of a membership: ``renewal``, ``allegiance``, ``trust_keeper``, ``ca_rollover``,
``removal``, ``former_membership``.
"""
