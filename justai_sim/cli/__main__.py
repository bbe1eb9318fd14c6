"""`python -m justai_sim.cli`: the command line."""

from justai_sim.cli import main

if __name__ == "__main__":  # not in the processes that a sweep starts
    main()
