"""``python -m shiftbench`` is ``shiftbench``; jobs on a cluster are started by it."""

import sys


def main() -> int:
    """Run the command line; say in one line what this environment lacks.

    Returns:
        the exit code; 2 if a package is not installed.
    """
    try:
        from shiftbench.cli import main as command_line

        return command_line()
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        if package == "shiftbench":
            raise
        print(
            f"error: the package {package} is not installed in {sys.prefix}; install shiftbench's "
            "dependencies there (on a cluster: on every node, as cluster/Dockerfile does)",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
