"""`python -m mlc_broker` is `mlc-broker`."""

from mlc_broker.cli.main import main

main()
