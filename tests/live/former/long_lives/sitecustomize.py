"""Certificates and tokens for a century: put this folder on PYTHONPATH, and Python loads it."""

import datetime as dt

from agent.admission import token_terms
from agent.identity import certificates

CENTURY = dt.timedelta(days=36525)

certificates.AUTHORITY_VALIDITY = certificates.NODE_VALIDITY = CENTURY
token_terms.TTL_MAX_S = CENTURY.total_seconds()
