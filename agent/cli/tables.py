"""Lays tables out: as many columns of a terminal as there are, and no cell torn apart needlessly.

A table that is too wide first gives up the columns that its command can spare. Then the widest
columns give way, all to the same width, until the rest fits. Of a list, whole items are shown and
the others counted (``10.0.0.7:7747,+2``); a text ends in an ellipsis. ``--wide`` shows all.
"""

from collections.abc import Collection, Mapping, Sequence

from agent.text.escaping import columns, one_line, shortened

GAP = "  "
CELL_COLUMNS_MIN = 4
NOTHING = "-"


def printable(value: object) -> str:
    r"""Return a cell's text: None is a dash, what is not printable is an escape.

    >>> printable(None), printable(True), printable({"room": "attic"}), len(printable("a\tb"))
    ('-', 'yes', 'room=attic', 4)
    """
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if (items := _items(value)) is not None:
        return ",".join(items) or NOTHING
    return one_line(f"{value:g}" if isinstance(value, float) else str(value))


def cut(value: object, room: int) -> str:
    """Return a cell's text in at most ``room`` columns.

    >>> cut(["10.0.0.7:7747", "[2001:db8::7]:7747"], 20), cut("greenhouse", 6)
    ('10.0.0.7:7747,+1', 'green…')
    """
    text = printable(value)
    items = _items(value)
    if columns(text) <= room or not items:
        return shortened(text, room)
    for count in range(len(items) - 1, 0, -1):
        begun = f"{','.join(items[:count])},+{len(items) - count}"
        if columns(begun) <= room:
            return begun
    return shortened(text, room)


def laid_out(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    room: int | None,
    spare: Collection[str] = (),
) -> tuple[list[list[str]], list[int]]:
    """Return the rows as texts, the header first, and the width of each column.

    ``room`` is how many columns there are, None for as many as it takes; ``spare`` names the
    columns of the table that are left out first.
    """
    table = [list(map(printable, header)), *([printable(cell) for cell in row] for row in rows)]
    widths = _widths(table)
    if room is None or _total(widths) <= room:
        return table, widths
    kept = [at for at, name in enumerate(header) if name not in spare]
    kept_widths = _fitting([widths[at] for at in kept], room)
    lines: list[Sequence[object]] = [header, *rows]
    shown = _cut(lines, kept, kept_widths)
    # Lists gave way by whole items; what that left over is for the texts.
    wanted = [
        used if _has_items(lines[1:], at) else widths[at]
        for at, used in zip(kept, _widths(shown), strict=True)
    ]
    shown = _cut(lines, kept, _fitting(wanted, room))
    return shown, _widths(shown)


def _cut(
    lines: Sequence[Sequence[object]], kept: Sequence[int], widths: Sequence[int]
) -> list[list[str]]:
    return [
        [cut(line[at], width) for at, width in zip(kept, widths, strict=True)] for line in lines
    ]


def _has_items(rows: Sequence[Sequence[object]], at: int) -> bool:
    return any(_items(row[at]) is not None for row in rows)


def _fitting(widths: list[int], room: int) -> list[int]:
    """Cap the widths so that they fit, as high as possible; the first column gives way last."""
    if _total(widths) <= room:
        return widths
    for fixed in (1, 0):
        for cap in range(max(widths), CELL_COLUMNS_MIN - 1, -1):
            capped = [*widths[:fixed], *(min(width, cap) for width in widths[fixed:])]
            if _total(capped) <= room:
                return capped
    return [min(width, CELL_COLUMNS_MIN) for width in widths]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(columns, column)) for column in zip(*table, strict=True)]


def _items(value: object) -> list[str] | None:
    """Return the texts of a list's items, or of a mapping's pairs; None for a single value."""
    if isinstance(value, Mapping):
        return [one_line(f"{name}={text}") for name, text in sorted(value.items())]
    if isinstance(value, list | tuple):
        return [one_line(str(item)) for item in value]
    return None
