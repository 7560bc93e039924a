"""``python -m asynchooks`` is ``asynchooks``."""

from asynchooks._cli import main

if __name__ == "__main__":
    main()
