"""report: what is known about how good a model version is, as data and as a page.

`content` gathers it while the rows that judge are at hand: plain JSON data, kept with the version as `report.json`.
`page` turns that into one HTML document with its charts as SVG: no network, no scripts; it is kept as `report.html`.
"""

from noria.training.report.content import JSON_FILE, PAGE_FILE, About, content, files
from noria.training.report.page import page

__all__ = ["JSON_FILE", "PAGE_FILE", "About", "content", "files", "page"]
