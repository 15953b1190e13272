"""The command: ``python -m advlib.train``; ``fabric run`` takes this file's path."""

from advlib.train.command import main

if __name__ == "__main__":
    main()
