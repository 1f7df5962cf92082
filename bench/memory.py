"""What a process of the benchmarks holds. Imported by peers: nothing but the standard library."""

import resource


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
