"""The pages raters and organisers see: HTML, CSS and ES modules, kept by hand, nothing fetched from elsewhere."""
