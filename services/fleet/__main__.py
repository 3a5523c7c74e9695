"""`python -m services.fleet`: the same as `darkroom`."""

from services.fleet.cli import main

if __name__ == "__main__":
    main()
