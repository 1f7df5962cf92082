"""Draws a grid of small line charts as SVG, with linear axes from zero. Standard library only."""

import dataclasses
import html
import math

PANEL_WIDTH, PANEL_HEIGHT = 262, 210
LEFT, TOP, BOTTOM, RIGHT = 66, 104, 92, 26
GAP_X, GAP_Y = 66, 74
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclasses.dataclass(frozen=True)
class Series:
    """Points and how they are drawn. The points of a curve without markers are dense."""

    name: str
    points: list  # of (x, y)
    color: str
    marker: str = ""  # "dot", "ring" or none
    dash: str = ""
    width: float = 1.8


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    x_label: str
    y_label: str
    x_tick: float
    series: list


def nice_distance(largest, count):
    """Between ticks: 1, 2, 2.5 or 5 times a power of ten, so that about `count` fit."""
    rough = largest / count
    power = 10 ** math.floor(math.log10(rough))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= rough)


def number(value):
    """12000 -> "12 k", with binary thousands where they come out even: 32768 -> "32 k"."""
    if value >= 1024 and value % 1024 == 0:
        return f"{value // 1024:g} k"
    return f"{value:,g}"


class Picture:
    def __init__(self, columns, rows, title, subtitle):
        self.width = LEFT + columns * (PANEL_WIDTH + GAP_X) - GAP_X + RIGHT
        self.height = TOP + rows * (PANEL_HEIGHT + GAP_Y) - GAP_Y + BOTTOM
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" font-family="{FONT}" fill="#222">',
            '<rect width="100%" height="100%" fill="white"/>',
        ]
        self.text(24, 34, title, size=20, extra='font-weight="bold"')
        self.text(24, 56, subtitle, size=13, extra='fill="#555"')

    def text(self, x, y, content, size=12, anchor="start", extra=""):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {extra}>'
            f"{html.escape(content)}</text>"
        )

    def line(self, x1, y1, x2, y2, style):
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'
        )

    def marker(self, x, y, series):
        if not series.marker:
            return
        fill = series.color if series.marker == "dot" else "white"
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.6 if series.marker == "dot" else 4.2}" '
            f'fill="{fill}" stroke="{series.color}" stroke-width="1.6"/>'
        )

    def polyline(self, points, series):
        coordinates = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = f'stroke-dasharray="{series.dash}"' if series.dash else ""
        self.parts.append(
            f'<polyline fill="none" stroke="{series.color}" stroke-width="{series.width}" '
            f'stroke-linejoin="round" {dash} points="{coordinates}"/>'
        )

    def panel(self, column, row, panel):
        left, top = LEFT + column * (PANEL_WIDTH + GAP_X), TOP + row * (PANEL_HEIGHT + GAP_Y)
        bottom = top + PANEL_HEIGHT
        largest_x = max(x for series in panel.series for x, _ in series.points)
        largest_y = max(y for series in panel.series for _, y in series.points)
        y_tick = nice_distance(largest_y, 4)
        end_y = y_tick * math.ceil(largest_y / y_tick)
        end_x = 1.04 * largest_x

        def place(point):
            x, y = point
            return left + PANEL_WIDTH * x / end_x, bottom - PANEL_HEIGHT * y / end_y

        self.text(left, top - 14, panel.title, size=14, extra='font-weight="bold"')
        for i in range(round(end_y / y_tick) + 1):
            _, y = place((0, i * y_tick))
            self.line(left, y, left + PANEL_WIDTH, y, f'stroke="{"#e6e6e6" if i else "#777"}"')
            self.text(left - 7, y + 4, number(i * y_tick), size=11, anchor="end")
        for i in range(math.floor(end_x / panel.x_tick) + 1):
            x, _ = place((i * panel.x_tick, 0))
            self.line(x, bottom, x, bottom + 4, 'stroke="#777"')
            self.text(x, bottom + 17, number(i * panel.x_tick), size=11, anchor="middle")
        middle = (top + bottom) / 2
        self.text(left + PANEL_WIDTH / 2, bottom + 34, panel.x_label, anchor="middle")
        self.text(0, 0, panel.y_label, anchor="middle",
                  extra=f'transform="translate({left - 48} {middle}) rotate(-90)"')
        for series in panel.series:
            points = [place(point) for point in series.points]
            self.polyline(points, series)
            for x, y in points:
                self.marker(x, y, series)

    def legend(self, series_list):
        x, y = LEFT, self.height - 18
        for series in series_list:
            self.polyline([(x, y - 4), (x + 30, y - 4)], series)
            self.marker(x + 15, y - 4, series)
            self.text(x + 38, y, series.name, size=13)
            x += 38 + 7.2 * len(series.name) + 34

    def svg(self):
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def draw(rows, title, subtitle):
    """`rows`: lists of panels. The legend names each series once, in order."""
    picture = Picture(max(map(len, rows)), len(rows), title, subtitle)
    names = {}
    for row, panels in enumerate(rows):
        for column, panel in enumerate(panels):
            picture.panel(column, row, panel)
            for series in panel.series:
                names.setdefault(series.name, series)
    picture.legend(names.values())
    return picture.svg()
