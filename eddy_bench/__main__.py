"""`python -m eddy_bench`."""

from eddy_bench.cli.app import main

main()
