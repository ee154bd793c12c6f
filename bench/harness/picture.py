"""The timeline as an SVG: latency of both proxies on one pair of axes, failures, load of each endpoint."""

import math
from html import escape

from harness.figures import per_bucket
from harness.services import NANOSECONDS

WIDTH, LEFT, RIGHT, TOP = 1240, 74, 24, 96
LATENCY, FAILED, LOAD, GAP = 300, 54, 104, 34  # heights of the panels, and what is between two
COLOURS = ("#0b6fb8", "#d9480f", "#5f3dc4", "#2b8a3e")
ENDPOINTS = ("#868e96", "#c2255c", "#343a40")
LOW, HIGH = 1.0, 10_000.0  # ms


class Drawing:
    def __init__(self, seconds):
        self.seconds = seconds
        self.parts = []

    def x(self, second):
        return LEFT + (WIDTH - LEFT - RIGHT) * second / self.seconds

    def text(self, x, y, words, size=12, anchor="start", colour="#212529", extra=""):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
                          f'fill="{colour}" {extra}>{escape(words)}</text>')

    def line(self, x1, y1, x2, y2, colour, width=1.0, dash=""):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
                          f'stroke-width="{width}" stroke-dasharray="{dash}"/>')

    def rectangle(self, x, y, width, height, colour, opacity=1.0):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
                          f'fill="{colour}" fill-opacity="{opacity}"/>')

    def curve(self, points, colour, width=1.6, dash=""):
        """Points (x, y); a y of None interrupts it."""
        steps, begun = [], False
        for x, y in points:
            if y is not None:
                steps.append(f"{'L' if begun else 'M'}{x:.1f} {y:.1f}")
            begun = y is not None
        self.parts.append(f'<path d="{" ".join(steps)}" fill="none" stroke="{colour}" stroke-width="{width}" '
                          f'stroke-linejoin="round" stroke-linecap="round" stroke-dasharray="{dash}"/>')

    def y_title(self, top, height, words):
        x, y = 18, top + height / 2
        self.text(x, y, words, anchor="middle", extra=f'transform="rotate(-90 {x} {y})"')

    def frame(self, top, height):
        self.parts.append(f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{height}" '
                          'fill="none" stroke="#495057"/>')


def save(path, recordings, rate):
    """`recordings`: of the same phases, one a proxy."""
    spans = recordings[0].spans
    drawing = Drawing((spans[-1].end - spans[0].begin) / NANOSECONDS)
    failed_top = TOP + LATENCY + GAP
    load_top = failed_top + len(recordings) * (FAILED + 8) + GAP
    bottom = load_top + len(recordings) * (LOAD + GAP)
    draw_phases(drawing, spans, bottom - GAP)
    draw_latency(drawing, recordings, TOP)
    draw_failures(drawing, recordings, failed_top)
    draw_load(drawing, recordings, load_top)
    draw_seconds(drawing, bottom - GAP)
    draw_legend(drawing, recordings, rate)
    with open(path, "w") as out:
        out.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 20}" '
                  f'viewBox="0 0 {WIDTH} {bottom + 20}" font-family="Helvetica, Arial, sans-serif">\n'
                  f'<rect width="{WIDTH}" height="{bottom + 20}" fill="#ffffff"/>\n')
        out.write("\n".join(drawing.parts))
        out.write("\n</svg>\n")


def draw_phases(drawing, spans, bottom):
    origin = spans[0].begin
    for i, span in enumerate(spans):
        begin, end = ((at - origin) / NANOSECONDS for at in (span.begin, span.end))
        calm = "return" in span.name or span.name == "healthy"
        drawing.rectangle(drawing.x(begin), TOP - 22, drawing.x(end) - drawing.x(begin), bottom - TOP + 22,
                          "#f1faf3" if calm else "#fff1f0" if i % 2 else "#ffe4e1")
        drawing.text(drawing.x((begin + end) / 2), TOP - 7, span.name, 12, "middle", extra='font-weight="bold"')


