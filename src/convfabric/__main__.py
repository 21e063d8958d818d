"""``python -m convfabric``, which torchrun needs."""

from convfabric.cli.commands import main

main()
