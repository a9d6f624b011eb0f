"""From the benchmarks' raw archives to what the registered data sets read.

One module an archive plans what is to be done, as a list of jobs, a file or two each, three of
them by ``png_label_maps``; ``labels`` converts arrays, ``files`` reads and writes, ``runner`` works
the list off, ``command`` is the command line that the scripts ``datasets/prepare_*.py`` share.
"""
