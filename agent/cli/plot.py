"""A curve that rises from nothing to all, drawn for a terminal or as an SVG file.

Small enough to need no library: an axis, a line, a handful of labels.
"""

from collections.abc import Iterator, Sequence
from html import escape

Curve = Sequence[tuple[float, float]]
"""(seconds, share from 0 to 1), in the order of time."""

BAR_COLUMNS = 40
BARS = 12
WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 40, 48
STYLE = "font-family='sans-serif' font-size='12' fill='#444'"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
NICE = (1.0, 2.0, 5.0)


def share_at(curve: Curve, at_s: float) -> float:
    """Return how high the curve is at a time.

    >>> curve = [(1.0, 0.5), (3.0, 1.0)]
    >>> [share_at(curve, at_s) for at_s in (0.5, 1.0, 2.9, 3.0)]
    [0.0, 0.5, 0.5, 1.0]
    """
    return max((share for time_s, share in curve if time_s <= at_s), default=0.0)


def bars(curve: Curve, until_s: float) -> Iterator[str]:
    """Yield one line for each of some moments: the time, a bar, the share."""
    step_s = nice_step(until_s / BARS)
    moments = range(1, int(until_s / step_s + 0.999) + 1)
    for moment in moments:
        share = share_at(curve, moment * step_s)
        bar = "█" * round(share * BAR_COLUMNS)
        yield f"{moment * step_s:6g} s  {bar:<{BAR_COLUMNS}}  {share:4.0%}"


def nice_step(least: float) -> float:
    """Return 1, 2 or 5 times a power of ten that is not below ``least``.

    >>> [nice_step(least) for least in (0.03, 0.7, 1.0, 2.1, 30.0)]
    [0.05, 1.0, 1.0, 5.0, 50.0]
    """
    power = 1e-3
    while True:
        for nice in NICE:
            step = float(f"{nice * power:g}")
            if step >= least:
                return step
        power *= 10


def svg(curve: Curve, until_s: float, title: str) -> str:
    """Return the curve as an SVG document."""
    size = f"viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'"
    below = f"x='{WIDTH - RIGHT}' y='{HEIGHT - 10}' {STYLE} text-anchor='end'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size}>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#fff'/>",
        f"<text x='{LEFT}' y='24' {STYLE} font-weight='bold'>{escape(title)}</text>",
        *_grid(until_s),
        f"<path d='{_path(curve, until_s)}' fill='none' stroke='#0a7' stroke-width='2'/>",
        f"<text {below}>seconds after the crash</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grid(until_s: float) -> Iterator[str]:
    for share in SHARES:
        y = _y(share)
        yield f"<path d='M{LEFT} {y:.1f}H{WIDTH - RIGHT}' stroke='#ddd'/>"
        yield f"<text x='{LEFT - 8}' y='{y + 4:.1f}' {STYLE} text-anchor='end'>{share:.0%}</text>"
    step_s = nice_step(until_s / 8)
    for mark in range(int(until_s / step_s + 1e-9) + 1):
        x = _x(mark * step_s, until_s)
        yield f"<path d='M{x:.1f} {TOP}V{HEIGHT - BOTTOM}' stroke='#eee'/>"
        yield (
            f"<text x='{x:.1f}' y='{HEIGHT - BOTTOM + 16}' {STYLE} text-anchor='middle'>"
            f"{mark * step_s:g}</text>"
        )


def _path(curve: Curve, until_s: float) -> str:
    """Return a staircase: between two moments nothing changes."""
    steps = [f"M{_x(0.0, until_s):.1f} {_y(0.0):.1f}"]
    steps += [f"H{_x(at_s, until_s):.1f}V{_y(share):.1f}" for at_s, share in curve]
    return "".join([*steps, f"H{_x(until_s, until_s):.1f}"])


def _x(at_s: float, until_s: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, at_s / until_s)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
