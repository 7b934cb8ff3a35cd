"""The studio: a page in the browser to look at samples, move concepts, and see at once what it does.

::

    looks.py      what a picture is made of, as the page says it: sample, loans, edits
    desk.py       draws looks, several at a time
    encoding.py   pictures as bytes, fast
    lines.py      who is served when: fair between clients, bounded, the newest wish of each first
    jobs.py       what takes seconds: progress, cancelling
    facts.py      what the page tells about a study: concepts, intervals, layers, profiles
    tasks.py      strips, transitions, inversion, downloads
    app.py        the application: routes, guards
    shipped.py    the study of the embedded generator that comes with the package
    page/         one HTML file with its style and ES modules, kept by hand
"""

from higan.studio.app import create_app
from higan.studio.shipped import pack_study, shipped_study

__all__ = ["create_app", "pack_study", "shipped_study"]
