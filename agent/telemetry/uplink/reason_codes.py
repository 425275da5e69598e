"""What a broker's reason codes mean for us: tables, so that each code has one meaning.

MQTT 5 answers with a byte: below 0x80 it worked, from there on it did not (MQTT 5, section
2.4). Only that byte decides whether a reading was delivered. MQTT 3.1.1 acknowledges whatever it
reads, also what it then throws away; with it, an acknowledgement proves less.
"""

FAILED = 0x80

SUCCESS = 0x00
MALFORMED_PACKET = 0x81
PROTOCOL_ERROR = 0x82
UNSUPPORTED_VERSION = 0x84
CLIENT_ID_REFUSED = 0x85
BAD_CREDENTIALS = 0x86
NOT_AUTHORIZED = 0x87
BANNED = 0x8A
TAKEN_OVER = 0x8E
TOPIC_NAME_INVALID = 0x90
RECEIVE_MAXIMUM_EXCEEDED = 0x93
PACKET_TOO_LARGE = 0x95
QUOTA_EXCEEDED = 0x97
PAYLOAD_INVALID = 0x99
SERVER_MOVED = 0x9D
KEEP_ALIVE_TIMEOUT = 0x8D
QOS_NOT_SUPPORTED = 0x9B
# Not from the broker: it did what no broker does to a client that only publishes.
UNASKED = 0xFA
OVERSIZED = 0xFB
UNSENT = 0xFC
# Not from the broker either: it answered nothing for too long, could not be reached, or ended the
# connection without a word.
NO_ANSWER = 0xFD
UNREACHABLE = 0xFE
SILENCE = 0xFF

NAMES = {
    0x80: "unspecified error",
    MALFORMED_PACKET: "malformed packet",
    PROTOCOL_ERROR: "protocol error",
    0x83: "implementation-specific error",
    UNSUPPORTED_VERSION: "unsupported protocol version",
    CLIENT_ID_REFUSED: "client id not valid",
    BAD_CREDENTIALS: "bad user name or password",
    NOT_AUTHORIZED: "not authorized",
    0x88: "broker unavailable",
    0x89: "broker busy",
    BANNED: "banned",
    0x8B: "broker shutting down",
    0x8C: "bad authentication method",
    KEEP_ALIVE_TIMEOUT: "keep-alive timeout",
    TAKEN_OVER: "session taken over",
    TOPIC_NAME_INVALID: "topic name invalid",
    RECEIVE_MAXIMUM_EXCEEDED: "receive maximum exceeded",
    PACKET_TOO_LARGE: "packet too large",
    0x96: "message rate too high",
    QUOTA_EXCEEDED: "quota exceeded",
    0x98: "administrative action",
    PAYLOAD_INVALID: "payload format invalid",
    0x9A: "retain not supported",
    QOS_NOT_SUPPORTED: "QoS not supported",
    0x9C: "use another broker",
    SERVER_MOVED: "broker moved",
    0x9F: "connection rate exceeded",
    UNASKED: "the broker sent what nobody asked for",
    OVERSIZED: "the broker sent more at once than any answer has",
    UNSENT: "the broker answered what was not yet sent",
    NO_ANSWER: "no answer in time",
    UNREACHABLE: "broker not reachable",
    SILENCE: "connection closed without a reason",
}

# The message itself is at fault: sending it again changes nothing.
BLAMES_MESSAGE = frozenset(
    {MALFORMED_PACKET, PROTOCOL_ERROR, TOPIC_NAME_INVALID, PACKET_TOO_LARGE, PAYLOAD_INVALID}
)
# No reading is at fault, and no broker that does what it should.
BREACHES = frozenset({UNASKED, OVERSIZED, UNSENT})
# A person has to act first: asking often only fills the broker's log, or, where two clients
# share an id, makes them throw each other out without end.
NEEDS_A_PERSON = frozenset(
    {CLIENT_ID_REFUSED, BAD_CREDENTIALS, NOT_AUTHORIZED, BANNED, 0x8C, TAKEN_OVER, SERVER_MOVED}
    | {QOS_NOT_SUPPORTED}
    | BREACHES
)
# What a broker does that does not know the version which it is addressed in.
SILENT = frozenset({SILENCE, NO_ANSWER})

_IN_BETWEEN = "Is it a broker that listens there? Or somebody is in between, whom TLS keeps out."
HINTS = {
    CLIENT_ID_REFUSED: "Set client_id in [uplink] to a name that the broker accepts.",
    BAD_CREDENTIALS: "Check username and password_file in [uplink].",
    NOT_AUTHORIZED: "Check the broker's access list for this user, client id and topic.",
    NO_ANSWER: "Is it an MQTT broker, and with TLS if tls = true? `covey uplink test` looks.",
    UNREACHABLE: "Is the broker running, and its port open? `covey uplink test` looks closer.",
    UNASKED: "This client subscribes to nothing: does the broker subscribe its clients by itself? "
    "Else it is no broker, or somebody is in between, whom TLS keeps out.",
    OVERSIZED: _IN_BETWEEN,
    UNSENT: _IN_BETWEEN,
    PACKET_TOO_LARGE: "Raise the broker's limit, or shorten topic and payload in [uplink].",
    PAYLOAD_INVALID: "Does the broker check payloads? See payload in [uplink], and its log.",
    QUOTA_EXCEEDED: "The broker limits this client; readings wait here until it takes them.",
}
# Where a code means something else for a CONNECT than for a PUBLISH: Mosquitto refuses a wrong
# password as "not authorized".
CONNECT_HINTS = HINTS | {
    QOS_NOT_SUPPORTED: "Use a broker that takes QoS 1; or set qos = 0, if readings may be lost.",
    NOT_AUTHORIZED: "Check username and password_file in [uplink]; the broker may also restrict "
    "the client id, or from where it is reached.",
}


def name_of(code: int) -> str:
    """Return what a reason code says, in words."""
    return NAMES.get(code, f"reason code 0x{code:02x}")


def label_of(code: int) -> str:
    """Return the code's name as a label for a counter."""
    return name_of(code).replace(" ", "_").replace("-", "_")


def is_good(code: int) -> bool:
    """Tell whether the broker has taken responsibility."""
    return code < FAILED
