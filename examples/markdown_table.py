"""Tables of results in Markdown."""


def markdown_table(columns, rows, text_columns=1):
    """A table in Markdown: cells as they print, the columns after the first ones to the right.

    >>> print(markdown_table(["model", "accuracy"], [["MNM-p", 0.5]]))
    | model | accuracy |
    | --- | ---: |
    | MNM-p | 0.5 |
    """
    alignment = ["---" if i < text_columns else "---:" for i in range(len(columns))]
    lines = (columns, alignment, *rows)
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
