"""HTML and SVG as text. What is not markup is escaped, wherever it comes from. Pure."""

from html import escape


class Markup(str):
    """Text that is markup already. Everything else is escaped when it is put into an element."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """`class_` stands for `class`, an underscore inside a name for a hyphen; None leaves an
    attribute out. Numbers keep two decimals: less than a pixel."""
    inside = "".join(map(markup, children))
    return Markup(f"<{tag}{''.join(map(_attribute, attributes.items()))}>{inside}</{tag}>")


def markup(child: str) -> str:
    return child if isinstance(child, Markup) else escape(child)


def joined(*children: str) -> Markup:
    return Markup("".join(map(markup, children)))


def _attribute(item: tuple[str, str | float | None]) -> str:
    name, value = item
    if value is None:
        return ""
    text = value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
    written = name if name == "viewBox" else name.rstrip("_").replace("_", "-")
    return f' {written}="{escape(text)}"'
