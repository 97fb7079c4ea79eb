"""The one exception for mistakes that the user can mend, and the entry point that shows it without a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong with which file or key, and what to do."""


def run_as_script(main: Callable[[], int | None]) -> None:
    """Run `main` and exit with its status; a UserError becomes one line on stderr and exit code 2."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
