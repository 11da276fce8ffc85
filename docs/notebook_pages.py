"""A hook of mkdocs: the notebooks in ``docs/tutorials`` are pages like the others.

Links lead to the ``.ipynb``, on the site and in the repository. Nothing is run here; docs/notebooks.py does that.
"""

from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from notebooks import rendered


class NotebookPage(File):
    """A page whose source is a notebook."""

    def is_documentation_page(self) -> bool:
        return True


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Called by mkdocs when it has found the files."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = rendered(Path(str(file.abs_src_path)))
        files.remove(file)
        files.append(NotebookPage.generated(config, file.src_uri, content=page.markdown))
        for name, content in page.pictures.items():
            uri = PurePosixPath(file.src_uri).with_name(name)
            files.append(File.generated(config, uri.as_posix(), content=content))
