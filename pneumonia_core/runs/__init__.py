"""The folder of one scoring run: record, inventory, parts, crash journal.

The pieces of a run, from its listing to its commit:

    segment          65,536 listed images, in a file on the driver's machine
    inventory shard  8 segments, planned together: what becomes of each image
    micro-batch      the chunks of all shards that were planned since the last one, scored in one execution
    chunk            256 images to score: a row group of a chunk file
    part             the rows of one chunk; a chunk that has a part is done
    data file        the parts of about 262,144 rows, merged for the commit

May import: results, archives, and what those may import.
"""
