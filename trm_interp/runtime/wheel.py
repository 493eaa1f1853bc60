"""The build of the wheel: checkpoints and test puzzles are installed inside the package.

pyproject.toml names the class. In an editable installation the files stay where they are;
`trm_interp.runtime.artifacts` finds both. Only a build imports this module.
"""

from pathlib import Path

from setuptools.command.build_py import build_py

SHIPPED = [
    *("trm-*/card.json", "trm-*/config.json", "trm-*/model.safetensors"),
    *("data/*/card.json", "data/*/test.txt", "data/*/test.csv", "data/*/test/*"),
    "data/*/identifiers.json",  # of ARC, beside the folder of test puzzles
]


class BuildWithArtifacts(build_py):
    """Copies the files of `SHIPPED` into `trm_interp/artifacts` of what is built."""

    def _artifacts(self) -> list[str]:
        return sorted(str(path) for pattern in SHIPPED for path in Path("artifacts").glob(pattern))

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for file in self._artifacts():
                to = Path(self.build_lib) / "trm_interp" / file
                self.mkpath(str(to.parent))
                self.copy_file(file, str(to))

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *self._artifacts()]
