"""The longer `hopgate` commands; `app.cli` declares and documents them."""