def draw_latency(drawing, recordings, top):
    def y(ms):
        share = math.log(min(max(ms, LOW), HIGH) / LOW) / math.log(HIGH / LOW)
        return top + LATENCY * (1 - share)

    for ms in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000):
        drawing.line(LEFT, y(ms), WIDTH - RIGHT, y(ms), "#ced4da", 0.6 if str(ms)[0] != "1" else 1.0)
        drawing.text(LEFT - 6, y(ms) + 4, f"{ms:,}", 11, "end")
    for recording, colour in zip(recordings, COLOURS):
        rows = per_bucket(recording)
        for quantile, dash, width in ((1, "3 3", 1.4), (2, "", 1.8)):
            drawing.curve([(drawing.x(row[0] + 0.05), None if row[quantile] is None else y(row[quantile]))
                           for row in rows if row[0] + 0.05 <= drawing.seconds], colour, width, dash)
    drawing.frame(top, LATENCY)
    drawing.y_title(top, LATENCY, "latency of successes, ms (log)")


def draw_failures(drawing, recordings, top):
    for recording, colour in zip(recordings, COLOURS):
        for second, _, _, failed in per_bucket(recording):
            if failed and second + 0.1 <= drawing.seconds:
                height = max(3.0, FAILED * failed)  # a single failure must be seen
                drawing.rectangle(drawing.x(second), top + FAILED - height,
                                  drawing.x(second + 0.1) - drawing.x(second), height, colour, 0.85)
        drawing.frame(top, FAILED)
        drawing.text(LEFT - 6, top + 11, "100 %", 11, "end")
        drawing.text(LEFT - 6, top + FAILED, "0", 11, "end")
        drawing.text(LEFT + 6, top + 15, f"{recording.label}: failed", 12, colour=colour)
        top += FAILED + 8


def draw_load(drawing, recordings, top):
    most = max(count * 10 for recording in recordings for rows in recording.received for _, count, *_ in rows)
    scale = most * 1.05 or 1
    for recording, colour in zip(recordings, COLOURS):
        origin = recording.spans[0].begin
        for rows, shade in zip(recording.received, ENDPOINTS):
            points, last = [], None
            for end, count, *_ in rows:
                second = (end - origin) / NANOSECONDS - 0.05
                if last is not None and second - last > 0.25:
                    points.append((drawing.x(last), None))  # dead meanwhile
                last = second
                if 0 <= second <= drawing.seconds:
                    points.append((drawing.x(second), top + LOAD * (1 - count * 10 / scale)))
            drawing.curve(points, shade, 1.4)
        drawing.frame(top, LOAD)
        drawing.text(LEFT - 6, top + 11, f"{scale:,.0f}", 11, "end")
        drawing.text(LEFT - 6, top + LOAD, "0", 11, "end")
        drawing.text(LEFT + 6, top + 15, f"{recording.label}: requests/s that each endpoint got", 12,
                     colour=colour)
        top += LOAD + GAP


def draw_seconds(drawing, bottom):
    step = 5 if drawing.seconds > 25 else 2
    for second in range(0, int(drawing.seconds) + 1, step):
        drawing.line(drawing.x(second), bottom, drawing.x(second), bottom + 5, "#495057")
        drawing.text(drawing.x(second), bottom + 18, str(second), 11, "middle")
    drawing.text(WIDTH / 2, bottom + 38, "seconds; requests by when they were due, 100 ms each", 12, "middle")


def draw_legend(drawing, recordings, rate):
    title = ("One of three endpoints slows from 5 to 500 ms, answers 500, is killed, returns; then all are killed and "
             f"return. {rate:,.0f} requests/s, open loop")
    drawing.text(LEFT, 24, title, 14, extra='font-weight="bold"')
    x = LEFT
    for recording, colour in zip(recordings, COLOURS):
        for words, dash, width in (("p99", "", 1.8), ("p50", "3 3", 1.4)):
            drawing.line(x, 46, x + 32, 46, colour, width, dash)
            drawing.text(x + 38, 50, f"{recording.label} {words}", 12)
            x += 130
    for i, shade in enumerate(ENDPOINTS):
        drawing.line(x, 46, x + 22, 46, shade, 1.8)
        drawing.text(x + 28, 50, f"endpoint {i + 1}" + (" (the one that fails)" if i == 1 else ""), 12)
        x += 108 if i != 1 else 218
