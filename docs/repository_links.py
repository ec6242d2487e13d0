"""A hook of mkdocs: links from pages to files outside docs/ lead to the repository.

On GitHub they work as they are written, for example ``../systemd/config.toml``. On the site there are no such files.
"""

import posixpath
import re
from typing import Any


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Replace each relative link that leaves docs/ by the address of the file in the repository."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        return f"]({config.extra['repository']}{path.removeprefix('../')})" if path.startswith("../") else link[0]

    return re.sub(r"\]\((\.\./[^)\s]+)\)", replace, markdown)
