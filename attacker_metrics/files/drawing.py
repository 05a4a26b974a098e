"""Text of the user's in drawings, and drawings as bytes: nothing that a file is called can be a formula, or break a page."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from attacker_metrics.files.terminal import printable
from attacker_metrics.files.writing import MARK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 80
_NO_DATE: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": MARK},
    "pdf": {"CreationDate": None, "Creator": MARK},
    "png": {"Software": MARK},
}


def plain(text: object, longest: int = _LONGEST) -> str:
    r"""A name as matplotlib prints it as it is: a dollar sign would start a formula, a line break or length spoil the page.

    Args:
        text: of the user's.
        longest: more characters than so many lose their middle.

    Example:
        >>> plain("costs $5 or $6")
        'costs \\$5 or \\$6'
        >>> plain("a" * 20, longest=9)
        'aaaa…aaaa'
    """
    shown = printable(text)
    if len(shown) > longest:
        shown = f"{shown[: longest // 2]}…{shown[-(longest // 2) :]}"
    return shown.replace("$", r"\$")


def drawn(figure: Figure, kind: str, dots_per_inch: int = 100) -> bytes:
    """A figure as the content of a file of a kind ("png", "svg" or "pdf"), the same in every run, marked as ours."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, and stands as text beside.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r"(?s)Matplotlib currently does not support .* natively")
        figure.savefig(buffer, format=kind, dpi=dots_per_inch, metadata=_NO_DATE[kind])
    return buffer.getvalue()


def svg_element(figure: Figure) -> str:
    """A figure as an SVG element, to stand in a page."""
    svg = drawn(figure, "svg").decode()
    return svg[svg.index("<svg") :]
