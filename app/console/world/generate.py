"""
Writes the map of the console and the names of countries from public data: see README.md in this folder.

    npm pack world-atlas@2.0.2 cldr-core@48.2.0 cldr-localenames-modern@45.0.0   # and unpack each
    python app/console/world/generate.py WORLD_ATLAS CLDR_CORE CLDR_LOCALENAMES
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Point = tuple[float, float]
_FOLDER = Path(__file__).parent
_LANGUAGES = ("en", "de")
_WIDTH = 2000
# Of the largest distance between a line and the points that it leaves out, in units of the map.
_TOLERANCE = 1.3
# Islands below it, in square units, are left out, but for the largest of a country.
_SMALLEST = 14.0
_DOT = 9
_NORTH, _SOUTH = 84.0, -57.0
# Shapes without a code of their own: files of places name these countries there.
_CODES = {"Kosovo": "XK", "N. Cyprus": "CY", "Somaliland": "SO"}
_LEFT_OUT = {"AQ"}
# The map is cut in the Bering Strait: no country is in two parts.
_CENTRE = 11.0
# Longitude and latitude of what Natural Earth has as a part of another country, or not at all.
_PLACES: Mapping[str, Point] = {
    "BQ": (-68.3, 12.2),
    "CC": (96.8, -12.2),
    "CX": (105.6, -10.5),
    "GF": (-53.0, 4.0),
    "GI": (-5.35, 36.1),
    "GP": (-61.5, 16.2),
    "MQ": (-61.0, 14.6),
    "RE": (55.5, -21.1),
    "SJ": (16.0, 78.5),
    "TK": (-171.8, -9.2),
    "TV": (179.2, -8.5),
    "YT": (45.2, -12.8),
}


def projected(longitude: float, latitude: float) -> Point:
    """Return where a place is on the map: the Natural Earth projection; longitudes count from `_CENTRE`."""
    x, y = math.radians(longitude - _CENTRE), math.radians(latitude)
    y2 = y * y
    y4 = y2 * y2
    across = x * (0.870700 - 0.131979 * y2 + y4 * (-0.013791 + y4 * (0.003971 * y2 - 0.001529 * y4)))
    up = y * (1.007226 + y2 * (0.015085 + y4 * (-0.044475 + 0.028874 * y2 - 0.005916 * y4)))
    scale = _WIDTH / (2 * math.pi * 0.870700)
    return _WIDTH / 2 + across * scale, -up * scale


def near_to(longitude: float, other: float) -> float:
    """Return *longitude*, plus or minus whole turns, within half a turn of *other*."""
    return longitude + 360 * round((other - longitude) / 360)


def simplified(points: Sequence[Point]) -> list[Point]:
    """Return *points* without those that a line between others comes close to (Douglas and Peucker)."""
    if len(points) < 3:
        return list(points)
    first, last = points[0], points[-1]
    distances = [_distance(point, first, last) for point in points]
    farthest = max(range(len(points)), key=distances.__getitem__)
    if distances[farthest] <= _TOLERANCE:
        return [first, last]
    return simplified(points[: farthest + 1])[:-1] + simplified(points[farthest:])


def _distance(point: Point, first: Point, last: Point) -> float:
    across, up = last[0] - first[0], last[1] - first[1]
    length = math.hypot(across, up)
    if not length:
        return math.dist(point, first)
    along = ((point[0] - first[0]) * across + (point[1] - first[1]) * up) / length**2
    along = min(1.0, max(0.0, along))
    return math.dist(point, (first[0] + along * across, first[1] + along * up))


class Atlas:
    """The shapes of a TopoJSON file. Neighbours share the lines between them, simplified ones too."""

    def __init__(self, path: Path, codes: Mapping[str, str]) -> None:
        topology = json.loads(path.read_text("utf-8"))
        self._scale, self._move = topology["transform"]["scale"], topology["transform"]["translate"]
        self._lines = [simplified(list(self._line(arc))) for arc in topology["arcs"]]
        self.shapes: dict[str, list[list[Point]]] = {}
        for one in topology["objects"]["countries"]["geometries"]:
            code = codes.get(one.get("id", ""), _CODES.get(one["properties"]["name"]))
            if code is not None and code not in _LEFT_OUT:
                self.shapes.setdefault(code, []).extend(self._rings(one))

    def _line(self, arc: Sequence[Sequence[int]]) -> Iterator[Point]:
        x = y = 0
        before = _CENTRE
        for across, up in arc:
            x, y = x + across, y + up
            before = near_to(x * self._scale[0] + self._move[0], before)
            yield projected(before, y * self._scale[1] + self._move[1])

    def _rings(self, geometry: Mapping[str, Any]) -> Iterator[list[Point]]:
        arcs = geometry["arcs"]
        polygons = [arcs] if geometry["type"] == "Polygon" else arcs
        for polygon in polygons:
            for ring in polygon:
                points: list[Point] = []
                for number in ring:
                    line = self._lines[number] if number >= 0 else self._lines[~number][::-1]
                    points += line if not points else line[1:]
                yield points


def area(ring: Sequence[Point]) -> float:
    """Return the area of *ring*."""
    pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2


def middle(ring: Sequence[Point]) -> Point:
    """Return about the middle of *ring*."""
    across, up = [point[0] for point in ring], [point[1] for point in ring]
    return (min(across) + max(across)) / 2, (min(up) + max(up)) / 2


def path(rings: Sequence[Sequence[Point]], top: float) -> str:
    """Return *rings* in the words of a path of SVG, in whole units."""
    largest = max(rings, key=area)
    text = ""
    for ring in rings:
        if ring is not largest and area(ring) < _SMALLEST:
            continue
        whole = [(round(x), round(y - top)) for x, y in ring]
        text += f"M{whole[0][0]} {whole[0][1]}l"
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(whole[:-1])]
        words = " ".join(f"{across} {up}" for across, up in steps if across or up)
        text += f"{words}z".replace(" -", "-")
    return text


def drawing(near: Atlas, far: Atlas) -> str:
    """Return the map: countries that are too small for *far* are dots where *near* has them."""
    top, bottom = projected(0, _NORTH)[1], projected(0, _SOUTH)[1]
    dots = {code: middle(max(rings, key=area)) for code, rings in near.shapes.items()}
    dots |= {code: projected(near_to(x, _CENTRE), y) for code, (x, y) in _PLACES.items()}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {round(bottom - top)}">',
        "<!-- Natural Earth 1:110m (public domain), by world-atlas 2.0.2; written by generate.py. -->",
        '<g id="land">',
        *(f'<path id="{code}" d="{path(rings, top)}"/>' for code, rings in sorted(far.shapes.items())),
        "</g>",
        "<defs>",
        *(
            f'<circle id="{code}" cx="{x:.0f}" cy="{y - top:.0f}" r="{_DOT}"/>'
            for code, (x, y) in sorted(dots.items())
            if code not in far.shapes and y < bottom
        ),
        "</defs>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _short(name: str, short: str) -> str:
    # Such as Hong Kong, but not US.
    return short if len(short) > 3 else name


def main(atlas: Path, core: Path, names: Path) -> None:
    """Write the files of this folder."""
    sys.setrecursionlimit(10_000)
    known = json.loads((core / "supplemental/codeMappings.json").read_text("utf-8"))
    mappings = known["supplemental"]["codeMappings"]
    by_language = {}
    for language in _LANGUAGES:
        data = json.loads((names / f"main/{language}/territories.json").read_text("utf-8"))
        territories = data["main"][language]["localeDisplayNames"]["territories"]
        by_language[language] = {
            code: _short(name, territories.get(f"{code}-alt-short", ""))
            for code, name in territories.items()
            if len(code) == 2 and code.isalpha() and code in mappings
        }
    codes = {
        mappings[code]["_numeric"]: code
        for code in by_language["en"]
        if "_numeric" in mappings[code] and code not in {"ZZ", "EU", "UN", "EZ", "QO", "XA", "XB"}
    }
    shapes = drawing(Atlas(atlas / "countries-50m.json", codes), Atlas(atlas / "countries-110m.json", codes))
    (_FOLDER / "world.svg").write_text(shapes, "utf-8")
    for language, named in by_language.items():
        kept = {code: name for code, name in named.items() if code in {*codes.values(), "XK"}}
        lines = [f'{code} = "{name}"' for code, name in sorted(kept.items())]
        head = (
            "# Names of countries by ISO 3166-1 codes: Unicode CLDR, see README.md. Written by generate.py.\n"
        )
        (_FOLDER / f"{language}.toml").write_text(head + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
