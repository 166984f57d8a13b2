"""The longer bodies of the `hopgate` commands; `app.cli` names and documents them."""
