"""What every page in the browser needs: guards around an application, files from the package, a server that says where.

::

    guards.py    which requests get through, and the headers of every answer
    assets.py    HTML, CSS and ES modules that come with a package, and nothing else from the disk
    serve.py     an application on an address, until it is interrupted
"""
