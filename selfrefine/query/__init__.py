"""Questions about a run: its rows filtered, as tables, against another run, as it goes on. Reads only."""
