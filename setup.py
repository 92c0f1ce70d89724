"""All that pyproject.toml cannot say: a wheel carries the seedling and the recipes in ikusei/data. They are kept once, at the top of the
repository, where an editable install and a clone find them (src/ikusei/registry.py)."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PATTERNS = ("seedling/*.json", "seedling/*.jinja", "seedling/*.md", "seedling/*.safetensors", "recipes/**/*.yaml", "recipes/**/*.py")
DATA = (*PATTERNS, "docs/decisions.md")  # the last is what recipes/continue.yaml reads


class WithData(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for file in sorted(file for pattern in DATA for file in Path().glob(pattern)):
                place = Path(self.build_lib, "ikusei", "data", file)
                self.mkpath(str(place.parent))
                self.copy_file(str(file), str(place), preserve_mode=False)


setup(cmdclass={"build_py": WithData})
