"""
Links as files: every format that Hopgate imports, and the two that it exports.

    encoding, lines             bytes → numbered lines
    csv_records, json_items     lines → rows
    columns, dialect            which column is which field; what is refused
    rivals, generic, hopgate_format
                                the formats, one declaration each
    values, records             a row → a link, or the reasons why not
    recognition, reading        what a file is; and its rows, one by one
    writing, report, inert      exports, summaries, and text that is safe to show

Pure: no store, no clock, no terminal. A file is recognised or refused, never guessed.
"""
