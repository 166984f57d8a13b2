"""
The APIs of other shorteners, for clients that were written for them.

Each module translates requests to the services of this one and answers back; it decides nothing about links.
Which of them are served, the operator says. What another program ignores is ignored here; what it does and
this service cannot do is refused.

    problems.py  reads the problem that an answer holds, to say it in another shape
    lookup.py    finds links as other programs name them: by an address, or by what a link leads to
    yourls.py    the API of YOURLS; yourls_output.py, its formats
    shlink.py    the REST API of Shlink, version 3
    bitly.py     the API of Bitly, version 4
"""

# Below these, clients send JSON without its length: see `app.web.endpoint.Dialect`.
CHUNKED = {"shlink": "/rest/", "bitly": "/v4/"}
