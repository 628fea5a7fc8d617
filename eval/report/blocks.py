"""Parts of the report's page that its sections are made of."""

from markupsafe import Markup


def split(models: list[dict], key: str, parts) -> list[dict]:
    """A block with a column for each model that has `key`; nothing where none has."""
    if not any(model.get(key) for model in models):
        return []
    columns = []
    for number, model in enumerate(models, 1):
        found = parts(number, model[key]) if model.get(key) else [{"text": "Not available; see the end of the page."}]
        columns.append({"label": model["label"], "parts": found})
    return [{"split": columns}]


def svg(picture: str) -> Markup:
    """A picture of ours, whose labels are escaped; HTML knows SVG's namespace by itself."""
    return Markup(picture.replace(' xmlns="http://www.w3.org/2000/svg"', ""))
