"""Write the lowest versions that ``setup.cfg`` claims as constraints for pip: the bounds are stated in one place."""

import configparser
import sys
from pathlib import Path

from packaging.requirements import Requirement


def main(target: str) -> None:
    """Write one ``name==version`` per lower bound; not of extras ``test`` and ``servers``."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    texts = config["options"]["install_requires"].splitlines()
    for extra, lines in config["options.extras_require"].items():
        if extra not in ("test", "servers", "all"):
            texts += lines.splitlines()
    lines = []
    for text in filter(None, texts):
        requirement = Requirement(text)
        (lowest,) = (spec.version for spec in requirement.specifier if spec.operator in (">=", "=="))
        lines.append(f"{requirement.name}=={lowest}\n")
    Path(target).write_text("".join(sorted(lines)))


if __name__ == "__main__":
    main(sys.argv[1])
