"""The command line. Every command knows `--json`; long work shows a progress bar.

Importing a file of `commands` adds its commands to the application.
"""

from onymous.commands import (
    backups,
    bench,
    check,
    configuration,
    conflicts,
    credentials,
    demo,
    diagnostics,
    doctor,
    exports,
    identity,
    imports,
    jobs,
    keys,
    people,
    quarantine,
    reference,
    rehearsals,
    rehearse,
    review,
    scopes,
    serve,
    soak,
    tenants,
    undoing,
    worlds,
)
from onymous.commands.common import app

#: every file that adds commands
COMMANDS = (
    backups,
    bench,
    check,
    configuration,
    conflicts,
    credentials,
    demo,
    diagnostics,
    doctor,
    exports,
    identity,
    imports,
    jobs,
    keys,
    people,
    quarantine,
    reference,
    rehearsals,
    rehearse,
    review,
    scopes,
    serve,
    soak,
    tenants,
    undoing,
    worlds,
)

__all__ = ["COMMANDS", "app"]
