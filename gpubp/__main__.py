"""`python -m gpubp` is the command `gpubp`."""

from gpubp.cli import main

if __name__ == "__main__":
    main()
