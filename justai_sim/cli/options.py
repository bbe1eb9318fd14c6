"""The application, and the options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from justai_sim.version import __version__

app = App(
    name="justai-sim",
    help="What attribution windows and bandit policies do to message experiments: simulated, and on your own log.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)

Out = Annotated[Path | None, Parameter(help="Folder for the report and its tables.")]
Json = Annotated[bool, Parameter(help="Print one JSON object with a schema_version instead of a table.", negative="")]
Workers = Annotated[int | None, Parameter(help="Processes; default: one a core. The numbers do not depend on it.")]
Resume = Annotated[bool, Parameter(help="Keep the finished parts of the same scenario.", negative="")]
Timezone = Annotated[
    str | None, Parameter(help="Zone of times written without an offset, e.g. Europe/Berlin or UTC-6.")
]
Rejects = Annotated[Path | None, Parameter(help="Folder for the rows that could not be read, with place and reason.")]
Preset = Annotated[str | None, Parameter(help="Start from a named rule, e.g. naive, braze_canvas; --set changes it.")]
Settings = Annotated[
    list[str] | None, Parameter(name="--set", help='An option of the rule, key=value: --set "bounds=[]"; repeatable.')
]
EspOptions = Annotated[
    list[str] | None,
    Parameter(
        name="--esp-option",
        negative="",
        help="A switch of the provider, key=value: --esp-option variant_from=split,header; repeatable. "
        "justai-sim schema lists them.",
    ),
]
Raw = Annotated[bool, Parameter(help="Do not mask e-mail addresses in the rejects.", negative="")]
