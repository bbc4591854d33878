"""How strongly the answer of a network reacts to each word of a text."""

from collections.abc import Mapping, Sequence

import pandas as pd

from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import legend_below, patch_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import BOUND, STYLES, house_style
from rnnstudy.spec import RequestError

UP, DOWN = STYLES["LSTM"].colour, STYLES["Elman"].colour


def gradient_by_word(
    texts: Mapping[str, Sequence[tuple[str, float]]], *, label: str, up: str, down: str, title: str = "", caption: str
) -> Picture:
    """A panel for each text, its words from top to bottom, with a bar as long as the gradient at the word.

    Bars to the right have another colour than bars to the left. All panels have one scale.

    Args:
        texts: title of a panel to its words in order, each with its number.
        label: what the numbers are, with their unit.
        up: what a number above zero means, for the legend; `down` for below zero.
        title: one message in words.
        caption: what a reader must know.

    Raises `RequestError` for no text, or a text without words.
    """
    empty = [name for name, words in texts.items() if not words]
    if empty or not texts:
        raise RequestError(
            f"{f'the text {empty[0]!r} has no words' if empty else 'there is no text'}; it takes at least one"
        )
    rows = [
        {"text": name, "position": place, "word": word, "number": number}
        for name, words in texts.items()
        for place, (word, number) in enumerate(words, start=1)
    ]
    data = pd.DataFrame(rows)
    longest = max(len(words) for words in texts.values())
    reach = 1.08 * max(data["number"].abs().max(), 1e-12)
    with house_style():
        figure, axes = panels(len(texts), height=1.6 + 0.26 * longest, share_y=False)
        for axis, (name, words) in zip(axes, texts.items(), strict=True):
            numbers = [number for _, number in words]
            axis.barh(
                range(len(words)), numbers, color=[UP if number >= 0 else DOWN for number in numbers], height=0.75
            )
            axis.set_yticks(range(len(words)), [word for word, _ in words])
            axis.set(ylim=(longest - 0.5, -0.5), xlim=(-reach, reach), xlabel=label, title=name)
            axis.grid(visible=False, axis="y")
            axis.axvline(0, color=BOUND, linewidth=1.0)
        if title:
            figure.suptitle(title, fontweight="bold")
        legend_below(figure, [patch_entry(up, UP), patch_entry(down, DOWN)])
    return Picture(figure, data, (), caption)
