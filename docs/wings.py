"""Draws `pictures/wings.svg`: the wings in their order, and the foreign libraries that each owns.

    python docs/wings.py

The order and the libraries are those of tests/test_architecture.py, the words those of the wings' docstrings.
"""

import ast
import re
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

PICTURE = ROOT / "docs" / "pictures" / "wings.svg"

WIDTH, ROW, TOP, LEFT = 700, 42, 46, 34

STYLE = """
.ground { fill: var(--md-default-bg-color, #ffffff); }
text { fill: var(--md-default-fg-color, #222222); font: 13px system-ui, sans-serif; }
.name { font: bold 15px ui-monospace, monospace; }
.owns { font: 12px ui-monospace, monospace; }
.quiet { opacity: 0.75; }
.trains { fill: #0072b2; fill-opacity: 0.2; stroke: #0072b2; }
.others { fill: #e69f00; fill-opacity: 0.22; stroke: #b87a00; }
.arrow { stroke: var(--md-default-fg-color, #222222); fill: none; stroke-width: 1.6; }
"""


def constants() -> dict[str, Any]:
    """Name to value of the lists at the top of tests/test_architecture.py."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    values = {ast.unparse(node.targets[0]): node.value for node in assigned}
    # ORDER is written as two tuples behind stars, which are no literal.
    order = [node.value for node in ast.walk(values["ORDER"]) if isinstance(node, ast.Constant)]
    return {"ORDER": order} | {name: ast.literal_eval(values[name]) for name in ("OWNERS", "TRAINING")}


def purpose(wing: str) -> str:
    """What the first sentence of a wing's docstring says, without its name in front."""
    folder = ROOT / "rnnstudy" / wing
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    begin, _, rest = " ".join(first.split()).split(". ")[0].rstrip(".").partition(": ")
    words = rest if rest and len(begin.split()) <= 2 else begin
    return re.sub(r"(, one file (each|for.*)|;.*)", "", words).replace("->", "→")


def wings_picture() -> str:
    """The picture as SVG. Its colours follow the site's theme where it stands inside a page."""
    found = constants()
    order, owners = found["ORDER"], found["OWNERS"]
    height = TOP + ROW * len(order) + 14
    below = height - 22
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>The wings of rnnstudy: each imports only those above it</title><style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        f'<rect class="trains" x="{LEFT}" y="12" width="16" height="16" rx="3"/>',
        f'<text x="{LEFT + 24}" y="25">trains: needs no store and no command line</text>',
        f'<rect class="others" x="{LEFT + 330}" y="12" width="16" height="16" rx="3"/>',
        f'<text x="{LEFT + 354}" y="25">stores, searches, draws, takes commands</text>',
        f'<path class="arrow" d="M20 {below} V{TOP + 4} m-5 8 l5 -8 l5 8"/>',
        f'<text class="quiet" transform="translate(12 {below}) rotate(-90)">a wing imports only what is above</text>',
    ]
    for place, wing in enumerate(order):
        y = TOP + ROW * place
        owned = ", ".join(library for library, wings in owners.items() if wing in wings)
        kind = "trains" if wing in found["TRAINING"] else "others"
        parts += [
            f'<rect class="{kind}" x="{LEFT}" y="{y}" width="104" height="{ROW - 8}" rx="5"/>',
            f'<text class="name" x="{LEFT + 10}" y="{y + 22}">{wing}</text>',
            f'<text x="{LEFT + 116}" y="{y + (15 if owned else 22)}">{escape(purpose(wing))}</text>',
        ]
        if owned:
            parts.append(f'<text class="owns quiet" x="{LEFT + 116}" y="{y + 31}">{owned}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(wings_picture(), encoding="utf-8")
