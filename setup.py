"""Package metadata, read from settings.ini so that name, version and requirements stand once."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

names = ("grid", "bench", "predict", "onnx", "recipes", "docs", "dev")
extras = {name: settings[f"{name}_requirements"].split() for name in names}
extras["dev"] = sorted({line for lines in extras.values() for line in lines})

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    keywords=settings["keywords"].split(),
    author=settings["author"],
    author_email=settings["author_email"],
    license="Apache-2.0",
    packages=[settings["lib_path"]],
    package_data={settings["lib_path"]: ["weights/*"]},
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require=extras,
    entry_points={"nbdev": [f"{settings['lib_name']}={settings['lib_path']}._modidx:d"],
                  "console_scripts": settings["console_scripts"].split()},
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
)
