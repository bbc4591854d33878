"""HTML that was made from data, without anything that a browser would run.

Texts of a study (a status, a name, a reason) reach Markdown and tables, and both may contain HTML of their own. What is
allowed below is what reports use; any other tag is shown as text, any other attribute or address is left out.
"""

from bleach import clean
from bleach.css_sanitizer import CSSSanitizer
from markupsafe import Markup

TAGS = frozenset(
    {
        "a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em",
        "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "mark",
        "ol", "p", "pre", "q", "s", "section", "small", "span", "strong", "sub", "summary", "sup", "table",
        "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul", "var",
    }
)  # fmt: skip
ATTRIBUTES = {
    "*": ["class", "id", "style", "title", "align"],
    "a": ["href"],
    "img": ["src", "alt", "width", "height", "loading"],
    "table": ["border"],
    "td": ["colspan", "rowspan"],
    "th": ["colspan", "rowspan", "scope"],
    "ol": ["start"],
    "details": ["open"],
}
PROTOCOLS = frozenset({"http", "https", "mailto", "data"})
"""`data` for embedded pictures; a browser opens no page at such an address."""

STYLES = frozenset({"text-align", "width", "max-width", "font-weight", "vertical-align"})


def clean_html(html: str) -> Markup:
    """`html` with the tags, attributes and addresses that reports use, and no others.

    >>> clean_html("10<sup>3</sup> <script>alert(1)</script> <a href='javascript:alert(1)' onclick='x()'>x</a>")
    Markup('10<sup>3</sup> &lt;script&gt;alert(1)&lt;/script&gt; <a>x</a>')
    """
    styles = CSSSanitizer(allowed_css_properties=STYLES)
    return Markup(clean(str(html), tags=TAGS, attributes=ATTRIBUTES, protocols=PROTOCOLS, css_sanitizer=styles))
