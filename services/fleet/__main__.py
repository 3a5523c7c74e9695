"""`python -m services.fleet`: the same as `darkroom`."""

from services.fleet.cli.app import main

if __name__ == "__main__":
    main()
