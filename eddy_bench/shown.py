"""Text as it is shown: in a terminal, a page, SVG, XML, Markdown or a spreadsheet."""

from __future__ import annotations

import re

MARK = "\ufffd"  # in the place of what has no shape of its own
HIDDEN = re.compile(
    "["
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # controls but the end of a line
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # of direction, and without width
    "\ud800-\udfff\ufdd0-\ufdef\ufff9-\ufffb\ufffe\uffff"  # halves of pairs, no characters
    "\U000e0000-\U000e007f"  # invisible copies of letters
    "]"
)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def shown(text: str) -> str:
    r"""Return text of which every character shows, and none moves or hides another.

    Args:
        text: of any characters; the ends of its lines stay.

    >>> shown("a\x1b[2Jb\u202ec\nd").encode("ascii", "replace")
    b'a?[2Jb?c\nd'
    """
    return HIDDEN.sub(MARK, text.replace("\t", " "))


def shown_json(text: str) -> str:
    r"""Return a JSON document in which such characters are written as escapes, nothing lost.

    >>> print(shown_json('"\u202e"'))
    "\u202e"
    """
    return HIDDEN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[k : k + 2].hex()}" for k in range(0, len(units), 2))


def markdown_text(text: str) -> str:
    r"""Return text that Markdown shows as it is: no tag, link, picture, code or end of a cell.

    >>> print(markdown_text("a<b> | [x](y) `z`"))
    a&lt;b> \| [x]\(y) \`z\`
    """
    text = " ".join(shown(text).split("\n")).replace("\\", "\\\\")
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")
    return re.sub(r"[|`]|(?<=\])[(\[:]", lambda match: f"\\{match[0]}", text)


TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {letter: f"\\{letter}" for letter in "&%$#_{}"}
TEX |= {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": "$<$", ">": "$>$"}


def latex_text(text: str) -> str:
    r"""Return text that LaTeX shows as it is.

    >>> print(latex_text("a_b 5% {x} ±1"))
    a\_b 5\% \{x\} $\pm$1
    """
    return "".join(TEX.get(letter, letter) for letter in " ".join(shown(text).split("\n")))


def cell_text(text: str) -> str:
    """Return text with an apostrophe before what a spreadsheet would take for a formula.

    >>> cell_text("=1+1"), cell_text("a dress"), text_of_cell(cell_text("'quoted'"))
    ("'=1+1", 'a dress', "'quoted'")
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def text_of_cell(text: str) -> str:
    """Return what `cell_text` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text
