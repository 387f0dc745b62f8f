"""`python -m service` is `dinserve`."""

from service.cli import main

if __name__ == "__main__":  # workers import this module again
    main()
