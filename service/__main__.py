"""`python -m service` is `dinserve`."""

from service.cli import main

main()
