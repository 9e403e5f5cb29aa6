"""`selfrefine report`: a run, or several, as one HTML file that needs no network and no server."""
